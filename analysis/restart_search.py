"""The search for a good Restart plan: dynamic programming over the nodes of the main grid, then refinement of all numbers together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..grids import Grid, karras
from ..methods import Method
from ..plans import Jump, Move, Plan, Run, restart, restart_nfe, run
from ..process import Process
from ..solve import assemble
from .candidates import Common, Exact, Map, State

Array = NDArray[np.float64]
Interval = tuple[int, int, float, float]

__all__ = ["Choice", "Interval", "Programme", "Search"]

_PARTS = (0.9, 0.75, 0.55, 0.4)  # of the longest main grid
_RATIOS = (1.4, 2.2, 4.0, 8.0, 20.0)  # t_max / t_min
_POINTS = (2, 3, 5)
_NODES = 8
_LOWS = (0.0005, 0.002, 0.008, 0.02, 0.05)  # lowest levels and bends of the plain run
_RHOS = (3.0, 5.0, 7.0, 10.0)
_BEAM = 16
_LEVELS = 3  # most intervals
_SEEDS = 4  # choices that are refined
_CYCLES = 40  # most repetitions
_STEPS = (0.3, 0.08, 0.02, 0.004)  # of the refinement: of log t_max, and a tenth of it of S_noise


@dataclass(frozen=True)
class Choice:
    """Steps of the main grid, intervals, the factor of the noise, and the grid's lowest level and bend."""

    n: int
    intervals: tuple[Interval, ...] = ()
    scale: float = 1.0
    low: float = 0.002
    rho: float = 7.0

    @property
    def grid(self) -> Grid:
        """The main grid."""
        return karras(self.n, sigma_min=self.low, rho=self.rho)

    def plan(self, method: Method) -> Plan:
        """The plan; intervals begin at the nearest nodes of the grid."""
        if not self.intervals:
            return run(self.grid, method)
        return restart(self.grid, self.intervals, method=method, S_noise=self.scale, snap="nearest")


