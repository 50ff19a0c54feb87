"""Algorithm 1 of "Gotta Go Fast" as a loop written by hand, on normal data with a spectrum, and the exact variances of its grids."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.fft import dct, idct

from sdekit import catalogue


@dataclass(frozen=True)
class Equation:
    """dx = f x dt + g dw: coefficient of the mean, variance, f and g^2 as functions of t, and what the paper sets for it."""

    process: object
    a: object
    S: object
    f: object
    g2: object
    t_eps: float
    atol: float
    pixel: float
    mean: float


def vp():
    square = lambda t: 9.95 * t * t + 0.1 * t  # noqa: E731
    return Equation(
        catalogue.vp(), lambda t: np.exp(-0.5 * square(t)), lambda t: -np.expm1(-square(t)), lambda t: -0.5 * (0.1 + 19.9 * t),
        lambda t: 0.1 + 19.9 * t, 1e-3, 0.0078, 0.25, 0.0,
    )  # fmt: skip


def ve(top=50.0):
    L = np.log(top / 0.01)
    S = lambda t: (0.01 * np.exp(L * t)) ** 2  # noqa: E731
    process = catalogue.ve(sigma_max=top)
    return Equation(process, np.ones_like, S, np.zeros_like, lambda t: 2.0 * L * S(t), 1e-5, 0.0039, 0.0625, 0.5)


def power_law(eq, d=3072, power=2.0):
    made = np.arange(1.0, d + 1.0) ** -power
    return eq.pixel * d * made / made.sum()


def pull(eq, variances, t):
    """Coefficient of the reverse drift f - g^2 s = c (x - mean) in each mode."""
    return eq.f(t) + eq.g2(t) / (eq.a(t) ** 2 * variances + eq.S(t))


def algorithm_1(eq, variances, rtol, seeds, *, r=0.9, theta=0.9, h=0.01, extrapolate=True, previous=True, largest=False, lamba=False, turn=True):
    """NFE, rejections and accepted times of one sample for each seed; x is kept without its mean, which the tolerance sees.

    ``turn``: the spectrum is of cosine modes; else of the elements themselves.
    """
    n, d = len(seeds), len(variances)
    sources = [np.random.default_rng(seed) for seed in seeds]
    draw = lambda: np.stack([source.standard_normal(d) for source in sources])  # noqa: E731

    def drift(x, t):
        c = pull(eq, variances, t[:, None])
        return idct(c * dct(x, norm="ortho"), norm="ortho") if turn else c * x

    t, h = np.ones(n), np.full(n, h)
    x = np.sqrt(eq.S(t))[:, None] * draw()
    before, nfe, rejected = x, np.zeros(n, int), np.zeros(n, int)
    times = [[1.0] for _ in seeds]
    while np.any(t - eq.t_eps > 1e-6):
        z, s, H = draw(), t - h, h[:, None]
        root = np.sqrt(h)[:, None] * z
        g0, g1 = np.sqrt(eq.g2(t))[:, None], np.sqrt(eq.g2(s))[:, None]
        first = drift(x, t)
        if lamba:
            low = x - H * first
            high = x - 0.5 * H * (first + drift(low, s))
            seen, other, new = low, low, (high if extrapolate else low) + g0 * root
        else:
            low = x - H * first + g0 * root
            high = 0.5 * (low + x - H * drift(low, s) + g1 * root)
            new, other = (high, low) if extrapolate else (low, high)
            seen = other
        size = np.abs(seen + eq.mean * eq.a(t)[:, None])
        if previous:
            size = np.maximum(size, np.abs(before + eq.mean * eq.a(t)[:, None]))
        part = (low - high) / np.maximum(eq.atol, rtol * size)
        error = np.max(np.abs(part), 1) if largest else np.sqrt(np.mean(part**2, 1))
        active = t - eq.t_eps > 1e-6
        good = active & (error <= 1.0)
        nfe += 2 * active
        rejected += active & ~good
        x, before = np.where(good[:, None], new, x), np.where(good[:, None], other, before)
        t = np.where(good, s, t)
        for i in np.flatnonzero(good):
            times[i].append(t[i])
        h = np.clip(theta * h * np.where(h == 0.0, 1.0, error) ** -r, 0.0, np.maximum(t - eq.t_eps, 0.0))
    return nfe, rejected, [np.array([*found[:-1], eq.t_eps]) for found in times]


def spread_error(eq, variances, times, kind="heun"):
    """Root mean square difference of standard deviations at the last time, started from the prior: W2 where means are exact."""
    v = np.full(len(variances), eq.S(np.ones(())))
    for t, s in pairwise(times):
        h = t - s
        c0, c1, g0, g1 = pull(eq, variances, t), pull(eq, variances, s), np.sqrt(eq.g2(t)), np.sqrt(eq.g2(s))
        a0, a1, s0, s1 = eq.a(t), eq.a(s), np.sqrt(eq.S(t)), np.sqrt(eq.S(s))
        A, B = {
            "euler": (1.0 - h * c0, np.sqrt(h) * g0),
            "heun": (1.0 - 0.5 * h * (c0 + c1 * (1.0 - h * c0)), np.sqrt(h) * (0.5 * (g0 + g1) - 0.5 * h * c1 * g0)),
            "lamba": (1.0 - 0.5 * h * (c0 + c1 * (1.0 - h * c0)), np.sqrt(h) * g0),
            "ddim": (a1 / a0 * (1.0 - s0**2 / (a0**2 * variances + s0**2)) + s1 * s0 / (a0**2 * variances + s0**2), 0.0),
        }[kind]
        v = A * A * v + B * B
    end = times[-1]
    return float(np.sqrt(np.mean((np.sqrt(v) - np.sqrt(eq.a(end) ** 2 * variances + eq.S(end))) ** 2)))
