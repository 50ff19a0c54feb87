"""Both executors run the same rows, on NumPy and torch, in both precisions."""

import numpy as np
import pytest
from cases import GRID, LAW, every, final, needs, random_state
from processes import cld, dense_drift, edm, psld, third_order, ve, vp
from scipy.integrate import solve_ivp

from sdekit import grids, methods, plans
from sdekit.law import Gaussian
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve
from sdekit.tableau import ByTerms, Stacked


@pytest.mark.parametrize("make", [vp, edm, ve, psld, third_order], ids=lambda m: m.__name__)
@every
def test_executors_agree(method, make):
    """Term by term and stacked, in float64 to rounding and in float32 to its own rounding; dtype in is dtype out."""
    process = make()
    needs(method, process)
    for plan in (plans.run(GRID, method), plans.restart(grids.logsnr(3, 0.1, 3.0, zero=True), [(3, 1, 0.3, 1.0)], method=method, S_noise=1.1)):
        ref, _ = final(process, plan)
        scale = np.max(np.abs(ref))
        stacked, raw = final(process, plan, executor=Stacked)
        assert raw[0].dtype == np.float64
        np.testing.assert_allclose(stacked, ref, atol=1e-11 * scale)
        for executor in (ByTerms, Stacked):
            single, raw = final(process, plan, executor=executor, dtype=np.float32)
            assert {b.dtype for b in raw} == {np.dtype(np.float32)}
            np.testing.assert_allclose(single, ref, atol=2e-3 * scale)


@pytest.mark.torch
@pytest.mark.parametrize("make", [vp, psld, third_order], ids=lambda m: m.__name__)
@every
def test_torch_agrees_with_numpy(method, make):
    torch = pytest.importorskip("torch")
    process, plan = make(), plans.run(GRID, method)
    needs(method, process)
    ref, _ = final(process, plan)
    scale = np.max(np.abs(ref))
    for executor in (ByTerms, Stacked):
        for dtype, kind, tolerance in ((np.float64, torch.float64, 1e-11), (np.float32, torch.float32, 2e-3)):
            made, raw = final(process, plan, executor=executor, dtype=dtype, torch=torch)
            assert {b.dtype for b in raw} == {kind}
            np.testing.assert_allclose(made, ref, atol=tolerance * scale)


@pytest.mark.torch
@every
def test_half_precision(method):
    """A state in half precision with float64 coefficients: the dtype stays, and the result is the float64 one to the dtype's own rounding."""
    torch = pytest.importorskip("torch")
    process, plan = vp(), plans.run(grids.logsnr(6, 0.3, 2.0), method)
    ref, _ = final(process, plan)
    denoise = LAW.denoiser()
    for kind, tolerance in ((torch.float16, 0.01), (torch.bfloat16, 0.08)):
        prog = program(process, plan)
        state = [torch.from_numpy(b).to(kind) for b in random_state(process, prog.times[0])]
        made, _ = solve(prog, state, lambda y, sigma: denoise(y.double(), sigma).to(y.dtype), executor=ByTerms)
        assert {b.dtype for b in made} == {kind}
        found = np.stack([b.double().numpy() for b in made])
        np.testing.assert_allclose(found, ref, atol=tolerance * np.max(np.abs(ref)))


@every
def test_runs_are_pure(method):
    """No global generator is touched, the given state is not written to, a second run is the same."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    prog = program(psld(), plans.run(GRID, method))
    z = list(random_state(psld(), prog.times[0]))
    copies = [b.copy() for b in z]
    first, _ = solve(prog, z, LAW.denoiser())
    second, _ = solve(prog, z, LAW.denoiser())
    np.testing.assert_array_equal(np.stack(first), np.stack(second))
    np.testing.assert_array_equal(np.stack(z), np.stack(copies))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@every
def test_calls_are_counted(method):
    calls = []

    def counting(y, sigma):
        calls.append(sigma)
        return LAW.denoiser()(y, sigma)

    for grid, ends in ((GRID, False), (grids.karras(5), True)):
        prog = program(psld(), plans.run(grid, method))
        calls.clear()
        solve(prog, list(random_state(psld(), prog.times[0])), counting)
        steps = len(prog.times) - 1
        assert len(calls) == prog.nfe == (method.nfe(steps - 1) + 1 if ends else method.nfe(steps))
        assert calls[0] == pytest.approx(float(psld().sigma_eff(prog.times[0])), rel=1e-12)


@every
def test_shapes_of_data_do_not_matter(method):
    """A datum of shape (2, 3) is six data of shape (): the rows act on elements."""
    prog = program(psld(), plans.run(GRID, method))
    plain = Gaussian(0.2, 0.3).denoiser()
    z = np.random.default_rng(1).normal(size=(2, 5, 2, 3))
    blocks, _ = solve(prog, list(z), plain)
    if method.noise == 0.0:
        flat, _ = solve(prog, list(z.reshape(2, 30)), plain)
        np.testing.assert_array_equal(np.stack(blocks).reshape(2, 30), np.stack(flat))
    assert blocks[0].shape == (5, 2, 3)
    moved, _ = solve(prog, list(np.swapaxes(z, 0, 1)[3:4].swapaxes(0, 1)), plain, ids=np.array([3]))
    np.testing.assert_array_equal(moved[0][0], blocks[0][3])


@pytest.mark.parametrize("make", [vp, cld, psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("of", ["data", "eps"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_exponential_methods_are_exact_for_a_point_mass(make, of, order):
    """With D = x0 the step is psi_s x0 + Phi(s, t) (z - psi_t x0) whatever its length; Phi by DOP853."""
    process, x0 = make(), 0.7
    times = process.T * np.array([0.95, 0.55, 0.4, 0.3])
    z = np.random.default_rng(0).normal(size=(process.k, 5))
    made, _ = solve(assemble(process, [Run(methods.exponential(order, of=of), tuple(times))]), list(z), lambda y, sigma: np.full_like(y, x0))
    start, end = (process.kernel(t).psi[:, None] * x0 for t in times[[0, -1]])
    flow = solve_ivp(
        lambda t, v: (dense_drift(process, 0.0, t) @ v.reshape(process.k, -1)).ravel(),
        times[[0, -1]],
        (z - start).ravel(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
    )
    expected = end + flow.y[:, -1].reshape(z.shape)
    np.testing.assert_allclose(np.stack(made), expected, atol=1e-9 * np.max(np.abs(expected)))
