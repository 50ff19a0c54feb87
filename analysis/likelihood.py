r"""Likelihoods through the probability-flow ODE, by the change of density along it.

All that a linear process says of the data is in :math:`y = x_0 + \sigma n`, whose density obeys, along :math:`dy/d\log\sigma = y - D(y; \sigma)`,

.. math:: \log p_{\sigma_0}(y_0) = \log N(y_T; 0, \sigma_T^2)
          + \int_{\log\sigma_0}^{\log\sigma_T} \big(d - \mathrm{tr}\,\partial_y D\big)\, d\log\sigma ,

so that a denoiser needs no bound, whatever the number of blocks.  A network on the whole state does: see :func:`log_likelihood`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import dtype_of, is_torch, like, to_host
from ..errors import BadInput, positive, unknown, whole
from ..noise import DATA, Address, as_noise
from ..process import Process

Array = NDArray[np.float64]

__all__ = ["Likelihood", "log_likelihood"]

_NUDGE = 1e-4  # of a central difference, in units of the level


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log densities of data under a model.

    Attributes
    ----------
    value : array (n,)
        Natural logarithm of the density of each datum, smoothed at ``sigma``.
    sigma : float
        Level at which the flow was stopped.
    bound : bool
        Whether the values are lower bounds (a network of the whole state).
    nfe : int
        Model calls, those for the trace included.
    dimension : int
    """

    value: Array
    sigma: float
    bound: bool
    nfe: int
    dimension: int

    @property
    def bits(self) -> Array:
        """Negative log likelihood in bits per dimension, (n,)."""
        return np.asarray(-self.value / (self.dimension * np.log(2.0)))

    def __repr__(self) -> str:
        kind = "at least " if self.bound else ""
        return f"Likelihood({kind}{np.mean(self.value):.6g} nats on average, {np.mean(self.bits):.4g} bits/dim, sigma={self.sigma:g}, nfe={self.nfe})"


