"""The reverse recipe: the proof with nothing specified, its special cases, and its numbers against the engine's."""

import numpy as np
import pytest
import sympy as sp
from processes import cld, dense_drift, psld, vp

import sdekit as sk
from sdekit.certificate import Verdict
from sdekit.denoiser import score
from sdekit.law import Gaussian
from sdekit.reversal import _div, _factor, reverse

x, y = sp.symbols("x y", real=True)
t = sp.Symbol("t", nonnegative=True)


def unspecified(*state):
    """A reversal in which f, D, D' and Q' are unspecified functions of state and time."""
    n = len(state)

    def entry(name):
        return sp.Function(name, real=True)(*state, t)

    f = [entry(f"f{i}") for i in range(n)]
    D, D1 = (sp.Matrix(n, n, lambda i, j, c=c: entry(f"{c}{min(i, j)}{max(i, j)}")) for c in "DE")
    Q1 = sp.zeros(n)
    for i in range(n):
        for j in range(i):
            Q1[i, j], Q1[j, i] = entry(f"q{i}{j}"), -entry(f"q{i}{j}")
    return reverse(sk.Recipe.from_drift(state, f, D, 0), D1, Q1, time=t)


@pytest.mark.parametrize("state", [(x,), (x, y)], ids=len)
def test_proved_for_unspecified_functions(state):
    found = unspecified(*state)
    assert found.psd.verdict is Verdict.UNDECIDED
    assert found.skew.verdict is Verdict.PROVED
    assert found.proof.verdict is Verdict.PROVED


