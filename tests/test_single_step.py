"""Single-step methods: tableaus by rooted trees, published formulas written out by hand, exactness, identities, orders and exact laws."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from processes import cld, edm, psld, third_order, vp
from scipy.integrate import RK23, RK45, quad

from sdekit import BadInput, analysis, grids, methods, plans
from sdekit.law import Gaussian, Mixture
from sdekit.methods import Method
from sdekit.methods.runge_kutta import TABLEAUS
from sdekit.methods.sra import SCHEMES
from sdekit.noise import METHOD, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
DATA = Gaussian(0.3, 0.25)
CLOCKS = ["sigma", "log", "time"]
make_of = pytest.mark.parametrize("make", [vp, psld, third_order], ids=lambda m: m.__name__)
by_name = pytest.mark.parametrize("name", TABLEAUS)

# ---------------------------------------------------------------------------------------------------------------- rooted trees
# A tree is the tuple of its branches.  A method has order p if b . weight(tree) = 1 / density(tree) for all trees of at most p nodes.


def trees(n):
    """All rooted trees of ``n`` nodes."""
    return [tuple(branches) for branches in forests(n - 1, n - 1)]


def forests(n, largest):
    if n == 0:
        yield ()
        return
    for size in range(min(n, largest), 0, -1):
        for count in range(n // size, 0, -1):
            for chosen in combinations_with_replacement(trees(size), count):
                for rest in forests(n - size * count, size - 1):
                    yield chosen + rest


def nodes(tree):
    return 1 + sum(nodes(branch) for branch in tree)


def density(tree):
    return nodes(tree) * int(np.prod([density(branch) for branch in tree], dtype=object))


def weight(a, tree):
    stages = [Fraction(1)] * len(a)
    for branch in tree:
        inner = weight(a, branch)
        stages = [own * sum((x * y for x, y in zip(row, inner, strict=False)), Fraction(0)) for own, row in zip(stages, a, strict=True)]
    return stages


def faults(a, b, order):
    """Trees of at most ``order`` nodes whose condition fails."""
    return [
        tree for n in range(1, order + 1) for tree in trees(n)
        if sum(x * y for x, y in zip(b, weight(a, tree), strict=True)) != Fraction(1, density(tree))
    ]  # fmt: skip


def test_trees():
    assert [len(trees(n)) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]
    assert {density(tree) for tree in trees(4)} == {4, 8, 12, 24}


@by_name
def test_tableau_has_its_order_and_no_more(name):
    table = TABLEAUS[name]
    assert not faults(table.a, table.b, table.order)
    assert faults(table.a, table.b, table.order + 1)
    if table.embedded is not None:
        assert not faults(table.a, table.embedded, table.embedded_order)
        assert faults(table.a, table.embedded, table.embedded_order + 1)


@by_name
def test_every_number_of_a_tableau_counts(name):
    """No entry can change without a condition noticing (those that only feed the embedded result change that)."""
    table = TABLEAUS[name]
    wrong = 0
    for i, row in enumerate(table.a):
        for j, entry in enumerate(row):
            if entry:
                a = [*table.a[:i], (*row[:j], entry * Fraction(101, 100), *row[j + 1 :]), *table.a[i + 1 :]]
                ends = [(table.b, table.order), *([] if table.embedded is None else [(table.embedded, table.embedded_order)])]
                wrong += not any(faults(a, b, order) for b, order in ends)
    assert wrong == 0


@pytest.mark.parametrize("name", [1, 2, 3])
def test_conditions_of_the_stochastic_schemes(name):
    """Roessler 2010: strong order 1.5 for additive noise, and the order of the drift's tableau."""
    table = SCHEMES[name]
    drift, alpha = table.drift, table.drift.b
    assert not faults(drift.a, alpha, drift.order)
    area = [sum(row, Fraction(0)) for row in table.spread]
    assert sum(w * v for w, v in zip(alpha, area, strict=True)) == 1
    assert sum(w * v * v for w, v in zip(alpha, area, strict=True)) == Fraction(3, 2)
    assert (sum(table.increment), sum(table.area)) == (1, 0)
    assert sum(w * c for w, c in zip(table.increment, table.at, strict=True)) == 1
    assert sum(w * c for w, c in zip(table.area, table.at, strict=True)) == -1


