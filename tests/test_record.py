"""Records: exact both ways through JSON text, and one line for anything else."""

import json
import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from processes import ALL, names, stable_processes

import sdekit as sk
from sdekit import BadInput, catalogue, clocks, grids, methods, plans
from sdekit.law import Gaussian
from sdekit.plans import Jump, Run
from sdekit.record import _GRIDS, FORMAT, from_record, to_record

KARRAS = grids.karras(7, 0.003, 60.0, 6.5)
METHODS = [
    methods.euler(), methods.euler_maruyama(), methods.euler(0.3), methods.heun(), methods.heun(1.0), methods.ddim(), methods.exponential(2),
    methods.exponential(3, of="eps"), methods.exponential(1, noise=1.0), methods.exponential(2, "eps", 0.5), methods.exponential_rk(2),
    *(make() for make in methods.SHIPPED.values()),
]  # fmt: skip
GRIDS = [
    KARRAS, grids.karras(5, zero=False), grids.logsnr(9), grids.logsnr(4, 0.01, 3.0, True), grids.uniform(6), grids.uniform(6, 0.05),
    grids.quadratic(6),
    grids.polyexponential(5, 0.01, 40.0, 2.0), grids.arctan(6, scale=0.5), grids.beta(7, 0.01, 14.0, 0.5, 0.7), grids.vp(5), grids.vp(5, zero=False),
    grids.bent(6), grids.bent(6, [0.3, -0.1], zero=False), grids.cosine(4, 0.1), grids.ays(), grids.ays(7, "sdxl", False),
    grids.quadratic(5, 0.1), grids.times([0.9, 0.3, 1 / 3 - 0.1]), grids.sigmas([3.0, 0.7, 0.1, 0.0]),
]  # fmt: skip
PLANS = [
    plans.run(KARRAS),
    plans.ancestral(plans.run(KARRAS, methods.exponential(1)), 0.7),
    plans.churn(plans.run(KARRAS, methods.heun()), 4.0, 0.05, 50.0, 1.003),
    plans.churn(plans.run(KARRAS, methods.heun()), 4.0),
    plans.correct(plans.run(KARRAS, methods.reverse_diffusion()), 0.17, 2),
    plans.run(grids.karras(5, zero=False)).then(plans.denoise()),
    plans.restart(KARRAS, [(3, 2, 0.06, 0.3), (3, 1, 1.0, 2.0)], method=methods.heun(), S_noise=1.01, churn=0.1),
    plans.restart(KARRAS, [(3, 2, 0.06, 0.3)], snap="nearest"),
    plans.churn(plans.restart(KARRAS, [(4, 1, 0.06, 0.3)]), 3.0),
    plans.ancestral(plans.dpm_fast(7)),
]


def through(x):
    return from_record(json.loads(json.dumps(to_record(x), allow_nan=False)))


WRITTEN = [*METHODS, *GRIDS, *PLANS, Run(methods.heun(), (0.9, 0.5, 0.1), 3, 4), Jump(0.1, 0.7, 1.5, 2, 1)]


@pytest.mark.parametrize("x", WRITTEN, ids=range(len(WRITTEN)))
def test_equal_after_json(x):
    assert through(x) == x
    assert to_record(through(x)) == to_record(x)


@pytest.mark.parametrize("make", ALL, ids=names)
def test_processes_are_equal_after_json(make):
    process = make()
    made = through(process)
    assert made == process
    assert (made.name, made.blocks, made.recipe) == (process.name, process.blocks, None)


@given(stable_processes())
def test_random_processes_keep_every_bit(process):
    assert through(process).key == process.key


@pytest.mark.parametrize("name", ["cld", "edm", "psld", "ve", "vp"])
def test_a_process_keeps_its_recipe(name):
    process = catalogue.recipe(name).process()
    made = through(process)
    assert made == process
    assert made.recipe == process.recipe
    assert made.recipe.process() == process


def test_a_process_of_a_formula_clock():
    t = sp.Symbol("t")
    process = sk.Process([[-0.5]], [[1.0]], T=0.7, clock=clocks.expression(8 * (1 + t) ** 2 + sp.exp(-t) * 0.1, t, 0.9), blocks=["q"], name="formula")
    assert through(process) == process
    np.testing.assert_array_equal(through(process).sigma_eff([1e-7, 0.3]), process.sigma_eff([1e-7, 0.3]))


def test_a_recipe_that_text_cannot_hold_is_left_out():
    x = sp.Symbol("x")  # not real
    process = sk.Recipe((x,), x**2 / 2, [[sp.Rational(1, 2)]], [[0]]).process()
    assert to_record(process)["recipe"] is None
    assert through(process) == process


@pytest.mark.parametrize("plan", PLANS[:3] + PLANS[5:7], ids=range(5))
def test_samples_are_bitwise_equal(plan):
    process, law = catalogue.psld(), Gaussian([0.3, -0.2], [0.25, 0.04])
    first = sk.sample(process, law.denoiser(), plan=plan, n=3, seed=4)
    second = sk.sample(through(process), law.denoiser(), plan=through(plan), n=3, seed=4)
    np.testing.assert_array_equal(first.state, second.state)


