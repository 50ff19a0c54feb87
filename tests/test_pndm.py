"""Pseudo numerical methods: the paper's equations by hand, the matrix transfer by DOP853, exactness, identities, calls."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from by_hand import LAW, a, at, eps, fall, s
from processes import cld, edm, psld, third_order, vp
from scipy.integrate import quad, solve_ivp

from sdekit import BadInput, Reverse, denoiser, grids, methods, plans
from sdekit.solve import program, solve
from sdekit.tableau import Step

TIMES = (1.0, 0.8, 0.63, 0.5, 0.42, 0.33, 0.26, 0.2)
ADAMS = {1: [1.0], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
PSEUDO = [
    methods.pndm(), methods.pndm(clock="sigma"), methods.pndm(clock="time"), methods.s_pndm(), methods.f_pndm(), methods.plms(),
    *(methods.ipndm(order) for order in (1, 2, 3, 4)), *(methods.prk(midpoint) for midpoint in ("sigma", "log", "time")),
    methods.pseudo_improved_euler(),
]  # fmt: skip


def run(process, grid, method, z, denoise=None):
    made, _ = solve(program(process, plans.run(grid, method)), list(z), LAW.denoiser() if denoise is None else denoise)
    return np.stack(made)


# ---------------------------------------------------------------------------------------------------------------- equations on VP


def rho(t):
    return s(t) / a(t)


def time_of(level):
    return at(-np.log(level))


def phi(x, e, t, end):
    """The paper's transfer, A and B the two values of alpha-bar, in its own form."""
    A, B = a(t) ** 2, a(end) ** 2
    return x + (B - A) * (x / (np.sqrt(A) * (np.sqrt(B) + np.sqrt(A))) - e / (np.sqrt(A) * (np.sqrt((1 - B) * A) + np.sqrt((1 - A) * B))))


MIDDLE = {
    "time": lambda t, end: 0.5 * (t + end),
    "sigma": lambda t, end: time_of(0.5 * (rho(t) + rho(end))),
    "log": lambda t, end: time_of(np.sqrt(rho(t) * rho(end))),
}


def kutta(x, t, end, middle):
    m = middle(t, end)
    e1 = eps(x, t)
    e2 = eps(phi(x, e1, t, m), m)
    e3 = eps(phi(x, e2, t, m), m)
    e4 = eps(phi(x, e3, t, end), end)
    return phi(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, t, end), e1


def through(x, t, end, nodes, values, clock):
    """a_s (x / a_t + int of the polynomial through the values d rho), term by term with scipy."""

    def weight(j):
        def basis(r):
            return np.prod([(clock(r) - clock(o)) / (clock(nodes[j]) - clock(o)) for i, o in enumerate(nodes) if i != j])

        return quad(basis, rho(t), rho(end), epsabs=1e-11, epsrel=1e-11)[0]

    return a(end) * (x / a(t) + sum(weight(j) * e for j, e in enumerate(values)))


def adams_step(x, t, end, past):
    return phi(x, sum(c * e for c, e in zip(ADAMS[len(past)], past, strict=True)), t, end)


def by_hand(kind, x, option):
    """All steps on VP as their papers print them."""
    past, nodes = [], []
    clock = {"log": lambda r: -np.log(r), "sigma": lambda r: r, "time": time_of}.get(option)
    for i, (t, end) in enumerate(pairwise(TIMES)):
        if kind == "prk" or (kind == "f_pndm" and i < 3):
            x, e = kutta(x, t, end, MIDDLE[option])
            past = [e, *past]
        elif kind in ("s_pndm", "plms") and i == 0:
            e = eps(x, t)
            x, past = phi(x, 0.5 * (e + eps(phi(x, e, t, end), end)), t, end), [e]
        elif kind == "pndm" and i == 0:
            place = [clock(rho(t)) + part * (clock(rho(end)) - clock(rho(t))) for part in (1 / 3, 2 / 3)]
            one, two = ({"log": lambda u: time_of(np.exp(-u)), "sigma": time_of, "time": float}[option](u) for u in place)
            e0 = eps(x, t)
            e1 = eps(phi(x, e0, t, one), one)
            e2 = eps(through(x, t, two, [rho(t), rho(one)], [e0, e1], clock), two)
            x, past, nodes = through(x, t, end, [rho(t), rho(two)], [e0, e2], clock), [e2, e0], [rho(two), rho(t)]
        elif kind == "pndm":
            past, nodes = [eps(x, t), *past], [rho(t), *nodes]
            x = through(x, t, end, nodes[:4], past[:4], clock)
            if i == 1:  # the stage inside the first step is done with
                past, nodes = [past[0], past[2]], [nodes[0], nodes[2]]
        else:
            past = [eps(x, t), *past][: 2 if kind == "s_pndm" else option if kind == "ipndm" else 4]
            x = adams_step(x, t, end, past)
    return x


