"""Controllers as pure functions, the error as a number, and the published constants."""

from dataclasses import replace

import numpy as np
import pytest

from sdekit import BadInput, catalogue, control, grids, methods
from sdekit.control import Controller
from sdekit.law import Gaussian
from sdekit.reverse import Reverse
from sdekit.sampling import sample
from sdekit.slots import schedule
from sdekit.tableau import Step

YES, NO = np.array([True]), np.array([False])


def factor(controller, errors, ratios=(), accepted=YES):
    depth = controller.depth
    pad = [*errors, *[np.nan] * depth][:depth]
    steps = [*ratios, *[1.0] * depth][:depth]
    return controller.factor(np.array(pad)[:, None], np.array(steps)[:, None], accepted)[0]


def test_published_law():
    """theta E^-r, whether or not the step is accepted; the set-point is where it is 1."""
    made = control.power(0.9, 0.9)
    for error in (0.05, 0.7, 1.0, 3.0):
        for accepted in (YES, NO):
            assert factor(made, [error], accepted=accepted) == pytest.approx(0.9 * error**-0.9, rel=1e-14)
    assert factor(made, [made.target]) == pytest.approx(1.0, rel=1e-14)
    assert made.target == pytest.approx(0.8895254, abs=1e-7)
    assert factor(made, [0.0]) > 1e200  # no clamp
    assert factor(control.power(most=5.0), [0.0]) == 5.0


def test_filters_by_hand():
    """PI, PID and a filter with the last ratio of steps; after a rejection the present error alone counts."""
    target, k = 0.8, 1.5
    pi, pid, h211b = (control.filtered(k, target, kind, 1e-9, 1e9) for kind in ("pi", "pid", "h211b"))
    a, b, c = (target / e for e in (0.3, 0.5, 0.6))
    assert factor(pi, [0.3, 0.5]) == pytest.approx(a ** (0.7 / k) * b ** (-0.4 / k), rel=1e-13)
    assert factor(pi, [0.3]) == pytest.approx(a ** (0.7 / k), rel=1e-13)
    assert factor(pi, [3.0, 0.5], accepted=NO) == pytest.approx((target / 3.0) ** (0.3 / k), rel=1e-13)
    assert factor(pid, [0.3, 0.5, 0.6]) == pytest.approx((a * b**-0.5 * c**0.1) ** (1.0 / 1.7 / k), rel=1e-13)
    assert factor(h211b, [0.3, 0.5], [2.0]) == pytest.approx((a * b) ** (0.25 / k) * 2.0**-0.25, rel=1e-13)
    assert factor(control.filtered(k, target, "i"), [target * 2.0**-k]) == pytest.approx(2.0, rel=1e-13)  # deadbeat
    assert factor(control.filtered(k, target, "i"), [1e9]) == 0.2


def measured(**changes):
    made = replace(control.gotta_go_fast(0.1, 0.5), **changes)
    error, new, old = np.array([[0.3, -2.0, 0.1]]), np.array([[-10.0, 1.0, 0.0]]), np.array([[2.0, -30.0, 1.0]])
    return made.measure([error], [new], [old], [np.array([[1.0, -2.0, 2.0]])])[0]


def test_error_by_hand():
    """delta = max(0.5, 0.1 max(|x'|, |x'_prev|)) = (1, 3, 0.5), or (1, 0.5, 0.5) without what was before."""
    ratio = np.array([0.3, 2.0 / 3.0, 0.2])
    assert measured() == pytest.approx(np.sqrt(np.mean(ratio**2)), rel=1e-14)
    assert measured(norm="l2") == pytest.approx(np.linalg.norm(ratio), rel=1e-14)
    whole = np.array([0.3, 2.0, 0.1]) / (0.1 * np.sqrt(905.0 / 3.0))  # the larger of the root mean squares of (-10, 1, 0) and (2, -30, 1)
    assert measured(scale="sample") == pytest.approx(np.sqrt(np.mean(whole**2)), rel=1e-14)
    assert measured(scale="sample", previous=False) == pytest.approx(np.sqrt(np.mean((whole * np.sqrt(905.0 / 101.0)) ** 2)), rel=1e-14)
    assert measured(norm="max") == pytest.approx(2.0 / 3.0, rel=1e-14)
    assert measured(norm="max", previous=False) == pytest.approx(4.0, rel=1e-14)
    along = (0.3 + 4.0 + 0.2) / 9.0  # component of the error along the normals
    rest = (np.array([0.3, -2.0, 0.1]) - along * np.array([1.0, -2.0, 2.0])) / [1.0, 3.0, 0.5]
    assert measured(estimate="residual") == pytest.approx(np.sqrt(np.mean(rest**2)), rel=1e-13)


