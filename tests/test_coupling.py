"""Coupled chains: they meet as often as total variation allows, stay together, and bound the truth where it is known."""

import numpy as np
import pytest
from processes import cld, edm, vp
from scipy.special import ndtr
from scipy.stats import kstest

from sdekit import BadInput, analysis, methods
from sdekit.analysis.coupling import _Cycle
from sdekit.law import Gaussian, Mixture

G = Gaussian([0.0], 0.25)
INTERVAL = (4, 0.06, 1.0)


def shifted(gap, n=4000):
    """Starts at t_min from the exact law, and moved by ``gap``."""
    x = np.random.default_rng(0).normal(size=(1, n, 1)) * np.sqrt(0.25 + 0.06**2)
    return x + gap, x


@pytest.mark.parametrize("gap", [0.2, 0.8])
def test_first_meeting_is_maximal(gap):
    """Two normal laws at distance |gap|: no coupling meets more often than 1 - TV = 2 Q(|gap| / 2 s)."""
    made = analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, *shifted(gap), cycles=1, n=4000)
    best = 2.0 * ndtr(-0.5 * gap / np.sqrt(1.0 - 0.06**2))
    assert np.mean(made.times == 1) == pytest.approx(best, abs=4.0 * np.sqrt(best * (1.0 - best) / 4000))


@pytest.mark.parametrize("apart", [0.0, 0.5, 4.0])
def test_each_chain_keeps_its_law(apart):
    """Coupled or not, the other chain's noise is standard normal."""
    cycle = _Cycle(edm(), G.denoiser(), methods.heun(), INTERVAL, 1.0, apart, 3)
    rng = np.random.default_rng(1)
    gap = np.full((1, 20_000, 2), 0.4)
    xi = rng.standard_normal(gap.shape)
    eta, met = cycle._coupled(gap, xi, rng.standard_normal(20_000))
    for part in (eta[0, :, 0], eta[0, :, 1], (eta[0, :, 0] + eta[0, :, 1]) / np.sqrt(2.0)):
        assert kstest(part, "norm").pvalue > 1e-3
    np.testing.assert_allclose((xi + gap)[:, met], eta[:, met])
    assert np.mean(met) == pytest.approx(2.0 * ndtr(-0.2 * np.sqrt(2.0)) if apart > 0.6 else 0.0, abs=0.015)


@pytest.mark.parametrize("gap", [0.5, 1.5])
def test_bound_on_a_normal_law(gap):
    """The truth: means gap a^K apart, one variance v_K; TV = 2 Phi(gap a^K / 2 sqrt(v_K)) - 1.  The bound is above, and soon near zero."""
    made = analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, *shifted(gap), cycles=12, n=4000)
    cycle = analysis.contraction.cycle(edm(), methods.heun(), INTERVAL, G)
    gain, noise = float(cycle.rates[0]), float(np.sum(cycle.map.noise**2))
    var = [0.25 + 0.06**2]
    for _ in range(12):
        var.append(gain**2 * var[-1] + noise)
    truth = 2.0 * ndtr(0.5 * gap * gain ** np.arange(13) / np.sqrt(var)) - 1.0
    assert np.all(made.upper >= truth)
    assert np.all(made.upper >= made.tv)
    assert np.all(made.tv[1:] <= 2.2 * truth[1:] + 0.01)
    assert made.tv[6] < 0.02
    assert made.stop(0.05) == int(np.argmax(made.upper <= 0.05)) <= 6
    assert made.stop(1e-9) is None


def test_bound_on_the_weights_of_modes():
    """Case A6 of the exact operator: weight .9 for .5, whose distance falls by .70 a cycle; independent starts, so that it begins at 1."""
    data, start = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01), Mixture([0.9, 0.1], [[1.0], [-1.0]], 0.01)
    truth = analysis.switching.restart_operator(data, 0.06, 1.0).tv(start, 8)
    made = analysis.couple(edm(), data.denoiser(), methods.heun(), (9, 0.06, 1.0), start, data, cycles=8, n=1000)
    assert made.tv[0] == 1.0
    assert np.all(made.upper >= truth)
    assert made.tv[8] < 0.15
    assert made.tv[4] < 0.35