FORMULAS = [
    *((methods.prk(middle), "prk", middle) for middle in ("sigma", "log", "time")), (methods.s_pndm(), "s_pndm", None),
    (methods.f_pndm(), "f_pndm", "time"), (methods.f_pndm("sigma"), "f_pndm", "sigma"), (methods.plms(), "plms", None),
    *((methods.ipndm(order), "ipndm", order) for order in (1, 2, 3, 4)),
    *((methods.pndm(clock), "pndm", clock) for clock in ("log", "sigma", "time")),
]  # fmt: skip


@pytest.mark.parametrize(("method", "kind", "option"), FORMULAS, ids=[str(f[0]) for f in FORMULAS])
def test_formula(method, kind, option):
    x = np.random.default_rng(0).normal(size=(6, 2))
    made = run(vp(), grids.times(TIMES), method, [x])[0]
    np.testing.assert_allclose(made, by_hand(kind, x, option), atol=1e-10)


def classical(x, times, delta=None):
    """FON: RK4 three times, then Adams-Bashforth in t; with ``delta`` as released, by the transfer of the start over one index."""
    past = []

    def change(state, start, t, t0):
        if delta is None:
            return fall(state, t)
        return (start - phi(start, eps(state, t), t0, t0 - delta)) / delta

    for i, (t, end) in enumerate(pairwise(times)):
        h, m = t - end, 0.5 * (t + end)
        f1 = change(x, x, t, t)
        past = [f1, *past][:4]
        if i < 3:
            f2 = change(x - 0.5 * h * f1, x, m, t)
            f3 = change(x - 0.5 * h * f2, x, m, t)
            f4 = change(x - h * f3, x, end, t)
            x = x - h / 6 * (f1 + 2 * f2 + 2 * f3 + f4)
        elif delta is None:  # the cubic through the last four slopes, integrated
            nodes = np.array(times[i - 3 : i + 1][::-1]) - t
            powers = np.linalg.solve(np.vander(nodes, 4), np.stack([f.ravel() for f in past]))
            x = x + np.stack([np.polyval(np.polyint(p), end - t) for p in powers.T]).reshape(x.shape)
        else:
            x = x - h * sum(c * f for c, f in zip(ADAMS[4], past, strict=True))
    return x


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("grid", [TIMES, tuple(np.linspace(1.0, 0.2, 9))], ids=["any", "uniform"])
def test_fon(released, grid):
    x = np.random.default_rng(0).normal(size=(6, 2))
    made = run(vp(), grids.times(grid), methods.fon(released), [x])[0]
    np.testing.assert_allclose(made, classical(x, grid, 1e-3 if released else None), rtol=1e-10, atol=1e-10)


def test_fon_on_equal_steps_has_the_weights_of_the_paper():
    x = np.random.default_rng(0).normal(size=(6, 2))
    times = np.linspace(1.0, 0.2, 9)
    z, past = x, []
    for i, (t, end) in enumerate(pairwise(times)):
        past = [fall(z, t), *past][:4]
        z = classical(z, [t, end]) if i < 3 else z - (t - end) * sum(c * f for c, f in zip(ADAMS[4], past, strict=True))
    np.testing.assert_allclose(run(vp(), grids.times(times), methods.fon(), [x])[0], z, atol=1e-11)


# ---------------------------------------------------------------------------------------------------------------- any number of blocks


