"""Brownian paths in pieces: what accepted steps see is exactly Brownian whatever was rejected; the biased modes are as biased as published."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sdekit import catalogue
from sdekit.increments import Increments, Transfers
from sdekit.noise import Addressed
from sdekit.pieces import Pieces, Repeated
from sdekit.reverse import Reverse
from sdekit.staging import Load

SIZE = 64
NONE = np.empty(0)


class Basis:
    """A source whose every normal is a unit vector of its own, so that inner products are covariances."""

    def draw(self, addresses, ids, shape, like=None):
        made = np.zeros((len(addresses), len(ids), *shape))
        for i, address in enumerate(addresses):
            made[i, :, len(addresses) * address.step + address.slot] = 1.0
        return made


# steps to try and whether they are accepted: splits, joins, cuts behind whole pieces, exact fits, pieces behind a rejected longer step
TRIED = [
    (1.0, 0), (0.5, 0), (0.25, 1), (1.0, 0), (0.5, 1), (0.25, 1), (2.0, 0), (1.4, 0), (0.7, 0), (0.3, 0), (0.9, 1), (0.1, 1), (1.5, 0), (0.35, 0),
    (1.0, 0), (0.6, 1), (0.2, 1), (3.0, 0), (1.1, 1), (0.05, 1), (1.85, 1),
]  # fmt: skip


@pytest.mark.parametrize("areas", [False, True])
def test_accepted_steps_are_brownian_to_rounding(areas):
    """The Gram matrix of the accepted increments and areas is the identity: no Monte Carlo.  Two paths, tried out of step."""
    path = Pieces(Basis(), np.arange(2), (SIZE,), Increments(1, areas), NONE)
    seen = ([], [])
    other = TRIED[7:] + TRIED[:7]
    for one, two in zip(TRIED, other, strict=True):
        normals = path.over(np.array([one[0], two[0]]))
        accepted = np.array([bool(one[1]), bool(two[1])])
        path.settle(accepted)
        for which in np.flatnonzero(accepted):
            seen[which].extend(block[which] for block in normals)
    for vectors in seen:
        rows = np.array(vectors)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)


def test_rejected_steps_are_on_the_path():
    """What a rejected step saw is the sum of what the accepted steps inside it then see; its area too."""
    path = Pieces(Basis(), np.arange(1), (SIZE,), Increments(1, True), NONE)

    def step(h, accept):
        one, two = path.over(np.array([h]))
        path.settle(np.array([accept]))
        return np.sqrt(h) * one[0], np.sqrt(h / 12.0) * two[0]

    whole, area = step(1.0, False)
    step(0.6, False)
    parts = [step(h, True) for h in (0.3, 0.5, 0.2)]
    np.testing.assert_allclose(sum(W for W, _ in parts), whole, atol=1e-14)
    at, integral = 0.0 * whole, 0.0 * whole
    for h, (W, H) in zip((0.3, 0.5, 0.2), parts, strict=True):
        integral += h * (at + 0.5 * W + H)
        at = at + W
    np.testing.assert_allclose(integral, 0.5 * whole + area, atol=1e-14)


def variance(make, n=6000, end=1.0, h0=0.1, bound=0.2):
    """Var W(end) / end when steps with |dW| above the bound are rejected and halved."""
    path, where, t, h, W, out = make(np.arange(n)), np.arange(n), np.zeros(n), np.full(n, h0), np.zeros(n), np.zeros(n)
    while len(where):
        h = np.where(end - t - h < 1e-12, end - t, h)
        dW = np.sqrt(h) * path.over(h)[0]
        accepted = np.abs(dW) <= bound
        path.settle(accepted)
        W, t, h = W + accepted * dW, t + accepted * h, np.where(accepted, h0, 0.5 * h)
        done = t >= end - 1e-12
        out[where[done]] = W[done]
        left = np.flatnonzero(~done)
        path.take(left)
        where, t, h, W = where[left], t[left], h[left], W[left]
    return np.mean(out**2) / end


SOURCE = Addressed(11)
MAKE = {
    "path": lambda ids: Pieces(SOURCE, ids, (), Increments(1, False), NONE),
    "redraw": lambda ids: Repeated(SOURCE, ids, (), 1, NONE, retain=False),
    "retain": lambda ids: Repeated(SOURCE, ids, (), 1, NONE, retain=True),
}


@pytest.mark.parametrize(("mode", "known"), [("path", 1.0), ("redraw", 0.175), ("retain", 0.340)])
def test_variance_under_rejection(mode, known):
    """Within 4.5 standard errors, and of no other mode's number."""
    assert variance(MAKE[mode]) == pytest.approx(known, abs=4.5 * known * np.sqrt(2.0 / 6000))


