"""Spec files and the catalogue: the users' own format, with errors that name file, key, value and rule."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import sdekit as sk
from sdekit.expression import parse, write
from sdekit.spec import load, loads
from sdekit.writing import dumps, save

PSLD = """
name = "mine"
paper = "arXiv:2303.01748"
state = ["x", "m"]
[parameters]
Gamma = {value = 0.01, assume = "nonnegative"}
nu = 4.01
M = 0.25
[recipe]
H = "x**2/2 + m**2/(2*M)"
D = [["Gamma/2", "0"], ["0", "M*nu/2"]]
Q = [["0", "-1/2"], ["1/2", "0"]]
[clock]
kind = "linear"
beta_min = 8.0
beta_max = 8.0
T = 1.0
[initial]
m = "0.04*M"
"""


def test_the_designs_example_is_psld():
    recipe = loads(PSLD)
    assert recipe.name == "mine"
    process = recipe.process()
    assert process == sk.catalogue.psld()  # nu = Gamma + 2/sqrt(M) there
    assert process.kernel(0.1).sigma_eff == pytest.approx(0.4205733970240, rel=1e-12)
    assert sk.certify(recipe).stationary.verdict == "PROVED"
    by_name = {s.name: s for s in recipe.symbols}
    assert by_name["Gamma"].is_nonnegative
    assert not by_name["Gamma"].is_positive
    assert by_name["nu"].is_positive


def test_load_reads_a_file(tmp_path):
    (tmp_path / "my.toml").write_text(PSLD)
    assert load(tmp_path / "my.toml").process() == sk.catalogue.psld()
    assert sk.load(str(tmp_path / "my.toml")).paper == "arXiv:2303.01748"


def test_a_drift_is_a_claim_to_be_checked():
    text = PSLD.replace('Q = [["0", "-1/2"], ["1/2", "0"]]', 'drift = ["m/(2*M) - Gamma*x/2", "-x/2 - nu*m/2"]')
    assert loads(text).process() == sk.catalogue.psld()
    wrong = loads(text.replace('"-x/2 - nu*m/2"', '"-x/2 - 2*nu*m/2"'))
    assert sk.certify(wrong).stationary.verdict == "REFUTED"
    with pytest.raises(sk.Refuted, match="stationary"):
        wrong.process()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "mine"', "", "key 'name' is missing"),
        ('name = "mine"', 'nam = "mine"', "unknown key 'nam'; did you mean 'name'"),
        ('name = "mine"', 'name = "My Process"', 'name = "My Process"'),
        ('state = ["x", "m"]', 'state = ["x", "x"]', "must all differ"),
        ('state = ["x", "m"]', 'state = ["x", "__class__"]', "cannot be a symbol"),
        ('state = ["x", "m"]', 'state = ["x", "exp"]', "cannot be a symbol"),
        ('state = ["x", "m"]', "state = []", "state"),
        ("nu = 4.01", "M2 = 4.01", "unknown name 'nu'"),
        ("nu = 4.01", 'nu = {value = 4.01, assume = "big"}', "parameters.nu"),
        ("nu = 4.01", "nu = true", "parameters.nu"),
        ("nu = 4.01", 'nu = "open(1)"', "parameters.nu"),
        ("[recipe]", '[recipe]\nR = "x"', "unknown key 'recipe.R'"),
        ('H = "x**2/2 + m**2/(2*M)"', 'H = "x**2/2 + m**2/(2*M"', "is not a formula"),
        ('H = "x**2/2 + m**2/(2*M)"', "H = [1]", "recipe.H"),
        ('["0", "M*nu/2"]]', '["0"]]', "2 x 2 matrix"),
        ('["1/2", "0"]]', '["1/2", "0"]]\ndrift = ["x", "m"]', "either Q or drift"),
        ('kind = "linear"', 'kind = "lunar"', 'clock.kind = "lunar"'),
        ('kind = "linear"', 'kind = "linear"\nspeed = 3', "speed"),
        ("beta_min = 8.0", 'beta_min = "x"', "unknown name 'x'"),
        ('m = "0.04*M"', 'p = "0.04*M"', "unknown block 'p'"),
        ("[clock]", "[clock", "is not TOML"),
    ],
)
def test_malformed_specs_say_what_is_wrong_in_one_line(old, new, says):
    assert old in PSLD
    with pytest.raises(sk.BadInput) as caught:
        loads(PSLD.replace(old, new), "my.toml")
    text = str(caught.value)
    assert says in text
    assert text.startswith("my.toml")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("beta_min = 8.0", "beta_min = -8.0", "beta_min"), ("T = 1.0", "T = 0", "T = "), ('m = "0.04*M"', 'm = "-0.04*M"', "must be a variance"),
     ("nu = 4.01", "nu = -4.01", "must be positive")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_the_process(old, new, says):
    with pytest.raises(sk.BadInput, match=says):
        loads(PSLD.replace(old, new)).process()


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"name = \xff\xfe")
    (tmp_path / "large.toml").write_text("#" * 200_000)
    for name, says in (("binary.toml", "UTF-8"), ("large.toml", "bytes"), ("none.toml", "cannot read"), (".", "cannot read")):
        with pytest.raises(sk.BadInput, match=says):
            load(tmp_path / name)


def test_no_code_runs_in_a_hostile_spec(tmp_path):
    target = tmp_path / "touched"
    for attack in (f"__import__('pathlib').Path({str(target)!r}).touch()", "().__class__.__mro__[1].__subclasses__()", "exec('1')", "x.__class__"):
        for key in ("H", "nu", "m"):
            old = {"H": 'H = "x**2/2 + m**2/(2*M)"', "nu": "nu = 4.01", "m": 'm = "0.04*M"'}[key]
            with pytest.raises(sk.BadInput):
                loads(PSLD.replace(old, f'{key} = "{attack}"'))
    assert not target.exists()


def test_catalogue_kernels_against_the_papers_formulas():
    t = np.array([1e-5, 1e-3, 0.1, 0.5, 1.0])
    vp = sk.catalogue.vp().kernel(t)
    B = 0.1 * t + 9.95 * t**2
    assert np.allclose(vp.psi[:, 0], np.exp(-B / 2), rtol=1e-14, atol=0)
    assert np.allclose(vp.cov[:, 0, 0], -np.expm1(-B), rtol=1e-14, atol=0)
    assert vp.psi[-1, 0] == pytest.approx(0.006571586495, rel=1e-9)
    assert vp.cov[-1, 0, 0] == pytest.approx(0.999956814251, rel=1e-11)
    ve = sk.catalogue.ve(sigma_max=348.0)
    assert np.allclose(ve.sigma_eff(t), 0.01 * (348.0 / 0.01) ** t, rtol=1e-13, atol=0)
    edm = sk.catalogue.edm()
    assert edm.T == 80.0
    assert np.allclose(edm.sigma_eff([0.002, 1.0, 80.0]), [0.002, 1.0, 80.0], rtol=1e-15, atol=0)
    assert np.allclose(sk.catalogue.cld().kernel(t).cov, sk.catalogue.psld(Gamma=0.0).kernel(t).cov, rtol=1e-14, atol=0)


def test_catalogue_defaults_are_the_papers():
    psld = sk.catalogue.psld(Gamma=0.25)
    assert psld.F[1, 1] == -0.5 * 4.25  # nu = Gamma + 4
    assert psld.F[0, 1] == 2.0  # 1 / M = 4
    assert psld.S0[1, 1] == 0.01  # 0.04 M
    assert psld.clock.integral(1.0) == 8.0
    assert psld.recipe is sk.catalogue.recipe("psld")
    off_critical = sk.catalogue.psld(nu=6.0)
    assert off_critical.F[1, 1] == -3.0


def test_unknown_processes_and_parameters_suggest_the_nearest():
    with pytest.raises(sk.BadInput, match="did you mean 'psld'"):
        sk.catalogue.recipe("plsd")
    with pytest.raises(sk.BadInput, match="did you mean 'Gamma'"):
        sk.catalogue.psld(gamma=0.1)
    with pytest.raises(AttributeError, match=r"processes: .*cld, .*edm"):
        _ = sk.catalogue.pslld


def test_numbers_in_specs_are_exact():
    recipe = loads(PSLD)
    values = dict(recipe.parameters)
    assert values["nu"] == sp.Rational(401, 100)
    assert dict(recipe.initial)[recipe.state[1]] == sp.Rational(1, 25) * next(s for s in recipe.symbols if s.name == "M")


def test_sympy_is_not_asked_to_parse_text():
    """The words that evaluate text appear nowhere in the rooms that read files."""
    code = textwrap.dedent("""
        import sympy.physics.units  # sympy's own tables parse their own constants
        import sympy.parsing.sympy_parser as p
        def refuse(*a, **k): raise SystemExit("parsed text")
        p.parse_expr = p.eval_expr = refuse
        import sdekit as sk
        sk.certify(sk.catalogue.recipe("vp")); sk.catalogue.psld()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Gamma/2", "Gama/2", "my.toml, line 11: recipe.D[0][0] = \"Gama/2\": unknown name 'Gama'; did you mean 'Gamma'?"),
        ("M*nu/2", "M*nu/", "my.toml, line 11: recipe.D[1][1] = \"M*nu/\" is not a formula"),
        ('[["Gamma/2", "0"], ["0", "M*nu/2"]]', '[\n ["Gamma/2", "0"], # ] "\n ["0", "M*mu/2"]\n]', "my.toml, line 13: recipe.D[1][1]"),
        ("nu = 4.01", "nu = true", "my.toml, line 7: parameters.nu = True: must be a number, a formula"),
        ("0.01, assume", "1.0.1, assume", "at line 6"),
        ("Gamma = {value", "Gamma = {vlaue", "my.toml, line 6: unknown key 'parameters.Gamma.vlaue'; did you mean 'parameters.Gamma.value'?"),
        ('kind = "linear"', 'kind = "linear"\nbeta = 1', "my.toml, line 15: unknown key 'clock.beta'"),
        ("beta_max = 8.0\n", "", "my.toml, line 13: key 'clock.beta_max' is missing"),
        ('kind = "linear"\nbeta_min = 8.0\nbeta_max = 8.0', 'kind = "expression"\nrate = "1 - 2*t"', "my.toml, line 15: clock.rate = 1 - 2*t is -"),
        ('m = "0.04*M"', 'p = "0.04*M"', "my.toml, line 19: unknown block 'p'"),
        ('["x", "m"]', '["x", "__m"]', "my.toml, line 4: \"__m\" cannot be a symbol"),
        ('name = "mine"', 'name = "mine"\nname = "mine"', "at line 3"),
        ('paper = "arXiv:2303.01748"', 'paper = \'\'\'\n[recipe]\nH = 1\'\'\'', "OK"),
        ('paper = "arXiv:2303.01748"', 'paper = """\nH = 1"""\npapers = 1', "my.toml: unknown key 'papers'"),  # unsure: no line
        ("nu = 4.01", "'nu' = 'Q'", "my.toml, line 5: parameters.nu = \"Q\""),  # a key in quotes: the table's line
    ],
)  # fmt: skip
def test_errors_point_at_the_line(old, new, says):
    assert old in PSLD
    text = PSLD.replace(old, new, 1)
    if says == "OK":
        assert loads(text, "my.toml").paper.endswith("H = 1")
        return
    with pytest.raises(sk.BadInput) as caught:
        loads(text, "my.toml")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", sk.catalogue.names())
