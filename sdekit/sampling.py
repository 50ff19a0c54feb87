"""``sample``: from a process, a denoiser and a plan to samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import dtype_of, is_torch, like, namespace, statuses, unwatched
from .adaptive import Adapted, March
from .control import Control
from .errors import BadInput, finite, whole
from .grids import Grid, karras
from .law import Law
from .legs import travel
from .methods import Method
from .modes import Modes
from .noise import PRIOR, Address, Noise, as_ids, as_noise
from .pairs import span
from .plans import Plan, run
from .process import Process
from .solve import Event, Program, Saved, program, solve
from .tableau import Rows

Array = NDArray[np.float64]

_SLOTS = 4096  # most samples under way in an adaptive run

__all__ = ["Samples", "Start", "as_model", "begin_at", "chosen_ids", "prepare", "sample", "shape_of"]


@runtime_checkable
class Start(Protocol):
    """A law of the state itself, at whichever time a run starts; such as :class:`sdekit.pfgm.Marginal`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        ...

    def begin(self, process: Any, t: float, ids: NDArray[np.int64], source: Noise, reference: Any) -> list[Any]:
        """The blocks (n, *shape) at time ``t``, addressed by id."""
        ...


@dataclass(frozen=True, eq=False)
class Samples:
    """What a run made.

    Attributes
    ----------
    state : array (k, n, *shape)
        All blocks.
    nfe : int array (n,)
        Model calls of each sample.
    status : tuple of str
        ``"ok"``, or ``"nonfinite"`` for a sample that holds an infinity or not-a-number.  An adaptive run keeps a sample where it stopped:
        ``"nonfinite"`` before a step whose error is none, ``"h_min"`` and ``"budget"`` where the control's limits are met.
    ids : int array (n,)
    saved : Saved or None
        The state at the times asked for.
    adapted : Adapted or None
        How an adaptive run went.
    """

    state: Any
    nfe: NDArray[np.int64]
    status: tuple[str, ...]
    ids: NDArray[np.int64]
    saved: Saved | None = None
    adapted: Adapted | None = None

    @property
    def x(self) -> Any:
        """The data block, (n, *shape)."""
        return self.state[0]


def prepare(
    process: Process | Modes, method: Method | None, grid: Grid | None, plan: Plan | None, start: float | None = None, state_model: bool = False
) -> Program:
    """The program for ``plan``, or for ``method`` over ``grid`` (``exponential(2)`` over ``karras(18)`` when absent)."""
    _check(process)
    if plan is not None and (method is not None or grid is not None):
        raise BadInput("give either a plan, or a method and a grid: a plan has its own")
    if plan is not None and not isinstance(plan, Plan):
        raise BadInput(f"plan = {plan!r} must be a Plan, such as sdekit.plans.run(grid, method)")
    chosen = run(karras(18) if grid is None else grid, method) if plan is None else plan
    return program(process, chosen, start, state_model)


def _check(process: Any) -> None:
    if not isinstance(process, Process | Modes):
        raise BadInput(f"process = {process!r} must be a Process, such as sdekit.catalogue.psld()")