def flow_of(process, t, end, root, z, e):
    """Root and transfer from ``t`` to ``end`` by DOP853: R' = (F + G G^T S^-1 / 2) R, z' = F z + G G^T R^-T e / 2."""
    k = process.k

    def rate(r, flat):
        R, x = flat[: k * k].reshape(k, k), flat[k * k :].reshape(k, -1)
        F, G = process.drift(r), process.noise(r)
        Q = 0.5 * G @ G.T
        return np.concatenate([(F @ R + Q @ np.linalg.inv(R).T).ravel(), (F @ x + Q @ np.linalg.solve(R.T, e.reshape(k, -1))).ravel()])

    out = solve_ivp(rate, (t, end), np.concatenate([root.ravel(), z.ravel()]), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return out[: k * k].reshape(k, k), out[k * k :].reshape(z.shape)


def eps_of(process, root, z, t):
    return -np.tensordot(root.T, denoiser.score(process, LAW.denoiser(), z, t), axes=1)


@pytest.mark.parametrize("make", [cld, psld, third_order], ids=lambda m: m.__name__)
def test_f_pndm_by_its_own_differential_equations(make):
    process = make()
    times = process.T * np.array([1.0, 0.87, 0.76, 0.67, 0.6, 0.55])
    z = start = np.random.default_rng(0).normal(size=(process.k, 5, 2))
    root, past = process.kernel(times[0]).chol, []
    for i, (t, end) in enumerate(pairwise(times)):
        m = 0.5 * (t + end)
        e = eps_of(process, root, z, t)
        past = [e, *past][:4]
        if i < 3:
            half, z2 = flow_of(process, t, m, root, z, e)
            e2 = eps_of(process, half, z2, m)
            e3 = eps_of(process, half, flow_of(process, t, m, root, z, e2)[1], m)
            full, z4 = flow_of(process, t, end, root, z, e3)
            e = (e + 2 * e2 + 2 * e3 + eps_of(process, full, z4, end)) / 6
        else:
            e = sum(c * old for c, old in zip(ADAMS[4], past, strict=True))
        root, z = flow_of(process, t, end, root, z, e)
    made = run(process, grids.times(times), methods.f_pndm(), start)
    np.testing.assert_allclose(made, z, atol=1e-9 * np.max(np.abs(z)))


@pytest.mark.parametrize("make", [cld, third_order], ids=lambda m: m.__name__)
def test_released_fon_by_its_own_differential_equations(make):
    """Stages take eps in the frame that has turned with the flow so far; the transfer over one index starts from the state of the step."""
    process = make()
    times, width = process.T * np.array([1.0, 0.87, 0.76, 0.67, 0.6]), process.T / 1000.0
    z = start = np.random.default_rng(0).normal(size=(process.k, 5, 2))
    root, past = process.kernel(times[0]).chol, []
    for i, (t, end) in enumerate(pairwise(times)):
        h, m = t - end, 0.5 * (t + end)
        half, full = (flow_of(process, t, r, root, z, 0.0 * z)[0] for r in (m, end))

        def change(R, state, r, t=t, root=root, z=z):
            return (z - flow_of(process, t, t - width, root, z, eps_of(process, R, state, r))[1]) / width

        d = change(root, z, t)
        past = [d, *past][:4]
        if i < 3:
            d2 = change(half, z - 0.5 * h * d, m)
            d3 = change(half, z - 0.5 * h * d2, m)
            d = (d + 2 * d2 + 2 * d3 + change(full, z - h * d3, end)) / 6
        else:
            d = sum(c * old for c, old in zip(ADAMS[4], past, strict=True))
        root, z = full, z - h * d
    made = run(process, grids.times(times), methods.fon(released=True), start)
    np.testing.assert_allclose(made, z, atol=1e-8 * np.max(np.abs(z)))


@pytest.mark.parametrize("make", [vp, cld, psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("method", PSEUDO, ids=str)
def test_exact_for_a_point_mass(method, make):
    """Where eps is constant along the flow every stage is exact: the standard score of the state is conserved, whatever the steps."""
    process, x0 = make(), 0.7
    times = process.T * np.array([1.0, 0.8, 0.65, 0.5, 0.4, 0.3])
    leg = Reverse(process).leg(times)
    e = np.random.default_rng(1).normal(size=(process.k, 5))
    start, end = (process.kernel(t).psi[:, None] * x0 + root @ e for t, root in zip(times[[0, -1]], (leg.roots[0], leg.roots[-1]), strict=True))
    made = run(process, grids.times(times), method, start, lambda y, sigma: np.full_like(y, x0))
    np.testing.assert_allclose(made, end, atol=1e-9 * np.max(np.abs(end)))


# ---------------------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_identities(make):
    process, grid = make(), grids.logsnr(6, 0.1, 3.0)
    z = np.random.default_rng(0).normal(size=(process.k, 4, 2))
    pairs = [
        (methods.pseudo_improved_euler(), methods.exponential_rk(2)),
        (methods.ipndm(1), methods.ddim()),
        (methods.s_pndm(), methods.pseudo_improved_euler()),  # one step
        (methods.plms(), methods.s_pndm()),  # two steps
        (methods.f_pndm(), methods.prk("time")),  # three steps
        (methods.prk(), methods.rho_rk("rk4")),  # one block
    ]
    for (one, other), steps in zip(pairs[: None if process.k == 1 else -1], (6, 6, 1, 2, 3, 6), strict=False):
        times = grids.times(grid.times(process)[: steps + 1])
        np.testing.assert_allclose(run(process, times, one, z), run(process, times, other, z), atol=1e-9)


@pytest.mark.parametrize("clock", ["log", "sigma", "time"])
def test_after_its_start_pndm_is_deis(clock):
    leg = Reverse(psld()).leg([0.9, 0.8, 0.65, 0.5, 0.44, 0.4])
    for i in (3, 4):
        mine, theirs = (method.rows(Step(leg, i, [2, 2, 2])) for method in (methods.pndm(clock), methods.deis(4, clock)))
        np.testing.assert_array_equal(mine.out, theirs.out)
        np.testing.assert_array_equal(mine.keep, theirs.keep)


def test_equal_steps_in_sigma_make_all_adams_methods_one():
    """On such a grid the published weights are exact: PLMS, iPNDM and F-PNDM go on as AB4, and so does pndm in sigma."""
    times = np.linspace(3.0, 0.3, 10)
    x, past = np.random.default_rng(0).normal(size=(5, 2)), []
    for method, calls in ((methods.f_pndm(), 3), (methods.plms(), 3), (methods.pndm(clock="sigma"), 3)):
        saved = solve(program(edm(), plans.run(grids.times(times), method)), [x], LAW.denoiser(), save="all")[1].x
        for i, t in enumerate(times[:-1]):
            past = [(saved[i] - LAW.denoiser()(saved[i], t)) / t, *past][:4]
            if i >= calls:
                step = (times[i + 1] - t) * sum(c * e for c, e in zip(ADAMS[4], past, strict=True))
                np.testing.assert_allclose(saved[i + 1], saved[i] + step, atol=1e-11)


@pytest.mark.parametrize("method", [*PSEUDO, methods.fon(), methods.fon(released=True)], ids=str)
def test_every_prediction_gives_the_same_samples(method):
    """Answers become eps before they enter a history: eps, v, x0 and score of one model are one sampler."""
    process, grid = vp(), grids.logsnr(7, 0.1, 3.0)
    x = np.random.default_rng(0).normal(size=(6, 2))
    reference = run(process, grid, method, [x])

    def answer(kind):
        def model(x, t):
            e = eps(x, t)
            data = (x - s(t) * e) / a(t)
            return {"x0": data, "eps": e, "v": a(t) * e - s(t) * data, "score": -e / s(t)}[kind]

        return denoiser.from_model(model, process, kind)

    for kind in ("eps", "x0", "v", "score"):
        np.testing.assert_allclose(run(process, grid, method, [x], answer(kind)), reference, rtol=1e-10)


CALLS = {
    "pndm": (3, 4, 5, 6, 12), "s_pndm": (2, 3, 4, 5, 11), "f_pndm": (4, 8, 12, 13, 19), "plms": (2, 3, 4, 5, 11), "ipndm": (1, 2, 3, 4, 10),
    "prk": (4, 8, 12, 16, 40), "pseudo_improved_euler": (2, 4, 6, 8, 20), "fon": (4, 8, 12, 13, 19),
}  # fmt: skip


@cache
def short_run(make):
    """Start, end and flow over a short window."""
    process = make()
    z = np.random.default_rng(0).normal(size=(process.k, 4, 2))
    window = process.time_of(1.0), process.time_of(0.8)
    return process, z, window, run(process, grids.times(np.linspace(*window, 401)), methods.exponential_rk(2), z)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_few_steps(name, make):
    """Calls of runs of 1, 2, 3, 4 and 10 steps, and errors that a run of so few steps has."""
    method, (process, z, window, exact) = methods.SHIPPED[name](), short_run(make)
    for steps, calls in zip((1, 2, 3, 4, 10), CALLS[name], strict=True):
        prog = program(process, plans.run(grids.times(np.linspace(*window, steps + 1)), method))
        assert prog.nfe == method.nfe(steps) == calls
        assert steps < 10 or len(prog.items[-1].move.keep) == method.history * process.k
        made = np.stack(solve(prog, list(z), LAW.denoiser())[0])
        assert np.max(np.abs(made - exact)) < 0.05 / steps


@pytest.mark.parametrize(
    "make",
    [
        lambda: methods.ipndm(0),
        lambda: methods.ipndm(5),
        lambda: methods.prk("index"),
        lambda: methods.f_pndm("rho"),
        lambda: methods.pndm("lambda"),
        lambda: program(vp(), plans.run(grids.times([0.5, 9e-4, 5e-4]), methods.fon(released=True))),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