def test_one_published_step():
    """VP at t = 0.5, h = 0.01, x = 0.3, z = 0.7, score -x: all digits of the fact sheet, the next step included."""
    process = catalogue.vp()
    made = control.gotta_go_fast(0.05, 0.0078, published=True)
    rows = made.method.rows(Step(Reverse(process, 1.0).leg([0.5, 0.49]), 0))
    registers = [0.3, 0.7]
    for ask in rows.asks:
        y = ask.argument[0, : len(registers)] @ registers
        registers.append(y / (1.0 + ask.level**2))  # data N(0, 1): the score is -x
    new, other = rows.out[0] @ registers, rows.embedded[0] @ registers
    assert other == pytest.approx(0.5068371, abs=5e-8)
    assert 2.0 * new - other == pytest.approx(0.4947399, abs=5e-8)
    assert new == pytest.approx(0.5007885, abs=5e-8)
    error = made.measure([np.array([[new - other]])], [np.array([[other]])], [np.array([[0.3]])], [])
    assert 0.05 * other == pytest.approx(0.02534186, abs=5e-9)
    assert error[0] == pytest.approx(0.2386820, abs=5e-8)
    assert 0.01 * factor(made.controller, error) == pytest.approx(0.03267419, abs=5e-9)


class Known:
    """The prior is drawn as usual; the normals of the path are 0.7."""

    def draw(self, addresses, ids, shape, like=None):
        return np.full((len(addresses), len(ids), *shape), 0.7)


def test_the_same_step_in_a_run():
    """A budget of one attempt and the call to the data leaves the state after that attempt."""
    made = replace(control.gotta_go_fast(0.05, 0.0078, published=True), nfe=3)
    start = (np.array([[[0.3]]]), 0.5)
    run = sample(catalogue.vp(), Gaussian([0.0], [[1.0]]).denoiser(), control=made, start=start, seed=Known())
    assert run.status == ("budget",)
    assert run.x[0, 0] == pytest.approx(0.5007885, abs=5e-8)
    assert run.adapted.t[0] == pytest.approx(0.49, abs=1e-15)
    assert run.nfe.tolist() == [2]
    plain = sample(catalogue.vp(), Gaussian([0.0], [[1.0]]).denoiser(), control=replace(made, extrapolate=False), start=start, seed=Known())
    assert plain.x[0, 0] == pytest.approx(0.5068371, abs=5e-8)


def test_published_settings():
    made = control.gotta_go_fast(published=True)
    assert (made.method, made.rtol, made.atol) == (methods.heun(1.0), 0.02, 1.0 / 128.0)
    assert (made.noise, made.reuse, made.denoise, made.h_init, made.norm) == ("redraw", False, "published", 0.01, "rms")
    assert made.extrapolate
    assert made.previous
    assert made.controller == control.power(0.9, 0.9)
    assert control.gotta_go_fast().noise == "path"


