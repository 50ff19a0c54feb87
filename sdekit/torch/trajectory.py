r"""Runs at full speed on a device: one kernel for each linear combination, and the whole trajectory as one CUDA graph.

The engine's rows stay what they are.  :class:`Fused` applies them with a compiled function that reads every register once and writes every result
once; :class:`Trajectory` keeps all buffers, records the run on the device once and then replays it, so that the host does nothing between two model
calls.  On the CPU both run the same code, without the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import dtype_of, like, statuses
from ..errors import BadInput, MissingExtra, whole
from ..grids import Grid
from ..methods import Method
from ..noise import Address, Noise, as_ids, as_noise
from ..plans import Plan
from ..process import Process
from ..sampling import Samples, as_model, begin_at, prepare, shape_of
from ..solve import solve
from ..tableau import Rows

try:
    import torch
except ImportError:
    raise MissingExtra("recorded runs", "torch") from None

__all__ = ["Fused", "Trajectory"]


def _combine(matrix: torch.Tensor, registers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    out = []
    for i in range(matrix.shape[0]):
        total = matrix[i, 0] * registers[0]
        for j in range(1, len(registers)):
            total = total + matrix[i, j] * registers[j]
        out.append(total)
    return out


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., list[torch.Tensor]]:
    return torch.compile(_combine, dynamic=None)


class _Table(NamedTuple):
    asks: tuple[tuple[tuple[int, ...], Any, float], ...]
    update: tuple[tuple[int, ...], Any]
    k: int
    of_state: bool


class Fused:
    """Executor whose linear combinations are compiled: each reads its registers once and writes its results once.

    The coefficients are a tensor on the device, so that one kernel serves every step with as many registers; a register that no row uses is
    not read.  Another executor for :func:`sdekit.solve.solve`, see :mod:`sdekit.tableau`.
    """

    compiled = True

    def __init__(self, state: list[Any], _width: int) -> None:
        self.state: list[Any] = list(state)
        self.memory: list[Any] = []

    @staticmethod
    def compile(rows: Rows, reference: Any) -> _Table:
        """The rows in this executor's form, on the device of ``reference``."""
        asks = tuple((*_used(ask.argument, reference), ask.level) for ask in rows.asks)
        return _Table(asks, _used(np.concatenate([rows.out, rows.keep]), reference), rows.k, rows.of_state)

    def step(self, table: _Table, model: Any, normals: Sequence[Any]) -> None:
        """Apply one step."""
        combine = _compiled() if self.compiled else _combine
        registers = [*self.state, *self.memory, *normals]
        for columns, matrix, level in table.asks:
            asked = combine(matrix, [registers[j] for j in columns])
            registers.extend(model(asked, level) if table.of_state else [model(asked[0], level)])
        columns, matrix = table.update
        made = combine(matrix, [registers[j] for j in columns])
        self.state, self.memory = list(made[: table.k]), list(made[table.k :])


class Plain(Fused):
    """The same without the compiler, for machines that have none."""

    compiled = False


def _used(matrix: NDArray[np.float64], reference: Any) -> tuple[tuple[int, ...], Any]:
    """The columns that some row uses, and the matrix of these."""
    columns = tuple(int(j) for j in np.flatnonzero(np.any(matrix != 0.0, axis=0))) or (0,)
    return columns, like(matrix[:, columns], reference)


class _Held:
    """A source that hands out normals that are there already."""

    def __init__(self, addresses: Sequence[Address], normals: Any) -> None:
        self.place, self.normals = {address: i for i, address in enumerate(addresses)}, normals

    def draw(self, addresses: Sequence[Address], ids: Any, shape: Any, like: Any = None) -> Any:  # noqa: ARG002 - a source's signature
        first = self.place[addresses[0]]
        return self.normals[first : first + len(addresses)]


class Trajectory:
    """A run that is prepared once and repeated: the same samples as :func:`sdekit.sample`, without the host between the steps.

    Parameters
    ----------
    process : Process
    denoise : callable
        A torch model: it must neither wait for the device nor change its own shapes from call to call.
    method, grid, plan
        As for :func:`sdekit.sample`; moves that are not rows run too, if they keep to the device.
    n : int
        Samples of one repetition.
    shape, dtype, device, start
        As for :func:`sdekit.sample`; ``start`` is a law of the start, not a given state.
    compiled : bool
        Whether to compile the linear combinations (needs a compiler; the first run takes seconds).

    Raises
    ------
    BadInput
        For anything that does not fit together.

    Notes
    -----
    Memory: the state, and all normals of the run (none for ODE methods), beside the model's own.  Normals are drawn before the replay,
    on the device.
    """

    def __init__(
        self,
        process: Process,
        denoise: Any,
        *,
        n: int,
        method: Method | None = None,
        grid: Grid | None = None,
        plan: Plan | None = None,
        shape: Sequence[int] | None = None,
        dtype: Any = None,
        device: Any = None,
        start: Any = None,
        compiled: bool = True,
    ) -> None:
        if isinstance(start, tuple):
            raise BadInput("start = (z, t) is one given state; a trajectory that is repeated starts from a law: give one, or None for the prior")
        self.process, self.n, self.start = process, whole("n", n), start
        self.program = prepare(process, method, grid, plan, None, bool(getattr(denoise, "of_state", False)))
        self.shape = shape_of(denoise, shape, start, None)
        self.reference = dtype_of(dtype, "cpu" if device is None and getattr(denoise, "device", None) is None else device, denoise)
        self._model, self._executor = as_model(denoise), Fused if compiled else Plain
        self._addresses = [address for item in self.program.items for address in item.addresses]
        self._state = [self._empty(n) for _ in range(process.k)]
        self._normals = self._empty(len(self._addresses), n)
        self._graph: Any = None
        self._out: list[Any] = []

    def _empty(self, *lead: int) -> Any:
        return torch.zeros((*lead, *self.shape), dtype=self.reference.dtype, device=self.reference.device)

    def _run(self) -> list[Any]:
        held = _Held(self._addresses, self._normals)
        return solve(self.program, self._state, self._model, held, np.arange(self.n), executor=self._executor)[0]

    def _record(self) -> None:
        """Three runs beside, as graphs ask for, then the one that is recorded."""
        beside = torch.cuda.Stream(self.reference.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(self.reference.device))
        with torch.cuda.stream(beside):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream(self.reference.device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = self._run()

    def __call__(self, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Samples:
        """Samples ``ids`` (0 .. n-1 when absent), as many as were prepared.

        Raises
        ------
        BadInput
            For another number of ids.
        """
        chosen = np.arange(self.n) if ids is None else as_ids(ids)
        if len(chosen) != self.n:
            raise BadInput(f"this trajectory was prepared for {self.n} samples, not {len(chosen)}: give as many ids, or prepare another")
        with torch.no_grad():
            self._fill(chosen, as_noise(seed))
            if self.reference.device.type == "cuda":
                if self._graph is None:
                    self._record()
                self._graph.replay()
                made = [block.clone() for block in self._out]
            else:
                made = self._run()
        return Samples(torch.stack(made), np.full(self.n, self.program.nfe), tuple(statuses(made)), chosen)

    def _fill(self, ids: NDArray[np.int64], source: Noise) -> None:
        """The start and the normals of a run, into their buffers."""
        begin = begin_at(self.process, float(self.program.times[0]), self.start, ids, self.shape, source, self.reference)
        for block, value in zip(self._state, begin, strict=True):
            block.copy_(value)
        if self._addresses:
            self._normals.copy_(source.draw(self._addresses, ids, self.shape, self.reference))
