"""Single-step methods of the ODE: published formulas written out by hand, exactness, identities, orders, plans of mixed orders."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from by_hand import LAW, TIMES, VP, D, a, at, eps, lam, local_orders, low, run, s, same, slope
from processes import edm, psld, third_order, vp
from scipy.integrate import quad

from sdekit import BadInput, grids, methods, plans
from sdekit.law import Gaussian, Mixture
from sdekit.methods import Method
from sdekit.noise import Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve

DATA = Gaussian(0.3, 0.25)
CLOCKS = ["sigma", "log", "time"]
make_of = pytest.mark.parametrize("make", [vp, psld, third_order], ids=lambda m: m.__name__)


# ---------------------------------------------------------------------------------------------------------------- formulas on VP


def dpm_solver(order, z, t, end, r):
    h = lam(end) - lam(t)
    e = eps(z, t)
    first = at(lam(t) + r * h)
    u = a(first) / a(t) * z - s(first) * np.expm1(r * h) * e
    if order == 2:
        return a(end) / a(t) * z - s(end) * np.expm1(h) * (e + (eps(u, first) - e) / (2.0 * r))
    r2 = 2.0 / 3.0
    second = at(lam(t) + r2 * h)
    change = eps(u, first) - e
    u = a(second) / a(t) * z - s(second) * np.expm1(r2 * h) * e - s(second) * r2 / r * (np.expm1(r2 * h) / (r2 * h) - 1.0) * change
    return a(end) / a(t) * z - s(end) * np.expm1(h) * e - s(end) / r2 * (np.expm1(h) / h - 1.0) * (eps(u, second) - e)


def dpm_solver_pp(order, z, t, end, r):
    h = lam(end) - lam(t)
    data = D(z, t)
    first = at(lam(t) + r * h)
    u = s(first) / s(t) * z - a(first) * np.expm1(-r * h) * data
    if order == 2:
        return s(end) / s(t) * z - a(end) * np.expm1(-h) * (data + (D(u, first) - data) / (2.0 * r))
    r2 = 2.0 / 3.0
    second = at(lam(t) + r2 * h)
    change = D(u, first) - data
    u = s(second) / s(t) * z - a(second) * np.expm1(-r2 * h) * data + a(second) * r2 / r * (np.expm1(-r2 * h) / (r2 * h) + 1.0) * change
    return s(end) / s(t) * z - a(end) * np.expm1(-h) * data + a(end) / r2 * (np.expm1(-h) / h + 1.0) * (D(u, second) - data)


def linear_in(of, z, t, end, r):
    """Order 2 with the line through both answers integrated by scipy, in y = z / a and sigma."""
    low, high = s(end) / a(end), s(t) / a(t)
    middle = at(lam(t) + r * (lam(end) - lam(t)))
    half = s(middle) / a(middle)
    e, data = eps(z, t), D(z, t)
    slope = 1.0 / np.log(high / half)
    if of == "eps":
        guess = a(middle) * (z / a(t) + (half - high) * e)
        moment = quad(lambda q: np.log(high / q) * slope, high, low)[0]
        return a(end) * (z / a(t) + (low - high) * e + moment * (eps(guess, middle) - e))
    guess = a(middle) * (half / high * z / a(t) + (1.0 - half / high) * data)
    moment = quad(lambda q: -low / q**2 * np.log(high / q) * slope, high, low)[0]
    return a(end) * (low / high * z / a(t) + (1.0 - low / high) * data + moment * (D(guess, middle) - data))


def dpm_2(z, t, end):
    """k-diffusion: Euler in sigma to the middle of log sigma, then the whole step with the slope there."""
    x, high, low = z / a(t), s(t) / a(t), s(end) / a(end)
    half = np.exp(0.5 * (np.log(high) + np.log(low)))
    denoise = LAW.denoiser()
    guess = x + (x - denoise(x, high)) / high * (half - high)
    return a(end) * (x + (guess - denoise(guess, half)) / half * (low - high))


STEPS = {
    "DPM-Solver-2": (methods.dpm_solver(2, rule="published"), lambda *x: dpm_solver(2, *x, 0.5)),
    "DPM-Solver-2, r = .3": (methods.dpm_solver(2, r=0.3, rule="published"), lambda *x: dpm_solver(2, *x, 0.3)),
    "DPM-Solver-3": (methods.dpm_solver(3), lambda *x: dpm_solver(3, *x, 1 / 3)),
    "DPM-Solver-3, r = .5": (methods.dpm_solver(3, r=0.5), lambda *x: dpm_solver(3, *x, 0.5)),
    "DPM-Solver++(2S)": (methods.dpm_solver_pp_2s(), lambda *x: dpm_solver_pp(2, *x, 0.5)),
    "DPM-Solver++(2S), r = .7": (methods.dpm_solver(2, of="data", r=0.7, rule="published"), lambda *x: dpm_solver_pp(2, *x, 0.7)),
    "DPM-Solver++(3S)": (methods.dpm_solver(3, of="data"), lambda *x: dpm_solver_pp(3, *x, 1 / 3)),
    "DPM2": (methods.dpm_2(), dpm_2),
    "exact line in eps": (methods.dpm_solver(2, r=0.4), lambda *x: linear_in("eps", *x, 0.4)),
    "exact line in data": (methods.dpm_solver(2, of="data"), lambda *x: linear_in("data", *x, 0.5)),
}


@pytest.mark.parametrize("name", STEPS)
def test_formula(name):
    method, by_hand = STEPS[name]
    (z,), made = run(method)
    for t, end in pairwise(TIMES):
        z = by_hand(z, t, end)
    np.testing.assert_allclose(made[0], z, atol=1e-10 * np.max(np.abs(z)))


# ---------------------------------------------------------------------------------------------------------------- exactness

SINGLE = [
    methods.dpm_solver(1), methods.dpm_solver(1, of="data"), methods.dpm_2(), methods.dpm_solver_pp_2s(), methods.dpm_solver(2, r=0.3),
    methods.dpm_solver(2, of="data"), methods.dpm_solver(3), methods.dpm_solver(3, of="data"),
    *(methods.rho_rk(name, clock) for name in ("heun", "kutta3", "rk4", "bogacki_shampine", "cash_karp") for clock in CLOCKS),
]  # fmt: skip


@pytest.mark.parametrize("method", SINGLE, ids=str)
@make_of
def test_exact_where_eps_is_constant(method, make):
    """A point mass: the result is DDIM's, whatever the grid and number of blocks."""
    process = make()
    times = process.T * np.array([0.95, 0.55, 0.4, 0.3])
    z = np.random.default_rng(0).normal(size=(process.k, 5))
    ours, ddim = (solve(assemble(process, [Run(m, tuple(times))]), list(z), lambda y, _: np.full_like(y, 0.7))[0] for m in (method, methods.ddim()))
    np.testing.assert_allclose(np.stack(ours), np.stack(ddim), atol=3e-9 * np.max(np.abs(ddim)))