# ---------------------------------------------------------------------------------------------------------------- formulas on VP

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


def run(method, times=TIMES, process=VP, seed=5):
    z = np.random.default_rng(2).normal(size=(process.k, 6, 2))
    made, _ = solve(program(process, plans.run(grids.times(times), method)), list(z), LAW.denoiser(), Addressed(seed))
    return z, np.stack(made)


def normals(steps, slots, seed=5):
    """(steps, slots, 6, 2): what the run with this seed draws on one block."""
    drawn = Addressed(seed).draw([Address(METHOD, 0, i, j) for i in range(steps) for j in range(slots)], np.arange(6), (2,))
    return np.stack(drawn).reshape(steps, slots, 6, 2)


@pytest.mark.parametrize("name", STEPS)
def test_formula(name):
    method, by_hand = STEPS[name]
    (z,), made = run(method)
    for t, end in pairwise(TIMES):
        z = by_hand(z, t, end)
    np.testing.assert_allclose(made[0], z, atol=1e-10 * np.max(np.abs(z)))


def seeds(order, z, t, end, xi):
    h = lam(end) - lam(t)
    e = eps(z, t)
    if order == 2:
        m = at(lam(t) + 0.5 * h)
        u = a(m) / a(t) * z - 2.0 * s(m) * np.expm1(0.5 * h) * e + s(m) * np.sqrt(np.expm1(h)) * xi[0]
        noise = np.sqrt(np.exp(2.0 * h) - np.exp(h)) * xi[0] + np.sqrt(np.expm1(h)) * xi[1]
        return a(end) / a(t) * z - 2.0 * s(end) * np.expm1(h) * eps(u, m) + s(end) * noise
    m, n, r1, r2 = at(lam(t) + h / 3.0), at(lam(t) + 2.0 * h / 3.0), 1.0 / 3.0, 2.0 / 3.0
    u = a(m) / a(t) * z - 2.0 * s(m) * np.expm1(r1 * h) * e + s(m) * np.sqrt(np.expm1(r2 * h)) * xi[0]
    noise = np.sqrt(np.exp(4.0 * h / 3.0) - np.exp(r2 * h)) * xi[0] + np.sqrt(np.expm1(r2 * h)) * xi[1]
    change = eps(u, m) - e
    u = a(n) / a(t) * z - 2.0 * s(n) * (np.expm1(r2 * h) * e + r2 / r1 * (np.expm1(r2 * h) / (r2 * h) - 1.0) * change) + s(n) * noise
    noise = (
        np.sqrt(np.exp(2.0 * h) - np.exp(4.0 * h / 3.0)) * xi[0] + np.sqrt(np.exp(4.0 * h / 3.0) - np.exp(r2 * h)) * xi[1]
        + np.sqrt(np.expm1(r2 * h)) * xi[2]
    )  # fmt: skip
    return a(end) / a(t) * z - 2.0 * s(end) * (np.expm1(h) * e + 1.0 / r2 * (np.expm1(h) / h - 1.0) * (eps(u, n) - e)) + s(end) * noise


def dpmpp_sde(z, t, end, xi, r):
    """k-diffusion: ancestral steps to sigma(r) and to the end, both from the start; one Brownian path in sigma."""
    x, high, low = z / a(t), s(t) / a(t), s(end) / a(end)
    part = high ** (1.0 - r) * low**r
    denoise = LAW.denoiser()
    data = denoise(x, high)

    def ancestral(down_to, answer, noise):
        up = np.sqrt(down_to**2 * (high**2 - down_to**2) / high**2)
        down = np.sqrt(down_to**2 - up**2)
        return down / high * x - np.expm1(np.log(down / high)) * answer + up * noise

    path = np.sqrt(high - part) * xi[0], np.sqrt(part - low) * xi[1]
    guess = ancestral(part, data, path[0] / np.sqrt(high - part))
    mixed = (1.0 - 0.5 / r) * data + 0.5 / r * denoise(guess, part)
    return a(end) * ancestral(low, mixed, (path[0] + path[1]) / np.sqrt(high - low))