def test_the_catalogue_comes_back_from_text(name, tmp_path):
    recipe = sk.catalogue.recipe(name)
    assert loads(dumps(recipe)) == recipe
    assert dumps(loads(dumps(recipe))) == dumps(recipe)
    save(recipe, tmp_path / "my.toml")
    assert load(tmp_path / "my.toml") == recipe
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,9}", fullmatch=True).filter(
    lambda n: n not in {"pi", "t", "B", "exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh"}
)


def exact(value):
    return sp.Rational(repr(value)) if isinstance(value, float) else sp.Rational(value.numerator, value.denominator)


NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9),
    st.fractions(-(10**9), 10**9, max_denominator=10**6),
    st.floats(1e-90, 1e90),
    st.floats(0.001, 100),
).map(exact)


@st.composite
def formulas(draw, symbols, depth=2):
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(NUMBERS, *([st.sampled_from(symbols)] if symbols else []), st.just(sp.pi)))
    a, b = (draw(formulas(symbols, depth - 1)) for _ in range(2))
    made = draw(
        st.sampled_from(
            [
                a + b,
                a - b,
                a * b,
                a * (b + 1) * 3 / 7,
                a**2,
                1 / (a**2 + 1),
                sp.sqrt(a**2 + 1),
                (1 + b**2) ** sp.Rational(-2, 3),
                sp.exp(-a / 10**9),
                sp.sin(a),
                sp.tanh(b),
            ]
        )
    )
    big = [n for n in made.atoms(sp.Rational) if max(len(str(n.p)), len(str(n.q))) > 58]
    return a if made.has(sp.zoo, sp.nan, sp.oo, sp.I) or big else made