WRONG = {
    "no div D": lambda r: r.drift - _div(r.D, r.state),
    "no div D'": lambda r: r.drift - _div(r.D1, r.state),
    "half the score": lambda r: r.drift - r.D * sp.Matrix(r.scores) / 2,
    "forward drift not reversed": lambda r: r.drift + 2 * r.f,
    "no div Q'": lambda r: r.drift - _div(r.Q1, r.state),
    "Q' s with the other sign": lambda r: r.drift - 2 * r.Q1 * sp.Matrix(r.scores),
    "2 D' for D'": lambda r: r.drift + r.D1 * sp.Matrix(r.scores) + _div(r.D1, r.state),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_term_is_needed(name):
    found = unspecified(x, y)
    found.__dict__["drift"] = WRONG[name](found)
    assert found.proof.verdict is not Verdict.PROVED


def test_both_signs_of_q_are_reverse_dynamics():
    recipe = sk.Recipe((x, y), x**4 + y**2, sp.eye(2), [[0, -x], [x, 0]])
    for sign in (1, -1):
        assert reverse(recipe, Q1=sign * sp.Matrix([[0, x * y], [-x * y, 0]])).proof.verdict is Verdict.PROVED


def test_published_forms():
    """Song's ODE and Anderson's SDE for PSLD (Pandey and Mandt 2023), and a state-dependent noise."""
    recipe = sk.catalogue.recipe("psld")
    M, Gamma, nu = (next(s for s in recipe.symbols if s.name == name) for name in ("M", "Gamma", "nu"))
    (a, b), half = recipe.state, sp.Rational(1, 2)
    for noise, factor in ((0, 1), (1, 2)):
        found = reverse(recipe, noise=noise)
        s, r = found.scores
        expected = [half * (Gamma * a - b / M + factor * Gamma * s), half * (a + nu * b + factor * M * nu * r)]
        assert (found.drift - sp.Matrix(expected)).applyfunc(sp.simplify) == sp.zeros(2, 1)
        assert found.noise == (sp.zeros(2) if noise == 0 else recipe.noise)
        assert found.proof.verdict is Verdict.PROVED
    g = 1 + x**2
    curved = reverse(sk.Recipe((x,), x**2 / 2, [[g]], [[0]]), g)
    (s,) = curved.scores
    assert sp.expand(curved.drift[0] - (g * x - 2 * x + 2 * g * s + 4 * x)) == 0
    assert sp.simplify(curved.noise[0] ** 2 - 2 * g) == 0
    assert "d\\tau" in curved._repr_latex_()
    assert "dW" in curved._repr_latex_()
    assert "dW" not in reverse(recipe)._repr_latex_()


def test_at_stationarity_q_turns_round():
    """With s = -grad H and D' = D the reverse process is the recipe with -Q."""
    D, Q = sp.Matrix([[1 + x**2, x], [x, 2]]), sp.Matrix([[0, -x * y], [x * y, 0]])
    H = x**4 + x * y + y**2
    found = reverse(sk.Recipe((x, y), H, D, Q), noise=1)
    drift = found.drift.subs(dict(zip(found.scores, [-H.diff(x), -H.diff(y)], strict=True)))
    assert (drift - sk.Recipe((x, y), H, D, -Q).drift).applyfunc(sp.expand) == sp.zeros(2, 1)


@pytest.mark.parametrize("make", [vp, cld, psld], ids=lambda make: make.__name__)
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_numbers_are_the_engines(make, noise):
    process, time, law = make(), 0.3, Gaussian(0.0, 0.25)
    dynamics = reverse(process, noise=noise).dynamics()
    z = np.random.default_rng(1).normal(size=(process.k, 5, 2, 3))
    denoise = Gaussian(np.zeros((2, 3)), 0.25).denoiser()
    found = dynamics.drift(z, time, lambda z, t: score(process, denoise, z, t))
    # the engine runs from t down: dz/dt, so the sign turns
    np.testing.assert_allclose(found, -np.tensordot(dense_drift(process, noise, time, float(law.cov)), z, axes=1), rtol=1e-10, atol=1e-10)
    L = dynamics.noise(z, time)
    N = float(process.clock.rate(time)) * noise**2 * process.G @ process.G.T
    np.testing.assert_allclose(np.einsum("ij...,lj...->il...", L, L), np.broadcast_to(N[..., None, None, None], L.shape), rtol=1e-13, atol=1e-15)


def test_recipe_and_process_agree_with_parameters_clock_and_time():
    recipe = sk.catalogue.recipe("psld")
    Gamma = next(s for s in recipe.symbols if s.name == "Gamma")
    a = recipe.state[0]
    D1, Q1 = sp.Matrix([[Gamma, 0], [0, 2 + t]]), sp.Matrix([[0, t], [-t, 0]])
    left = reverse(recipe, D1, Q1, time=t).dynamics(Gamma=0.04, nu=4.04)
    process = recipe.process(Gamma=0.04, nu=4.04)
    right = reverse(process, D1.subs(Gamma, sp.Rational("0.04")), Q1, time=t).dynamics()
    z = np.random.default_rng(2).normal(size=(2, 4))
    for time in (0.1, 0.7):
        np.testing.assert_allclose(left.drift(z, time, np.multiply), right.drift(z, time, np.multiply), rtol=1e-13)
        np.testing.assert_allclose(left.noise(z, time), right.noise(z, time), rtol=1e-13)
    other = sk.Recipe((a,), a**2 / 2, [[Gamma]], [[0]], clock=sk.clocks.Linear(Gamma, 2 * Gamma), parameters={"Gamma": 0.5})
    found = reverse(other, noise=1).dynamics(Gamma=3.0)
    assert found.clock == sk.clocks.linear(3.0, 6.0)
    np.testing.assert_allclose(found.diffusion(z[:1], 0.5), 3.0 * 4.5)


def test_degenerate_noise_factor():
    """Where the first pivot vanishes the symbolic factor is 0/0; the numbers are not."""
    D1 = sp.Matrix([[x**2, x], [x, 1]])
    found = reverse(sk.Recipe((x, y), x**2 + y**2, sp.eye(2), sp.zeros(2)), D1)
    z = np.array([[-1.5, 0.0, 2.0], [0.3, 0.1, 0.0]])
    L = found.dynamics().noise(z, 0.5)
    expected = np.array([[z[0] ** 2, z[0]], [z[0], np.ones(3)]])
    np.testing.assert_allclose(np.einsum("ijn,ljn->iln", L, L), 2.0 * expected, atol=1e-14)
    assert np.all(L[0, 1] == 0.0)
    exact = found.noise.subs({x: -sp.Rational(3, 2)}).evalf()
    np.testing.assert_allclose(L[..., 0], np.array(exact, float), atol=1e-14)
    with pytest.raises(sk.Refuted, match="negative direction"):
        _factor(np.array([[1.0, 2.0], [2.0, 1.0]])[..., None])
    with pytest.raises(sk.Refuted, match="negative direction"):
        _factor(np.array([[0.0, 1.0], [1.0, 1.0]])[..., None])


def test_euler_step():
    found = reverse(sk.Recipe((x,), x**2 / 2, [[1 + x**2]], [[0]], clock=sk.clocks.constant(2.0)), noise=1).dynamics()
    z, xi = np.array([[0.5, -1.0]]), np.array([[0.3, 1.1]])
    (u,) = z
    drift = 2.0 * ((1 + u**2) * u - 2 * u + 2 * (1 + u**2) * (-u) + 4 * u)
    expected = u + 0.01 * drift + np.sqrt(0.01 * 2.0 * 2.0 * (1 + u**2)) * xi[0]
    np.testing.assert_allclose(found.euler(z, 0.5, 0.01, lambda z, t: -z, xi)[0], expected, rtol=1e-14)


RECIPE = sk.Recipe((x, y), x**2 + y**2, sp.eye(2), sp.zeros(2))


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (sk.Refuted, "D1 must be symmetric positive", lambda: reverse(RECIPE, [[1, 2], [2, 1]])),
        (sk.Refuted, "D1 must be symmetric positive", lambda: reverse(RECIPE, [[x, 0], [0, 1]])),
        (sk.Refuted, "D1 must be symmetric positive", lambda: reverse(RECIPE, [[1, 1], [0, 1]])),
        (sk.Refuted, "Q1 must be skew", lambda: reverse(RECIPE, Q1=[[0, x], [x, 0]])),
        (sk.Refuted, "Q1 must be skew", lambda: reverse(RECIPE, Q1=sp.eye(2))),
        (sk.BadInput, "not both", lambda: reverse(RECIPE, sp.eye(2), noise=1)),
        (sk.BadInput, "D1 must be a 2 x 2 matrix", lambda: reverse(RECIPE, [[1]])),
        (sk.BadInput, "Recipe or a Process", lambda: reverse("psld")),
        (sk.BadInput, "time", lambda: reverse(RECIPE, time=x)),
        (sk.BadInput, "noise", lambda: reverse(RECIPE, noise="loud")),
        (sk.BadInput, "no value", lambda: reverse(RECIPE, sp.Symbol("g", positive=True) * sp.eye(2)).dynamics()),
        (sk.BadInput, "unknown parameter", lambda: reverse(RECIPE).dynamics(g=1.0)),
        (sk.BadInput, "numbers already", lambda: reverse(vp()).dynamics(g=1.0)),
        (sk.BadInput, "no numeric value", lambda: unspecified(x).dynamics()),
        (sk.BadInput, "first axis", lambda: reverse(RECIPE).dynamics().drift(np.zeros((1, 3)), 0.1, np.multiply)),
        (sk.BadInput, "score has shape", lambda: reverse(RECIPE).dynamics().drift(np.zeros((2, 3)), 0.1, lambda z, t: z[0])),
        (sk.BadInput, "must lie in", lambda: reverse(RECIPE).dynamics().noise(np.zeros((2, 3)), 1.5)),
    ],
)
def test_refused(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_score_symbols_avoid_the_users_names():
    s = sp.Symbol("s_x", positive=True)
    found = reverse(sk.Recipe((x,), s * x**2, [[1]], [[0]]))
    assert found.scores[0].name == "s_x_"
    assert found.proof.verdict is Verdict.PROVED