def test_same_starts_are_one():
    x = shifted(0.0, 50)[0]
    made = analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, x, x, cycles=3, n=50)
    assert not np.any(made.times)
    assert not np.any(made.distance)
    np.testing.assert_allclose(made.upper, 1.0 - 0.05 ** (1.0 / 50), rtol=1e-6)  # none of 50 apart


def test_far_chains_come_together_by_the_legs():
    """Far apart with common noise the distance shrinks by the gain of the leg in each cycle, exactly."""
    x, y = shifted(100.0, 20)
    made = analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, x, y, cycles=3, n=20)
    gain = float(analysis.contraction.cycle(edm(), methods.heun(), INTERVAL, G).rates[0])
    np.testing.assert_allclose(made.distance, 100.0 * gain ** np.arange(4), rtol=1e-9)


@pytest.mark.parametrize("process", [vp(), cld()], ids=["vp", "cld"])
def test_on_other_processes(process):
    """Chains of the data block and a momentum meet in both; methods with noise draw the same for both chains."""
    data = Gaussian([0.0, 0.3], [0.25, 0.04])
    made = analysis.couple(
        process, data.denoiser(), methods.exponential(2, noise=0.5), (4, 0.1, 1.5), Gaussian([0.5, 0.3], [0.25, 0.04]), data, cycles=15, n=300
    )
    assert made.tv[15] < 0.1
    assert np.all(np.diff(made.tv) <= 0.0)


@pytest.mark.parametrize("lag", [1, 4])
def test_lagged_bound(lag):
    """From a start two units off: above the exact distance to the law that the cycle keeps."""
    x = shifted(2.0, 3000)[0]
    y = np.random.default_rng(7).permutation(x[0])[None]
    made = analysis.couple_lagged(edm(), G.denoiser(), methods.heun(), INTERVAL, (x, y), lag=lag, n=3000)
    cycle = analysis.contraction.cycle(edm(), methods.heun(), INTERVAL, G)
    gain, noise = float(cycle.rates[0]), float(np.sum(cycle.map.noise**2))
    k = np.arange(8)
    end = noise / (1.0 - gain**2)
    var = end + gain ** (2 * k) * (0.25 + 0.06**2 - end)
    grid = np.linspace(-6, 6, 20_001)
    density = [np.exp(-0.5 * (grid - m) ** 2 / v) / np.sqrt(2.0 * np.pi * v) for m, v in [*zip(2.0 * gain**k, var, strict=True), (0.0, end)]]
    truth = np.array([0.5 * np.sum(np.abs(p - density[-1])) * (grid[1] - grid[0]) for p in density[:-1]])
    assert np.all(made.tv[:8] >= truth - 0.02)
    assert made.tv[5] < 0.2
    assert made.tv[-1] == 0.0


def test_larger_lags_are_sharper():
    x = shifted(2.0, 2000)[0]
    y = np.random.default_rng(7).permutation(x[0])[None]
    bounds = [analysis.couple_lagged(edm(), G.denoiser(), methods.heun(), INTERVAL, (x, y), lag=lag, n=2000).tv[0] for lag in (1, 6)]
    assert 0.9 < bounds[1] < bounds[0]


def test_rate_and_text():
    data, start = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01), Mixture([0.9, 0.1], [[1.0], [-1.0]], 0.01)
    made = analysis.couple(edm(), data.denoiser(), methods.heun(), (5, 0.06, 1.0), start, data, cycles=10, n=1000, seed=2)
    assert 0.6 < made.rate < 0.85
    assert f"at most {made.upper[10]:.3g}" in str(made)
    assert "lag 1" in str(analysis.couple_lagged(edm(), G.denoiser(), methods.heun(), INTERVAL, (G, G), n=10))


@pytest.mark.parametrize(
    "make",
    [
        lambda: analysis.couple(edm(), G.denoiser(), methods.heun(), (4, 1.0, 0.1), G, G),
        lambda: analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, np.zeros((2, 500, 1)), G),
        lambda: analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, G, G, S_noise=0.0),
        lambda: analysis.couple(edm(), G.denoiser(), methods.heun(), INTERVAL, G, G, cycles=1, level=1.0),
        lambda: analysis.couple_lagged(edm(), G.denoiser(), methods.heun(), INTERVAL, (G, G), lag=0),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