@dataclass
class Search:
    """Errors and costs of choices, each computed once, and the refinement."""

    process: Process
    method: Method
    judge: Exact | Common
    budget: int
    fixed: float | None
    most: int
    tried: int = 0
    known: dict[Choice, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ceiling = float(self.process.sigma_eff(self.process.T))

    def cost(self, choice: Choice) -> int:
        """Model calls."""
        return self._calls(choice.plan(self.method).moves(self.process))

    def _calls(self, moves: Sequence[Move]) -> int:
        if isinstance(self.judge, Exact):
            return sum(self.judge.map_of(move).nfe for move in moves)
        return assemble(self.process, moves).nfe

    def error(self, choice: Choice) -> float:
        """Its error, infinite if it is no plan or costs too much."""
        if choice not in self.known:
            self.tried += 1
            self.known[choice] = np.inf
            with suppress(BadInput):
                if restart_nfe(choice.n, choice.intervals, self.method.asks) <= self.budget:
                    moves = choice.plan(self.method).moves(self.process)
                    if self._calls(moves) <= self.budget:
                        self.known[choice] = self.judge.error(moves)
        return self.known[choice]

    def longest(self, part: float = 1.0) -> int:
        """Most steps of a main grid in that part of the budget."""
        n = (int(part * self.budget) + self.method.asks - 1) // self.method.asks
        while n >= 2 and self.cost(Choice(n)) > part * self.budget:
            n -= 1
        if n < 2:
            raise BadInput(f"nfe = {self.budget} model calls are too few for two steps of {self.method.name}")
        return n

    def shaped(self, n: int) -> Choice:
        """The plain run with the best lowest level and bend of a few."""
        return min((Choice(n, low=low, rho=rho) for low in _LOWS for rho in _RHOS), key=self.error)

    def nodes(self, grid: Grid) -> Array:
        """Levels of a grid, the first and 0 left out."""
        levels = np.asarray(self.process.sigma_eff(grid.times(self.process)))
        return levels[1:][levels[1:] > 0.0]

    def refined(self, seeds: Sequence[Choice]) -> tuple[Choice, float]:
        """The best choice near the best of the seeds."""
        if self.fixed is not None:
            seeds = [replace(seed, scale=self.fixed) for seed in seeds]
        order = sorted(dict.fromkeys(seeds), key=self.error)[:_SEEDS]
        shares = self.most // len(order)
        found = [self._climbed(seed, self.tried + shares) for seed in order]
        return min(found, key=lambda pair: pair[1])

    def _climbed(self, choice: Choice, until: int) -> tuple[Choice, float]:
        best = self.error(choice)
        for step in _STEPS:
            moved = True
            while moved and self.tried < until:
                moved = False
                for near in self._near(choice, step):
                    if self.tried >= until:
                        break
                    if self.error(near) < best * (1.0 - 1e-6):
                        choice, best, moved = near, self.error(near), True
        return choice, best

    def _near(self, choice: Choice, step: float) -> Iterator[Choice]:
        """Neighbours: one number changed, intervals first, or steps traded for cycles."""
        if self.fixed is None and choice.intervals:
            yield from (replace(choice, scale=choice.scale + sign * 0.1 * step) for sign in (1, -1))
        yield from (replace(choice, low=choice.low * float(np.exp(sign * 2.0 * step))) for sign in (1, -1))
        yield from (replace(choice, rho=choice.rho * float(np.exp(sign * step))) for sign in (1, -1))
        nodes = self.nodes(choice.grid)
        for i, (N, K, low, high) in enumerate(choice.intervals):
            rest = choice.intervals[:i], choice.intervals[i + 1 :]
            at = int(np.argmin(np.abs(nodes - low)))
            news = [(N, K, low, min(high * float(np.exp(sign * step)), self.ceiling)) for sign in (1, -1)]
            if step >= _STEPS[1]:
                news += [(N + 1, K, low, high), (N, K + 1, low, high), (N + 1, max(1, K - 1), low, high)]
                news += [(N - 1, K, low, high)] * (N > 2) + [(N - 1, K + 1, low, high)] * (N > 2) + [(N, K - 1, low, high)] * (K > 1)
                news += [(N, K, float(nodes[j]), high) for j in (at - 1, at + 1) if 0 <= j < len(nodes) and nodes[j] < high]
                yield replace(choice, intervals=(*rest[0], *rest[1]))
            for new in news:
                yield replace(choice, intervals=(*rest[0], new, *rest[1]))
                if step >= _STEPS[1] and new[:2] != (N, K):  # pay for it by steps of the main grid
                    yield from (replace(choice, n=choice.n + by, intervals=(*rest[0], new, *rest[1])) for by in (-2, -1, 1, 2) if choice.n + by > 3)
        if step >= _STEPS[1]:
            yield from (replace(choice, n=choice.n + by) for by in (1, -1) if choice.n + by > 3)


@dataclass
class Programme:
    """Dynamic programming over the nodes of a main grid: partial plans as laws at the node that they have reached, the best kept."""

    search: Search
    judge: Exact

    def choices(self, longest: Choice) -> list[Choice]:
        """The best choices for main grids of several lengths, shaped as the longest."""
        lengths = sorted({max(4, round(part * longest.n)) for part in _PARTS})
        found = [pair for n in lengths if n <= longest.n for pair in self._of(replace(longest, n=n))]
        return [choice for _, choice in sorted(found, key=lambda pair: pair[0])[: 2 * _SEEDS]]

    def _of(self, plain: Choice) -> list[tuple[float, Choice]]:
        process, judge, method = self.search.process, self.judge, self.search.method
        times = tuple(float(t) for t in plain.grid.times(process))
        levels = process.sigma_eff(np.array(times))
        inner = [i for i in range(1, len(times)) if levels[i] > 0.0 and levels[i] * _RATIOS[0] < self.search.ceiling]
        nodes = sorted({inner[j] for j in np.linspace(0, len(inner) - 1, min(_NODES, len(inner))).round().astype(int)})
        spare = self.search.budget - self.search.cost(plain)
        legs = {i: self._legs(times[i], float(levels[i]), spare) for i in nodes}
        ends = {i: judge.map_of(Run(method, times[i:])) for i in nodes if times[i] != times[-1]}
        scale = 1.0 if self.search.fixed is None else self.search.fixed
        layer: list[tuple[int, int, tuple[Interval, ...], State]] = [(0, 0, (), judge.start(times[0]))]
        done: list[tuple[float, Choice]] = []
        for _ in range(_LEVELS):
            new: list[tuple[float, int, int, tuple[Interval, ...], State]] = []
            for last, used, intervals, law in layer:
                for i in nodes:
                    if i > last and legs[i] and i in ends:
                        at = judge.map_of(Run(method, times[last : i + 1])).push(law)
                        for error, cost, interval, there in self._fired(at, float(levels[i]), legs[i], ends[i], spare - used):
                            new.append((error, i, used + cost, (*intervals, interval), there))
            new.sort(key=lambda entry: entry[0])
            done += [(error, replace(plain, intervals=intervals, scale=scale)) for error, _, _, intervals, _ in new[:_SEEDS]]
            layer = [entry[1:] for entry in new[:_BEAM]]
        return done

    def _legs(self, t: float, low: float, spare: int) -> list[tuple[int, float, Map]]:
        """Cycles from node ``t`` that the budget allows: points, t_max, map."""
        made = []
        scale = 1.0 if self.search.fixed is None else self.search.fixed
        for high in (ratio * low for ratio in _RATIOS if ratio * low <= self.search.ceiling):
            for points in _POINTS:
                levels = np.linspace(high ** (1 / 7), low ** (1 / 7), points)[:-1] ** 7
                times = (*(float(v) for v in self.search.process.time_of(levels)), t)
                up, down = (self.judge.map_of(move) for move in (Jump(t, times[0], scale), Run(self.search.method, times)))
                if down.nfe <= spare:
                    made.append((points, high, up.then(down)))
        return made

    def _fired(
        self, law: State, low: float, legs: list[tuple[int, float, Map]], end: Map, spare: int
    ) -> Iterator[tuple[float, int, Interval, State]]:
        """After 1, 2, .. cycles of each leg at once: the error if nothing else follows, the cost, the interval, the law."""
        maps = [leg[2] for leg in legs]
        cycle = Map(np.stack([m.A for m in maps]), np.stack([m.b for m in maps]), np.stack([m.Q for m in maps]))
        for K in range(1, _CYCLES + 1):
            law = cycle.push(law)
            errors = self.judge.size(self.judge.gap(end.push(law)))
            fits = [j for j, m in enumerate(maps) if K * m.nfe <= spare]
            if not fits:
                return
            for j in sorted(fits, key=lambda j: errors[j])[:2]:
                yield float(errors[j]), K * maps[j].nfe, (legs[j][0], K, low, legs[j][1]), State(law.mean[j], law.cov[j])