def sra(name, z, t, end, xi):
    """Roessler's schemes as printed, for time tau = t - time running up."""
    h = t - end
    dW, area = np.sqrt(h) * xi[0], 0.5 * h**1.5 * (xi[0] + xi[1] / np.sqrt(3.0))

    def f(tau, y):
        return -fall(y, t - tau, 1.0)

    def g(tau):
        return np.sqrt(beta(t - tau))

    one = f(0.0, z)
    if name == 3:
        two = f(h, z + h * one)
        three = f(0.5 * h, z + 0.25 * h * (one + two) + (g(h) + 0.5 * g(0.0)) * area / h)
        return z + h * (one + two + 4.0 * three) / 6.0 + g(h) * dW + (g(0.0) - g(h)) * area / h
    where = h if name == 1 else h / 3.0
    two = f(0.75 * h, z + 0.75 * h * one + 1.5 * g(where) * area / h)
    mean = z + h * (one + 2.0 * two) / 3.0
    if name == 1:
        return mean + g(h) * dW + (g(0.0) - g(h)) * area / h
    return mean + g(h) * dW + 1.5 * (g(h / 3.0) - g(h)) * area / h


NOISY = {
    "SEEDS-2": (methods.seeds(2), 2, lambda *x: seeds(2, *x)),
    "SEEDS-3": (methods.seeds(3), 3, lambda *x: seeds(3, *x)),
    "dpmpp_sde": (methods.dpmpp_sde(), 2, lambda *x: dpmpp_sde(*x, 0.5)),
    "dpmpp_sde, r = .3": (methods.dpmpp_sde(0.3), 2, lambda *x: dpmpp_sde(*x, 0.3)),
    **{f"SRA{name}": (methods.sra(name), 2, lambda *x, name=name: sra(name, *x)) for name in (1, 2, 3)},
}


@pytest.mark.parametrize("name", NOISY)
def test_formula_with_noise(name):
    method, slots, by_hand = NOISY[name]
    (z,), made = run(method)
    for (t, end), xi in zip(pairwise(TIMES), normals(len(TIMES) - 1, slots), strict=True):
        z = by_hand(z, t, end, xi)
    np.testing.assert_allclose(made[0], z, atol=1e-10 * np.max(np.abs(z)))
    assert program(VP, plans.run(grids.times(TIMES), method)).items[0].move.noises == slots


@pytest.mark.parametrize(("name", "peer"), [("dormand_prince", RK45), ("bogacki_shampine", RK23)])
def test_runge_kutta_pairs_are_scipys(name, peer):
    """Equal steps by scipy's own stepper, and its error weights."""
    times = np.linspace(1.0, 0.2, 6)
    (z,), made = run(methods.runge_kutta(name), times)
    solver = peer(lambda t, y: fall(y.reshape(6, 2), t).ravel(), 1.0, z.ravel(), 0.2, first_step=0.16, max_step=0.16, rtol=1e12, atol=1e12)
    while solver.status == "running":
        solver.step()
    np.testing.assert_allclose(made[0], solver.y.reshape(6, 2), atol=1e-11)
    table = TABLEAUS[name]
    np.testing.assert_allclose([float(y - x) for x, y in zip(table.b, table.embedded, strict=True)], solver.E, atol=1e-15)


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


