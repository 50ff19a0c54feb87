"""Networks that were trained on a whole state, of several blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..denoiser import StateScore
from ..errors import BadInput, MissingExtra, unknown
from ..kernel import Kernel, solve_lower
from ..process import Process
from .adapters import Adapted

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["mix", "psld", "state_score"]


def psld(
    network: Callable[..., object], process: Process, mode: str = "both", *, predicts: str = "eps", shape: Sequence[int] | None = None
) -> StateScore:
    r"""A network on the whole state, whose ``k`` blocks lie side by side in the channels, as a :class:`~sdekit.denoiser.StateScore`.

    Parameters
    ----------
    network : callable
        ``network(z, t)`` with z (batch, k C, ...) and t (batch,).
    process : Process
        What it was trained on.
    mode : {"both", "score_x", "score_m"}
        All blocks, or the data block or the last block alone (C channels).  One block is enough, since all come from one denoised datum:
        :math:`D = (s_i + (S^{-1} z)_i) / (S^{-1}\psi)_i`, and the others follow.
    predicts : {"eps", "score"}
        ``eps`` is :math:`s = -L^{-T}\epsilon` with the lower Cholesky factor; for one block :math:`s_i = -\sqrt{(S^{-1})_{ii}}\,\epsilon_i`, which is
        the same for the last.
    shape : tuple of int, optional
        (C, ...), the shape of a datum.

    Raises
    ------
    BadInput
        For another mode or prediction; at a call, for an answer with other channels.
    """
    if mode not in ("both", "score_x", "score_m"):
        raise unknown("mode", mode, ["both", "score_x", "score_m"])
    if predicts not in ("eps", "score"):
        raise unknown("prediction", predicts, ["eps", "score"])
    inner = Adapted(network)
    block = 0 if mode == "score_x" else process.k - 1

    def score(z: torch.Tensor, t: float) -> torch.Tensor:
        k, channels = int(z.shape[0]), int(z.shape[2])
        answer = inner.ask(torch.cat(list(z), dim=1), float(t))
        wanted = channels * (k if mode == "both" else 1)
        if answer.shape[1] != wanted:
            raise BadInput(f"the network answers with {answer.shape[1]} channels; mode {mode!r} on {channels} channels of data needs {wanted}")
        kernel = process.kernel(t)
        white = solve_lower(kernel.chol, np.eye(k))  # L^-1
        if mode == "both":
            parts = torch.stack([answer[:, i * channels : (i + 1) * channels] for i in range(k)])
            return mix(-white.T, parts) if predicts == "eps" else parts
        precision = white.T @ white
        own = answer if predicts == "score" else -float(np.sqrt(precision[block, block])) * answer
        pull = precision @ kernel.psi
        data = (own + mix(precision[[block]], z)[0]) * (1.0 / float(pull[block]))
        return state_score(kernel, z, data)

    made = StateScore(score, None if shape is None else tuple(shape))
    for name in ("device", "dtype"):
        if hasattr(inner, name):
            setattr(made, name, getattr(inner, name))
    return made


def mix(matrix: NDArray[np.float64], z: torch.Tensor) -> torch.Tensor:
    """A small matrix on the blocks (k, n, ...)."""
    made: torch.Tensor = torch.tensordot(torch.as_tensor(matrix, dtype=z.dtype, device=z.device), z, dims=1)
    return made


def state_score(kernel: Kernel, z: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    r""":math:`-S^{-1} (z - \psi D)`."""
    white = solve_lower(kernel.chol, np.eye(len(kernel.psi)))
    psi = torch.as_tensor(kernel.psi, dtype=z.dtype, device=z.device).reshape(-1, *[1] * data.ndim)
    return mix(-white.T, mix(white, z - psi * data))
