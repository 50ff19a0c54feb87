r"""Runs at full speed on a device: one kernel for each linear combination, and the whole trajectory as one CUDA graph.

The engine's rows stay what they are.  :class:`Fused` applies them with a compiled function that reads every register once and writes every result
once; addressed noise it makes itself, element by element in registers, so that normals never lie in memory.  :class:`Trajectory` keeps all buffers,
records the run on the device once and then replays it, so that the host does nothing between two model calls.  On the CPU both run the same code,
without the graph; that is where they were tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import dtype_of, like, statuses, upload
from ..errors import BadInput, MissingExtra, whole
from ..grids import Grid
from ..methods import Method
from ..noise import Address, Addressed, Noise, as_ids, as_noise, lines_of
from ..plans import Plan
from ..process import Process
from ..sampling import Samples, as_model, begin_at, prepare, shape_of
from ..solve import Program, solve
from ..tableau import Rows

try:
    import torch
except ImportError:
    raise MissingExtra("recorded runs", "torch") from None

from .random import normal_of_each

__all__ = ["Fused", "Trajectory"]

_FUSED = 512  # parts that the compiler may put into one kernel: a normal has eleven


class _Unmade(NamedTuple):
    """Normals that are not made yet: those of one address for some samples.  Whoever combines them makes them."""

    words: torch.Tensor
    key: torch.Tensor
    ids: torch.Tensor
    shape: tuple[int, ...]

    def made(self, dtype: torch.dtype) -> torch.Tensor:
        """The normals, (n, *shape)."""
        return normal_of_each(self.words, self.key, self.ids, self.shape).to(dtype)


def _combine(matrix: torch.Tensor, registers: Sequence[torch.Tensor | _Unmade]) -> list[torch.Tensor]:
    blocks = [register.made(matrix.dtype) if isinstance(register, _Unmade) else register for register in registers]
    out = []
    for i in range(matrix.shape[0]):
        total = matrix[i, 0] * blocks[0]
        for j in range(1, len(blocks)):
            total = total + matrix[i, j] * blocks[j]
        out.append(total)
    return out


@lru_cache(maxsize=256)
def _compiled(*_form: int) -> Callable[..., list[torch.Tensor]]:
    """The compiled function for one form of combination: the compiler keeps eight variants of a function, and runs others as they are."""
    own = FunctionType(_combine.__code__.replace(), _combine.__globals__, "_combine")
    return torch.compile(own, dynamic=None, options={"max_fusion_size": _FUSED})


def _fused(matrix: torch.Tensor, registers: Sequence[torch.Tensor | _Unmade]) -> list[torch.Tensor]:
    return _compiled(*matrix.shape, *(isinstance(register, _Unmade) for register in registers))(matrix, registers)


class _Table(NamedTuple):
    asks: tuple[tuple[tuple[int, ...], Any, float], ...]
    update: tuple[tuple[int, ...], Any]
    k: int
    of_state: bool


class Fused:
    """Executor whose linear combinations are compiled: each reads its registers once and writes its results once.

    The coefficients are a tensor on the device, so that one kernel serves every step with as many registers; a register that no row uses is
    not read.  Normals may be told by their address instead: the kernel then makes each in registers, anew where an ask and the update both use it.
    Another executor for :func:`sdekit.solve.solve`, see :mod:`sdekit.tableau`.
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
        combine = _fused if self.compiled else _combine
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
    """A source that hands out normals of a buffer, drawn before the run."""

    def __init__(self, program: Program, n: int, shape: tuple[int, ...], reference: Any) -> None:
        self.addresses = [address for item in program.items for address in item.addresses]
        self.place = {address: i for i, address in enumerate(self.addresses)}
        self.normals = torch.zeros((len(self.addresses), n, *shape), dtype=reference.dtype, device=reference.device)

    def fill(self, source: Noise, ids: NDArray[np.int64]) -> None:
        """Draw those of a run."""
        if self.addresses:
            self.normals.copy_(source.draw(self.addresses, ids, tuple(self.normals.shape[2:]), self.normals))

    def draw(self, addresses: Sequence[Address], ids: Any, shape: Any, like: Any = None) -> Any:  # noqa: ARG002 - a source's signature
        first = self.place[addresses[0]]
        return self.normals[first : first + len(addresses)]


