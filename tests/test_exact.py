"""Exact laws: a dense moment recursion written here, and the split of the distance into its parts."""

from itertools import pairwise

import numpy as np
import pytest
from processes import ALL, cld, dense_drift, dense_kernel, edm, names, psld, third_order, ve, vp

from sdekit import BadInput, analysis, grids, methods, plans
from sdekit.law import Gaussian, Mixture

HEUN = methods.heun()
EDM = edm()
QUARTER = Gaussian(0.0, 0.25)
FULL = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
OTHER = Gaussian([0.1, 0.4], [[0.3, -0.1], [-0.1, 0.6]])
# in space, because in the plane eigenvectors make a symmetric matrix, which hides transposes
SPACE = Gaussian([0.3, -0.2, 0.5], [[0.6, 0.2, -0.1], [0.2, 0.4, 0.15], [-0.1, 0.15, 0.3]])
ELSEWHERE = Gaussian([0.1, 0.4, -0.3], [[0.3, -0.1, 0.2], [-0.1, 0.6, 0.1], [0.2, 0.1, 0.5]])
GRID = grids.sigmas([5.0, 2.0, 1.0, 0.6, 0.3, 0.2])


# ---------------------------------------------------------------------------------------------------------------- a dense recursion


class Dense:
    """Means and covariances of all blocks and elements at once, by the textbook equations of each step."""

    def __init__(self, process, model, start):
        self.process, self.model, self.d = process, model, model.mean.size
        psi, S = dense_kernel(process, start[0])
        mean, cov = (0.0 * model.mean, 0.0 * model.matrix) if start[1] is None else (start[1].mean, start[1].matrix)
        self.mean = np.kron(psi, mean)
        self.cov = np.kron(np.outer(psi, psi), cov) + np.kron(S, np.eye(self.d))

    def wide(self, matrix):
        return np.kron(matrix, np.eye(self.d))

    def denoiser(self, t):
        """``D = R z + r`` for the state ``z`` of all blocks."""
        psi, S = dense_kernel(self.process, t)
        row = np.linalg.solve(S, psi)
        snr = psi @ row
        C = self.model.matrix
        shrink = C @ np.linalg.inv(C + np.eye(self.d) / snr)
        return shrink @ self.wide(row[None] / snr), self.model.mean - shrink @ self.model.mean

    def drift(self, t, noise):
        """``f = A z + b``."""
        psi, _ = dense_kernel(self.process, t)
        whole = dense_drift(self.process, noise, t)
        R, r = self.denoiser(t)
        pull = self.wide((self.process.drift(t) - whole) @ psi[:, None])
        return self.wide(whole) + pull @ R, pull @ r

    def move(self, A, b, root):
        self.mean = A @ self.mean + b
        self.cov = A @ self.cov @ A.T + root @ root.T

    def euler(self, t, s, noise):
        A, b = self.drift(t, noise)
        self.move(np.eye(len(A)) - (t - s) * A, -(t - s) * b, noise * np.sqrt(t - s) * self.wide(self.process.noise(t)))

    def heun(self, t, s, noise):
        (A, a), (B, b), h = self.drift(t, noise), self.drift(s, noise), t - s
        G, end = (noise * np.sqrt(h) * self.wide(self.process.noise(v)) for v in (t, s))
        eye = np.eye(len(A))
        M = eye - 0.5 * h * (A + B @ (eye - h * A))
        self.move(M, -0.5 * h * (a + b - h * B @ a), 0.5 * (G + end) - 0.5 * h * B @ G)

    def posterior(self, t, s):
        """DDPM: z_s given z_t and x_0 = D, from the joint covariance."""
        (low_psi, low), (high_psi, high) = dense_kernel(self.process, s), dense_kernel(self.process, t)
        E = self.process.transition(s, t).mean
        K = low @ E.T @ np.linalg.inv(high)
        C = low - K @ high @ K.T
        R, r = self.denoiser(t)
        pull = self.wide((low_psi - K @ high_psi)[:, None])
        self.move(self.wide(K) + pull @ R, pull @ r, self.wide(np.linalg.cholesky(0.5 * (C + C.T))))

    def jump(self, s, t, scale):
        law = self.process.transition(s, t)
        self.move(self.wide(law.mean), 0.0, scale * self.wide(np.linalg.cholesky(law.cov)))

    def data(self, t):
        """The step to the data, data block only."""
        R, r = self.denoiser(t)
        return R @ self.mean + r, R @ self.cov @ R.T


