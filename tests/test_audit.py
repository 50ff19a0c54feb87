"""Audits of samplers written here by hand, right ones and broken ones: faults where there are some, none where there are none."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from sdekit import analysis
from sdekit.analysis import Level
from sdekit.errors import BadInput

TOP, LOW = 5.0, 0.1
SPAN = (Level(1.0, TOP), Level(1.0, LOW))
STEPS = (8, 16, 32, 64, 128, 256)


def sigmas(n, fine=False):
    """Uniform in log level; with a fine start the first steps double from a small one."""
    h = math.log(TOP / LOW) / n
    depth = np.arange(n + 1) * h
    if fine:
        depth = np.concatenate([[0.0], h * 0.5 ** np.arange(math.ceil(math.log2(n)), 0, -1), depth[1:]])
    return TOP * np.exp(-depth)


def audit(sampler, **more):
    given = {"span": lambda n: SPAN, "exact_transfer": True, "name": "mine", "line": "again()", **more}
    return analysis.audit(sampler, **given)


def kinds(report):
    return {fault.kind for fault in report.faults}


def euler(y, model, n, draw, factor=1.0, ahead=0, extra=0, twice=False):
    levels = sigmas(n)
    for s, t in pairwise(levels):
        D = model(y, levels[min(np.flatnonzero(levels == s)[0] + ahead, n)])
        if twice:
            D = model(y, s)
        y = y + factor * (t - s) / s * (y - D)
    for _ in range(extra):
        model(y, levels[-1])
    return y


def heun(y, model, n, draw, weight=0.5):
    for s, t in pairwise(sigmas(n)):
        d = (y - model(y, s)) / s
        z = y + (t - s) * d
        y = y + (t - s) * ((1.0 - weight) * d + weight * (z - model(z, t)) / t)
    return y


def multistep(y, model, n, draw, order=2, second=2.0, sign=1.0, fine=False):
    """Data prediction in lambda: D, D' and D'' from the last answers; ``second`` multiplies the second divided difference."""
    levels = sigmas(n, fine)
    lams, past = -np.log(levels), []
    for i in range(len(levels) - 1):
        past = [model(y, levels[i]), *past][:order]
        h = lams[i + 1] - lams[i]
        E = math.exp(-h)
        add = (1.0 - E) * past[0]
        if len(past) > 1:
            first = (past[0] - past[1]) / (lams[i] - lams[i - 1])
            if len(past) > 2:
                bend = (first - (past[1] - past[2]) / (lams[i - 1] - lams[i - 2])) / (lams[i] - lams[i - 2])
                first = first + (lams[i] - lams[i - 1]) * bend
                add = add + second * (1.0 - h + h * h / 2.0 - E) * bend
            add = add + sign * (E - 1.0 + h) * first
        y = E * y + add
    return y


def ancestral(y, model, n, draw, loud=1.0):
    for s, t in pairwise(sigmas(n)):
        up = math.sqrt(t * t * (s * s - t * t) / (s * s))
        y = y + (math.sqrt(t * t - up * up) - s) / s * (y - model(y, s)) + loud * up * draw()
    return y


def sde_2m(y, model, n, draw, heun=False):
    """SDE-DPM-Solver++(2M), eta = 1."""
    levels, old = sigmas(n), None
    h = math.log(levels[0] / levels[1])
    for s, t in pairwise(levels):
        D = model(y, s)
        y = (t / s) * math.exp(-h) * y - math.expm1(-2 * h) * D + t * math.sqrt(-math.expm1(-2 * h)) * draw()
        if old is not None:
            y = y + ((math.expm1(-2 * h) / (2 * h) + 1.0) if heun else -0.5 * math.expm1(-2 * h)) * (D - old)
        old = D
    return y


