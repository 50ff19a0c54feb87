"""Pseudo methods beyond diffusion, as the authors propose: a stiff linear oscillator with a nonlinear force.

x'' + 4 x' + 2500 x = 200 tanh(x) cos 3t on [0, 2].  With the linear part exact, the steps follow the force: DDIM's form has order 1, the
pseudo improved Euler method 2, exact Adams weights 4; the published Runge-Kutta weights are capped at 2; classical RK4, with four
times the calls, diverges at steps above 0.056 and is five times worse below.
"""

import numpy as np
from scipy.integrate import solve_ivp

from paper_figures.common import Found, Script, slope
from sdekit import semilinear as sl

MATRIX = np.array([[0.0, 1.0], [-2500.0, -4.0]])
METHODS = {
    "Euler (DDIM)": (sl.euler, 1),
    "improved Euler": (sl.improved_euler, 2),
    "pseudo Runge-Kutta": (sl.runge_kutta, 2),
    "Adams 4, exact weights": (sl.adams(4), 4),
}
CLAIMS = {f"order: {name}": (order - 0.35, order + 0.35) for name, (_, order) in METHODS.items()} | {"rk4_over_adams_256": (3.0, 8.0)}


def force(y, t):
    return np.array([0.0, 200.0 * np.tanh(y[0]) * np.cos(3.0 * t)])


def rk4(n):
    y, h = np.array([1.0, 0.0]), 2.0 / n

    def rate(y, t):
        return MATRIX @ y + force(y, t)

    for i in range(n):
        t = i * h
        a = rate(y, t)
        b = rate(y + 0.5 * h * a, t + 0.5 * h)
        c = rate(y + 0.5 * h * b, t + 0.5 * h)
        y = y + h / 6.0 * (a + 2.0 * b + 2.0 * c + rate(y + h * c, t + h))
    return y


def compute(quick):
    x, part = np.array([1.0, 0.0]), sl.constant(MATRIX)
    exact = solve_ivp(lambda t, y: MATRIX @ y + force(y, t), (0.0, 2.0), x, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    steps = np.array([128, 256, 512] if quick else [32, 64, 128, 256, 512, 1024])

    def error(end):
        return float(np.max(np.abs((end - exact) / [1.0, 50.0])))

    errors = [[error(sl.solve(part, force, x, np.linspace(0.0, 2.0, n + 1), method)[-1]) for n in steps] for method, _ in METHODS.values()]
    with np.errstate(over="ignore", invalid="ignore"):
        errors.append([error(rk4(int(n))) for n in steps])
    made, at = np.array(errors), steps.tolist().index(256)
    scale = error(np.zeros(2))
    measured = {f"order: {name}": slope(row, steps) for name, row in zip(METHODS, made, strict=False)}
    measured["rk4_over_adams_256"] = float(made[-1, at] / made[3, at])
    return Found({"steps": steps, "errors": made / scale, "names": np.array([*METHODS, "classical RK4"])}, measured, {"span": [0.0, 2.0]})


def draw(axes, data):
    (ax,) = axes
    for name, row in zip(data["names"], data["errors"], strict=True):
        ax.loglog(data["steps"], row, "k:" if "RK4" in str(name) else "-", label=str(name))
    ax.set(xlabel="steps", ylabel="error over the size of the solution", title="a stiff oscillator, its linear part exact", ylim=(1e-9, 1e2))
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
