"""Vector blocks: matrices written block by block are those written out by hand, in Python and in files."""

import numpy as np
import pytest
import sympy as sp
from scipy.linalg import expm

import sdekit as sk
from sdekit.certificate import Verdict, certify
from sdekit.spec import loads
from sdekit.writing import dumps

x1, x2, p1, p2, xi = components = sp.symbols("x1 x2 p1 p2 xi", real=True)
X, P = sp.Matrix([x1, x2]), sp.Matrix([p1, p2])
A = sp.Symbol("A", positive=True)
Gamma = sp.Symbol("Gamma", nonnegative=True)
M, nu = sp.symbols("M nu", positive=True)
U = sp.Function("U")(x1, x2)
J = sp.Matrix([[0, -1], [1, 0]])


def energy(factor):
    return U + P.dot(P) / 2 + factor * (xi - A) ** 2


def thermostat(factor=1):
    D = [[0, 0, 0], [0, A, 0], [0, 0, 0]]
    return sk.Recipe((X, P, xi), energy(factor), D, [[0, -1, 0], [1, 0, P / 2], [0, -P.T / 2, 0]])


BY_HAND = sk.Recipe(
    components, energy(1), sp.diag(0, 0, A, A, 0),
    [[0, 0, -1, 0, 0], [0, 0, 0, -1, 0], [1, 0, 0, 0, p1 / 2], [0, 1, 0, 0, p2 / 2], [0, 0, -p1 / 2, -p2 / 2, 0]],
)  # fmt: skip


def test_the_thermostat_is_the_one_written_out():
    made = thermostat()
    assert (made.state, made.D, made.Q) == (BY_HAND.state, BY_HAND.D, BY_HAND.Q)
    assert [(block.name, block.size) for block in made.blocks] == [("x", 2), ("p", 2), ("xi", 1)]
    assert sp.expand(made.drift[4] - (P.dot(P) / 2 - 1)) == 0
    found = certify(made)
    assert {found.skew.verdict, found.psd.verdict, found.stationary.verdict} == {Verdict.PROVED}


@pytest.mark.parametrize(("factor", "verdict"), [(1, Verdict.PROVED), (sp.Rational(1, 4), Verdict.REFUTED)])
def test_its_drift_as_a_claim(factor, verdict):
    """Case 4 of the fact sheet: (d/2)(xi - A)^2 is right; 1/(2 d) leaves 3/4 (A - xi)(p.p - 2)."""
    pull = -sp.Matrix([U.diff(z) for z in X]) - xi * P
    recipe = sk.Recipe.from_drift((X, P, xi), [P, pull, P.dot(P) / 2 - 1], [[0, 0, 0], [0, A, 0], [0, 0, 0]], energy(factor))
    assert certify(recipe).stationary.verdict is verdict
    assert sp.expand(recipe.residual - (0 if factor == 1 else sp.Rational(3, 4) * (A - xi) * (P.dot(P) - 2))) == 0


def psld(d):
    x, m = (sp.Matrix(sp.symbols(f"{name}1:{d + 1}", real=True)) for name in "xm")
    return sk.Recipe(
        (x, m), x.dot(x) / 2 + m.dot(m) / (2 * M), sp.diag(Gamma, M * nu) / 2, J / 2, sk.clocks.linear(8.0, 8.0),
        initial={"m": M / 25}, parameters={"Gamma": 0.01, "M": 0.25, "nu": Gamma + 2 / sp.sqrt(M)},
    )  # fmt: skip


@pytest.mark.parametrize("d", [2, 3])
def test_psld_in_space_is_the_catalogues(d):
    recipe, process = psld(d), sk.catalogue.psld()
    assert recipe.process() == process
    assert recipe.process().blocks == ("x", "m")
    assert recipe.process(Gamma=0.3, nu=5.0, M=0.5, initial={"m": 0.1}) == process.recipe.process(Gamma=0.3, nu=5.0, M=0.5, initial={"m": 0.1})
    assert {claim.verdict for _, claim in certify(recipe.subs({Gamma: sp.Rational(1, 100)})).claims()} == {Verdict.PROVED}
    short = recipe.kernel().cov.subs({Gamma: 1, M: 2, nu: 3, recipe.kernel().clock: sp.Rational(1, 3)}).evalf(30)
    flat = process.recipe.kernel().cov.subs({s: {"Gamma": 1, "M": 2, "nu": 3}[s.name] for s in process.recipe.symbols})
    np.testing.assert_allclose(np.array(short.tolist(), float), np.array(flat.subs(recipe.kernel().clock, 1 / sp.S(3)).evalf(30).tolist(), float))