def test_every_constructor_is_known():
    constructors = set(methods.__all__) - {"Method", "Orders", "SHIPPED"}
    assert {make().origin[0] for make in methods.SHIPPED.values()} == constructors
    assert set(_GRIDS) | {"Grid"} == set(grids.__all__)


class Mine:
    start, end, nfe, noises = 1.0, 0.5, 0, 0

    def times(self, process):
        return np.array([1.0, 0.1])

    def apply(self, state, model, normals):
        return state


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (methods.Method("mine", lambda step: step.rows(step.z)), "user's own"),
        (methods.Method("heun", methods.euler().table), "user's own"),
        (Mine(), "cannot be written"),
        (plans.run(Mine()), "cannot be written"),
        (plans.run(KARRAS).then(lambda moves, process: moves), "user's own"),
        (3, "cannot be written"),
        (None, "cannot be written"),
    ],
    ids=range(7),
)  # fmt: skip
def test_the_users_own_code_is_refused(x, says):
    with pytest.raises(BadInput, match=says):
        to_record(x)


def test_the_users_own_clock_is_refused():
    class Clock(clocks.Linear):
        pass

    with pytest.raises(BadInput, match="none of those"):
        to_record(sk.Process([[-0.5]], [[1.0]], clock=Clock(1.0, 2.0, 1.0)))


BASE = [to_record(catalogue.psld()), to_record(PLANS[5]), to_record(PLANS[2]), to_record(methods.exponential(3)), to_record(KARRAS)]
BAD = [
    None,
    True,
    "x",
    "__import__('os')",
    -1,
    0,
    10**400,
    1e308,
    2.5,
    [],
    [1],
    [[1, 2], [3]],
    {},
    {"kind": "plan"},
    {"kind": []},
    "1",
    math.inf,
    math.nan,
]


def paths(value, at=()):
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from paths(inner, (*at, key))


def changed(value, path, change):
    copy = json.loads(json.dumps(value))
    if not path:
        return change(copy)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return copy


@given(st.data())
def test_a_changed_record_is_read_or_refused_in_one_line(data):
    base = data.draw(st.sampled_from(BASE))
    path = data.draw(st.sampled_from(list(paths(base))))
    record = changed(base, path, lambda _: data.draw(st.sampled_from(BAD)))
    try:
        from_record(record)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize("base", BASE, ids=range(5))
def test_every_missing_and_every_extra_key_is_named(base):
    for path in paths(base):
        if path and isinstance(path[-1], str):

            def without(inner, key=path[-1]):
                return {k: v for k, v in inner.items() if k != key}

            with pytest.raises(BadInput):
                from_record(changed(base, path[:-1], without))
            with pytest.raises(BadInput, match=r"surplus|format"):
                from_record(changed(base, path[:-1], lambda inner: {**inner, "surplus": 1}))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ([], "format 'list'"),
        ({}, "format None"),
        ({"format": "sdekit.samples/1"}, "this version reads"),
        ({"format": FORMAT}, "kind = None"),
        ({"format": FORMAT, "kind": "os.system"}, "kind = 'os.system'"),
        ({"format": FORMAT, "kind": "method", "name": "Method"}, "unknown key|name: unknown"),
        ({"format": FORMAT, "kind": "method", "name": "heum", "noise": 0.0}, "did you mean|known"),
        ({"format": FORMAT, "kind": "method", "name": "exponential", "order": 7, "of_": "data"}, "unknown key 'of_'"),
        ({"format": FORMAT, "kind": "method", "name": "heun", "noise": "1"}, "must be a number"),
        ({"format": FORMAT, "kind": "grid", "name": "karras", "n": 10**9, "sigma_min": 0.1, "sigma_max": 1.0, "rho": 7.0, "zero": True}, "more than"),
        ({"format": FORMAT, "kind": "grid", "name": "times", "values": [0.1, 0.2]}, "decrease"),
        ({"format": FORMAT, "kind": "clock", "name": "expression", "rate": "open('x')", "T": 1.0}, "unknown function 'open'"),
    ],
    ids=range(12),
)  # fmt: skip
def test_untrusted_records(record, says):
    with pytest.raises(BadInput, match=says) as caught:
        from_record(record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "control",
    [sk.control.gotta_go_fast(), sk.control.gotta_go_fast(0.05, published=True), sk.control.adaptive(sk.methods.heun(), rtol=1e-3)],
    ids=["default", "published", "heun"],
)
def test_controls_and_plans_with_them(control):
    """Infinities too, which JSON does not have; a plan keeps its control."""
    plan = sk.plans.restart(sk.grids.karras(6), [(3, 2, 0.1, 0.5)], method=control)
    for thing in (control, plan):
        assert from_record(json.loads(json.dumps(to_record(thing), allow_nan=False))) == thing
    record = to_record(control)
    with pytest.raises(BadInput, match="norm"):
        from_record({**record, "norm": "largest"})
    with pytest.raises(BadInput, match=r"controller\.target"):
        from_record({**record, "controller": {**record["controller"], "target": "1"}})
