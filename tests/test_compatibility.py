"""Released samplers call for call: published numbers, diffusers itself, the PNDM repository by its formulas, and what its indices cost."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sdekit import BadInput, analysis, compatibility, methods, plans, sample, tables
from sdekit.law import Gaussian, Mixture
from sdekit.solve import program, solve

TABLE = tables.linear()
ABAR = np.array(TABLE.abar)
GAUSS, MIXTURE = Gaussian(0.3, 0.25), Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16])
X = np.linspace(-2.0, 2.0, 5)


def run(plan, law, table=TABLE):
    """Result, and the labels that the model was asked at."""
    levels = []
    denoise = law.denoiser()

    def counting(y, sigma):
        levels.append(sigma)
        return denoise(y, sigma)

    prog = program(table.process, plan)
    made, _ = solve(prog, [X], counting)
    assert len(levels) == prog.nfe == plan.method.nfe(len(prog.times) - 1)
    return made[0], table.label(np.log1p(np.square(levels)))


# ---------------------------------------------------------------------------------------------------------------- published numbers


@pytest.mark.parametrize(
    ("law", "n", "skip", "calls", "expected"),
    [
        (MIXTURE, 10, False, 19, [-1.299088, -0.978328, 0.604515, 1.078066, 1.501912]),
        (MIXTURE, 20, False, 29, [-1.349270, -0.985202, 0.571225, 1.098627, 1.536144]),
        (MIXTURE, 50, False, 59, [-1.358830, -0.983160, 0.572451, 1.099045, 1.537130]),
        (MIXTURE, 10, True, 11, [-1.297883, -0.978493, 0.604436, 1.077435, 1.501450]),
        (MIXTURE, 20, True, 21, [-1.349253, -0.985189, 0.571224, 1.098614, 1.536122]),
        (GAUSS, 10, False, 19, [-0.684090, -0.193263, 0.297564, 0.788392, 1.279219]),
        (GAUSS, 20, False, 29, [-0.702814, -0.202188, 0.298438, 0.799065, 1.299691]),
    ],
)
def test_published_pndm(law, n, skip, calls, expected):
    made, labels = run(compatibility.diffusers_pndm(TABLE, n, skip_prk=skip), law)
    assert len(labels) == calls
    np.testing.assert_allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "spacing", "expected"),
    [
        (10, "leading", [-1.179523, -0.890434, 0.573407, 0.986102, 1.304246]),
        (20, "trailing", [-1.253162, -0.939828, 0.576991, 1.037520, 1.408700]),
        (10, "linspace", [-1.228440, -0.884694, 0.530539, 0.996434, 1.362187]),
    ],
)
def test_published_ddim(n, spacing, expected):
    made, labels = run(compatibility.diffusers_ddim(TABLE, n, spacing), MIXTURE)
    assert labels.tolist() == list(TABLE.labels(n, spacing))
    np.testing.assert_allclose(made, expected, atol=1e-6)
    whole = sample(TABLE.process, MIXTURE.denoiser(), method=methods.ddim(), grid=TABLE.grid(TABLE.labels(n, spacing), data=True),
                   start=(X[None], float(TABLE.time(TABLE.labels(n, spacing)[0])))).x  # fmt: skip
    repaired, _ = run(compatibility.diffusers_ddim(TABLE, n, spacing, stride="grid"), MIXTURE)
    np.testing.assert_allclose(repaired, whole, atol=1e-10)
    assert (np.max(np.abs(made - whole)) > 0.03) == (spacing == "linspace")


def test_labels_of_the_release():
    _, labels = run(compatibility.diffusers_pndm(TABLE, 50), GAUSS)
    assert labels[:14].tolist() == [980, 970, 970, 960, 960, 950, 950, 940, 940, 930, 930, 920, 920, 900]
    _, labels = run(compatibility.diffusers_pndm(TABLE, 50, skip_prk=True), GAUSS)
    assert labels[:4].tolist() == [980, 960, 960, 940]
    _, labels = run(compatibility.diffusers_pndm(TABLE, 40), GAUSS)  # stride 25: the state sits at 963, the call is at 962
    assert labels[:3].tolist() == [975, 962, 962]
    assert compatibility.diffusers_pndm(TABLE, 40).method.params[1][1][0][0].stages[0][1] == TABLE.abar[963]
    _, labels = run(compatibility.diffusers_pndm(TABLE, 40, stride="grid"), GAUSS)
    np.testing.assert_allclose(labels[:4], [975, 962.5, 962.5, 950], atol=1e-9)


def test_the_last_call_is_wasted():
    """With the defaults the last transfer goes from abar_0 to itself: without it the result is the same."""
    plan = compatibility.diffusers_pndm(TABLE, 10)
    (_, table), (_, steps) = plan.method.params
    made, labels = run(plan, GAUSS)
    short = plan.method.__class__("short", plan.method.table, (("table", table), ("steps", (*steps[:-1], steps[-1][:1]))))
    np.testing.assert_array_equal(solve(program(TABLE.process, plans.run(plan.grid, short)), [X], GAUSS.denoiser())[0][0], made)
    assert labels[-1] == 0


# ---------------------------------------------------------------------------------------------------------------- diffusers


@pytest.mark.images
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)])
def test_diffusers_itself(schedule, spacing, offset):
    """The installed schedulers with their tables in float64: same calls, same samples, for strides of every kind."""
    pytest.importorskip("diffusers")
    import torch
    from diffusers import DDIMScheduler, PNDMScheduler

    denoise = MIXTURE.denoiser()
    for n, kind in product((4, 7, 10, 27, 40), ("prk", "plms", "ddim")):
        one = n in (7, 40)
        options = {"beta_schedule": schedule, "set_alpha_to_one": one, "timestep_spacing": spacing, "steps_offset": offset}
        own = {"clip_sample": False} if kind == "ddim" else {"skip_prk_steps": kind == "plms"}
        scheduler = (DDIMScheduler if kind == "ddim" else PNDMScheduler)(**options, **own)
        abar = scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64) if one else abar[0]
        table = tables.Table(tuple(abar.tolist()))
        make = compatibility.diffusers_ddim if kind == "ddim" else compatibility.diffusers_pndm
        mine = {"skip_prk": kind == "plms"} if kind != "ddim" else {}
        made, labels = run(make(table, n, spacing=spacing, offset=offset, alpha_one=one, **mine), MIXTURE, table)
        scheduler.set_timesteps(n)
        assert labels.tolist() == scheduler.timesteps.tolist()
        x = torch.from_numpy(X)
        for t in scheduler.timesteps:
            A = float(abar[int(t)])
            data = denoise(x.numpy() / np.sqrt(A), np.sqrt((1 - A) / A))
            x = scheduler.step((x - np.sqrt(A) * torch.from_numpy(data)) / np.sqrt(1 - A), t, x).prev_sample
        np.testing.assert_allclose(made, x.numpy(), atol=1e-10)


# ---------------------------------------------------------------------------------------------------------------- the PNDM repository


def eps(x, label, mean=0.3, var=0.25):
    """The exact network at whole and half labels, sigma log-linear between."""
    low = int(label)
    sigma = np.sqrt((1 - ABAR) / ABAR)
    s = sigma[low] if label == low else np.sqrt(sigma[low] * sigma[low + 1])
    A = 1.0 / (1.0 + s * s)
    return np.sqrt(1 - A) * (x - mean * np.sqrt(A)) / (var * A + 1 - A)


def phi(x, e, A, B):
    return np.sqrt(B) * (x / np.sqrt(A) + (np.sqrt((1 - B) / B) - np.sqrt((1 - A) / A)) * e)


def repository(n, method, shift=0):
    """The released loop; with ``shift`` 1 the network is asked at the label of the state."""
    labels = list(range(0, 1000, 1000 // n))[::-1]
    x, past = X, []
    entry = lambda label: ABAR[int(label) + 1]  # noqa: E731
    ask = lambda state, label: eps(state, int(label) + 1 if shift else label)  # noqa: E731
    for i, (t, s) in enumerate(pairwise([*labels, -1])):
        m, A, B = 0.5 * (t + s), entry(t), entry(s)
        if method == "FON":
            change = lambda state, label, x=x, A=A, t=t: phi(x, ask(state, label), A, entry(t - 1)) - x  # noqa: E731
            e = change(x, t)
            past = [e, *past][:4]
            if i < 3:
                d2 = change(x + e * (t - s) / 2, m)
                d3 = change(x + d2 * (t - s) / 2, m)
                e = (e + 2 * d2 + 2 * d3 + change(x + d3 * (t - s), s)) / 6
            else:
                e = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
            x = x + e * (t - s)
            continue
        e = ask(x, t)
        past = [e, *past][:4]
        if method == "S-PNDM":
            e = (e + ask(phi(x, e, A, B), s)) / 2 if i == 0 else (3 * past[0] - past[1]) / 2
        elif method == "F-PNDM" and i < 3:
            e2 = ask(phi(x, e, A, entry(m)), m)
            e3 = ask(phi(x, e2, A, entry(m)), m)
            e = (e + 2 * e2 + 2 * e3 + ask(phi(x, e3, A, B), s)) / 6
        elif method == "F-PNDM":
            e = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        x = phi(x, e, A, B)
    return x, labels


@pytest.mark.parametrize("method", ["DDIM", "S-PNDM", "F-PNDM", "FON"])
@pytest.mark.parametrize("n", [8, 10, 20, 30, 40, 50])
def test_the_repository(method, n):
    made, asked = run(compatibility.pndm_repository(TABLE, n, method), GAUSS)
    expected, labels = repository(n, method)
    np.testing.assert_allclose(made, expected, atol=1e-12)
    calls = {"DDIM": 0, "S-PNDM": 1, "F-PNDM": 9, "FON": 9}[method]
    assert len(asked) == len(labels) + calls
    if calls == 9:
        assert asked[:4].tolist() == [labels[0], *[0.5 * (labels[0] + labels[1])] * 2, labels[1]]


def exact_gauss(x, start, end, mean=0.3, var=0.25):
    return mean * np.sqrt(end) + np.sqrt((var * end + 1 - end) / (var * start + 1 - start)) * (x - mean * np.sqrt(start))


@pytest.mark.parametrize(("n", "aligned", "released"), [(20, 3.3e-3, 7.2e-3), (50, 6.4e-4, 4.5e-3)])
def test_the_shift_of_one_index_costs_more_than_the_solver(n, aligned, released):
    """F-PNDM of the repository; the same with the network asked at the label of its state."""
    made, _ = run(compatibility.pndm_repository(TABLE, n), GAUSS)
    straight, labels = repository(n, "F-PNDM", shift=1)
    exact = exact_gauss(X, ABAR[labels[0] + 1], ABAR[0])
    assert np.max(np.abs(straight - exact)) == pytest.approx(aligned, rel=0.03)
    assert np.max(np.abs(made - exact)) == pytest.approx(released, rel=0.03)
    mine, _ = solve(program(TABLE.process, plans.run(TABLE.grid([*(t + 1 for t in labels), 0]), methods.f_pndm())), [X], GAUSS.denoiser())
    assert np.max(np.abs(mine[0] - exact)) == pytest.approx(aligned, rel=0.03)


def test_the_repository_fails_where_its_first_label_is_the_last():
    """T // n divides 999: not only 1000 steps, but 3, 9, 27, 37, 111 and their likes read one entry beyond the table."""
    for n in (1000, 3, 9, 27, 37, 111, 300, 333):
        with pytest.raises(BadInput, match="entry after the last"):
            compatibility.pndm_repository(TABLE, n, "DDIM")
    assert len(run(compatibility.pndm_repository(TABLE, 500, "DDIM"), GAUSS)[1]) == 500