def test_a_path_is_its_own():
    """Other paths, their order, and paths that come and go leave it alone, bit by bit."""
    rng = np.random.default_rng(0)
    tries = [(rng.uniform(0.1, 1.0, 3), rng.uniform(size=3) < 0.6) for _ in range(30)]
    alone = {}
    for who, at in ((7, 0), (3, 1), (9, 2)):
        path = Pieces(SOURCE, np.array([who]), (2,), Increments(2, True), NONE)
        alone[who] = []
        for h, accept in tries:
            alone[who].append(np.stack(path.over(h[[at]])))
            path.settle(accept[[at]])
    path = Pieces(SOURCE, np.array([7, 3]), (2,), Increments(2, True), NONE)
    order, since = np.array([0, 1]), {7: 0, 3: 0}
    for i in range(40):
        step = [tries[since[int(w)]][0][(7, 3, 9).index(int(w))] for w in path.ids]
        ok = np.array([tries[since[int(w)]][1][(7, 3, 9).index(int(w))] for w in path.ids])
        made = np.stack(path.over(np.array(step)))
        for j, who in enumerate(path.ids.tolist()):
            np.testing.assert_array_equal(made[:, j], alone[who][since[who]][:, 0])
            since[who] += 1
        path.settle(ok)
        if i == 5:
            path.add(np.array([9]))
            since[9] = 0
        if i % 4 == 3:
            order = np.arange(len(path.ids))[::-1]
            path.take(order)
        gone = [j for j, who in enumerate(path.ids.tolist()) if since[who] == len(tries)]
        if gone:
            path.take(np.setdiff1d(np.arange(len(path.ids)), gone))
        if not len(path.ids):
            break
    assert all(count == len(tries) for count in since.values())


PSLD = catalogue.psld()
WALKS = [
    (reverse, of) for reverse in (Reverse(PSLD, 1.0), Reverse(catalogue.vp(), 0.7), Reverse(catalogue.third_order(), 1.0)) for of in ("data", "eps")
]


@cache
def covariance(reverse, of, t, s):
    r"""Transfer over [s, t] and covariance of its noise, by solving their equations: d Phi = A Phi, dV = A V + V A^T + (lambda G)(lambda G)^T."""
    process, k = reverse.process, reverse.process.k

    def slope(back, flat):
        now = t - back
        A, G = -process.drift(now), process.noise(now)
        if of == "data":  # the part of the score that is linear in the state
            A = A - 0.5 * (1.0 + reverse.noise**2) * G @ G.T @ np.linalg.inv(process.kernel(now).cov)
        P, V = flat.reshape(2, k, k)
        return np.stack([A @ P, A @ V + V @ A.T + reverse.noise**2 * G @ G.T]).ravel()

    run = solve_ivp(slope, (0.0, t - s), np.stack([np.eye(k), np.zeros((k, k))]).ravel(), method="LSODA", rtol=1e-11, atol=1e-14)
    return run.y[:, -1].reshape(2, k, k)


@pytest.mark.parametrize(("reverse", "of"), WALKS)
def test_exact_noise_of_a_step_that_was_cut(reverse, of):
    """A long step is rejected, then four inside are accepted: independent standard normals, and together, carried to the end, the long one."""
    k = reverse.process.k
    path = Pieces(Basis(), np.arange(1), (SIZE,), Transfers(reverse, of), NONE)
    ends = [0.6, 0.47, 0.46, 0.2, 0.15]

    def step(t, s, accept):
        load = Load()
        path.plan(np.array([[t], [s]]), load)
        load.send(NONE)
        made = np.stack(path.made())[:, 0]
        path.settle(np.array([accept]))
        return made

    def root(t, s):
        return np.linalg.cholesky(covariance(reverse, of, t, s)[1])

    longest = root(0.6, 0.15) @ step(0.6, 0.15, False)
    shorter = root(0.6, 0.3) @ step(0.6, 0.3, False)
    parts = [step(t, s, True) for t, s in pairwise(ends)]
    rows = np.concatenate(parts)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4 * k), atol=1e-9)
    total = 0.0
    for (t, s), part in zip(pairwise(ends), parts, strict=True):
        carried = root(t, s) @ part
        total = total + (covariance(reverse, of, s, 0.15)[0] @ carried if s > 0.15 else carried)
    np.testing.assert_allclose(total, longest, atol=1e-8 * np.max(np.abs(longest)))
    np.testing.assert_allclose(shorter @ shorter.T, covariance(reverse, of, 0.6, 0.3)[1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("reverse", "of"), WALKS)
def test_accepted_segments_are_standard_normals(reverse, of):
    """Steps in three segments each, tried and rejected as above, on two paths out of step: the Gram matrix is the identity."""
    path = Pieces(Basis(), np.arange(2), (1200,), Transfers(reverse, of), NONE)
    t, seen = np.array([0.9, 0.8]), ([], [])
    for one, two in zip(TRIED[:13], TRIED[6:19], strict=True):
        h = 0.03 * np.array([one[0], two[0]])
        load = Load()
        path.plan(np.stack([t, t - 0.2 * h, t - 0.7 * h, t - h]), load)
        load.send(NONE)
        normals = path.made()
        accepted = np.array([bool(one[1]), bool(two[1])])
        path.settle(accepted)
        t = np.where(accepted, t - h, t)
        for which in np.flatnonzero(accepted):
            seen[which].extend(block[which] for block in normals)
    for vectors, tried in zip(seen, (TRIED[:13], TRIED[6:19]), strict=True):
        rows = np.array(vectors)
        assert len(rows) == 3 * reverse.process.k * sum(accept for _, accept in tried)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-9)