@pytest.mark.parametrize(("batch", "known"), [(64, 1.20), (512, 1.28)])
def test_lock_step_costs_the_slowest(batch, known):
    """20,000 samples (as many as fill batches) that need 2 round(90 LogNormal(mean 1, CV 0.08)) calls, eight times: full batches against refilled."""
    spread, ratios = np.sqrt(np.log1p(0.08**2)), []
    for seed in range(8):
        normals = np.random.default_rng(seed).standard_normal(20_000 // batch * batch)
        nfe = 2 * np.round(90.0 * np.exp(spread * normals - 0.5 * spread**2)).astype(int)
        static, refilled = schedule(nfe, batch, refill=False), schedule(nfe, batch)
        assert np.sum(static) == np.sum(refilled) == np.sum(nfe)
        assert np.max(refilled) == batch
        ratios.append([batch * len(static) / np.sum(nfe), batch * len(refilled) / np.sum(nfe)])
    assert np.mean(ratios, axis=0) == pytest.approx([known, 1.0 + 0.4 * batch / 20_000], abs=0.01)


def test_schedule_by_hand():
    assert schedule(np.array([3, 1, 2]), 2).tolist() == [2, 2, 2]
    assert schedule(np.array([3, 1, 2]), 2, refill=False).tolist() == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: control.gotta_go_fast(rtol=-1.0), "rtol"),
        (lambda: control.gotta_go_fast(atol=0.0), "atol"),
        (lambda: control.adaptive("heun"), "method"),
        (lambda: control.adaptive(methods.dpmpp_sde()), "which functionals of a Brownian path"),
        (lambda: control.adaptive(methods.heun(), norm="l3"), "norm"),
        (lambda: control.adaptive(methods.heun(), noise="bridge"), "noise"),
        (lambda: control.adaptive(methods.heun(), nfe=0), "nfe"),
        (lambda: control.adaptive(methods.heun(), seconds=0.0), "seconds"),
        (lambda: control.filtered(kind="p"), "kind"),
        (lambda: control.power(theta=1.1), "target"),
        (lambda: Controller((), 0.5), "gains"),
        (lambda: Controller((1.0,), 0.5, least=1.0), "least"),
        (lambda: sample(catalogue.vp(), lambda y, s: y, control=control.adaptive(methods.euler()), n=1, shape=(1,)), "embedded"),
        (lambda: sample(catalogue.vp(), lambda y, s: y, control="fast", n=1, shape=(1,)), "control"),
        (lambda: sample(catalogue.vp(), lambda y, s: y, control=control.gotta_go_fast(), n=1, shape=(1,), save="all"), "save"),
        (lambda: sample(catalogue.vp(), lambda y, s: y, control=control.gotta_go_fast(), method=methods.heun(), n=1, shape=(1,)), "method"),
        (
            lambda: sample(
                catalogue.vp(), lambda y, s: y, control=control.gotta_go_fast(), n=1, start=(np.zeros((1, 1, 1)), 0.1), grid=grids.times([1.0, 0.2])
            ),
            "grid",
        ),
    ],
)
def test_bad_input(make, word):
    with pytest.raises(BadInput, match=word):
        make()


def algorithm_one(x, rtol, atol, *, extrapolate=True, previous=True, norm="rms", lamba=False):
    """The paper's Algorithm 1 on VP from t = 1 to 0.001, data N(0, 0.25), every normal 0.7: written out; returns the state and the attempts."""

    def parts(t):
        B = 0.1 * t + 9.95 * t * t
        beta = 0.1 + 19.9 * t
        variance = 0.25 * np.exp(-B) - np.expm1(-B)
        return lambda x: -0.5 * beta * x + beta * x / variance, np.sqrt(beta)

    t, h, z, last, attempts = 1.0, 0.01, 0.7, x, 0
    while t - 1e-3 > 1e-9:
        attempts += 1
        (drift, g), (later, g_later) = parts(t), parts(t - h)
        step = x - h * drift(x)
        euler = step + (0.0 if lamba else np.sqrt(h) * g * z)
        second = x - h * later(euler) + (0.0 if lamba else np.sqrt(h) * g_later * z)
        better = 0.5 * (euler + second)
        other = euler if extrapolate else better
        delta = np.maximum(atol, rtol * np.maximum(np.abs(other), np.abs(last) if previous else 0.0))
        E = np.max(np.abs((euler - better) / delta)) if norm == "max" else np.sqrt(np.mean(((euler - better) / delta) ** 2))
        if E <= 1.0:
            x = (better if extrapolate else euler) + (np.sqrt(h) * g * z if lamba else 0.0)
            t, last = t - h, other
        h = min(max(t - 1e-3, 1e-12), 0.9 * h * E**-0.9)
    return x, attempts


@pytest.mark.parametrize(
    "options", [{}, {"extrapolate": False}, {"previous": False}, {"norm": "max"}, {"lamba": True}, {"lamba": True, "extrapolate": False}], ids=str
)
def test_algorithm_one_written_out(options):
    """A whole run, rejections included: the same attempts, and the state at the end up to the rounding that they amplify."""
    x = np.array([0.3, -1.2, 2.0])
    lamba = options.get("lamba", False)
    made = control.gotta_go_fast(0.05, 0.0078, published=True, lamba_pair=lamba)
    made = replace(made, **{key: value for key, value in options.items() if key != "lamba"})

    def denoise(y, sigma):
        return 0.25 / (0.25 + np.reshape(sigma, (-1, 1)) ** 2) * y

    run = sample(catalogue.vp(), denoise, control=made, start=(x[None, None], 1.0), grid=grids.times([1.0, 1e-3]), seed=Known())
    known, attempts = algorithm_one(x, 0.05, 0.0078, **options)
    assert run.adapted.accepted[0] + run.adapted.rejected[0] == attempts
    np.testing.assert_allclose(run.x[0], known, rtol=1e-6)