def test_the_law_of_euler_is_its_product_of_factors():
    report = audit(euler, claimed=1, nfe=lambda n: n)
    assert not report.faults
    assert report.orders[0].verdict == "confirmed"
    for n, out in zip(STEPS, report.outcomes, strict=True):
        levels = sigmas(n)
        gain = np.prod((0.25 + levels[1:] * levels[:-1]) / (0.25 + levels[:-1] ** 2))
        assert (out.n, out.nfe) == (n, n)
        assert out.mean == pytest.approx(0.3, abs=1e-13)
        assert out.std == pytest.approx(gain * math.sqrt(0.25 + TOP**2), rel=1e-12)
        assert out.w2 == pytest.approx(abs(out.std - math.sqrt(0.25 + LOW**2)), rel=1e-9)
    variances = np.array([0.25, 0.04, 1.0, 4.0])
    levels = sigmas(256)
    gains = np.prod((variances + (levels[1:] * levels[:-1])[:, None]) / (variances + levels[:-1, None] ** 2), axis=0)
    exact = np.sqrt((variances + LOW**2) / (variances + TOP**2))
    errors = np.hypot(gains / exact - 1.0, 0.3 * (gains - exact) / np.sqrt(variances + LOW**2))  # of the gain and of the offset
    assert report.outcomes[-1].error == pytest.approx(np.max(errors), rel=1e-9)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (euler, 1),
        (heun, 2),
        (multistep, 2),
        (partial(multistep, order=3), 2),  # right weights, but the first step of order 1 costs an O(h^2) once
        (partial(multistep, order=3, fine=True), 3),  # the same weights show their own order from a finer start
        (partial(multistep, order=3, second=1.0, fine=True), 2),  # the second derivative is twice the second divided difference
        (ancestral, 1),
        (sde_2m, 2),
        (partial(sde_2m, heun=True), 2),
    ],
)
def test_right_samplers_have_their_order_and_no_fault(sampler, order):
    report = audit(sampler, claimed=order)
    assert not report.faults
    assert report.orders[0].verdict == "confirmed", report
    assert report.orders[0].order == pytest.approx(order, abs=0.1)
    assert report.orders[0].kind.startswith("weak" if sampler is ancestral or "sde" in str(sampler) else "ode")


@pytest.mark.parametrize(
    ("sampler", "claimed", "order"),
    [
        (euler, 2, 1),
        (partial(heun, weight=1.0), 2, 1),
        (partial(heun, weight=0.45), 2, 1),
        (partial(multistep, sign=-1.0), 2, 1),
        (partial(multistep, order=3, fine=True, second=1.0), 3, 2),
        (partial(multistep, order=3, fine=True, second=-2.0), 3, 2),
        (partial(ancestral, loud=1.05), 1, 0),
    ],
)
def test_broken_weights_are_refuted_at_their_true_order(sampler, claimed, order):
    report = audit(sampler, claimed=claimed, exact_transfer=False)
    assert "order" in kinds(report)
    assert report.orders[0].order == pytest.approx(order, abs=0.25)
    fault = next(f for f in report.faults if f.kind == "order")
    assert f"claimed {claimed}, measured" in fault.says
    assert fault.line == "again()"


# pndm.md 8.11: std error at 20 and 320 steps by the affine recursion of other code
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(ancestral, (-4.44e-2, -2.98e-3)), (sde_2m, (1.95e-3, 8.88e-6)), (partial(sde_2m, heun=True), (5.44e-3, 2.12e-5))],
)
def test_stochastic_laws_are_the_published_ones(sampler, expected):
    outcomes = audit(sampler, steps=(20, 320)).outcomes
    assert [out.std - math.sqrt(0.26) for out in outcomes] == pytest.approx(expected, rel=3e-3)
    assert all(out.mean == pytest.approx(0.3, abs=1e-12) for out in outcomes)


def er_sde(y, model, n, draw, rectangles=False):
    """ER-SDE of order 2; its released code integrates 1/phi by a hundred left rectangles."""
    x, w = np.polynomial.legendre.leggauss(12)
    levels, old = sigmas(n), None

    def phi(q):
        return q * (np.exp(q**0.3) + 10.0)

    for i, (s, t) in enumerate(pairwise(levels)):
        D, r = model(y, s), phi(t) / phi(s)
        nodes = t + (s - t) * (np.arange(100) / 100 if rectangles else 0.5 * (1.0 + x))
        integral = (s - t) * np.sum((np.full(100, 0.01) if rectangles else 0.5 * w) / phi(nodes))
        y = r * y + (1.0 - r) * D + math.sqrt(t * t - s * s * r * r) * draw()
        if old is not None:
            y = y + (t - s + phi(t) * integral) * (D - old) / (s - levels[i - 1])
        old = D
    return y


def test_a_rough_quadrature_is_seen_in_the_slopes():
    steps = (16, 32, 64, 128, 256, 512)
    right, rough = (audit(partial(er_sde, rectangles=flag), claimed=2, steps=steps).orders[0] for flag in (False, True))
    assert right.verdict == "confirmed"
    assert right.slopes == pytest.approx([2.04, 2.03, 2.02, 2.01, 2.00], abs=0.01)
    assert rough.slopes == pytest.approx([1.96, 1.88, 1.75, 1.54, 1.33], abs=0.01)
    assert rough.verdict == "unsettled"


