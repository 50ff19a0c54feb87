"""Adaptive steps of exponential methods with noise, which is exact over each stage: the same steps again without control, laws, and counts."""

import numpy as np
import pytest

import sdekit as sk
from sdekit import analysis, catalogue, control, grids, methods, pieces
from sdekit.law import Mixture

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
SDE = {
    "2S": methods.dpm_solver(2, of="data", noise=1.0),
    "3S": methods.dpm_solver(3, of="data", noise=1.0),
    "half": methods.dpm_solver(2, of="data", r=0.3, noise=0.5),
    "seeds": methods.seeds(2),
    "seeds3": methods.seeds(3),
}


class Seen:
    """Normals that the accepted steps of each sample saw."""

    def __init__(self, monkeypatch):
        self.of, made, settle = {}, pieces.Pieces.made, pieces.Pieces.settle

        def keep(path):
            path.last = made(path)
            return path.last

        def note(path, accepted):
            for j in np.flatnonzero(accepted):
                self.of.setdefault(int(path.ids[j]), []).append([block[j] for block in path.last])
            settle(path, accepted)

        monkeypatch.setattr(pieces.Pieces, "made", keep)
        monkeypatch.setattr(pieces.Pieces, "settle", note)


class Given:
    """Hands them out again, to a method step by step."""

    def __init__(self, steps):
        self.steps = steps

    def draw(self, addresses, ids, shape, like=None):
        return np.array([self.steps[a.step][a.slot] for a in addresses]).reshape(len(addresses), 1, *shape)


@pytest.mark.parametrize(("made", "name"), [*(("vp", name) for name in SDE), ("psld", "2S"), ("psld", "3S"), ("third_order", "half")])
def test_accepted_steps_are_those_of_the_method(made, name, monkeypatch):
    process, seen = getattr(catalogue, made)(), Seen(monkeypatch)
    z = np.random.default_rng(0).standard_normal((process.k, 3, 2))
    made = control.adaptive(SDE[name], 0.1, 0.02)
    run = sk.sample(process, LAW.denoiser(), control=made, grid=grids.times([0.8, 0.05]), start=(z, 0.8), batch=2)
    assert set(run.status) == {"ok"}
    assert np.sum(run.adapted.rejected) > 2
    for i, times in enumerate(run.adapted.times):
        assert len(seen.of[i]) == len(times) - 1
        how = {"method": SDE[name], "grid": grids.times(times), "start": (z[:, [i]], times[0]), "seed": Given(seen.of[i])}
        again = sk.sample(process, LAW.denoiser(), **how)
        np.testing.assert_allclose(again.state[:, 0], run.state[:, i], rtol=1e-9, atol=1e-11)


def test_law():
    """PSLD, normal data of 64 elements: the covariance of the state at the end, which is the kernel's with the data's, within 4 standard errors."""
    process, variance, n, d = catalogue.psld(), 0.25, 32, 64

    def denoise(y, sigma):
        return variance / (variance + np.reshape(sigma, (-1, 1)) ** 2) * y

    run = sk.sample(process, denoise, control=control.adaptive(SDE["2S"], 0.05, 0.0078), grid=grids.times([1.0, 0.01]), n=n, shape=(d,), seed=1)
    kernel = process.kernel(0.01)
    chol = np.linalg.cholesky(kernel.cov + variance * np.outer(kernel.psi, kernel.psi))
    white = np.linalg.solve(chol, run.state.reshape(2, -1))
    found = white @ white.T / (n * d)
    assert run.adapted.rejected.sum() > 20
    assert np.max(np.abs(found - np.eye(2)) / [[np.sqrt(2.0), 1.0], [1.0, np.sqrt(2.0)]]) < 4.0 / np.sqrt(n * d)


@pytest.mark.parametrize("method", [SDE["2S"], methods.dpm_solver(2), methods.exponential_rk(2)], ids=str)
def test_samples_do_not_depend_on_slots(method):
    """Bit for bit, though steps side by side have panels of their own in number."""

    def drawn(**how):
        made = control.adaptive(method, 0.2, 0.05, refill=how.pop("refill", True))
        return sk.sample(catalogue.psld(), LAW.denoiser(), control=made, grid=grids.times([1.0, 0.05, 0.0]), seed=3, **how)

    reference = drawn(n=6, batch=6)
    for how in ({"n": 6, "batch": 4}, {"ids": [5, 2]}, {"n": 6, "batch": 3, "refill": False}):
        run = drawn(**how)
        np.testing.assert_array_equal(run.state, reference.state[:, run.ids])
        np.testing.assert_array_equal(run.nfe, reference.nfe[run.ids])


def test_what_has_no_path_is_refused():
    with pytest.raises(sk.BadInput, match="which functionals of a Brownian path"):
        control.adaptive(methods.exponential(2, noise=1.0))
    with pytest.raises(sk.BadInput, match="no embedded result"):
        sk.sample(catalogue.vp(), LAW.denoiser(), control=control.adaptive(methods.dpm_solver(1, of="data", noise=1.0)), n=2)


def test_calls_at_equal_w2():
    """PSLD, 256 elements: the exact W2 of the pairs on grids that their steps took; improved Euler needs half as many calls again."""
    process, law, one = catalogue.psld(), sk.law.Gaussian(np.zeros(256), 0.25), sk.law.Gaussian(np.zeros(1), 0.25)
    calls, w2 = [], []
    for method, rtol in ((SDE["2S"], 0.02), (methods.heun(1.0), 0.1)):
        run = sk.sample(process, law.denoiser(), control=control.adaptive(method, rtol, 1.0 / 128.0), n=2, seed=1)
        assert set(run.status) == {"ok"}
        calls.append(np.mean(run.nfe))
        w2.append(float(analysis.exact_law(process, data=one, method=method, grid=grids.times([*run.adapted.times[0], 0.0])).w2))
    assert calls[0] < 0.7 * calls[1]
    assert w2[0] < 1.1 * w2[1]