@pytest.mark.parametrize("make", [psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "method", [methods.dpmpp_sde(), methods.dpm_solver(2, of="data", noise=1.0), methods.dpm_solver(3, "data", noise=0.5)], ids=str
)
def test_noise_of_a_step_is_exact(method, make):
    """A point mass under noise, in data: the law of every block is that of the exact reverse equation."""
    point, grid = Gaussian(0.7, 0.0), grids.sigmas([3.0, 1.5, 0.4, 0.2])
    ours = analysis.exact_law(make(), method=method, grid=grid, data=point)
    theirs = analysis.exact_law(make(), method=methods.exponential(1, noise=method.noise), grid=grid, data=point)
    np.testing.assert_allclose(ours.state_cov, theirs.state_cov, atol=1e-10)
    np.testing.assert_allclose(ours.state_mean, theirs.state_mean, atol=1e-10)


@pytest.mark.parametrize("make", [psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("order", [2, 3])
def test_stages_are_on_one_path(order, make):
    """What the normals add to stages and result, beside the answers: the covariance of one path of dn = F n dt + G dW, run down."""
    process, k = make(), make().k
    parts = [0.5] if order == 2 else [1.0 / 3.0, 2.0 / 3.0]
    times = process.time_of(0.5 ** np.array([0.0, *parts, 1.0]))
    rows = assemble(process, [Run(methods.seeds(order), (times[0], times[-1]))], state_model=True).items[0].move
    noise = slice(k, k + rows.noises)
    states = [ask.argument[:, noise] for ask in rows.asks[1:]] + [rows.out[:, noise]]
    for i, left in enumerate(states, 1):
        way = process.transition(times[i], times[0])
        down = np.linalg.inv(way.mean)
        for j, right in enumerate(states[i - 1 :], i):
            later = np.linalg.inv(process.transition(times[j], times[i]).mean) if j > i else np.eye(k)
            expected = down @ way.cov @ down.T @ later.T
            np.testing.assert_allclose(left @ right.T, expected, atol=1e-9 * np.max(np.abs(expected)))


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


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("of", ["eps", "data"])
@pytest.mark.parametrize(("order", "rule"), [(1, "exact"), (2, "exact"), (2, "published"), (3, "exact")])
def test_local_order(order, rule, of, noise):
    slopes = local_orders(methods.dpm_solver(order, of=of, rule=rule, noise=noise), of, edm())
    assert slopes[-1] > order + 0.9
    assert (order, of) == (3, "eps") or slopes[-1] < order + 1.1  # that error passes through zero here


@by_name
def test_local_order_of_tableaus(name):
    """On functions of the level only the quadrature shows, which may be better than the method."""
    assert local_orders(methods.rho_rk(name), "eps", edm())[-1] > TABLEAUS[name].order + 0.85


# ---------------------------------------------------------------------------------------------------------------- identities


def same(left, right, process, atol=1e-11):
    times = process.time_of([3.0, 1.5, 1.2, 0.4])
    np.testing.assert_allclose(run(left, times, process)[1], run(right, times, process)[1], atol=atol)


@by_name
def test_behind_the_transfer_of_edm_is_edm_itself(name):
    """There t = sigma and F = 0, so rho_rk is the plain tableau; on another one-block process it is the same in y and sigma."""
    same(methods.rho_rk(name), methods.runge_kutta(name), edm())


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


def low(method):
    """The method whose result is the embedded one."""

    def rows(step):
        made = method.rows(step)
        return replace(made, out=made.embedded)

    return replace(method, table=rows, params=(), origin=None)


@make_of
def test_embedded_results(make):
    process = make()
    third = 1.0 / 3.0
    for of in ("eps", "data"):
        for rule in ("exact", "published"):
            same(low(methods.dpm_solver(3, of, rule=rule)), methods.dpm_solver(2, of, third, rule), process)
        same(low(methods.dpm_solver(2, of)), methods.dpm_solver(1, of), process)


@make_of
def test_embedded_result_of_the_ancestral_pair(make):
    """The posterior step, in law: its normals come in two parts."""
    grid = grids.sigmas([3.0, 1.5, 0.4, 0.2])
    ours, theirs = (analysis.exact_law(make(), method=m, grid=grid, data=DATA) for m in (low(methods.dpmpp_sde()), methods.exponential(1, noise=1.0)))
    np.testing.assert_allclose(ours.state_cov, theirs.state_cov, atol=1e-10)


def test_answers_at_the_end_serve_the_next_step():
    for name, calls in (("bogacki_shampine", 3 * 5 + 1), ("dormand_prince", 6 * 5 + 1), ("cash_karp", 6 * 5), ("rk4", 4 * 5)):
        for method in (methods.runge_kutta(name), methods.rho_rk(name)):
            assert method.nfe(5) == program(psld(), plans.run(grids.times(TIMES), method)).nfe == calls


# ---------------------------------------------------------------------------------------------------------------- orders


def slope(method, process, steps):
    report = analysis.order(method, process, steps=steps)
    return report.slopes[np.isfinite(report.slopes)][-1]


@by_name
def test_orders_of_tableaus(name):
    for method, make in ((methods.runge_kutta(name), vp), (methods.rho_rk(name), vp), (methods.rho_rk(name), cld)):
        assert slope(method, make(), (20, 40)) > TABLEAUS[name].order - 0.25


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_order_of_a_tableau_holds_for_every_number_of_blocks_and_clock(clock):
    """Orders 4 and 5 on PSLD and on three blocks, where the exact transfer has no clock of its own."""
    assert slope(methods.rho_rk("rk4", clock), psld(), (40, 80)) == pytest.approx(4.0, abs=0.15)
    assert slope(methods.rho_rk("cash_karp", clock), third_order(), (20, 40)) == pytest.approx(5.0, abs=0.25)


@pytest.mark.parametrize(
    "method",
    [methods.dpm_solver(2, r=0.3), methods.dpm_solver(2, of="data"), methods.dpm_solver(3, r=0.5), methods.dpm_solver(1)],
    ids=str,
)
def test_orders_of_other_options(method):
    for make in (vp, psld):
        assert slope(method, make(), (80, 160)) == pytest.approx(method.orders.ode, abs=0.1)


@pytest.mark.parametrize("method", [methods.sra(2), methods.sra(1, 0.5), methods.seeds(1), methods.dpm_solver(2, of="data", noise=1.0)], ids=str)
def test_weak_orders_of_other_options(method):
    for make in (vp, psld):
        assert slope(method, make(), (80, 160)) == pytest.approx(method.orders.weak, abs=0.15)


# ---------------------------------------------------------------------------------------------------------------- laws, as tabled


def std_errors(make_plan, counts=(20, 40, 80, 160)):
    """VE, N(.3, .5^2), start N(.3, .25 + 25), uniform lambda from 5 to .1: error of the standard deviation at the end."""
    errors = []
    for n in counts:
        law = analysis.exact_law(edm(), plan=make_plan(grids.logsnr(n, 0.1, 5.0)), data=DATA, start=DATA)
        assert float(law.mean) == pytest.approx(0.3, abs=1e-10)
        errors.append(float(np.sqrt(law.cov)) - np.sqrt(0.26))
    return np.array(errors)


def ancestral_by_hand(kind, n):
    """k-diffusion's loops for eta = 1 on an affine denoiser: gain of x and variance."""
    levels = np.exp(np.linspace(np.log(5.0), np.log(0.1), n + 1))
    variance = 25.25
    for high, end in pairwise(levels):
        up = min(end, np.sqrt(end**2 * (high**2 - end**2) / high**2))
        down = np.sqrt(end**2 - up**2)
        half = np.exp(0.5 * (np.log(high) + np.log(down)))

        def gap(sigma):  # (x - D) / x
            return sigma**2 / (0.25 + sigma**2)

        if kind == "dpm_2":
            guess = 1.0 + gap(high) / high * (half - high)
            gain = 1.0 + gap(half) / half * guess * (down - high)
        else:
            guess = half / high - np.expm1(np.log(half / high)) * (1.0 - gap(high))
            gain = down / high - np.expm1(np.log(down / high)) * (1.0 - gap(half)) * guess
        variance = gain**2 * variance + up**2
    return np.sqrt(variance) - np.sqrt(0.26)


@pytest.mark.parametrize(("kind", "method"), [("dpm_2", methods.dpm_2()), ("2s", methods.dpm_solver_pp_2s())])
def test_ancestral_plans_are_the_published_samplers(kind, method):
    """DPM2-ancestral and 2S-ancestral: a step of the method to sigma_down and fresh noise up; weak order 2."""
    errors = std_errors(lambda grid: plans.ancestral(plans.run(grid, method)))
    np.testing.assert_allclose(errors, [ancestral_by_hand(kind, n) for n in (20, 40, 80, 160)], atol=1e-11)
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("method", [methods.dpmpp_sde(), methods.seeds(2), methods.seeds(3), methods.sra(1), methods.sra(2), methods.sra(3)], ids=str)
def test_laws_have_weak_order_two(method):
    errors = std_errors(lambda grid: plans.run(grid, method), (320, 640))  # that of SEEDS-2 changes its sign at 70
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15), errors


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
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()


def test_methods_are_records():
    assert isinstance(methods.rho_rk(), Method)
    assert hash(methods.dpm_solver(3)) == hash(methods.dpm_solver(3))
    assert methods.sra(1) != methods.sra(2)