@pytest.mark.parametrize("start", [None, ELSEWHERE], ids=["prior", "law"])
@pytest.mark.parametrize(
    ("method", "step"),
    [
        (methods.euler(), lambda dense, t, s: dense.euler(t, s, 0.0)),
        (methods.euler(noise=0.6), lambda dense, t, s: dense.euler(t, s, 0.6)),
        (methods.euler_maruyama(), lambda dense, t, s: dense.euler(t, s, 1.0)),
        (methods.heun(), lambda dense, t, s: dense.heun(t, s, 0.0)),
        (methods.heun(noise=1.0), lambda dense, t, s: dense.heun(t, s, 1.0)),
        (methods.exponential(1, noise=1.0), lambda dense, t, s: dense.posterior(t, s)),
    ],
    ids=lambda v: str(v) if isinstance(v, methods.Method) else "",
)
@pytest.mark.parametrize("make", ALL, ids=names)
def test_against_the_dense_recursion(make, method, step, start):
    """Full covariances that do not commute, a mean, and a model that is not the data; every process, with and without the end step."""
    process, data = make(), SPACE
    times = GRID.times(process)
    dense = Dense(process, ELSEWHERE if start is None else SPACE, (times[0], start))
    model = ELSEWHERE if start is None else None
    for t, s in pairwise(times):
        step(dense, t, s)
    made = analysis.exact_law(process, method=method, grid=GRID, data=data, model=model, start=start)
    scale = np.sqrt(np.diag(dense.cov))
    np.testing.assert_allclose(made.state_mean.ravel() / scale, dense.mean / scale, atol=1e-7)
    np.testing.assert_allclose(made.state_cov / np.outer(scale, scale), dense.cov / np.outer(scale, scale), atol=1e-7)
    mean, cov = dense.data(times[-1])
    ended = analysis.exact_law(process, plan=plans.run(GRID, method).then(plans.denoise()), data=data, model=model, start=start)
    np.testing.assert_allclose(ended.mean, mean, atol=1e-7 * np.sqrt(np.max(cov)))
    np.testing.assert_allclose(ended.cov, cov, atol=1e-7 * np.max(cov))


@pytest.mark.parametrize("make", [edm, psld, third_order], ids=lambda m: m.__name__)
def test_restart_against_the_dense_recursion(make):
    process = make()
    plan = plans.restart(GRID, [(3, 2, 0.3, 1.5)], method=methods.heun(), S_noise=1.1)
    times = GRID.times(process)
    dense = Dense(process, SPACE, (times[0], None))
    levels = np.linspace(1.5 ** (1 / 7), 0.3 ** (1 / 7), 3) ** 7
    back = [*process.time_of(levels[:2]), times[4]]
    for t, s in pairwise(times):
        dense.heun(t, s, 0.0)
        if s == times[4]:
            for _ in range(2):
                dense.jump(s, back[0], 1.1)
                for high, low in pairwise(back):
                    dense.heun(high, low, 0.0)
    made = analysis.exact_law(process, plan=plan, data=SPACE)
    np.testing.assert_allclose(made.state_cov, dense.cov, atol=1e-8 * np.max(dense.cov))
    np.testing.assert_allclose(made.state_mean.ravel(), dense.mean, atol=1e-8)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_memory_against_an_augmented_recursion(noise):
    """DPM-Solver++(2M) on EDM as a recursion of (x, last D) in the plane, 70 steps, so that normals are squeezed on the way."""
    levels = np.exp(np.linspace(np.log(5.0), np.log(0.2), 71))
    C, m = OTHER.matrix, OTHER.mean
    mean, cov = np.zeros(4), np.zeros((4, 4))
    cov[:2, :2] = 25.0 * np.eye(2)
    past = None
    for high, low in pairwise(levels):
        h, eta = np.log(high / low), noise**2
        H = (1.0 + eta) * h
        shrink = C @ np.linalg.inv(C + high**2 * np.eye(2))
        D, shift = np.hstack([shrink, np.zeros((2, 2))]), m - shrink @ m
        one = -np.expm1(-H)
        two = 0.0 if past is None else (H - one) / (1.0 + eta) / past  # (1 + eta) h^2 phi_2(-H) over the last step's h
        keep = np.hstack([low / high * np.exp(-eta * h) * np.eye(2), -two * np.eye(2)])
        A = np.vstack([keep + (one + two) * D, D])
        b = np.concatenate([(one + two) * shift, shift])
        mean, cov = A @ mean + b, A @ cov @ A.T
        cov[:2, :2] += low**2 * -np.expm1(-2.0 * eta * h) * np.eye(2)
        past = h
    made = analysis.exact_law(EDM, method=methods.exponential(2, noise=noise), grid=grids.sigmas(levels), data=FULL, model=OTHER)
    np.testing.assert_allclose(made.mean, mean[:2], atol=1e-11)
    np.testing.assert_allclose(made.cov, cov[:2, :2], atol=1e-11)


