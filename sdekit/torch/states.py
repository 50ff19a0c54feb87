"""Networks that were trained on a whole state, of several blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import is_torch, like, to_host
from ..denoiser import StateScore
from ..errors import BadInput, MissingExtra, unknown
from ..kernel import solve_lower
from ..process import Process
from .adapters import Adapted

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["mix", "psld"]


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

    def told(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """The maps from the answer, and from the state, to the score; see :func:`mix`."""
        kernel, k = process.kernel(t), process.k
        white = solve_lower(kernel.chol, np.broadcast_to(np.eye(k), kernel.chol.shape))  # L^-1
        turned = np.swapaxes(white, -1, -2)
        precision = turned @ white
        if mode == "both":
            return (-turned if predicts == "eps" else np.broadcast_to(np.eye(k), turned.shape)), np.zeros_like(precision)
        # the answer and the state's own part give the denoised datum D, and that the score S^-1 (psi D - z)
        pull = precision @ kernel.psi[..., None]
        own = pull / pull[..., block : block + 1, :]
        scale = np.ones_like(pull[..., :1, :]) if predicts == "score" else -np.sqrt(precision[..., block : block + 1, block : block + 1])
        return own * scale, own @ precision[..., block : block + 1, :] - precision

    def score(z: torch.Tensor, t: Any, *maps: Any) -> torch.Tensor:
        if not maps:
            maps = tuple(like(table, z) for table in told(np.atleast_1d(np.asarray(to_host(t), float))))
        n, channels = int(z.shape[1]), int(z.shape[2])
        answer = inner.ask(torch.cat(list(z), dim=1), t if is_torch(t) and t.ndim else float(t))
        wanted = channels * (process.k if mode == "both" else 1)
        if answer.shape[1] != wanted:
            raise BadInput(f"the network answers with {answer.shape[1]} channels; mode {mode!r} on {channels} channels of data needs {wanted}")
        parts = answer.reshape(n, -1, *z.shape[2:]).transpose(0, 1)
        return mix(maps[0], parts) + mix(maps[1], z) if mode != "both" else mix(maps[0], parts)

    made = StateScore(score, None if shape is None else tuple(shape), told)
    for name in ("device", "dtype"):
        if hasattr(inner, name):
            setattr(made, name, getattr(inner, name))
    return made


def mix(matrix: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Small matrices (n, i, j), or one for all (1, i, j), on the blocks (j, n, ...)."""
    wide = (-1, *[1] * (z.ndim - 2))
    return torch.stack([sum((matrix[:, i, j].reshape(wide) * z[j] for j in range(1, len(z))), matrix[:, i, 0].reshape(wide) * z[0])
                        for i in range(matrix.shape[1])])  # fmt: skip
