r"""What training gives beside a denoiser: the score of the whole state, a classifier of noisy data, and the way from a loss to its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import is_torch, like, to_host
from ..errors import BadInput, unknown
from ..process import Process
from ..record import from_record
from .levels import levels_of
from .losses import Classification, Denoising, Loss
from .matching import Matching
from .network import Network, NetworkDenoiser, as_labels, precondition, raw
from .states import mix

import torch  # isort: skip  (after .network, which says what to install)

Array = NDArray[np.float64]

__all__ = ["NetworkClassifier", "NetworkScore", "loss_of", "model_of"]


class NetworkScore(Network):
    r"""``score(z, t)``, the k blocks :math:`A z + B N(C z)` of the score of the state, by a network trained on one process.

    It takes the place of a denoiser in :func:`sdekit.sample`, as :class:`~sdekit.denoiser.StateScore` does.

    Parameters
    ----------
    network : torch.nn.Module
        ``N(x, level)``: tensors (n, k * channels, ...) and (n,) to (n, blocks * channels, ...).
    shape : tuple of int
        Shape of one block of one datum.
    loss : Matching
        What it was trained on: the process, and what the answer stands for.
    record : mapping, optional

    Raises
    ------
    BadInput
        At a call, for blocks of another shape, or a time outside (0, T].
    """

    of_state = True

    def __init__(self, network: torch.nn.Module, shape: Sequence[int], loss: Matching, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(network, shape, record)
        self.loss, self.process = loss, loss.process

    def told(self, t: Array) -> tuple[Array, ...]:
        """The maps ``C``, ``A``, ``B`` at times (n,), and what the network is told of them."""
        maps = self.loss.maps(t)
        return maps.C, maps.A, maps.B, precondition(torch.from_numpy(maps.sigma), self.loss.spread)[3].numpy()

    def __call__(self, z: Any, t: Any, *maps: Any) -> Any:
        """The score at z (k, n, *shape) and t, a number or (n,), of z's shape, type and library; no gradient is recorded.

        ``maps`` are those of :meth:`told`, which is asked when they are absent.
        """
        if not is_torch(z):
            host = np.asarray(z, float)
            return self(torch.from_numpy(host), t, *map(torch.from_numpy, maps)).numpy()
        if tuple(z.shape[:1]) + tuple(z.shape[2:]) != (self.process.k, *self.shape):
            raise BadInput(f"z has shape {tuple(z.shape)}; this network takes ({self.process.k}, n, {', '.join(map(str, self.shape))})")
        with torch.no_grad():
            C, A, B, noise = maps or (like(table, z) for table in self.told(np.atleast_1d(np.asarray(to_host(t), float))))
            joined = mix(C, z).transpose(0, 1).flatten(1, 2).to(self.device, self.dtype)
            answer = raw(self.network, joined, noise.to(self.device, self.dtype).expand(z.shape[1])).to(z.device, z.dtype)
            blocks = answer.reshape(z.shape[1], self.loss.blocks, *self.shape).transpose(0, 1)
            return mix(A, z) + mix(B, blocks)


class NetworkClassifier(Network):
    r"""``log p(c | y)`` of noisy data :math:`y = x_0 + \sigma n`, for classifier guidance on any process.

    Since :math:`p(c | z_t)` depends on the state through ``y`` alone, the gradient in the state is
    :math:`\nabla_z = (S^{-1}\psi / SNR)\, \nabla_y`, and in a denoiser's place
    :math:`D_c = D + w\,\sigma^2\, \nabla_y \log p(c | y)`, exact for ``w = 1``.

    Parameters
    ----------
    network : torch.nn.Module
        ``N(x, level)``: tensors (n, *shape) and (n,) to (n, classes, ...), whose mean over the pixels is the logit.
    shape : tuple of int
    loss : Classification
    record : mapping, optional
    """

    def __init__(self, network: torch.nn.Module, shape: Sequence[int], loss: Classification, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(network, shape, record)
        self.loss, self.classes = loss, loss.classes

    def _logs(self, y: torch.Tensor, sigma: Any) -> torch.Tensor:
        if tuple(y.shape[1:]) != self.shape:
            raise BadInput(f"y has shape {tuple(y.shape)}; this network takes (n, {', '.join(map(str, self.shape))})")
        level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(y.shape[0])
        _, _, c_in, told = precondition(level, self.loss.spread)
        x = c_in.reshape(-1, *[1] * len(self.shape)) * y
        logits = raw(self.network, x.to(self.device, self.dtype), told.to(self.device, self.dtype)).flatten(2).mean(2)
        return torch.log_softmax(logits.to(y.device, y.dtype), 1)

    def __call__(self, y: Any, sigma: Any) -> Any:
        """Log-probabilities (n, classes) at y (n, *shape) and sigma, a number or (n,)."""
        if not is_torch(y):
            return self(torch.from_numpy(np.asarray(y, float)), sigma).numpy()
        with torch.no_grad():
            return self._logs(y, sigma)

    def given(self, label: Any, process: Process | None = None) -> Callable[[torch.Tensor, Any], torch.Tensor]:
        r"""``log p(c | y; sigma) -> (n,)`` of a class, or a class each (n,), with torch's gradient.

        It is what :func:`~sdekit.torch.guidance.Classified` takes.  With a process it is ``log p(c | z, t)`` of the whole state (k, n, *shape), by
        :math:`y = \psi^T S^{-1} z / SNR`.
        """
        own = torch.as_tensor(as_labels(label, self.classes))

        def of_data(y: torch.Tensor, sigma: Any) -> torch.Tensor:
            return self._logs(y, sigma).gather(1, own.to(y.device).expand(y.shape[0])[:, None])[:, 0]

        if process is None:
            return of_data
        kernel_at = process.kernel

        def of_state(z: torch.Tensor, t: Any) -> torch.Tensor:
            kernel = kernel_at(float(t))
            return of_data(torch.tensordot(torch.from_numpy(kernel.observe).to(z), z, 1), float(kernel.sigma_eff))

        return of_state

    def gradient(self, y: Any, sigma: Any, label: Any) -> Any:
        r""":math:`\nabla_y \log p(c | y)` (n, *shape) for a class, or a class each (n,)."""
        if not is_torch(y):
            return self.gradient(torch.from_numpy(np.asarray(y, float)), sigma, label).numpy()
        with torch.enable_grad():
            point = y.detach().requires_grad_(True)
            return torch.autograd.grad(self.given(label)(point, sigma).sum(), point)[0]


def model_of(loss: Loss, network: torch.nn.Module, shape: Sequence[int], record: Mapping[str, Any], classes: int | None) -> Any:
    """The model that a network trained on ``loss`` is."""
    if isinstance(loss, Matching):
        return NetworkScore(network, shape, loss, record)
    if isinstance(loss, Classification):
        return NetworkClassifier(network, shape, loss, record)
    if isinstance(loss, Denoising):
        return NetworkDenoiser(network, shape, loss.spread, record, classes)
    raise BadInput(f"loss = {loss!r} must be Denoising, Matching or Classification")


def loss_of(record: Mapping[str, Any]) -> Loss:
    """The loss that ``as_dict`` wrote.

    Raises
    ------
    BadInput
        For an unknown kind, or entries that are missing, too many or out of range.
    """
    kinds: dict[str, Any] = {made.kind: made for made in (Denoising, Classification, Matching)}
    entries = dict(record)
    kind = entries.pop("kind", None)
    if kind not in kinds:
        raise unknown("kind of objective", kind, kinds)
    known = {entry.name for entry in fields(kinds[kind])}
    if set(entries) != known:
        raise BadInput(f"objective {kind!r} has the entries {sorted(entries)}; it must have {sorted(known)}")
    if kind == Matching.kind:
        entries |= {"process": from_record(entries["process"]), "levels": levels_of(entries["levels"])}
    made: Loss = kinds[kind](**entries)
    return made
