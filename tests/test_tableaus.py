"""Runge-Kutta tableaus: conditions by rooted trees in exact numbers, scipy's own steppers, orders for every number of blocks."""

from fractions import Fraction
from itertools import combinations_with_replacement

import numpy as np
import pytest
from by_hand import TIMES, fall, local_orders, low, run, same, slope
from processes import cld, edm, psld, third_order, vp
from scipy.integrate import RK23, RK45

from sdekit import grids, methods, plans
from sdekit.methods.runge_kutta import TABLEAUS
from sdekit.methods.sra import SCHEMES, STABLE
from sdekit.solve import program

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


@pytest.mark.parametrize(("family", "name"), [(SCHEMES, 1), (SCHEMES, 2), (SCHEMES, 3), (STABLE, 1), (STABLE, 2)])
def test_conditions_of_the_stochastic_schemes(family, name):
    """Roessler 2010: strong order 1.5 for additive noise, and the order of the drift's tableau; the stable ones are printed in 16 digits."""
    table, close = family[name], 0 if family is SCHEMES else Fraction(1, 10**14)
    drift, alpha = table.drift, table.drift.b
    nodes, area = drift.c, [sum(row, Fraction(0)) for row in table.spread]

    def product(*rows):
        return sum((np.prod(entries, dtype=object) for entries in zip(*rows, strict=True)), Fraction(0))

    found = [
        (product(alpha), 1), (product(alpha, nodes), Fraction(1, 2)), (product(alpha, area), 1), (product(alpha, area, area), Fraction(3, 2)),
        (product(table.increment), 1), (product(table.area), 0), (product(table.increment, table.at), 1), (product(table.area, table.at), -1),
    ]  # fmt: skip
    assert [value for value, known in found if abs(value - known) > close] == []
    assert not faults(drift.a, alpha, drift.order) or family is STABLE


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


@pytest.mark.parametrize(("name", "peer"), [("dormand_prince", RK45), ("bogacki_shampine", RK23)])
def test_embedded_results_are_scipys(name, peer):
    (z,), made = run(low(methods.runge_kutta(name)), np.array([1.0, 0.9]))
    solver = peer(lambda t, y: fall(y.reshape(6, 2), t).ravel(), 1.0, z.ravel(), 0.5, first_step=0.1, max_step=0.1, rtol=1e12, atol=1e12)
    solver.step()
    error = -0.1 * solver.E @ solver.K
    np.testing.assert_allclose(made[0], (solver.y + error).reshape(6, 2), atol=1e-12)
    assert np.max(np.abs(error)) > 1e-9


# ---------------------------------------------------------------------------------------------------------------- behind the transfer


@by_name
def test_behind_the_transfer_of_edm_is_edm_itself(name):
    """There t = sigma and F = 0, so rho_rk is the plain tableau; on another one-block process it is the same in y and sigma."""
    same(methods.rho_rk(name), methods.runge_kutta(name), edm())


@by_name
def test_local_order_of_tableaus(name):
    """On functions of the level only the quadrature shows, which may be better than the method."""
    assert local_orders(methods.rho_rk(name), "eps", edm())[-1] > TABLEAUS[name].order + 0.85


@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_embedded_results(make):
    process = make()
    same(low(methods.runge_kutta("heun")), methods.euler(), process)
    same(low(methods.runge_kutta("kutta3")), methods.runge_kutta("midpoint"), process)
    same(low(methods.rho_rk("heun")), methods.ddim(), process, 1e-9)
    same(low(methods.rho_rk("kutta3")), methods.rho_rk("midpoint"), process)


def test_answers_at_the_end_serve_the_next_step():
    for name, calls in (("bogacki_shampine", 3 * 5 + 1), ("dormand_prince", 6 * 5 + 1), ("cash_karp", 6 * 5), ("rk4", 4 * 5)):
        for method in (methods.runge_kutta(name), methods.rho_rk(name)):
            assert method.nfe(5) == program(psld(), plans.run(grids.times(TIMES), method)).nfe == calls


@by_name
def test_orders_of_tableaus(name):
    for method, make in ((methods.runge_kutta(name), vp), (methods.rho_rk(name), vp), (methods.rho_rk(name), cld)):
        assert slope(method, make(), (20, 40)) > TABLEAUS[name].order - 0.25


@pytest.mark.parametrize("clock", ["sigma", "log", "time"])
def test_the_order_of_a_tableau_holds_for_every_number_of_blocks_and_clock(clock):
    """Orders 4 and 5 on PSLD and on three blocks, where the exact transfer has no clock of its own."""
    assert slope(methods.rho_rk("rk4", clock), psld(), (40, 80)) == pytest.approx(4.0, abs=0.15)
    assert slope(methods.rho_rk("cash_karp", clock), third_order(), (20, 40)) == pytest.approx(5.0, abs=0.25)
