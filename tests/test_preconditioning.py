"""The matrix form of EDM's preconditioning."""

import numpy as np
import pytest
from processes import ALL, names

import sdekit as sk
from sdekit.denoiser import preconditioning


def test_published_numbers():
    """The fact sheet's 3.5: sigma_data = .5, Gamma = .01, t = .1."""
    c_skip, c_out, _ = preconditioning(sk.catalogue.psld(), 0.1, 0.5)
    np.testing.assert_allclose(c_skip, [0.625086687088, -0.458595079985], rtol=1e-11)
    assert c_out == pytest.approx(0.321853243676, rel=1e-11)


@pytest.mark.parametrize("make", ALL, ids=names)
@pytest.mark.parametrize("share", [1e-3, 0.1, 0.9])
def test_inputs_and_targets_have_unit_variance(make, share):
    process = make()
    t, spread = share * process.T, 0.7
    c_skip, c_out, c_in = preconditioning(process, t, spread)
    k = process.kernel(t)
    P = k.cov + spread**2 * np.outer(k.psi, k.psi)
    # relative to what rounding leaves of a covariance with this condition number
    scaled = np.linalg.cond(P / np.sqrt(np.outer(np.diag(P), np.diag(P))))
    np.testing.assert_allclose(c_in @ P @ c_in.T, np.eye(process.k), atol=1e-14 * max(10.0, scaled))
    # the target (x0 - c_skip z)/c_out: its variance, and no correlation with the state
    left = spread**2 * k.psi - P @ c_skip
    np.testing.assert_allclose(left / np.sqrt(np.diag(P)), 0.0, atol=1e-14 * max(10.0, scaled))
    assert spread**2 - spread**2 * k.psi @ c_skip == pytest.approx(c_out**2, rel=1e-9 * max(1.0, scaled), abs=1e-12)
    assert c_out**2 * (1.0 / spread**2 + float(k.snr)) == pytest.approx(1.0, rel=1e-12)


def test_one_block_gives_edms_scalars():
    sigma, spread = 0.7, 0.5
    c_skip, c_out, c_in = preconditioning(sk.catalogue.edm(), sigma, spread)
    total = sigma**2 + spread**2
    assert c_skip[0] == pytest.approx(spread**2 / total, rel=1e-14)
    assert c_out == pytest.approx(sigma * spread / np.sqrt(total), rel=1e-14)
    assert c_in[0, 0] == pytest.approx(total**-0.5, rel=1e-14)
    with pytest.raises(sk.BadInput, match="sigma_data"):
        preconditioning(sk.catalogue.edm(), sigma, 0.0)