@st.composite
def recipes(draw):
    n = draw(st.integers(1, 3))
    words = draw(st.lists(NAMES, min_size=n, max_size=n + 4, unique=True))
    state = tuple(sp.Symbol(w, real=True) for w in words[:n])
    parameters = [sp.Symbol(w, **{draw(st.sampled_from(["positive", "nonnegative", "real"])): True}) for w in words[n:]]
    everything, t = [*state, *parameters], sp.Symbol("t")
    matrix = lambda: [[draw(formulas(everything)) for _ in range(n)] for _ in range(n)]  # noqa: E731
    clock = draw(st.sampled_from([
        None, sk.clocks.linear(0.1, 20), sk.clocks.exponential(1e-3, 1 / 3, 2.5), sk.clocks.cosine(),
        sk.clocks.expression(8 * (1 + t) ** 2 + 0.3 * sp.exp(t), t, 0.7),
        *([sk.clocks.Linear(parameters[0] / 3, sp.Rational(1, 3), 2),
        sk.clocks.expression(parameters[0] * t + 1, t, parameters[0])] if parameters else []),
    ]))  # fmt: skip
    more = {
        "initial": {z: draw(formulas(parameters)) for z in draw(st.sets(st.sampled_from(state)))},
        "parameters": {p: draw(formulas([q for q in parameters if q != p])) for p in parameters if draw(st.booleans())},
        "name": draw(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)),
        "paper": draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=60)),
    }  # fmt: skip
    if draw(st.booleans()):
        return sk.Recipe(state, draw(formulas(everything)), matrix(), matrix(), clock, **more)
    return sk.Recipe.from_drift(state, [draw(formulas(everything)) for _ in range(n)], matrix(), draw(formulas(everything)), clock, **more)


