"""Critically damped Langevin chains of any order: one call, a proof, and kernels in many digits."""

import numpy as np
import pytest
import sympy as sp
from scipy.linalg import expm

import sdekit as sk
from sdekit.certificate import Verdict, certify
from sdekit.spec import loads
from sdekit.writing import dumps

a, v = sp.symbols("a v", positive=True)
chain, chain_recipe = sk.catalogue.chain, sk.catalogue.chain_recipe


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_claim_is_proved_for_every_rate(n):
    recipe = chain_recipe(n, rate=a, start=v)
    certificate = certify(recipe)
    assert {claim.verdict for _, claim in certificate.claims()} == {Verdict.PROVED}
    assert ("nilpotent" if n > 1 else "one eigenvalue") in certificate.kernel.evidence


@pytest.mark.parametrize("n", [5, 6])
def test_every_claim_of_a_long_one_is_proved(n):
    certificate = certify(chain_recipe(n))
    assert {claim.verdict for _, claim in certificate.claims()} == {Verdict.PROVED}
    assert "nilpotent" in certificate.kernel.evidence


@pytest.mark.parametrize("n", range(2, 9))
def test_one_eigenvalue_in_one_jordan_block(n):
    F = chain_recipe(n, rate=a).drift.jacobian(chain_recipe(n).state)
    x = sp.Symbol("x")
    assert sp.expand(F.charpoly(x).as_expr() - (x + a) ** n) == 0
    assert np.linalg.matrix_rank(np.array((F / a + sp.eye(n)).tolist(), float)) == n - 1
    assert chain(n).F[0, 1] == 1.0  # the default rate


@pytest.mark.parametrize("n", range(2, 9))
def test_mean_of_the_data_is_the_hand_written_solution(n):
    """With N = F + a: exp(F B) e_x = exp(-a B) sum_j (N B)^j / j! e_x; N by hand from the couplings of the fact sheet, in rationals (rate a)."""
    k = [sp.sqrt(sp.Rational(n * n - j * j, 4 * j * j - 1)) for j in range(1, n)]  # k_1 next to the noise
    N = sp.eye(n)
    N[n - 1, n - 1] = 1 - n
    for i in range(n - 1):
        N[i, i + 1], N[i + 1, i] = k[n - 2 - i], -k[n - 2 - i]
    process, rate, B = chain(n, rate=1.5, beta=1.0, T=4.0), 1.5, 2.25
    term, total = sp.eye(n)[:, 0], sp.zeros(n, 1)
    for j in range(n):
        total += term * sp.Float(rate * B, 50) ** j / sp.factorial(j)
        term = (N * term).applyfunc(sp.expand)
    assert not any(term)
    exact = np.array((sp.exp(sp.Float(-rate * B, 50)) * total).evalf(40).tolist(), float)[:, 0]
    np.testing.assert_allclose(process.kernel(B).psi, exact, atol=1e-13 * np.linalg.norm(exact))


@pytest.mark.parametrize("n", range(1, 7))
def test_kernel_is_its_closed_form_in_many_digits(n):
    """Covariance to 1e-12 of its own scales, from four blocks on times the condition of the scaled covariance."""
    process, kernel = chain(n), chain_recipe(n).kernel()
    for t in (1e-6, 1e-3, 0.1, 1.0):
        at = {kernel.clock: sp.Float(float(process.clock.integral(t)), 250)}
        mean, cov = (np.array(part.subs(at).evalf(50).tolist(), float) for part in (kernel.mean, kernel.cov))
        made = process.kernel(t)
        scale = np.sqrt(np.diag(cov))
        grid = np.outer(scale, scale)
        often = np.linalg.cond(cov / grid) if n >= 4 else 1.0
        assert np.max(np.abs(made.cov - cov) / grid) < 1e-12 * often
        assert np.linalg.norm(made.psi - mean[:, 0]) < 1e-12 * np.linalg.norm(mean[:, 0])


def test_orders_of_the_catalogue_are_special_cases():
    assert chain(3) == sk.catalogue.third_order()
    assert chain(4) == sk.catalogue.fourth_order()
    assert chain(2, rate=0.5, beta=8.0) == sk.catalogue.cld(M=1.0, nu=2.0)
    one, vp = chain(1, beta=20.0), sk.catalogue.vp(beta_min=20.0, beta_max=20.0)
    np.testing.assert_allclose(one.kernel(0.3).cov, vp.kernel(0.3).cov, rtol=1e-14)
    for n, name in ((3, "third_order"), (4, "fourth_order")):
        mine, theirs = chain_recipe(n), sk.catalogue.recipe(name)
        assert (mine.D, mine.Q, mine.clock) == (theirs.D, theirs.Q, theirs.clock)


@pytest.mark.parametrize("n", range(1, 9))
def test_default_speed_leaves_at_most_a_hundredth_of_the_data(n):
    def left(beta):
        return np.linalg.norm(expm(chain(n).F * beta)[:, 0])

    beta = float(chain(n).clock.integral(1.0))
    assert left(beta) <= 0.01
    assert left(beta - 1.0) > 0.01
    assert chain(n).T == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_they_come_back_from_text(n):
    for recipe in (chain_recipe(n), chain_recipe(n, rate=a, start=v, beta=3.0, T=2.0)):
        assert loads(dumps(recipe)) == recipe
    assert loads(dumps(chain_recipe(n))).process() == chain(n)
    assert chain(n).recipe == chain_recipe(n)
    assert chain_recipe(n, rate=a).process(a=1.7) == chain(n, rate=1.7)


@pytest.mark.parametrize(
    ("values", "says"),
    [({"n": 0}, "n = 0 must be an integer >= 1"), ({"n": 9}, "n = 9 must be at most 8"), ({"n": 10**9}, "at most 8"), ({"n": 2.5}, "n = 2.5"),
     ({"n": True}, "n = True"), ({"n": 3, "rate": -1.0}, "rate = -1.0 must be positive"), ({"n": 3, "rate": sp.Symbol("r")}, "positive=True"),
     ({"n": 3, "beta": 0.0}, "beta"), ({"n": 3, "T": -1.0}, "T = -1"), ({"n": 3, "start": -0.1}, "must be a variance"),
     ({"n": 3, "start": "1"}, "text")],
)  # fmt: skip
def test_bad_input(values, says):
    with pytest.raises(sk.BadInput, match=says):
        chain(**values)