def test_the_exact_map_is_the_sampler():
    """The affine map applied to given states is what the sampler returns for them."""
    from sdekit import sample

    for method in (methods.heun(), methods.exponential(3), methods.exponential(2, of="eps")):
        exact = analysis.exact_law(psld(), method=method, grid=GRID, data=FULL)
        z = np.random.default_rng(0).normal(size=(2, 6, 2))
        times = GRID.times(psld())
        made = sample(psld(), FULL.denoiser(), method=method, grid=GRID, start=(z, times[0])).state
        dense = exact.map.dense(FULL.basis)
        flat = np.moveaxis(z, 1, -1).reshape(4, 6)
        np.testing.assert_allclose(np.moveaxis(made, 1, -1).reshape(4, 6), dense.matrix[..., 0] @ flat + dense.offset, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- distance and parts


def parts_of(made):
    """Parts, after the checks that hold for all of them."""
    parts = made.parts
    assert all(value >= 0.0 for value in parts.values())
    assert made.w2 <= sum(parts.values()) * (1.0 + 1e-9) + 1e-12
    return parts


@pytest.mark.parametrize("make", [edm, ve, cld, psld], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("method", "grid"), [(HEUN, grids.karras(12)), (methods.exponential(2, noise=1.0), grids.logsnr(12, 0.1, 20.0))], ids=["ends", "stops"]
)
def test_distance_is_the_distance_of_the_law(make, method, grid):
    for model in (None, OTHER):
        made = analysis.exact_law(make(), method=method, grid=grid, data=FULL, model=model)
        assert made.w2 == pytest.approx(analysis.w2_gaussian(made.mean, made.cov, FULL.mean, FULL.matrix), rel=1e-8)
        parts = parts_of(made)
        assert ("score" in parts) == (model is not None)


def test_no_prior_error_from_the_exact_marginal():
    for process in (EDM, psld()):
        made = analysis.exact_law(process, method=HEUN, grid=grids.karras(12), data=FULL, start=FULL)
        assert parts_of(made)["prior"] < 1e-12
        assert parts_of(analysis.exact_law(process, method=HEUN, grid=grids.karras(12), data=FULL))["prior"] > 1e-5


def test_prior_error_by_hand():
    """From N(0, 25) in the place of N(.3, 25.25): the exact ODE shrinks both by sqrt(.26 / 25.25)."""
    data = Gaussian(0.3, 0.25)
    made = analysis.exact_law(EDM, method=HEUN, grid=grids.logsnr(30, 0.1, 5.0), data=data)
    a = np.sqrt(0.26 / 25.25)
    mean, deviation = 0.3 * (1.0 - a), a * 5.0
    assert parts_of(made)["prior"] == pytest.approx(np.hypot(mean - 0.3, deviation - np.sqrt(0.26)), rel=1e-9)
    assert parts_of(made)["end"] == pytest.approx(np.sqrt(0.26) - 0.5, rel=1e-9)


def test_end_error_by_hand():
    """Stopping at .1 adds .01 to each variance; the step to the data multiplies the deviation by v / sqrt(v (v + .01))."""
    data = Gaussian([0.0, 0.0], [1.0, 0.04])
    for zero, ends in ((False, np.sqrt([1.01, 0.05])), (True, np.array([1.0, 0.04]) / np.sqrt([1.01, 0.05]))):
        made = analysis.exact_law(EDM, method=HEUN, grid=grids.logsnr(30, 0.1, 5.0, zero=zero), data=data, start=data)
        assert parts_of(made)["end"] == pytest.approx(np.linalg.norm(ends - np.sqrt([1.0, 0.04])), rel=1e-9)


def test_score_error_by_hand():
    """A model of variance .36 in the place of .25: the exact ODE from the marginal of the data."""
    data, model = Gaussian(0.0, 0.25), Gaussian(0.0, 0.36)
    made = analysis.exact_law(EDM, method=HEUN, grid=grids.logsnr(30, 0.1, 5.0), data=data, model=model, start=data)
    parts = parts_of(made)
    wrong = np.sqrt(25.25 * 0.37 / 25.36)
    assert parts["score"] == pytest.approx(abs(wrong - np.sqrt(0.26)), rel=1e-9)
    assert parts["prior"] < 1e-12


@pytest.mark.parametrize("make", [edm, psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("method", [methods.heun(), methods.euler_maruyama(), methods.exponential(2, noise=0.5)], ids=str)
def test_discretisation_vanishes_with_the_steps(make, method):
    found = []
    for n in (20, 80, 320):
        made = analysis.exact_law(make(), method=method, grid=grids.logsnr(n, 0.1, 5.0), data=FULL, start=FULL)
        parts = parts_of(made)
        assert parts["prior"] < 1e-9
        found.append(parts["discretisation"])
    assert found[2] < found[1] / 3.0
    assert found[1] < found[0] / 3.0


def test_no_discretisation_error_where_there_is_none():
    """A point mass: DDIM and DDPM's step are exact, Euler in time on VP is not."""
    point = Gaussian([0.4, -0.1], 0.0)
    for process in (EDM, vp(), psld()):
        for method, exact in ((methods.ddim(), True), (methods.exponential(1, noise=1.0), True), (methods.euler(), process is EDM)):
            made = analysis.exact_law(process, method=method, grid=grids.logsnr(6, 0.1, 5.0), data=point, start=point)
            assert (parts_of(made)["discretisation"] < 1e-9) == exact


def test_parts_of_a_plan_with_jumps():
    plan = plans.churn(plans.restart(grids.karras(10), [(3, 2, 0.06, 0.3)], method=HEUN), 3.0)
    for model in (None, OTHER):
        parts_of(analysis.exact_law(EDM, plan=plan, data=FULL, model=model))
    exact_noise = analysis.exact_law(EDM, plan=plans.restart(grids.karras(10), [(3, 5, 0.06, 0.3)], method=HEUN), data=FULL, start=FULL)
    assert parts_of(exact_noise)["prior"] < 1e-12  # Restart with the exact flow leaves the law unchanged


# ---------------------------------------------------------------------------------------------------------------- forms of data


def test_modes_and_matrices_agree():
    """A rotation of data, model and start rotates the answer; laws that share axes and laws that do not are treated alike."""
    U, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    plain = [
        Gaussian([0.3, -0.2, 0.1], [0.5, 0.2, 0.9]),
        Gaussian([0.1, 0.4, 0.0], [0.3, 0.6, 0.8]),
        Gaussian([0.0, 1.0, 0.5], [0.2, 0.1, 0.4]),
    ]
    turned = [Gaussian(U @ law.mean, U @ law.matrix @ U.T) for law in plain]
    shared = [turned[0], Gaussian(turned[1].mean, 0.7), Gaussian(turned[2].mean, 0.4 * np.eye(3))]
    alike = [plain[0], Gaussian(plain[1].mean, 0.7), Gaussian(plain[2].mean, 0.4)]
    mixed = [turned[0], plain[1], turned[2]]
    for process in (EDM, psld()):
        base, rotated, few, few_rotated, dense = (
            analysis.exact_law(process, method=methods.exponential(2, noise=1.0), grid=grids.karras(8), data=d, model=m, start=s)
            for d, m, s in (plain, turned, alike, shared, mixed)
        )
        for one, other in ((base, rotated), (few, few_rotated)):
            np.testing.assert_allclose(other.mean, U @ one.mean, atol=1e-12)
            np.testing.assert_allclose(other.cov, U @ one.cov @ U.T, atol=1e-12)
            assert other.w2 == pytest.approx(one.w2, rel=1e-9)
            for name, value in one.parts.items():
                assert other.parts[name] == pytest.approx(value, rel=1e-6, abs=1e-9)
        assert np.max(np.abs(dense.cov - rotated.cov)) > 1e-3
        assert dense.w2 == pytest.approx(analysis.w2_gaussian(dense.mean, dense.cov, turned[0].mean, turned[0].matrix), rel=1e-8)


def test_equal_laws_in_other_forms():
    forms = [Gaussian([0.3, -0.2], 0.4), Gaussian([0.3, -0.2], [0.4, 0.4]), Gaussian([0.3, -0.2], 0.4 * np.eye(2))]
    made = [analysis.exact_law(psld(), method=HEUN, grid=GRID, data=data, model=model, start=OTHER) for data in forms for model in forms]
    for other in made[1:]:
        np.testing.assert_allclose(other.state_cov, made[0].state_cov, atol=1e-12)
        assert other.w2 == pytest.approx(made[0].w2, rel=1e-12)


def test_shapes():
    image = Gaussian(np.arange(6.0).reshape(2, 3) / 6.0, 0.3)
    made = analysis.exact_law(psld(), method=HEUN, grid=GRID, data=image)
    flat = analysis.exact_law(psld(), method=HEUN, grid=GRID, data=Gaussian(image.mean.ravel(), 0.3))
    assert made.mean.shape == (2, 3)
    np.testing.assert_allclose(made.mean.ravel(), flat.mean, atol=1e-15)
    np.testing.assert_allclose(made.state_cov, flat.state_cov, atol=1e-15)
    assert made.state_mean.shape == (2, 2, 3)
    assert made.cov.shape == (6, 6)
    number = analysis.exact_law(psld(), method=HEUN, grid=GRID, data=QUARTER)
    assert number.mean.shape == number.cov.shape == ()
    assert number.nfe == 2 * 5


def test_stationary_start():
    made = analysis.exact_law(psld(), method=methods.euler_maruyama(), grid=GRID, data=FULL, start="stationary")
    dense = Dense(psld(), FULL, (GRID.times(psld())[0], None))
    dense.cov = np.kron(psld().stationary, np.eye(2))
    for t, s in pairwise(GRID.times(psld())):
        dense.euler(t, s, 1.0)
    np.testing.assert_allclose(made.state_cov, dense.cov, atol=1e-9)
    with pytest.raises(BadInput):
        _ = analysis.exact_law(EDM, method=HEUN, grid=GRID, data=FULL, start="stationary").cov


class Clip:
    """A move that is not affine."""

    start, end, nfe, noises = 0.2, 0.2, 0, 0

    def apply(self, state, model, normals):
        return [np.clip(block, -1.0, 1.0) for block in state]


def test_a_move_that_is_not_affine_is_refused_by_name():
    plan = plans.run(grids.times([5.0, 1.0, 0.2]), HEUN).then(lambda moves, process: [*moves, Clip()])
    with pytest.raises(BadInput, match="Clip"):
        _ = analysis.exact_law(EDM, plan=plan, data=FULL).cov


@pytest.mark.parametrize(
    "options",
    [
        {"data": Mixture([0.5, 0.5], [0.0, 1.0], 1.0)},
        {"data": None},
        {"data": FULL, "model": Mixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 1.0)},
        {"data": FULL, "model": Gaussian(0.0, 1.0)},
        {"data": FULL, "start": Gaussian([0.0, 0.0, 0.0], 1.0)},
        {"data": FULL, "start": "prior"},
        {"data": FULL, "start": Mixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 1.0)},
        {"data": FULL, "method": HEUN, "plan": plans.run(GRID, HEUN)},
        {"data": FULL, "grid": 18},
    ],
)
def test_bad_input(options):
    with pytest.raises(BadInput):
        analysis.exact_law(EDM, **options)