def log_likelihood(
    process: Process,
    denoise: Any,
    x: ArrayLike,
    *,
    sigma_min: float = 0.002,
    trace: str = "exact",
    probes: int = 1,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> Likelihood:
    r"""Log density of data under the probability-flow ODE that starts from the process's prior.

    Parameters
    ----------
    process : Process
    denoise : callable
        ``denoise(y, sigma)``; or a :class:`~sdekit.denoiser.StateScore`, for which the auxiliary blocks are drawn and the value is the bound
        :math:`\log p(x_0) \ge E_m[\log p(x_0, m) - \log q(m)]`, :math:`q = N(0, S_0)`, of one draw.
    x : array (n, *shape)
    sigma_min : float
        Level at which the flow ends: the density is that of the data plus noise of this level.
    trace : {"exact", "hutchinson"}
        ``exact`` differentiates along every coordinate (d model calls, or 2 d for NumPy models); ``hutchinson`` along random signs, unbiased.
    probes, seed : int
        Random directions, and their seed.
    tolerance : float
        Relative, of the adaptive integrator (DOP853).

    Returns
    -------
    Likelihood

    Raises
    ------
    BadInput
        For another trace, a level outside the process, or auxiliary blocks that start without variance.

    References
    ----------
    Song et al. 2021, arXiv:2011.13456, 4.3; Dockhorn, Vahdat and Kreis 2022, arXiv:2112.07068, for the bound.
    """
    if trace not in ("exact", "hutchinson"):
        raise unknown("trace", trace, ["exact", "hutchinson"])
    data = np.asarray(x, float)
    if data.ndim < 1 or not np.all(np.isfinite(data)):
        raise BadInput(f"x must be finite data of shape (n, *shape), got shape {data.shape}")
    n, d = len(data), max(1, int(np.prod(data.shape[1:])))
    t = float(process.time_of(positive("sigma_min", sigma_min)))
    whole_state = bool(getattr(denoise, "of_state", False))
    flow = _state_flow(process, denoise, data, t, seed) if whole_state else _data_flow(process, denoise, data, t)
    shape = flow.begin.shape
    width = flow.begin[0].size
    directions = _directions(n, width, trace, whole("probes", probes), seed)
    along = _Along(flow.field, shape, directions, exact=trace == "exact", device=dtype_of(None, None, denoise))
    from scipy.integrate import solve_ivp

    def slope(u: float, state: Array) -> Array:
        move, divergence = along(state[: n * width].reshape(shape), u)
        return np.concatenate([move.ravel(), divergence])

    begin = np.concatenate([flow.begin.ravel(), np.zeros(n)])
    end = solve_ivp(slope, flow.span, begin, method="DOP853", rtol=tolerance, atol=0.1 * tolerance).y[:, -1]
    value = flow.last(end[: n * width].reshape(shape)) + end[n * width :] - flow.drawn
    return Likelihood(value, float(process.sigma_eff(t)), whole_state, along.calls, d)


class _Flow(NamedTuple):
    """An ODE from data to the prior: where it begins, its field, the ends of its variable, the log density of the prior, and that of draws."""

    begin: Array
    field: Callable[[Any, float], Any]
    span: tuple[float, float]
    last: Callable[[Array], Array]
    drawn: Array | float


def _directions(n: int, width: int, trace: str, probes: int, seed: int) -> list[Array]:
    if trace == "exact":
        return [np.broadcast_to(row, (n, width)) for row in np.eye(width)]
    slots = [Address(DATA, leg=1, slot=i) for i in range(probes)]
    return [np.where(normal > 0.0, 1.0, -1.0) for normal in as_noise(seed).draw(slots, np.arange(n), (width,))]


def _log_normal(white: NDArray[Any], log_root: float) -> Array:
    """Log density of normals whose whitened values are ``white`` (n, size); ``log_root`` the log determinant of the root, for each sample."""
    return np.asarray(-0.5 * np.sum(white**2, axis=1) - log_root - 0.5 * white.shape[1] * np.log(2.0 * np.pi))


def _data_flow(process: Process, denoise: Any, data: Array, t: float) -> _Flow:
    """``dy/du = y - D`` in ``u = log sigma``, which starts from the data and ends on ``N(0, sigma_T^2)``."""
    low, high = (float(level) for level in process.sigma_eff([t, process.T]))

    def field(y: Any, u: float) -> Any:
        return y - denoise(y, float(np.exp(u)))

    def last(y: Array) -> Array:
        return _log_normal(y.reshape(len(y), -1) / high, y[0].size * np.log(high))

    return _Flow(data, field, (np.log(low), np.log(high)), last, 0.0)


def _state_flow(process: Process, score: Any, data: Array, t: float, seed: int) -> _Flow:
    """``dz/d log t = t (F z - G G' s / 2)`` from (data, drawn auxiliary blocks), blocks on the second axis."""
    k, d, n = process.k, max(1, data[0].size), len(data)
    inner = process.S0[1:, 1:]
    if np.linalg.matrix_rank(inner) < k - 1:
        raise BadInput(f"the auxiliary blocks of process {process.name!r} start without variance: the bound needs a density of theirs")
    lower = np.linalg.cholesky(inner)
    xi = as_noise(seed).draw([Address(DATA, slot=j) for j in range(k - 1)], np.arange(n), data.shape[1:])
    begin = np.stack([data, *np.tensordot(lower, xi, 1)], axis=1)
    drawn = _log_normal(np.moveaxis(xi, 1, 0).reshape(n, -1), d * np.sum(np.log(np.diag(lower))))
    end = process.kernel(process.T)

    def field(z: Any, u: float) -> Any:
        now = float(np.exp(u))
        F, G = now * process.drift(now), process.noise(now)
        pull = 0.5 * now * G @ G.T
        blocks = [z[:, i] for i in range(k)]
        scores = score(_stack(blocks, 0), now)
        return _stack([sum(float(F[i, j]) * blocks[j] - float(pull[i, j]) * scores[j] for j in range(k)) for i in range(k)], 1)

    def last(z: Array) -> Array:
        white = np.linalg.solve(end.chol, np.moveaxis(z, 1, 0).reshape(k, -1)).reshape(k, n, d)
        return _log_normal(np.moveaxis(white, 1, 0).reshape(n, -1), 0.5 * d * np.log(float(end.det)))

    return _Flow(begin, field, (np.log(t), np.log(process.T)), last, drawn)


def _stack(parts: list[Any], axis: int) -> Any:
    if is_torch(parts[0]):
        import torch

        return torch.stack(parts, dim=axis)
    return np.stack(parts, axis=axis)


class _Along:
    """A vector field and its divergence, by differences (NumPy) or by automatic differentiation (torch)."""

    def __init__(self, field: Any, shape: tuple[int, ...], directions: list[Array], exact: bool, device: Any) -> None:
        self.field, self.directions, self.device, self.calls = field, directions, device, 0
        self._share = 1.0 if exact else 1.0 / len(directions)
        self._shape = shape

    def __call__(self, y: Array, u: float) -> tuple[Array, Array]:
        return self._torch(y, u) if is_torch(self.device) else self._host(y, u)

    def _host(self, y: Array, u: float) -> tuple[Array, Array]:
        nudge = _NUDGE * min(1.0, float(np.exp(u)))
        total = np.zeros(len(y))
        for direction in self.directions:
            step = nudge * direction.reshape(self._shape)
            change = (self.field(y + step, u) - self.field(y - step, u)).reshape(len(y), -1)
            total += np.sum(change * direction, axis=1) / (2.0 * nudge)
        self.calls += 1 + 2 * len(self.directions)
        return self.field(y, u), self._share * total

    def _torch(self, y: Array, u: float) -> tuple[Array, Array]:
        import torch

        with torch.enable_grad():
            at = like(y, self.device).requires_grad_()
            move = self.field(at, u)
            total = np.zeros(len(y))
            for direction in self.directions:
                sign = like(np.ascontiguousarray(direction.reshape(self._shape)), self.device)
                (pulled,) = torch.autograd.grad(torch.sum(move * sign), at, retain_graph=True)
                total += to_host(torch.sum((pulled * sign).reshape(len(y), -1), dim=1)).astype(float)
        self.calls += 1 + len(self.directions)
        return to_host(move).astype(float), self._share * total