def sample(
    process: Process | Modes,
    denoise: Any,
    *,
    method: Method | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    control: Control | None = None,
    n: int | None = None,
    ids: ArrayLike | None = None,
    shape: Sequence[int] | None = None,
    start: Any = None,
    seed: int | Noise = 0,
    dtype: Any = None,
    device: Any = None,
    batch: int | None = None,
    save: str | Sequence[float] | None = None,
    watch: Callable[[Event], None] | None = None,
) -> Samples:
    """Draw samples of the data with the reverse equation of ``process``.

    Parameters
    ----------
    process : Process or Modes
    denoise : callable
        ``denoise(y, sigma) -> E[x0 | y]``, or a :class:`~sdekit.denoiser.StateScore`; for ``Modes`` with levels that differ
        ``denoise(y, sigmas)`` with an attribute ``basis``.
    method, grid : Method and Grid, optional
        ``exponential(2)`` and ``karras(18)`` when absent; or
    plan : Plan, optional
        in the place of both; or
    control : Control, optional
        steps by error control, for each sample its own, from the first time of ``grid`` to its last, or between the process's own ends
        (:func:`sdekit.pairs.ends`) and then to the data.
    n : int, or ids : sequence of int
        How many samples, or which: sample ``i`` is the same in every batch, on every device.
    shape : tuple, optional
        Shape of one datum; ``denoise.shape`` when absent.
    start : None, "stationary", a Law, a Start, or (z, t)
        Law of the state at the first grid time: the process's prior ``N(0, S_t)`` (default), its stationary law, the exact marginal of that
        data law, a law of the state itself (:meth:`sdekit.pfgm.Pfgm.prior`), or the given blocks (k, n, *shape) at time ``t``, from where the
        grid then starts.
    seed : int or Noise
        Seed of the addressed noise, or another source such as ``sdekit.noise.Fast(0)``.
    dtype, device : optional
        Of the state.  torch is used if a device or a torch dtype is given, or if the model has a ``device``; NumPy float64 otherwise.
    batch : int, optional
        Samples run together; results do not depend on it.
    save : "all" or sequence of times, optional
        States to keep in ``saved``; with a control times only, which the steps of each sample then visit.
    watch : callable, optional
        Called with an Event after each move; with a control before each attempt and at the end, with the samples that are done and all samples as
        numbers.

    Returns
    -------
    Samples

    Raises
    ------
    BadInput
        For anything that does not fit together, before the first model call.
    """
    if not callable(denoise):
        raise BadInput(f"denoise = {denoise!r} must be callable as denoise(y, sigma)")
    blocks, t0 = _given_state(process, start) if isinstance(start, tuple) else (None, None)
    if control is not None:
        if method is not None or plan is not None:
            raise BadInput("control chooses method and times itself: give neither method nor plan with it")
        if isinstance(save, str):
            raise BadInput(f"save = {save!r}: each sample of an adaptive run has times of its own (they are in adapted.times); give times to visit")
        visits = () if save is None else tuple(save)
        return _adaptively(process, denoise, control, grid, (n, ids, shape), start, blocks, t0, as_noise(seed), (dtype, device), batch, watch, visits)
    if isinstance(plan, Plan) and plan.control is not None:
        if method is not None or grid is not None or save is not None:
            raise BadInput("the plan has adaptive legs, with a grid and a control of their own: give neither method nor grid nor save with it")
        return _by_legs(process, denoise, plan, (n, ids, shape), start, blocks, t0, as_noise(seed), (dtype, device), batch, watch)
    prog = prepare(process, method, grid, plan, t0, bool(getattr(denoise, "of_state", False)))
    chosen = chosen_ids(n, ids, blocks)
    event = shape_of(denoise, process.basis.shape if isinstance(process, Modes) and shape is None else shape, start, blocks)
    if isinstance(process, Modes):
        _suited(process, prog, denoise, event)
    source = as_noise(seed)
    reference = dtype_of(dtype, device, denoise) if blocks is None or dtype is not None or device is not None else blocks
    limit = max(1, (1 << 20) // max(1, int(np.prod(event)))) if batch is None else whole("batch", batch)
    model = as_model(denoise)

    states, saves, status = [], [], []
    with unwatched(reference):
        for first in range(0, len(chosen), limit):
            part = chosen[first : first + limit]
            if blocks is None:
                begin = begin_at(process, float(prog.times[0]), start, part, event, source, reference)
            else:
                begin = [_cast(block[first : first + limit], reference) for block in blocks]
            state, saved = solve(prog, begin, model, source, part, save=save, watch=watch)
            states.append(namespace(state[0]).stack(state))
            saves.append(saved)
            status += statuses(state)
    xp = namespace(states[0])
    kept = None if saves[0] is None else Saved(saves[0].times, xp.concat([s.state for s in saves if s is not None], axis=2))
    nfe = np.full(len(chosen), prog.nfe)
    return Samples(xp.concat(states, axis=1), nfe, tuple(status), chosen, kept)


def _adaptively(
    process: Any, denoise: Any, control: Any, grid: Grid | None, which: tuple[Any, Any, Any], start: Any, blocks: Any, t0: float | None,
    source: Noise, like_: tuple[Any, Any], batch: int | None, watch: Any, save: tuple[float, ...],
) -> Samples:  # fmt: skip
    _check(process)
    if isinstance(process, Modes):
        raise BadInput(f"process {process.name!r} has modes of its own, which adaptive steps do not know yet: give a plan")
    if not isinstance(control, Control):
        raise BadInput(f"control = {control!r} must be a Control, such as sdekit.control.gotta_go_fast()")
    times, data = span(process, grid, t0)
    chosen, event = chosen_ids(which[0], which[1], blocks), shape_of(denoise, which[2], start, blocks)
    reference = dtype_of(*like_, denoise) if blocks is None or any(v is not None for v in like_) else blocks

    def begin(a: int, b: int) -> list[Any]:
        if blocks is not None:
            return [_cast(block[a:b], reference) for block in blocks]
        return begin_at(process, times[0], start, chosen[a:b], event, source, reference)

    limit = max(1, min(_SLOTS, (1 << 20) // max(1, int(np.prod(event))))) if batch is None else whole("batch", batch)
    with unwatched(reference), np.errstate(all="ignore"):
        of_state = bool(getattr(denoise, "of_state", False))
        march = March(
            process, control, times, data, as_model(denoise), begin, chosen, source, of_state=of_state, batch=limit, watch=watch, save=save
        )  # fmt: skip
        state, nfe, status, adapted = march.run()
    return Samples(namespace(state[0]).stack(state), nfe, status, chosen, march.saved, adapted)


def _by_legs(
    process: Any, denoise: Any, plan: Plan, which: tuple[Any, Any, Any], start: Any, blocks: Any, t0: float | None, source: Noise,
    like_: tuple[Any, Any], batch: int | None, watch: Any,
) -> Samples:  # fmt: skip
    _check(process)
    if isinstance(process, Modes):
        raise BadInput(f"process {process.name!r} has modes of its own, which adaptive steps do not know yet: give a plan of fixed steps")
    chosen, event = chosen_ids(which[0], which[1], blocks), shape_of(denoise, which[2], start, blocks)
    reference = dtype_of(*like_, denoise) if blocks is None or any(v is not None for v in like_) else blocks
    limit = max(1, min(_SLOTS, (1 << 20) // max(1, int(np.prod(event))))) if batch is None else whole("batch", batch)
    first = float(plan.grid.times(process)[0])
    with unwatched(reference), np.errstate(all="ignore"):
        begin = begin_at(process, first, start, chosen, event, source, reference) if blocks is None else [_cast(block, reference) for block in blocks]
        of_state = bool(getattr(denoise, "of_state", False))
        state, nfe, status, adapted = travel(process, plan, t0, begin, as_model(denoise), source, chosen, of_state, limit, watch)
    return Samples(namespace(state[0]).stack(state), nfe, status, chosen, None, adapted)


def _suited(process: Modes, prog: Program, denoise: Any, event: tuple[int, ...]) -> None:
    """Refuse data of another shape, and a model with one level where the modes have several."""
    basis = process.basis
    if event != basis.shape:
        raise BadInput(f"data of shape {event} do not fit process {process.name!r}, whose basis has shape {basis.shape}")
    several = any(not isinstance(ask.level, float) for item in prog.items if isinstance(item.move, Rows) for ask in item.move.asks)
    if several and not getattr(denoise, "of_state", False) and getattr(denoise, "basis", None) != basis:
        raise BadInput(
            f"process {process.name!r} has another noise level in each mode, which a denoiser D(y; sigma) with one sigma does not know: give"
            " process.denoiser(law), a StateScore, or a model denoise(y, sigmas) trained on such noise, with the process's basis as attribute basis"
        )


def _given_state(process: Process | Modes, start: tuple[Any, ...]) -> tuple[Any, float]:
    _check(process)
    if len(start) != 2:
        raise BadInput(f"start has {len(start)} entries; it must be (z, t), the blocks and their time")
    z, t = start[0], float(process.within(finite("start: t", start[1])))
    if not hasattr(z, "shape") or len(z.shape) < 2 or z.shape[0] != process.k:
        raise BadInput(f"start=(z, t): z must have shape ({process.k}, n, *shape) for process {process.name!r}, got {getattr(z, 'shape', z)!r}")
    if t == 0.0:
        raise BadInput("start=(z, t): t = 0 is the data; there is nothing to sample from there")
    return z, t


def chosen_ids(n: int | None, ids: ArrayLike | None, blocks: Any) -> NDArray[np.int64]:
    """The sample ids that were asked for."""
    if n is not None and ids is not None:
        raise BadInput("give either n or ids, not both")
    if ids is not None:
        chosen = as_ids(ids)
    elif n is not None:
        chosen = np.arange(whole("n", n))
    elif blocks is not None:
        chosen = np.arange(blocks.shape[1])
    else:
        raise BadInput("how many samples? give n, or ids")
    if blocks is not None and len(chosen) != blocks.shape[1]:
        raise BadInput(f"start=(z, t) holds {blocks.shape[1]} samples, but {len(chosen)} were asked for")
    return chosen


def shape_of(denoise: Any, shape: Sequence[int] | None, start: Any, blocks: Any) -> tuple[int, ...]:
    """Shape of one datum, from whoever knows it."""
    if blocks is not None:
        return tuple(int(v) for v in blocks.shape[2:])
    known = shape if shape is not None else getattr(denoise, "shape", getattr(start, "shape", None))
    if known is None:
        raise BadInput("the shape of a datum is unknown: give shape=..., or a denoiser with an attribute shape")
    if not isinstance(known, Iterable):
        raise BadInput(f"shape = {known!r} must be a tuple of whole numbers, such as (1, 8, 8)")
    return tuple(whole("shape", v) for v in known)


def begin_at(
    process: Process | Modes, t: float, start: Any, ids: NDArray[np.int64], shape: tuple[int, ...], source: Noise, reference: Any
) -> list[Any]:
    """The blocks at the first time, drawn from the prior, the stationary law, or the marginal of a law."""
    if isinstance(start, Start):
        if tuple(start.shape) != shape:
            raise BadInput(f"start: the law has data of shape {tuple(start.shape)}, the run of shape {shape}")
        return start.begin(process, t, ids, source, reference)
    kernel = process.kernel(t)
    if isinstance(start, str) and start == "stationary":
        chol = np.linalg.cholesky(process.stationary)
    elif start is None or isinstance(start, Law):
        chol = kernel.chol
    else:
        raise BadInput(f"start = {start!r} must be None (the prior), 'stationary', a Law, or (z, t)")
    xi = source.draw([Address(PRIOR, slot=i) for i in range(process.k)], ids, shape, reference)
    times = process.times if isinstance(process, Modes) else _times
    z = [sum(times(chol[..., i, j], xi[j]) for j in range(i + 1)) for i in range(process.k)]
    if isinstance(start, Law):
        if tuple(start.shape) != shape:
            raise BadInput(f"start: the law has data of shape {tuple(start.shape)}, the run of shape {shape}")
        x0 = like(start.sample(ids=ids, seed=source), reference)
        z = [times(kernel.psi[..., i], x0) + block for i, block in enumerate(z)]
    return z


def _times(coefficient: Any, x: Any) -> Any:
    return float(coefficient) * x


def _cast(block: Any, reference: Any) -> Any:
    if is_torch(reference):
        import torch

        return torch.as_tensor(block, dtype=reference.dtype, device=reference.device)
    return np.asarray(block, dtype=reference.dtype)


def as_model(denoise: Any) -> Callable[..., Any]:
    """What :func:`~sdekit.solve.solve` calls: the denoiser, or for a model of the whole state a function of its blocks."""
    if not getattr(denoise, "of_state", False):
        made: Callable[..., Any] = denoise
        return made

    def model(blocks: list[Any], t: Any, *told: Any) -> list[Any]:
        return list(denoise(namespace(blocks[0]).stack(blocks), t, *told))

    if hasattr(denoise, "told"):
        model.told = denoise.told  # type: ignore[attr-defined]
    return model