class _Inside:
    """A source that tells the kernel of an update where its normals are; other moves get them made."""

    def __init__(self, program: Program, n: int, _shape: tuple[int, ...], reference: Any) -> None:
        addresses = [address for item in program.items for address in item.addresses]
        words = upload(lines_of(addresses).astype(np.int64), reference.device)
        self.words = dict(zip(addresses, words.unbind(), strict=True))
        self.updates = {address for item in program.items if isinstance(item.move, Rows) for address in item.addresses}
        self.key = torch.zeros(2, dtype=torch.int64, device=reference.device)
        self.ids = torch.zeros(n, dtype=torch.int64, device=reference.device)
        self.one = torch.ones((1, 1), dtype=reference.dtype, device=reference.device)

    def fill(self, source: Any, ids: NDArray[np.int64]) -> None:
        """Take the seed and the samples of a run."""
        self.key.copy_(upload(np.array([source.seed & 0xFFFFFFFF, source.seed >> 32]), self.key.device))
        self.ids.copy_(upload(ids, self.ids.device))

    def draw(self, addresses: Sequence[Address], ids: Any, shape: tuple[int, ...], like: Any = None) -> Any:  # noqa: ARG002 - a source's signature
        unmade = [_Unmade(self.words[address], self.key, self.ids, shape) for address in addresses]
        return [one if a in self.updates else _fused(self.one, [one])[0] for a, one in zip(addresses, unmade, strict=True)]


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
    Memory: the state, beside the model's own.  Addressed noise, the default, is made inside the compiled updates, anew for other ids and seeds in
    the same recording.  Other sources, processes in modes and runs that are not compiled hold all normals of the run, drawn before the replay.
    Tested with the CPU's compiler only: no GPU has run this yet.
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
        self._state = [torch.zeros((n, *self.shape), dtype=self.reference.dtype, device=self.reference.device) for _ in range(process.k)]
        self._sources: dict[type, Any] = {}
        self._graphs: dict[Any, tuple[Any, list[Any]]] = {}

    def _run(self, source: Any) -> list[Any]:
        return solve(self.program, self._state, self._model, source, np.arange(self.n), executor=self._executor)[0]

    def _recorded(self, source: Any) -> tuple[Any, list[Any]]:
        """Three runs beside, as graphs ask for, then the one that is recorded: the graph, and the blocks that it writes."""
        beside = torch.cuda.Stream(self.reference.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(self.reference.device))
        with torch.cuda.stream(beside):
            for _ in range(3):
                self._run(source)
        torch.cuda.current_stream(self.reference.device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._run(source)
        return graph, out

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
            source = self._fill(chosen, as_noise(seed))
            if self.reference.device.type == "cuda":
                if source not in self._graphs:
                    self._graphs[source] = self._recorded(source)
                graph, out = self._graphs[source]
                graph.replay()
                made = [block.clone() for block in out]
            else:
                made = self._run(source)
        return Samples(torch.stack(made), np.full(self.n, self.program.nfe), tuple(statuses(made)), chosen)

    def _fill(self, ids: NDArray[np.int64], noise: Noise) -> _Held | _Inside:
        """The start of a run into its buffers, and where its normals come from."""
        begin = begin_at(self.process, float(self.program.times[0]), self.start, ids, self.shape, noise, self.reference)
        for block, value in zip(self._state, begin, strict=True):
            block.copy_(value)
        inside = self._executor.compiled and type(noise) is Addressed and isinstance(self.process, Process)
        kind = _Inside if inside else _Held
        if kind not in self._sources:
            self._sources[kind] = kind(self.program, self.n, self.shape, self.reference)
        source: _Held | _Inside = self._sources[kind]
        source.fill(noise, ids)
        return source