@pytest.mark.parametrize("method", SINGLE, ids=str)
def test_normal_factor(method):
    """Thin data: the whole run contracts by s_end / s_start."""
    for n in (10, 50):
        made, _ = solve(program(VP, plans.run(grids.uniform(n, 1e-3), method)), [np.ones((1, 1))], lambda y, _: np.zeros_like(y))
        assert made[0][0, 0] / (s(1e-3) / s(1.0)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("method", "ratios"),
    [(methods.euler(), [4.18826, 2.18777, 1.66748, 1.46903]), (methods.runge_kutta(), [-20.20, -4.052, -0.2266, 0.63368]),
     (methods.heun(), [-68.1, -16.2, -3.89, -0.847])],
    ids=str,
)  # fmt: skip
def test_classical_methods_leave_thin_data(method, ratios):
    """The same factor for methods in (z, t), at 10, 20, 50 and 100 steps, as tabled."""
    assert s(1e-3) / s(1.0) == pytest.approx(0.0104856, abs=1e-7)
    for n, ratio in zip((10, 20, 50, 100), ratios, strict=True):
        made, _ = solve(program(VP, plans.run(grids.uniform(n, 1e-3), method)), [np.ones((1, 1))], lambda y, _: np.zeros_like(y))
        digits = len(str(ratio).partition(".")[2])
        assert made[0][0, 0] / (s(1e-3) / s(1.0)) == pytest.approx(ratio, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("of", ["eps", "data"])
@pytest.mark.parametrize(("order", "rule"), [(1, "exact"), (2, "exact"), (2, "published"), (3, "exact")])
def test_local_order(order, rule, of, noise):
    slopes = local_orders(methods.dpm_solver(order, of=of, rule=rule, noise=noise), of, edm())
    assert slopes[-1] > order + 0.9
    assert (order, of) == (3, "eps") or slopes[-1] < order + 1.1  # that error passes through zero here


# ---------------------------------------------------------------------------------------------------------------- identities


@make_of
def test_identities(make):
    process = make()
    same(methods.dpm_solver(1), methods.ddim(), process, 1e-9)
    same(methods.dpm_solver(1, of="data"), methods.ddim(), process)
    same(methods.dpm_2(), methods.dpm_solver(2, rule="published"), process)
    same(methods.dpm_solver_pp_2s(), methods.dpm_solver(2, of="data", rule="published"), process)
    for order in (1, 2, 3):
        same(methods.seeds(order), methods.dpm_solver(order, rule="published", noise=1.0), process)
    if process.k == 1:
        same(methods.rho_rk("heun"), methods.exponential_rk(2), process)
    assert methods.dpm_solver(3, rule="exact").name == methods.dpm_solver(3).name


@make_of
def test_embedded_results(make):
    process = make()
    third = 1.0 / 3.0
    for of in ("eps", "data"):
        for rule in ("exact", "published"):
            same(low(methods.dpm_solver(3, of, rule=rule)), methods.dpm_solver(2, of, third, rule), process)
        same(low(methods.dpm_solver(2, of)), methods.dpm_solver(1, of), process)


# ---------------------------------------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(
    "method",
    [methods.dpm_solver(2, r=0.3), methods.dpm_solver(2, of="data"), methods.dpm_solver(3, r=0.5), methods.dpm_solver(1)],
    ids=str,
)
def test_orders_of_other_options(method):
    for make in (vp, psld):
        assert slope(method, make(), (80, 160)) == pytest.approx(method.orders.ode, abs=0.1)


