"""The engine: a plan becomes a program (all coefficients, once), a program runs on arrays.  No method owns a loop; this is the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import is_torch, namespace
from .errors import BadInput
from .modes import Basis, Modes
from .modes.engine import ByModes, Paced, Turned
from .noise import METHOD, MOVE, Address, Addressed, Noise
from .plans import Custom, Jump, Move, Plan, Run
from .process import Process
from .reverse import Reverse
from .tableau import ByTerms, Rows, Stacked, Step

Array = NDArray[np.float64]

__all__ = ["Event", "Item", "Program", "Saved", "assemble", "end_rows", "program", "solve", "stops_of"]

_AHEAD = 1 << 20  # normals drawn ahead of their use


class Item(NamedTuple):
    """One move of a program: rows, or a custom move; where its normals live; whether it starts with an empty memory."""

    move: Rows | Custom
    t: float
    s: float
    addresses: tuple[Address, ...]
    fresh: bool


@dataclass(frozen=True, eq=False)
class Program:
    """A plan resolved on a process: every coefficient in float64, nothing left that depends on data.

    Attributes
    ----------
    process : Process or Modes
    moves : tuple of Move
        Where the items come from.
    items : tuple of Item
    nfe : int
        Model calls of each sample.
    """

    process: Process | Modes
    moves: tuple[Move, ...]
    items: tuple[Item, ...]
    nfe: int
    _tables: dict[Any, list[Any]] = field(default_factory=dict, repr=False)

    @property
    def times(self) -> Array:
        """Times of all nodes that a trajectory visits, the first included."""
        return np.array([self.items[0].t, *(item.s for item in self.items)])

    @property
    def width(self) -> int:
        """Most registers of one step, or of what it leaves for the next."""
        rows = [item.move for item in self.items if isinstance(item.move, Rows)]
        return max((max(move.out.shape[1], move.k + len(move.keep)) for move in rows), default=self.process.k)

    @property
    def by_terms(self) -> type[ByTerms]:
        """The executor that runs it term by term."""
        return ByModes if isinstance(self.process, Modes) else ByTerms

    def tables(self, executor: Any, reference: Any) -> list[Any]:
        """The items in the executor's form; made once for each executor, dtype and device."""
        key = (executor, None) if executor is ByTerms else (executor, str(getattr(reference, "device", "")), str(reference.dtype))
        if key not in self._tables:
            self._tables[key] = [executor.compile(i.move, reference) if isinstance(i.move, Rows) else i.move for i in self.items]
        return self._tables[key]


def end_rows(step: Step, noisy: bool) -> Rows:
    """The step to the data: first block ``D``, the others drawn or averaged given ``x_0 = D``."""
    data = step.ask(step.z, step.here).data
    gain, chol = step.leg.reverse.process.end(step.t)
    start = np.eye(len(gain))[:, :1]
    out = start @ data + gain @ (step.z - step.here.psi[:, None] @ data)
    return step.rows(out + chol[:, 1:] @ step.noise(len(gain) - 1) if noisy and len(gain) > 1 else out)


def _jump(move: Jump, process: Process) -> Rows:
    leg = Reverse(process).leg([move.t, move.s])
    step = Step(leg, 0)
    if move.s == 0.0:  # the data alone: auxiliary blocks, and noise that the data start with, are drawn afresh
        kernel = process.kernel(move.t)
        return step.rows(kernel.psi[:, None] @ step.z[:1] + move.scale * kernel.chol @ step.noise(process.k))
    law = process.transition(move.s, move.t)
    return step.rows(law.mean @ step.z + move.scale * law.chol @ step.noise(process.k))