def test_a_grid_that_goes_to_the_data():
    def karras(n):
        return np.append((80 ** (1 / 7) + np.linspace(0, 1, n) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0)

    def edm(y, model, n, draw):
        for s, t in pairwise(karras(n)):
            d = (y - model(y, s)) / s
            z = y + (t - s) * d
            y = z if t == 0.0 else y + (t - s) * 0.5 * (d + (z - model(z, t)) / t)
        return y

    given = {"span": lambda n: (Level(1.0, 80.0), Level(1.0, 0.0)), "nfe": lambda n: 2 * n - 1, "steps": (18, 36)}
    report = audit(edm, prior=lambda n: 80.0, **given)
    assert not report.faults
    # restart.md A2: output variances of EDM's sampler on N(0, 0.25); the mean does not matter to them
    assert [out.std**2 for out in report.outcomes] == pytest.approx([0.278388, 0.256134], abs=2e-6)
    assert [out.nfe for out in report.outcomes] == [35, 71]


@pytest.mark.parametrize(
    ("sampler", "kind", "says"),
    [
        (partial(euler, factor=1.01), "level", "in 8 steps call"),
        (partial(euler, ahead=1), "level", "8 such calls"),
        (partial(euler, extra=1), "wasted call", "number 9 does not reach the result; the last step moves nothing"),
        (partial(euler, twice=True), "wasted call", "number 1, 3, 5, 7, 9, 11, 13, 15 does"),
        (partial(ancestral, loud=1.05), "level", "in a state of level"),
        (lambda y, model, n, draw: np.clip(euler(y, model, n, draw), -0.5, 0.5), "not affine", "clipping"),
        (lambda y, model, n, draw: euler(y, model, n, draw) / (n - 16), "not finite", "after 16 steps"),
        (lambda y, model, n, draw: euler(y, model, n, draw) / (1 // (n < 16)), "raises", "ZeroDivisionError"),
    ],
)
def test_faults_are_named(sampler, kind, says):
    report = audit(sampler, steps=(8, 16))
    assert kind in kinds(report), report
    assert says in next(fault.says for fault in report.faults if fault.kind == kind)


def test_a_question_asked_twice():
    def sampler(y, model, n, draw):
        for s, t in pairwise(sigmas(n)):
            D = 0.5 * (model(y, s) + model(y, s))
            y = y + (t - s) / s * (y - D)
        return y

    report = audit(sampler, claimed=1, nfe=lambda n: n)
    assert kinds(report) == {"repeated call", "calls"}
    assert "calls 1 and 2 in 8 steps ask the same" in report.faults[0].says
    assert report.faults[1].says == "16 model calls in 8 steps, claimed 8"


def flow(y, model, n, draw, late=0, slow=1.0, rk=False):
    """Euler or midpoint in time on the probability flow of the linear variance preserving process, to t = 0.02: it transfers nothing exactly."""
    times = np.linspace(1.0, 0.02, n + 1)

    def rate(x, t, label):
        return -0.5 * (0.1 + 19.9 * t) * (x - model(x, label) / vp(t).s)

    for i, (t, u) in enumerate(pairwise(times)):
        k = rate(y, t, times[min(i + late, n)])
        if rk:
            k = rate(y + 0.5 * (u - t) * k, 0.5 * (t + u), 0.5 * (t + u))
        y = y + slow * (u - t) * k
    return y


def vp(t, _=0):
    B = 0.1 * t + 9.95 * t * t
    return Level(math.exp(-0.5 * B), math.sqrt(-math.expm1(-B)))


@pytest.mark.parametrize("rk", [False, True])
def test_classical_samplers_in_time_are_not_taken_for_faulty_grids(rk):
    given = {"levels": vp, "span": lambda n: (vp(1.0), vp(0.02)), "predicts": ("eps",), "exact_transfer": False}
    steps = (32, 64, 128, 256, 512)
    assert not audit(partial(flow, rk=rk), claimed=1 + rk, steps=steps, **given).faults
    for broken in ({"late": 1}, {"slow": 0.8}):  # asks at the next label, goes less far than its labels say
        assert kinds(audit(partial(flow, rk=rk, **broken), steps=steps, **given)) == {"level"}


def test_kinds_of_model_are_compared_and_the_odd_one_gets_its_own_order():
    def sampler(y, model, n, draw, right=True):
        levels, old = sigmas(n), None
        for s, t in pairwise(levels):
            answer = model(y, s)
            if model.kind == "v" and not right:  # the mix is done on v and converted afterwards
                answer, old = answer if old is None else 1.5 * answer - 0.5 * old, answer
                answer = answer + s * (y - s * answer) / (1 + s * s)
            else:
                # v = eps - s x0 and y = x0 + s eps
                answer = {"eps": answer, "x0": (y - answer) / s, "v": (answer + s * y) / (1 + s * s)}[model.kind]
                answer, old = answer if old is None else 1.5 * answer - 0.5 * old, answer
            y = y + (t - s) * answer
        return y

    predicts = ("eps", "x0", "v")
    report = audit(sampler, predicts=predicts, claimed=2)
    assert not report.faults
    assert len(report.orders) == 1
    report = audit(partial(sampler, right=False), predicts=predicts, claimed=2)
    assert "prediction kind" in kinds(report)
    assert [o.kind for o in report.orders] == ["ode, eps", "ode, v"]
    assert report.orders[0].verdict == "confirmed"
    assert report.orders[1].order < 1.5


def test_a_prior_that_does_not_fit_the_first_level():
    assert not audit(euler, prior=lambda n: TOP).faults
    assert not audit(euler, prior=lambda n: math.hypot(TOP, 1.0)).faults
    report = audit(euler, prior=lambda n: 1.0)
    assert kinds(report) == {"start"}
    out = audit(euler, prior=lambda n: TOP, steps=(8,)).outcomes[0]
    levels = sigmas(8)
    gain = np.prod((0.25 + levels[1:] * levels[:-1]) / (0.25 + levels[:-1] ** 2))
    assert (out.mean, out.std) == pytest.approx((0.3 * (1.0 - gain), gain * TOP), rel=1e-12)


def test_torch_samplers_are_black_boxes_too():
    torch = pytest.importorskip("torch")

    def sampler(start, model, n, draw, dtype):
        def here(array):
            return torch.from_numpy(array).to(dtype).reshape(len(start), 1, -1)

        def asked(x, sigma):
            return model(x, torch.full((len(x),), sigma, dtype=torch.float64))

        made = ancestral(here(start), asked, n, lambda: here(draw()))
        return made.reshape(start.shape)

    exact = audit(ancestral, steps=(8, 16, 32))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        report = audit(partial(sampler, dtype=dtype), steps=(8, 16, 32))
        assert not report.faults
        for ours, theirs in zip(exact.outcomes, report.outcomes, strict=True):
            assert theirs.std == pytest.approx(ours.std, rel=tolerance)


def test_the_report_in_print_and_in_a_notebook():
    report = audit(partial(euler, extra=1), claimed=2, name="a<b", line="x<y", steps=STEPS)
    text, page = str(report), report._repr_html_()
    assert text.startswith("a<b\n  a<b on normal data: ode, x0 order 0.997 in [0.990, 0.997], claimed 2: refuted; slopes 0.96")
    assert "fault, wasted call: of 9 calls in 8 steps the answer to number 9" in text
    assert "\n    x<y" in text
    assert "a&lt;b" in page
    assert "<code>x&lt;y</code>" in page
    assert "a<b" not in page
    data = report.as_dict()
    assert data["claimed"] == 2
    assert [row["nfe"] for row in data["outcomes"]] == [n + 1 for n in STEPS]
    both = analysis.Audits("mine", (report, audit(heun, claimed=2)))
    assert str(both).startswith("mine: 2 audits, 1 with faults\n\nsampler")
    assert [report.name for report in both.faulty] == ["a<b"]
    assert "No fault found" in audit(heun, claimed=2, steps=(8, 16))._repr_html_()


@pytest.mark.parametrize(
    ("sampler", "given", "says"),
    [
        (euler, {"predicts": ("score",)}, "unknown kind of model 'score'"),
        (euler, {"predicts": ()}, "unknown kind of model"),
        (euler, {"steps": (8, 0)}, "steps = 0"),
        (lambda y, model, n, draw: y[:1], {}, "must return the states"),
        (lambda y, model, n, draw: model(y[:1], 1.0), {}, "must hold the"),
        (lambda y, model, n, draw: [model(y, 1.0) for _ in iter(int, 1)], {}, "an audit needs fewer"),
    ],
)
def test_bad_input_is_refused(sampler, given, says):
    with pytest.raises(BadInput, match=says):
        audit(sampler, **given)