@given(recipes())
def test_recipes_come_back_from_text(recipe):
    try:
        text = dumps(recipe)
    except sk.BadInput as error:
        assert any(rule in str(error) for rule in ("digits", "1e100", "terms", "degree", "deep", "too long", "exactly")), error  # noqa: PT017
        return
    made = loads(text)
    assert made == recipe or dumps(made) == text
    assert made.name == recipe.name
    assert made.paper == recipe.paper
    assert made.parameters == recipe.parameters or dumps(made) == text
    assert made.clock == recipe.clock
    assert {s.name: s.assumptions0 for s in made.symbols} == {s.name: s.assumptions0 for s in recipe.symbols}


class OwnClock(sk.clocks.Linear):
    pass


x_, a_ = sp.Symbol("x", real=True), sp.Symbol("a", positive=True)


@pytest.mark.parametrize(
    ("H", "more", "says"),
    [
        (sp.Function("U")(x_), {}, "U(x)"), (sp.Abs(x_), {}, "Abs(x)"), (sp.erf(x_), {}, "erf(x)"), (x_**a_, {}, "exponent"), (x_**33, {},
        "exponent"),
        (sp.Derivative(sp.Function("U")(x_), x_), {}, "cannot be written"), (x_**2 / 3 ** sp.Rational(1, 7), {}, "exponent"), (x_**2 * sp.I, {},
        "cannot be written"),
        (x_**2 + sp.Symbol("b"), {}, "parameter b must be"), (x_**2 + sp.Symbol("b", integer=True), {}, "parameter b must be"),
        (x_**2 * a_ + sp.Symbol("a", real=True), {}, "parameter a must be"), (x_**2 + sp.Symbol("pi", positive=True), {}, "cannot be a symbol"),
        (x_**2 * sp.Symbol("my mass", positive=True), {}, "may not be called"), (x_**2 * sp.Symbol("exp", positive=True), {}, "cannot be a symbol"),
        (x_**2, {"name": "My Recipe"}, "name"), (x_**2, {"name": "a\nb"}, "name"), (x_**2, {"paper": "p" * 201}, "paper"), (x_**2,
        {"paper": "\ud800"}, "not text"),
        (sp.Rational(1, 3**200) * x_**2, {}, "too long"), (sp.Add(*(x_**i * a_**j for i in range(1, 20) for j in range(20))), {}, "characters"),
        (x_**2, {"clock": OwnClock(1.0, 2.0)}, "none of those in sdekit.clocks"),
    ],
    ids=range(21),
)  # fmt: skip
def test_what_the_format_cannot_hold(H, more, says, tmp_path):
    recipe = sk.Recipe((x_,), H, [[1]], [[0]], **more)
    for act in (dumps, lambda r: save(r, tmp_path / "my.toml")):
        with pytest.raises(sk.BadInput) as caught:
            act(recipe)
        assert says in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_blocks_must_be_real():
    y = sp.Symbol("y")
    with pytest.raises(sk.BadInput, match="real=True"):
        dumps(sk.Recipe((y,), y**2, [[1]], [[0]]))
    with pytest.raises(sk.BadInput, match="must be a Recipe"):
        dumps(3)