def _items(move: Move, process: Process, state_model: bool, pace: Process | None = None) -> list[Item]:
    if isinstance(move, Jump):
        rows = _jump(move, process)
        addresses = tuple(Address(MOVE, move.leg, move.step, slot) for slot in range(rows.noises))
        return [Item(rows, move.s, move.t, addresses, True)]
    if not isinstance(move, Run):
        if state_model:
            raise BadInput(f"{type(move).__name__} asks a denoiser, and this model maps the whole state to its score: sample without it")
        place = getattr(move, "stream", MOVE), getattr(move, "leg", 0), getattr(move, "step", 0)
        addresses = tuple(Address(*place, slot) for slot in range(move.noises))
        return [Item(move, move.start, move.end, addresses, True)]
    if move.control is not None:
        raise BadInput(
            "the plan has adaptive legs, whose steps differ from sample to sample: run it with sdekit.sample, or give a method for fixed steps"
        )
    reverse = Reverse(process, move.method.noise)
    leg = reverse.leg(move.times) if pace is None else Paced(reverse, np.array(move.times), pace)
    memory: list[int] = []
    out = []
    for i in range(leg.steps):
        step = Step(leg, i, memory, state_model)
        rows = end_rows(step, leg.reverse.noisy) if step.s == 0.0 else move.method.rows(step)
        memory = step.kept
        addresses = tuple(Address(METHOD, move.leg, move.first + i, slot) for slot in range(rows.noises))
        out.append(Item(rows, step.t, step.s, addresses, i == 0))
    return out


def program(process: Process | Modes, plan: Plan, start: float | None = None, state_model: bool = False) -> Program:
    """Resolve ``plan`` on ``process``; the last programs are kept.

    Parameters
    ----------
    process : Process or Modes
    plan : Plan
    start : float, optional
        Time to start from instead of the first grid time.
    state_model : bool
        Whether the model maps the whole state to its score instead of one block to the denoised data.

    Raises
    ------
    BadInput
        If the moves do not follow each other in time.
    """
    return (_of_modes if isinstance(process, Modes) else _of_process)(process, plan, start, state_model)


@lru_cache(maxsize=128)
def _of_process(process: Process, plan: Plan, start: float | None, state_model: bool) -> Program:
    return assemble(process, plan.moves(process, start), state_model)


@lru_cache(maxsize=4)
def _of_modes(process: Modes, plan: Plan, start: float | None, state_model: bool) -> Program:
    return assemble(process, plan.moves(process.reference, start), state_model)


def assemble(process: Process | Modes, moves: Sequence[Move], state_model: bool = False) -> Program:
    """The program of explicit moves: see :func:`program`."""
    if isinstance(process, Modes):
        each = [[item for move in moves for item in _items(move, p, state_model, process.reference)] for p in process.processes]
        items = [same[0]._replace(move=process.join([item.move for item in same])) for same in zip(*each, strict=True)]
    else:
        items = [item for move in moves for item in _items(move, process, state_model)]
    for before, after in pairwise(items):
        if before.s != after.t:
            raise BadInput(f"the plan jumps from time {before.s:g} to {after.t:g} between two moves")
    addresses = [address for item in items for address in item.addresses]
    if len(set(addresses)) < len(addresses):
        raise BadInput("two moves of the plan would draw the same noise; give them different legs or steps")
    nfe = sum(len(item.move.asks) if isinstance(item.move, Rows) else item.move.nfe for item in items)
    return Program(process, tuple(moves), tuple(items), nfe)


class Event(NamedTuple):
    """What ``watch`` sees after each move: its number, how many there are, the time reached, and the blocks of the state."""

    step: int
    steps: int
    t: float
    state: list[Any]


class Saved(NamedTuple):
    """The state at chosen times of the trajectory: ``times`` (m,), ``state`` (m, k, n, *event)."""

    times: Array
    state: Any

    @property
    def x(self) -> Any:
        """The data block, (m, n, *event)."""
        return self.state[:, 0]


def stops_of(times: Array, save: str | Sequence[float] | None) -> frozenset[int]:
    """Indices of the nodes to save."""
    if save is None:
        return frozenset()
    if isinstance(save, str):
        if save != "all":
            raise BadInput(f"save = {save!r} must be 'all' or a list of times of the trajectory")
        return frozenset(range(len(times)))
    chosen: set[int] = set()
    for t in save:
        near = np.flatnonzero(np.abs(times - t) <= 1e-9 * max(abs(float(t)), 1e-300))
        if not len(near):
            closest = times[np.argmin(np.abs(times - t))]
            raise BadInput(f"save: t = {t:g} is not a time of the trajectory (nearest {closest!r}); put it into the grid")
        chosen.update(int(i) for i in near)
    return frozenset(chosen)