# ---------------------------------------------------------------------------------------------------------------- mixed orders


@pytest.mark.parametrize(("nfe", "orders"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (9, [3, 3, 2, 1]), (10, [3, 3, 3, 1])])
def test_dpm_fast(nfe, orders):
    """The published orders and cost, on equal steps of lambda, each step by its formula."""
    plan = plans.dpm_fast(nfe, 0.2, 5.0)
    prog = program(VP, plan)
    z = made = np.random.default_rng(2).normal(size=(6, 2))
    np.testing.assert_allclose(np.diff(lam(prog.times)), np.log(25.0) / len(orders), rtol=1e-10)
    for order, (t, end) in zip(orders, pairwise(prog.times), strict=True):
        z = (
            a(end) / a(t) * z - s(end) * np.expm1(lam(end) - lam(t)) * eps(z, t)
            if order == 1
            else dpm_solver(order, z, t, end, 0.5 if order == 2 else 1 / 3)
        )
    (made,), _ = solve(prog, [made], LAW.denoiser())
    np.testing.assert_allclose(made, z, atol=1e-10 * np.max(np.abs(z)))
    assert prog.nfe == nfe


def test_finish():
    heun, ddim, dpm = methods.heun(), methods.ddim(), methods.dpm_2()

    def made(grid, *last):
        return [(move.method, len(move.times) - 1) for move in plans.run(grid, heun).then(plans.finish(*last)).moves(VP)]

    assert made(grids.karras(5), ddim) == [(heun, 3), (ddim, 2)]  # the last of the two goes to the data
    assert made(grids.logsnr(4), dpm, ddim) == [(heun, 2), (dpm, 1), (ddim, 1)]
    assert made(grids.logsnr(2), dpm, ddim) == [(dpm, 1), (ddim, 1)]
    assert made(grids.logsnr(1), dpm, ddim) == [(ddim, 1)]
    assert made(grids.karras(1), dpm, ddim) == [(heun, 1)]
    noisy = plans.run(grids.logsnr(4), methods.euler_maruyama()).then(plans.finish(methods.seeds(2)))
    assert program(VP, noisy).nfe == 5
    for last in ((), (ddim, "ddim")):
        with pytest.raises(BadInput):
            plans.finish(*last)
    with pytest.raises(BadInput):
        plans.restart(grids.karras(5), [(3, 1, 0.06, 0.3)]).then(lambda moves, _: [*moves, plans.Jump(0.0, 0.1)]).then(plans.finish(ddim)).moves(VP)


# ---------------------------------------------------------------------------------------------------------------- few steps, bad input