# ---------------------------------------------------------------------------------------------------------------- the headline


def test_fifty_steps_of_pndm_beat_a_thousand_of_ddim():
    """Errors to the exact flow from label 999 to the data, whole published table; exact scores, so that nothing but the sampler errs."""
    denoise = MIXTURE.denoiser()
    start = np.sqrt((1 - ABAR[999]) / ABAR[999])
    exact = solve_ivp(
        lambda u, y: y - denoise(y, np.exp(u)), (np.log(start), -18.0), X / np.sqrt(ABAR[999]), method="DOP853", rtol=1e-12, atol=1e-13
    ).y[:, -1]

    def error(plan):
        return float(np.max(np.abs(run(plan, MIXTURE)[0] - exact)))

    ddim = {n: error(compatibility.diffusers_ddim(TABLE, n)) for n in (10, 20, 50, 100, 250, 1000)}
    pndm = {n: error(compatibility.diffusers_pndm(TABLE, n)) for n in (10, 20, 50, 100, 250)}
    plms = {n: error(compatibility.diffusers_pndm(TABLE, n, skip_prk=True)) for n in (10, 20, 50, 100, 250)}
    assert list(ddim.values()) == pytest.approx([2.3e-1, 1.2e-1, 5.2e-2, 2.7e-2, 1.1e-2, 2.9e-3], rel=0.04)
    assert list(pndm.values()) == pytest.approx([6.0e-2, 9.7e-3, 4.1e-4, 1.7e-4, 1.4e-4], rel=0.04)
    assert list(plms.values()) == pytest.approx([6.1e-2, 9.7e-3, 4.1e-4, 1.7e-4, 1.4e-4], rel=0.04)
    assert pndm[50] <= 5e-4
    assert ddim[1000] >= 2.5e-3
    assert pndm[20] < ddim[250]