def solve(
    prog: Program,
    state: Sequence[Any],
    model: Callable[..., Any],
    noise: Noise | None = None,
    ids: NDArray[np.int64] | None = None,
    *,
    save: str | Sequence[float] | None = None,
    watch: Callable[[Event], None] | None = None,
    executor: Any = None,
) -> tuple[list[Any], Saved | None]:
    """Run a program on blocks of shape (n, *event).

    Parameters
    ----------
    prog : Program
    state : sequence of k arrays (n, *event)
        The state at the first time, of any array type with ``+`` and ``*``.
    model : callable
        ``model(y, sigma)``, or ``model(blocks, t)`` if the program was made for a model of the whole state.
    noise, ids
        Source of normals (``Addressed(0)``) and the sample ids (``0 .. n-1``).
    save : "all" or sequence of float, optional
        Times of the trajectory whose state to keep.
    watch : callable, optional
        Called with an :class:`Event` after each move.
    executor : ByTerms or Stacked, optional
        Chosen by device when absent; modes run term by term.

    Returns
    -------
    blocks : list of k arrays
    saved : Saved or None
    """
    if isinstance(prog.process, Modes):
        if executor is Stacked:
            raise BadInput("coefficients that differ from mode to mode run term by term, not stacked: leave the executor out")
        return _turned(prog.process.basis, prog, state, model, Addressed(0) if noise is None else noise, ids, save, watch)
    return _solve(prog, state, model, noise, ids, save, watch, executor)


def _turned(
    basis: Basis, prog: Program, state: Sequence[Any], model: Callable[..., Any], noise: Noise, ids: Any, save: Any, watch: Any
) -> tuple[list[Any], Saved | None]:
    """Run on the coefficients in ``basis``, with everything that is seen from outside in the data's elements."""

    def asked(argument: Any, level: Any) -> Any:
        if isinstance(argument, list):
            return [basis.forward(answer) for answer in model([basis.backward(block) for block in argument], level)]
        return basis.forward(model(basis.backward(argument), level))

    def shown(event: Event) -> None:
        watch(event._replace(state=[basis.backward(block) for block in event.state]))

    begin = [basis.forward(block) for block in state]
    made, saved = _solve(prog, begin, asked, Turned(noise, basis), ids, save, None if watch is None else shown, ByModes)
    return [basis.backward(block) for block in made], None if saved is None else saved._replace(state=basis.backward(saved.state))


def _solve(
    prog: Program, state: Sequence[Any], model: Callable[..., Any], noise: Noise | None, ids: Any, save: Any, watch: Any, executor: Any
) -> tuple[list[Any], Saved | None]:
    reference = state[0]
    ids = np.arange(reference.shape[0]) if ids is None else ids
    noise = Addressed(0) if noise is None else noise
    if executor is None:
        executor = Stacked if is_torch(reference) and reference.device.type == "cuda" else ByTerms
    tables = prog.tables(executor, reference)
    times, items = prog.times, prog.items
    stops = stops_of(times, save)
    kept: list[tuple[float, Any]] = []
    xp = namespace(reference)
    engine = executor(state, prog.width)
    if 0 in stops:
        kept.append((float(times[0]), xp.stack(list(engine.state))))
    normals: list[Any] = []
    for i, (item, table) in enumerate(zip(items, tables, strict=True)):
        if item.addresses and not normals:
            normals = _ahead(items[i:], noise, ids, reference)
        own, normals = normals[: len(item.addresses)], normals[len(item.addresses) :]
        if item.fresh:
            engine.memory = []
        if isinstance(item.move, Rows):
            engine.step(table, model, own)
        else:
            engine = executor(item.move.apply(engine.state, model, own), prog.width)
        if i + 1 in stops:
            kept.append((item.s, xp.stack(list(engine.state))))
        if watch is not None:
            watch(Event(i + 1, len(items), item.s, engine.state))
    saved = Saved(np.array([t for t, _ in kept]), xp.stack([z for _, z in kept])) if stops else None
    return engine.state, saved


def _ahead(items: Sequence[Item], noise: Noise, ids: NDArray[np.int64], reference: Any) -> list[Any]:
    """Normals for the next items, as many as fit the budget, at least those of the first that needs some."""
    shape = tuple(int(v) for v in reference.shape[1:])
    size = max(1, len(ids) * int(np.prod(shape, dtype=np.int64)))
    addresses: list[Address] = []
    for item in items:
        if addresses and (len(addresses) + len(item.addresses)) * size > _AHEAD:
            break
        addresses += item.addresses
    return list(noise.draw(addresses, ids, shape, reference))