@pytest.mark.parametrize("method", [*SINGLE, methods.runge_kutta("dormand_prince"), methods.sra(3), methods.seeds(3), methods.dpmpp_sde()], ids=str)
def test_few_steps(method):
    """One to four steps have no start-up of their own: each is the same step again."""
    process = psld()
    times = process.time_of([1.0, 0.7, 0.5, 0.35, 0.25])
    z = list(np.random.default_rng(2).normal(size=(2, 6, 2)))
    once = z
    for n in range(1, 5):
        whole, _ = solve(assemble(process, [Run(method, tuple(times[: n + 1]))]), z, LAW.denoiser(), Addressed(3))
        once, _ = solve(assemble(process, [Run(method, tuple(times[n - 1 : n + 1]), first=n - 1)]), once, LAW.denoiser(), Addressed(3))
        np.testing.assert_allclose(np.stack(whole), np.stack(once), atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: methods.runge_kutta("rk5"),
        lambda: methods.rho_rk("rk5"),
        lambda: methods.rho_rk(clock="lambda"),
        lambda: methods.dpm_solver(4),
        lambda: methods.dpm_solver(0),
        lambda: methods.dpm_solver(2, of="score"),
        lambda: methods.dpm_solver(2, rule="taylor"),
        lambda: methods.dpm_solver(1, r=0.5),
        lambda: methods.dpm_solver(2, r=1.0),
        lambda: methods.dpm_solver(2, r=0.0),
        lambda: methods.dpm_solver(3, r=0.7),
        lambda: methods.dpm_solver(2, r=float("nan")),
        lambda: methods.seeds(4),
        lambda: methods.seeds(1.5),
        lambda: methods.dpmpp_sde(1.0),
        lambda: methods.sra(4),
        lambda: methods.sra(0),
        lambda: methods.sra(1, noise=0.0),
        lambda: methods.sosra(3),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()


def test_methods_are_records():
    assert isinstance(methods.rho_rk(), Method)
    assert hash(methods.dpm_solver(3)) == hash(methods.dpm_solver(3))
    assert methods.sra(1) != methods.sra(2)


# ---------------------------------------------------------------------------------------------------------------- recorded runs

PEERS = json.loads((Path(__file__).parent / "golden" / "peers.json").read_text())


def recorded(algorithm, order, kind, law):
    """A run of diffusers on equal steps of lambda (up to float32), whose stages are the grid's own levels, and its model."""
    (case,) = (c for c in PEERS["cases"] if (c["name"], c["law"]) == (f"DPMSolverSinglestep {algorithm} {order} {kind}, log 10", law))
    told = PEERS["laws"][law]
    return case, np.array(case["start"]), Mixture(told["weights"], told["means"], np.square(told["stds"])).denoiser()


@pytest.mark.parametrize(("algorithm", "of"), [("dpmsolver", "eps"), ("dpmsolver++", "data")])
@pytest.mark.parametrize(("kind", "rule"), [("midpoint", "published"), ("heun", "exact")])
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_recorded_second_order_of_diffusers(law, kind, rule, algorithm, of):
    case, y, denoise = recorded(algorithm, 2, kind, law)
    made, _ = solve(program(edm(), plans.run(grids.sigmas(case["levels"][::2]), methods.dpm_solver(2, of, rule=rule))), [y], denoise)
    np.testing.assert_allclose(made[0], case["end"], atol=1e-6)


@pytest.mark.parametrize("of", ["eps", "data"])
def test_recorded_third_order_of_diffusers(of):
    """It makes its second stage by the second-order midpoint formula, not by the paper's: another method of order 3, written out here."""
    case, y, denoise = recorded("dpmsolver" if of == "eps" else "dpmsolver++", 3, "midpoint", "mixture")
    ours, _ = solve(program(edm(), plans.run(grids.sigmas(case["levels"][::3]), methods.dpm_solver(3, of))), [y], denoise)
    for i in range(0, len(case["levels"]) - 1, 3):
        top, one, two, end = case["levels"][i : i + 4]
        h, answers = np.log(top / end), []
        for level in (top, one, two):
            if of == "eps":
                stage = y + (level - top) * (answers[-1] if answers else 0.0)
                answers.append((stage - denoise(stage, level)) / level)
            else:
                stage = level / top * y + (1.0 - level / top) * (answers[-1] if answers else 0.0)
                answers.append(denoise(stage, level))
        change = 1.5 * (answers[2] - answers[0])
        if of == "eps":
            y = y + (end - top) * answers[0] - end * (np.expm1(h) / h - 1.0) * change
        else:
            y = end / top * y + (1.0 - end / top) * answers[0] + (np.expm1(-h) / h + 1.0) * change
    np.testing.assert_allclose(y, case["end"], atol=1e-6)
    assert 1e-3 < np.max(np.abs(ours[0] - case["end"])) < 2e-2
