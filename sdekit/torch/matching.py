r"""Score matching for networks on the whole state, and what a network's answer stands for.

For a linear process and data :math:`x_0` the pair of a training step is linear in :math:`x_0` and in standard normals, and so is every target:
all coefficients are (k x k) matrices, made on the host in float64.  With the score of the kernel :math:`s^*`, which is

* *hybrid* score matching: :math:`-S^{-1}(z - \psi x_0)`, the auxiliary start integrated out (Dockhorn et al. 2022, HSM), or
* *given* start, denoising score matching: :math:`-S_c^{-1}(z - E z_0)`, the whole start :math:`z_0` drawn (DSM; Vincent 2011),

a network :math:`N` stands for the score :math:`s = A z + B N`, and its loss is :math:`E|R\,(N - N^*)|^2` with :math:`A z + B N^* = s^*`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, positive, unknown
from ..kernel import solve_lower, triangular
from ..process import Process
from ..record import to_record
from .levels import Levels, LogNormal
from .losses import Draw, squared
from .network import precondition

import torch  # isort: skip  (after .network, which says what to install)

Array = NDArray[np.float64]

__all__ = ["Maps", "Matching"]

ANSWERS = ("score", "eps", "mixed", "data", "edm")
WEIGHTINGS = ("answer", "eps", "edm", "likelihood")
STARTS = ("hybrid", "given")


class Maps(NamedTuple):
    """Coefficients at times (n,): ``input = C z``, ``score = A z + B answer``; and the level.

    Attributes
    ----------
    C, A : arrays (n, k, k)
    B : array (n, k, m)
    sigma : array (n,)
    """

    C: Array
    A: Array
    B: Array
    sigma: Array


@dataclass(frozen=True)
class Matching:
    r"""Score matching for a network on the whole state of a linear process: ``k`` blocks in, ``k`` or one block out.

    The network sees :math:`C z` with :math:`C = L_P^{-1}`, :math:`P = S + \sigma_d^2 \psi\psi^T`: unit variance, no correlation of blocks.

    ==========  ======================================================  ==========================================
    ``of``      the answer ``N``                                        score
    ==========  ======================================================  ==========================================
    score       the score                                               :math:`N`
    eps         noise :math:`e` of the *lower Cholesky* root ``L``      :math:`-L^{-T} N`
    mixed       CLD's rest beside a normal auxiliary block              :math:`-\mathrm{diag}(0, 1/S_{jj}) z - L^{-T} N`
    data        :math:`x_0`, one block                                  :math:`-S^{-1}(z - \psi N)`
    edm         :math:`(x_0 - c_{skip}^T z)/c_{out}`, one block         :math:`-P^{-1} z + c_{out} S^{-1} \psi N`
    ==========  ======================================================  ==========================================

    ==============  ==============================================================================================
    ``weighting``   the loss
    ==============  ==============================================================================================
    answer          :math:`|N - N^*|^2`; with ``eps`` that of PSLD and CLD
    eps             :math:`|L^T (s - s^*)|^2`, the same for every answer
    edm             that times :math:`(\sigma_{eff}^2 + \sigma_d^2)/\sigma_d^2`: EDM's :math:`1/c_{out}^2` of ``D``
    likelihood      :math:`|G^T (s - s^*)|^2`: over uniform ``t`` it bounds the likelihood, times ``2/T``
    ==============  ==============================================================================================

    Parameters
    ----------
    process : Process
    spread : float
        :math:`\sigma_d`, the data's deviation; their mean should be near 0.
    of, weighting : str
    start : {"hybrid", "given"}
        Hybrid or denoising score matching.  With ``given``, ``L`` is the root of the covariance given the whole start.
    levels : Levels
        Law of ``t``.

    Raises
    ------
    BadInput
        For another word in one of the tables.

    Notes
    -----
    All have the same minimiser where ``R`` has full rank; with ``likelihood`` and ``G`` without a row for a block (CLD's data block) the score of
    that block is not learnt, and samplers that use it must not be used.  ``given`` has the same minimiser as ``hybrid`` and a larger variance.

    References
    ----------
    T. Dockhorn, A. Vahdat, K. Kreis, arXiv:2112.07068; K. Pandey, S. Mandt, arXiv:2303.01748 (eq. 8); Y. Song et al., arXiv:2101.09258.
    """

    kind: ClassVar[str] = "matching"
    process: Process
    spread: float
    of: str = "edm"
    weighting: str = "answer"
    start: str = "hybrid"
    levels: Levels = field(default_factory=LogNormal)

    def __post_init__(self) -> None:
        if not isinstance(self.process, Process):
            raise BadInput(f"process = {self.process!r} must be a Process, such as sdekit.catalogue.psld()")
        object.__setattr__(self, "spread", positive("spread", self.spread))
        for name, known in (("of", ANSWERS), ("weighting", WEIGHTINGS), ("start", STARTS)):
            if getattr(self, name) not in known:
                raise unknown(f"value of {name}", getattr(self, name), known)

    @property
    def normals(self) -> int:
        """See :class:`~sdekit.torch.losses.Loss`: the noise of the state, and with a given start that of the start."""
        return self.process.k * (2 if self.start == "given" else 1)

    @property
    def blocks(self) -> int:
        """Blocks of the answer."""
        return 1 if self.of in ("data", "edm") else self.process.k

    def channels(self, channels: int) -> tuple[int, int]:
        """See :class:`~sdekit.torch.losses.Loss`."""
        return self.process.k * channels, self.blocks * channels

    def maps(self, t: ArrayLike) -> Maps:
        """The coefficients at times in (0, T], of shape (n,)."""
        kernel, root = self.process.kernel(t), self._root(t)[0]
        k, level = self.process.k, np.asarray(kernel.sigma_eff)
        eye = np.broadcast_to(np.eye(k), root.shape)
        lower = triangular(np.concatenate([kernel.chol, self.spread * kernel.psi[..., None]], axis=-1))
        C = solve_lower(lower, eye)
        A = np.zeros_like(C)
        if self.of == "score":
            return Maps(C, A, np.array(eye), level)
        if self.of in ("eps", "mixed"):
            if self.of == "mixed":
                A = -eye * _auxiliary(kernel.cov)[..., None]
            return Maps(C, A, -solve_lower(root, eye, transpose=True), level)
        pull = solve_lower(kernel.chol, kernel.whitened[..., None], transpose=True)  # S^-1 psi
        if self.of == "data":
            inverse = solve_lower(kernel.chol, eye)
            return Maps(C, -_turned(inverse) @ inverse, pull, level)
        return Maps(C, -_turned(C) @ C, self._c_out(level)[:, None, None] * pull, level)

    def _c_out(self, level: Array) -> Array:
        return np.asarray(level * self.spread / np.hypot(level, self.spread))

    def _root(self, t: ArrayLike) -> tuple[Array, Array]:
        """Root ``L`` (n, k, k) of the covariance that the noise of the target has, and ``M`` (n, k, b): ``z = psi x0 + M normals``."""
        if self.start == "hybrid":
            root = self.process.kernel(t).chol
            return root, root
        step = self.process.transition(np.zeros(np.shape(t)), t)
        return step.chol, np.concatenate([step.chol, step.mean @ self.process.kernel(0.0).chol], axis=-1)

    def _target(self, t: ArrayLike) -> tuple[Array, Array]:
        """Coefficients of the target in x0 (n, m) and in the normals (n, m, b)."""
        kernel, (root, M) = self.process.kernel(t), self._root(t)
        k = self.process.k
        own = np.concatenate([np.broadcast_to(np.eye(k), root.shape), np.zeros((*M.shape[:-1], M.shape[-1] - k))], axis=-1)
        if self.of == "score":
            return np.zeros_like(kernel.psi), -solve_lower(root, own, transpose=True)
        if self.of == "eps":
            return np.zeros_like(kernel.psi), own
        if self.of == "mixed":
            part = _turned(root) * _auxiliary(kernel.cov)[..., None, :]
            return -(part @ kernel.psi[..., None])[..., 0], own - part @ M
        if self.of == "data":
            return np.ones((*M.shape[:-2], 1)), np.zeros((*M.shape[:-2], 1, M.shape[-1]))
        c_out = self._c_out(np.asarray(kernel.sigma_eff))[:, None]
        along = kernel.whitened[..., None, :] @ solve_lower(kernel.chol, M)
        return c_out / self.spread**2, -c_out[..., None] * along

    def _weight(self, t: Array, maps: Maps, factor: Array) -> Array | None:
        """The root ``R`` (n, r, m) of the weight."""
        if self.weighting == "answer":
            R = np.broadcast_to(np.eye(self.blocks), (*maps.B.shape[:-2], self.blocks, self.blocks))
            return None if np.all(factor == 1.0) else R * np.sqrt(factor)[:, None, None]
        if self.weighting == "likelihood":
            R = _turned(self.process.noise(t)) @ maps.B
        elif self.weighting == "eps":
            R = _turned(self._root(t)[0]) @ maps.B
        else:
            ratio = np.hypot(maps.sigma, self.spread) / self.spread
            R = ratio[:, None, None] * (_turned(self.process.kernel(t).chol) @ maps.B)
        return np.asarray(R * np.sqrt(factor)[:, None, None])

    def draw(self, x0: torch.Tensor, normals: torch.Tensor, uniforms: ArrayLike) -> Draw:
        """See :class:`~sdekit.torch.losses.Loss`."""
        t, factor = self.levels.draw(self.process, uniforms)
        maps, M = self.maps(t), self._root(t)[1]
        psi = self.process.kernel(t).psi
        registers = torch.cat([x0[None], normals])

        def mixed(data: Array, noise: Array) -> torch.Tensor:
            table = torch.from_numpy(np.concatenate([data[..., None], noise], axis=-1)).to(x0)
            return torch.einsum("nab,bn...->na...", table, registers).flatten(1, 2)

        weight = self._weight(t, maps, factor)
        return Draw(
            mixed((maps.C @ psi[..., None])[..., 0], maps.C @ M),
            precondition(torch.from_numpy(maps.sigma), self.spread)[3].to(x0),
            mixed(*self._target(t)),
            None if weight is None else torch.from_numpy(weight).to(x0),
        )

    def error(self, answer: torch.Tensor, drawn: Draw) -> torch.Tensor:
        """See :class:`~sdekit.torch.losses.Loss`: mean over a block's numbers, sum over blocks."""
        return squared(answer, drawn, self.blocks)

    def as_dict(self) -> dict[str, Any]:
        """See :class:`~sdekit.torch.losses.Loss`; a process that varies in its own clock cannot be written."""
        levels = {"kind": self.levels.kind, **vars(self.levels)}
        words = {"of": self.of, "weighting": self.weighting, "start": self.start}
        return {"kind": self.kind, "process": to_record(self.process), "spread": self.spread, **words, "levels": levels}


def _turned(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)


def _auxiliary(cov: Array) -> Array:
    """``1 / S_jj`` of the auxiliary blocks, 0 for the data block, (n, k)."""
    variances = np.diagonal(cov, axis1=-2, axis2=-1)
    return np.where(np.arange(variances.shape[-1]) > 0, 1.0 / variances, 0.0)