# ---------------------------------------------------------------------------------------------------------------- as plans of the library


def test_compatible_plans_have_exact_laws():
    """They are rows like any other: the exact law of PLMS on Gaussian data is the law of its affine map."""
    plan = compatibility.diffusers_pndm(TABLE, 10, skip_prk=True)
    law = analysis.exact_law(TABLE.process, plan=plan, data=GAUSS, start="stationary")
    low, high = (run(plan, GAUSS)[0][i] for i in (1, 3))  # images of -1 and 1
    assert float(law.cov) == pytest.approx((0.5 * (high - low)) ** 2, rel=1e-9)
    assert float(law.mean) == pytest.approx(0.5 * (high + low), rel=1e-9)
    made = sample(TABLE.process, GAUSS.denoiser(), plan=plan, n=5, start="stationary")
    assert made.nfe.tolist() == [11] * 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: compatibility.pndm_repository(TABLE, 10, "PF"),
        lambda: compatibility.pndm_repository(TABLE, 0),
        lambda: compatibility.pndm_repository(tables.linear(8), 2, "F-PNDM"),
        lambda: compatibility.pndm_repository(TABLE, 1, "S-PNDM"),
        lambda: compatibility.diffusers_pndm(TABLE, 3),
        lambda: compatibility.diffusers_pndm(TABLE, 1, skip_prk=True),
        lambda: compatibility.diffusers_ddim(TABLE, 1, alpha_one=False),
        lambda: compatibility.diffusers_ddim(TABLE, 10, "quadratic"),
        lambda: compatibility.diffusers_ddim(TABLE, 10, stride="next"),
        lambda: compatibility.diffusers_ddim(TABLE, 1000, offset=1),
        lambda: sample(tables.cosine().process, GAUSS.denoiser(), plan=compatibility.diffusers_ddim(TABLE, 10), n=1),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