def test_what_couples_components_keeps_its_whole_kernel_and_is_no_process():
    """x in the plane with a correlated law: the kernel of all four components, against the matrix exponential."""
    inverse = sp.Matrix([[2, 1], [1, 2]])
    H = (X.T * inverse * X)[0] / 2 + P.dot(P) / 2
    recipe = sk.Recipe((X, P), H, [[1, 0], [0, 2]], sp.zeros(2), initial={P.as_immutable(): 1, "x1": sp.Rational(1, 2)})
    assert dict(recipe.initial) == {p1: 1, p2: 1, x1: sp.Rational(1, 2)}
    with pytest.raises(sk.BadInput, match="treats the components of x, p differently"):
        recipe.process()
    F = -np.diag([1.0, 1.0, 2.0, 2.0]) @ np.block([[np.array(inverse.tolist(), float), np.zeros((2, 2))], [np.zeros((2, 2)), np.eye(2)]])
    kernel = recipe.kernel()
    np.testing.assert_allclose(np.array(kernel.mean.subs(kernel.clock, 0.3).tolist(), float), expm(0.3 * F), atol=1e-14)
    assert kernel.proof.verdict is Verdict.PROVED
    uneven = sk.Recipe((X, xi), X.dot(X) / 2 + xi**2 / 2, sp.eye(2), sp.zeros(2))
    with pytest.raises(sk.BadInput, match="treats the components of x differently"):
        uneven.process()


def test_starts_must_be_alike_too():
    with pytest.raises(sk.BadInput, match="differently"):
        psld(2).process(initial={"m1": 0.01})


def test_simulation_of_a_vector_block_starts_from_a_law_of_its_shape():
    """Moments of the start: the law of x, the variances that the recipe says of p."""
    recipe = sk.Recipe((X, P), X.dot(X) / 2 + P.dot(P) / 2, [[0, 0], [0, 1]], J, initial={"p": 0.3})
    law = sk.law.Gaussian([1.0, -2.0], np.diag([0.1, 0.4]))
    run = sk.simulate(recipe, start=law, times=[0.0, 1e-9], n=20_000)
    np.testing.assert_allclose(run.z.mean(1), [1.0, -2.0, 0.0, 0.0], atol=0.03)
    np.testing.assert_allclose(np.cov(run.z), np.diag([0.1, 0.4, 0.3, 0.3]), atol=0.02)
    with pytest.raises(sk.BadInput, match=r"give a law of shape \(2,\)"):
        sk.simulate(recipe, start=sk.law.Gaussian(0.0, 1.0), times=[0.0, 1.0], n=3)


TEXT = """name = "thermostat"
state = ["x[2]", "p[2]", "xi"]

[parameters]
A = 1.0

[recipe]
H = "x1**4/4 + x2**2/2 + (p1**2 + p2**2)/2 + (xi - A)**2"
D = [["0", "0", "0"], ["0", "A", "0"], ["0", "0", "0"]]
Q = [["0", "-1", "0"], ["1", "0", ["p1/2", "p2/2"]], ["0", ["-p1/2", "-p2/2"], "0"]]
"""


