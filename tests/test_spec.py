"""Spec files and the catalogue: the users' own format, with errors that name file, key, value and rule."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sympy as sp

import sdekit as sk
from sdekit.spec import load, loads

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
        ('name = "mine"', 'name = "My Process"', "name = 'My Process'"),
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
        ('kind = "linear"', 'kind = "lunar"', "clock.kind = 'lunar'"),
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
    [("beta_min = 8.0", "beta_min = -8.0", "beta_min"), ("T = 1.0", "T = 0", "T = "), ('m = "0.04*M"', 'm = "-0.04*M"', "not a covariance"),
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
    with pytest.raises(AttributeError, match="processes: cld, edm"):
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
