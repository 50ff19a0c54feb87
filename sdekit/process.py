r"""Linear diffusions on ``k`` blocks: :math:`dz = \beta(t) F z\,dt + \sqrt{\beta(t)}\,G\,dW`, acting as ``(k x k) (x) I_d``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .clocks import Clock, constant
from .comparison import Comparison, compare
from .errors import BadInput, positive
from .kernel import Kernel, Transition, solve_lower, triangular
from .motion import Motion, Uniform, Varying

if TYPE_CHECKING:
    from .recipe import Recipe

Array = NDArray[np.float64]

__all__ = ["Process"]


def _matrix(name: str, value: ArrayLike, rows: int | None = None) -> Array:
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise BadInput(f"{name} must be a matrix of numbers") from None
    array = array.reshape(1, 1) if array.ndim == 0 else array
    if array.ndim != 2 or (rows is not None and array.shape[0] != rows):
        raise BadInput(f"{name} has shape {array.shape}; it must be a matrix with {rows if rows is not None else 'k'} rows")
    if not np.all(np.isfinite(array)):
        raise BadInput(f"{name} holds a value that is not finite")
    array.setflags(write=False)
    return array


def _latex(matrix: Array) -> str:
    rows = r" \\ ".join(" & ".join(f"{entry:.6g}" for entry in row) for row in matrix)
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"


def _motion(F: Any, G: Any, end: float) -> tuple[Motion, int]:
    """The motion and the number of blocks."""
    if hasattr(F, "transition"):
        return F, int(F.drift(end).shape[-1])
    if not callable(F) and not callable(G):
        drift = _matrix("F", F)
        k = drift.shape[0]
        if drift.shape != (k, k):
            raise BadInput(f"F has shape {drift.shape}; it must be square")
        return Uniform(drift, _matrix("G", G, k)), k
    k = _matrix("F", F(end) if callable(F) else F).shape[0]
    parts = [part if callable(part) else _matrix(name, part, k) for name, part in (("F", F), ("G", G))]
    return Varying(parts[0], parts[1], k, end), k


@dataclass(frozen=True, eq=False, init=False)
class Process:
    r"""A linear SDE :math:`dz = \beta(t) F z\,dt + \sqrt{\beta(t)}\,G\,dW` whose first block starts as data, the others with covariance ``S0``.

    Parameters
    ----------
    F : array (k, k), callable or Motion
        Drift in the unit clock, or a function of the unit clock ``B`` (of time itself without a clock) that returns it; or a motion with closed
        forms of its own, and then no ``G``.
    G : array (k, q), callable, or None with a motion
        Noise in the unit clock, or a function of it; the diffusion matrix of the recipe is ``D = G G^T / 2``.
    S0 : array (k, k), optional
        Covariance at t = 0 around ``(x_0, 0, ...)``.  Zero when absent; auxiliary blocks usually start with a variance (hybrid score matching).
    T : float, optional
        End of the forward process; that of the clock when absent.
    clock : Clock, optional
        ``constant(1, T)`` when absent.
    blocks : sequence of str, optional
        Names of the blocks, the data block first.

    Raises
    ------
    BadInput
        For shapes that do not fit, values that are not finite, an ``S0`` that is not a covariance, or noise that never reaches the data block.

    Notes
    -----
    Times run forward, data at 0.  The level :math:`\sigma_{eff}` never decreases, because :math:`\dot{SNR} = -|G^T S^{-1} \psi|^2`.
    """

    k: int
    motion: Motion
    S0: Array
    T: float
    clock: Clock
    blocks: tuple[str, ...]
    name: str
    recipe: Recipe | None

    def __init__(
        self,
        F: ArrayLike | Callable[[float], ArrayLike] | Motion,
        G: ArrayLike | Callable[[float], ArrayLike] | None,
        S0: ArrayLike | None = None,
        T: float | None = None,
        *,
        clock: Clock | None = None,
        blocks: Sequence[str] = (),
        name: str = "process",
        recipe: Recipe | None = None,
    ) -> None:
        clock = constant(1.0, 1.0 if T is None else positive("T", T)) if clock is None else clock
        end = float(clock.T) if T is None else positive("T", T)
        if end > clock.T:
            raise BadInput(f"T = {end:g} must lie in (0, {clock.T:g}], the span of the clock")
        motion, k = _motion(F, G, float(clock.integral(end)))
        names = tuple(blocks) or ("x", "m", *(f"m{i}" for i in range(2, k)))[:k]
        if len(names) != k or len(set(names)) != k:
            raise BadInput(f"blocks = {names} must be {k} different names")
        values = {
            "motion": motion, "k": k, "S0": _matrix("S0", np.zeros((k, k)) if S0 is None else S0, k),
            "T": end, "clock": clock, "blocks": names, "name": name, "recipe": recipe,
        }  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)
        self._check()

    def _check(self) -> None:
        S0, size = self.S0, float(np.max(np.abs(self.S0)))
        if S0.shape != (self.k, self.k) or np.any(np.abs(S0 - S0.T) > 1e-12 * size):
            raise BadInput("S0 must be a symmetric k x k matrix")
        if np.min(np.linalg.eigvalsh(S0)) < -1e-12 * size:
            raise BadInput(f"S0 = {S0.tolist()} is not a covariance: it has a negative eigenvalue")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            level = float(self.kernel(self.T).sigma_eff)
        if not (np.isfinite(level) and level > 0.0):
            raise BadInput(f"no noise reaches the data block by t = {self.T:g} (sigma_eff = {level:g}), or the kernel is singular: check G and F")

    def end(self, t: float) -> tuple[Array, Array]:
        """The step to the data: with ``x_0 = D`` the state at 0 is ``e_x D + K (z_t - psi_t D) + C xi``; returns ``K`` and ``C``."""
        start = Kernel(self._start.psi, self._start.chol * (np.arange(self.k) > 0)[:, None])
        return start.posterior(self.transition(0.0, t))

    @cached_property
    def _start(self) -> Kernel:
        values, vectors = np.linalg.eigh(self.S0)
        return Kernel(np.eye(self.k)[0], triangular(vectors * np.sqrt(np.maximum(values, 0.0))))

    @property
    def F(self) -> Array:
        """Drift in the unit clock; refused where it varies in that clock (:meth:`drift` is defined at every time)."""
        return self._uniform("F").F

    @property
    def G(self) -> Array:
        """Noise in the unit clock; refused where it varies in that clock (:meth:`noise` is defined at every time)."""
        return self._uniform("G").G

    def _uniform(self, name: str) -> Uniform:
        if isinstance(self.motion, Uniform):
            return self.motion
        raise BadInput(f"process {self.name!r} has no constant {name}: it varies in its own clock; use drift(t) and noise(t)")

    def drift(self, t: ArrayLike) -> Array:
        r""":math:`\beta(t) F`, (..., k, k)."""
        return np.asarray(self.clock.rate(t)[..., None, None] * self.motion.drift(self.clock.integral(t)))

    def noise(self, t: ArrayLike) -> Array:
        r""":math:`\sqrt{\beta(t)}\,G`, (..., k, q)."""
        return np.asarray(np.sqrt(self.clock.rate(t))[..., None, None] * self.motion.noise(self.clock.integral(t)))

    def kernel(self, t: ArrayLike) -> Kernel:
        """``p(z_t | x_0)`` with the auxiliary start integrated out; ``t`` a time or an array of times in [0, T]."""
        return self._at(np.asarray(self.clock.integral(self.within(t))))

    def _at(self, B: Array) -> Kernel:
        return self._start.then(self.motion.transition(np.zeros_like(B), B))

    def transition(self, s: ArrayLike, t: ArrayLike) -> Transition:
        """``p(z_t | z_s)`` for ``s <= t``."""
        s, t = np.broadcast_arrays(self.within(s), self.within(t))
        if np.any(t < s):
            raise BadInput(f"transition from s = {s} to t = {t}: s must not exceed t")
        low, high = self.clock.integral(s), self.clock.integral(t)
        return self.motion.transition(low, np.maximum(high, low))

    def within(self, t: ArrayLike) -> Array:
        """``t`` as an array, if all of it lies in [0, T]."""
        t = np.asarray(t, float)
        if not np.all((t >= 0.0) & (t <= self.T * (1.0 + 1e-12))):
            raise BadInput(f"t = {t} must lie in [0, {self.T:g}]")
        return np.asarray(np.minimum(t, self.T))

    def sigma_eff(self, t: ArrayLike) -> Array:
        r"""Noise level :math:`(\psi^T S^{-1} \psi)^{-1/2}` of the scalar denoising problem that time ``t`` is equal to; increasing in ``t``."""
        t = self.within(t)
        level = self.kernel(t).sigma_eff
        return np.asarray(np.where(t == 0.0, self._sigma_start, level))

    @cached_property
    def _sigma_start(self) -> float:
        """The level at t = 0: positive only if the data block itself starts with noise."""
        values, vectors = np.linalg.eigh(self.S0)
        e = vectors[0]
        inside = values > 1e-14 * max(float(values[-1]), 0.0)
        if np.sum(e[~inside] ** 2) > 1e-12 or not inside.any():
            return 0.0
        return float(1.0 / np.sqrt(np.sum(e[inside] ** 2 / values[inside])))

    @cached_property
    def knee(self) -> float:
        """A time below which the level hardly moves; 0 if the data block starts without noise."""
        low = self._sigma_start
        return 0.0 if low == 0.0 else float(self.time_of(min(2.0 * low, float(self.sigma_eff(self.T)))))

    def time_of(self, sigma: ArrayLike) -> Array:
        """The time at which ``sigma_eff`` equals ``sigma``: the inverse of :meth:`sigma_eff`, vectorised.

        Raises
        ------
        BadInput
            If a level lies outside [sigma_eff(0), sigma_eff(T)].
        """
        sigma = np.asarray(sigma, float)
        low, high = self._sigma_start, float(self.sigma_eff(self.T))
        if not np.all((sigma >= low * (1.0 - 1e-12)) & (sigma <= high * (1.0 + 1e-12))):
            raise BadInput(f"sigma = {sigma} is outside the levels [{low:g}, {high:g}] of process {self.name!r}")
        inside = (sigma > low) & (sigma < high)
        t = np.where(sigma >= high, self.T, 0.0)
        if np.any(inside):
            B = self._stretch_of(sigma[inside])
            t[inside] = np.clip(self.clock.inverse(B), 0.0, self.T)
        return np.asarray(t)

    def _stretch_of(self, sigma: Array) -> Array:
        """Unit-clock stretch at which the level is ``sigma``: closed form for one block, else Newton on log against log within a bracket."""
        if self.k == 1 and isinstance(self.motion, Uniform):
            rate, noise = self.motion.F[0, 0], np.sum(self.motion.G * self.motion.G)
            gap = (sigma - self._sigma_start) * (sigma + self._sigma_start) / noise
            return np.asarray(gap if rate == 0.0 else -np.log1p(-2.0 * rate * gap) / (2.0 * rate))
        target = np.log(sigma)
        top = float(np.log(self.clock.integral(self.T)))
        mesh, levels = self._levels
        x = np.interp(target, levels, mesh)
        low, high, done = np.full_like(x, mesh[0] - 60.0), np.full_like(x, top), np.zeros(x.shape, bool)
        for _ in range(100):
            kernel = self._at(np.exp(x))
            error = np.log(kernel.sigma_eff) - target
            low, high = np.where(error < 0.0, x, low), np.where(error >= 0.0, x, high)
            pull = np.swapaxes(self.motion.noise(np.exp(x)), -1, -2) @ solve_lower(kernel.chol, kernel.whitened[..., None], transpose=True)
            slope = 0.5 * np.exp(x) * np.sum(pull[..., 0] ** 2, axis=-1) / kernel.snr
            step = np.divide(error, slope, out=np.full_like(x, np.inf), where=slope > 0.0)
            small = np.abs(step) <= 4e-15 * np.maximum(1.0, np.abs(x))  # down there rounding moves the bracket: the step alone counts
            new = np.where(small | ((x - step > low) & (x - step < high)), x - step, 0.5 * (low + high))
            near = small | (np.abs(new - x) <= 4e-15 * np.maximum(1.0, np.abs(x)))
            x, done = np.where(done, x, new), done | near  # each stops by itself, whatever is beside it
            if np.all(done):
                break
        return np.asarray(np.exp(x))

    @cached_property
    def _levels(self) -> tuple[Array, Array]:
        top = float(np.log(self.clock.integral(self.T)))
        mesh = np.linspace(top - 40.0, top, 401)
        return mesh, np.log(self._at(np.exp(mesh)).sigma_eff)

    @cached_property
    def stationary(self) -> Array:
        r"""Covariance :math:`\Sigma` of the stationary law, from :math:`F \Sigma + \Sigma F^T + G G^T = 0`.

        Raises
        ------
        BadInput
            If ``F`` has an eigenvalue with nonnegative real part (then there is none, for example for ``ve`` and ``edm``).
        """
        if not isinstance(self.motion, Uniform):
            raise BadInput(f"process {self.name!r} has no stationary law: its drift or noise varies in its own clock; start from the prior instead")
        F, G = self.motion.F, self.motion.G
        if np.max(np.linalg.eigvals(F).real) >= 0.0:
            raise BadInput(f"process {self.name!r} has no stationary law: F is not a contraction; start from the prior instead")
        k, eye = self.k, np.eye(self.k)
        flat = np.linalg.solve(np.kron(F, eye) + np.kron(eye, F), -(G @ G.T).ravel())
        sigma = flat.reshape(k, k)
        return np.asarray(0.5 * (sigma + sigma.T))

    def compare(self, other: Process) -> Comparison:
        """Moments, SNR, levels and stationary laws beside those of another process, and whether the two are the same mathematics.

        Raises
        ------
        BadInput
            If ``other`` is not a process.
        """
        return compare(self, other)

    @property
    def key(self) -> tuple[Any, ...]:
        """What the process is, without its names: two processes with the same key are the same mathematics."""
        return (*self.motion.key, self.S0.tobytes(), self.clock, self.T)

    def __repr__(self) -> str:
        drift = self.F.tolist() if isinstance(self.motion, Uniform) else "varying"
        return f"Process({self.name!r}, blocks={'/'.join(self.blocks)}, F={drift}, T={self.T:g}, {self.clock})"

    def _repr_latex_(self) -> str:
        names = r" \\ ".join(self.blocks)
        state = rf"\begin{{pmatrix}}{names}\end{{pmatrix}}"
        fixed = isinstance(self.motion, Uniform)
        drift, noise = (_latex(self.F), _latex(self.G)) if fixed else ("F(B)", "G(B)")
        return rf"$$d{state} = \beta(t) {drift} {state} dt + \sqrt{{\beta(t)}} {noise} dW, \quad t \in [0, {self.T:g}]$$"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