def test_in_a_file():
    recipe = loads(TEXT)
    made = thermostat()
    assert (recipe.state, recipe.blocks, recipe.D, recipe.Q) == (made.state, made.blocks, made.D, made.Q)
    assert sp.expand(recipe.H - made.H.subs(U, x1**4 / 4 + x2**2 / 2)) == 0
    text = dumps(recipe)
    assert 'state = ["x[2]", "p[2]", "xi"]' in text
    assert '["0", ["-p1/2", "-p2/2"], "0"]' in text
    assert loads(text) == recipe
    drift = 'drift = [["p1", "p2"], ["-x1**3 - xi*p1", "-x2 - xi*p2"], "(p1**2 + p2**2)/2 - 1"]'
    claim = loads(TEXT.replace(TEXT.split("\n")[9], drift))
    assert claim.residual == 0
    assert loads(dumps(claim)) == claim
    assert loads(dumps(psld(3))) == psld(3)
    assert loads(dumps(psld(3))).process() == sk.catalogue.psld()
    full = loads(TEXT.replace('["0", "A", "0"]', '["0", [["2", "1"], ["1", "2"]], "0"]'))
    assert sp.diag(0, 0, sp.Matrix([[2, 1], [1, 2]]), 0) == full.D
    assert loads(dumps(full)) == full
    start = loads(TEXT + '[initial]\np = "A/5"\nx2 = 0.5\n')
    assert {z.name: str(value) for z, value in start.initial} == {"p1": "A/5", "p2": "A/5", "x2": "1/2"}
    assert loads(dumps(start)) == start


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("x[2]", "x[1]", 'line 2: "x[1]" must be a name, or name[d] for a vector of 2 to 8'),
        ("x[2]", "x[9]", "2 to 8"),
        ("x[2]", "x[2", "2 to 8"),
        ("x[2]", "x[2]]", "2 to 8"),
        ("x[2]", "x[6]", "at most 8 components"),
        ("x[2]", "exp[2]", "cannot be a symbol"),
        ('"xi"]', '"x1"]', "names of blocks and their components must all differ"),
        ('"xi"]', '"x"]', "names of blocks and their components must all differ"),
        ("A = 1.0", "A = 1.0\nx = 2", "names of blocks and parameters must all differ"),
        ("A = 1.0", "A = 1.0\nx2 = 2", "names of blocks and parameters must all differ"),
        ("x1**4", "x**4", "line 8: recipe.H = \"x**4/4 + x2**2/2 + (p1**2 + p2**2)/2 + (xi - A)**2\": unknown name 'x'"),
        ('["p1/2", "p2/2"]', '["p1/2"]', "line 10: recipe.Q[1,2] must be a scalar or a 2 x 1 matrix, the sizes of p and xi"),
        ('["p1/2", "p2/2"]', '"p1"', "line 10: recipe.Q[1,2] = p1 must be 0 or a 2 x 1 matrix"),
        ('["0", "A", "0"]', '["0", ["A", "A"], "0"]', "line 9: recipe.D[1,1] must be a scalar or a 2 x 2 matrix"),
        ('["0", "A", "0"], ', "", "line 9: recipe.D must be a 3 x 3 matrix of blocks, or a 5 x 5 one of the components"),
        ('["0", "A", "0"]', '["0", "A*y", "0"]', "line 9: recipe.D[1][1] = \"A*y\": unknown name 'y'"),
        ('["0", "A", "0"]', '["0", [["A*y", "0"], ["0", "0"]], "0"]', "line 9: recipe.D[1][1][0][0] = \"A*y\": unknown name 'y'"),
        ('["0", "A", "0"]', '["0", [[["A"]]], "0"]', "line 9: recipe.D"),
    ],
)
def test_errors_in_files_point_at_the_line(old, new, says):
    assert old in TEXT
    with pytest.raises(sk.BadInput) as caught:
        loads(TEXT.replace(old, new, 1), "my.toml")
    text = str(caught.value)
    assert text.startswith("my.toml")
    assert says in text
    assert "\n" not in text


def test_other_errors_in_files():
    with pytest.raises(sk.BadInput, match=r"unknown block 'q'; did you mean|unknown block 'q'; known: p, x, xi"):
        loads(TEXT + "[initial]\nq = 1\n")
    with pytest.raises(sk.BadInput, match=r"recipe\.drift of p has 1 entries; p has 2"):
        loads(TEXT.replace(TEXT.split("\n")[9], 'drift = [["p1", "p2"], ["-x1"], "0"]'))
    with pytest.raises(sk.BadInput, match="give its name without a number"):
        loads('name = "p"\nstate = ["x[2]"]\n[process]\nF = [["-1"]]\nG = [["1"]]\n')


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sk.Recipe((X, x1), x1**2, sp.eye(2), sp.zeros(2)), "different sympy symbols, or columns of them"),
        (lambda: sk.Recipe((X.T,), x1**2, [[1]], [[0]]), "columns of them"),
        (lambda: sk.Recipe((X, sp.Symbol("x")), x1**2, sp.eye(2), sp.zeros(2)), "two blocks or components are called 'x'"),
        (lambda: sk.Recipe((X, xi), x1**2, [[1, 2], [0, 1]], sp.zeros(2)), "D[0,1] = 2 must be 0 or a 2 x 1 matrix"),
        (lambda: sk.Recipe((X, xi), x1**2, [[1, X.T], [0, 1]], sp.zeros(2)), "D[0,1] must be a scalar or a 2 x 1 matrix"),
        (lambda: sk.Recipe((X, P), x1**2, sp.eye(3), sp.zeros(2)), "2 x 2 matrix of blocks, or a 4 x 4 one"),
        (lambda: sk.Recipe.from_drift((X, P), [X, P, P], sp.eye(2), x1**2), "drift has 3 entries; the state has 4 in 2 blocks"),
        (lambda: sk.Recipe.from_drift((X, P), [X, xi], sp.eye(2), x1**2), "drift of p has 1 entries; p has 2"),
        (lambda: dumps(sk.Recipe((sp.Matrix([x1, p1]),), x1**2, [[1]], [[0]])), "must be called x1, x2, ... after one name"),
        (lambda: sk.Recipe((X,), x1**2, [[1]], [[0]], initial={"x3": 1}), "unknown block 'x3'"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(sk.BadInput) as caught:
        make()
    assert says in str(caught.value)
