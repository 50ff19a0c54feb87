"""VP written out by hand on a mixture, and small measures of single steps."""

from dataclasses import replace

import numpy as np
from processes import vp
from scipy.integrate import quad

from sdekit import analysis, grids, plans
from sdekit.law import Mixture
from sdekit.noise import METHOD, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
VP = vp()
TIMES = np.array([1.0, 0.7, 0.5, 0.35, 0.28, 0.2])


def beta(t):
    return 0.1 + 19.9 * t


def a(t):
    return np.exp(-0.5 * (0.1 * t + 9.95 * t * t))


def s(t):
    return np.sqrt(-np.expm1(-(0.1 * t + 9.95 * t * t)))


def lam(t):
    return np.log(a(t) / s(t))


def at(u):
    """The time of lambda = u, by the closed form of the linear schedule."""
    L = np.logaddexp(0.0, -2.0 * u)
    return 2.0 * L / (np.sqrt(0.01 + 2.0 * 19.9 * L) + 0.1)


def D(z, t):
    return LAW.denoiser()(z / a(t), s(t) / a(t))


def eps(z, t):
    return (z - a(t) * D(z, t)) / s(t)


def fall(z, t, noise=0.0):
    """dz/dt of the reverse equation."""
    return -0.5 * beta(t) * z + 0.5 * (1.0 + noise**2) * beta(t) * eps(z, t) / s(t)


def run(method, times=TIMES, process=VP, seed=5):
    z = np.random.default_rng(2).normal(size=(process.k, 6, 2))
    made, _ = solve(program(process, plans.run(grids.times(times), method)), list(z), LAW.denoiser(), Addressed(seed))
    return z, np.stack(made)


def normals(steps, slots, seed=5):
    """(steps, slots, 6, 2): what the run with this seed draws on one block."""
    drawn = Addressed(seed).draw([Address(METHOD, 0, i, j) for i in range(steps) for j in range(slots)], np.arange(6), (2,))
    return np.stack(drawn).reshape(steps, slots, 6, 2)


def same(left, right, process, atol=1e-11):
    times = process.time_of([3.0, 1.5, 1.2, 0.4])
    np.testing.assert_allclose(run(left, times, process)[1], run(right, times, process)[1], atol=atol)


def local_orders(method, of, process):
    """Orders of the error of one step when the answers are a function of lambda alone, at steps .2, .1, .05, .025 from lambda = .3."""

    def f(u):
        return np.sin(1.3 * u) + 0.2 * u

    def model(y, sigma):
        return np.full_like(y, f(-np.log(sigma))) if of == "data" else y - sigma * f(-np.log(sigma))

    c = 0.5 * (1.0 + method.noise**2)
    errors = []
    for h in (0.2, 0.1, 0.05, 0.025):
        high, low = np.exp(-0.3), np.exp(-0.3 - h)
        times = process.time_of([high, low])
        made, _ = solve(assemble(process, [Run(method, tuple(times))]), [np.full((1,), 0.4)], model, Silent())
        if of == "data":
            exact = (low / high) ** (2 * c) * 0.4 + 2 * c * low ** (2 * c) * quad(lambda q: f(-np.log(q)) / q ** (2 * c + 1), low, high)[0]
        else:
            exact = 0.4 + 2 * c * quad(lambda q: f(-np.log(q)), high, low)[0]
        errors.append(abs(made[0][0] - exact))
    return np.log2(np.divide(errors[:-1], errors[1:]))


class Silent:
    """Normals that are zero."""

    def draw(self, addresses, ids, shape, reference=None):
        return [np.zeros((len(ids), *shape)) for _ in addresses]


def slope(method, process, steps):
    report = analysis.order(method, process, steps=steps)
    return report.slopes[np.isfinite(report.slopes)][-1]


def low(method):
    """The method whose result is the embedded one."""

    def rows(step):
        made = method.rows(step)
        return replace(made, out=made.embedded)

    return replace(method, table=rows, params=(), origin=None)