def test_a_parameter_may_wait_for_its_value():
    recipe = sk.Recipe((x_,), a_ * x_**2 / 2, [[1]], [[0]])
    assert loads(dumps(recipe)) == recipe
    with pytest.raises(sk.BadInput, match="no value"):
        loads(dumps(recipe)).process()
    assert loads(dumps(recipe)).process(a=2.0) == recipe.process(a=2.0)


def test_an_expression_clock_in_a_file():
    old = 'kind = "linear"\nbeta_min = 8.0\nbeta_max = 8.0'
    recipe = loads(PSLD.replace(old, 'kind = "expression"\nrate = "8*(1+t)**2"'))
    assert float(recipe.process().clock.integral(1.0)) == pytest.approx(56 / 3, rel=1e-14)
    assert {s.name for s in recipe.symbols} == {"Gamma", "nu", "M"}
    assert loads(dumps(recipe)) == recipe
    with pytest.raises(sk.BadInput, match="unknown name 'x'"):
        loads(PSLD.replace(old, 'kind = "expression"\nrate = "1 + x"'))


def test_formulas_that_sympy_reorders_keep_their_value():
    b = sp.Symbol("b", positive=True)
    names = {"a": a_, "b": b}
    for value in (
        sp.Mul(2, a_ + b, evaluate=False),
        (a_ + b) / 3 / (a_ - b) ** 2,
        -a_ / (2 * b * sp.sqrt(a_)),
        2 ** sp.Rational(1, 3) * sp.exp(1),
        sp.Rational(-3, 7) * a_,
    ):
        assert sp.expand(parse(write(value, names), names) - value) == 0
    assert write(a_**2 / (2 * b), names) == "a**2/(2*b)"
    assert write(sp.Rational(1, 25) * a_, names) == "a/25"
