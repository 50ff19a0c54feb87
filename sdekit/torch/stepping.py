"""A program that is given its answers one by one, for samplers whose loop, and model, belong to somebody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, MissingExtra
from ..modes import Modes
from ..modes.engine import Turned
from ..noise import Noise
from ..solve import Program, solve
from ..tableau import ByTerms, Rows

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["Stepper", "calls"]


class _Asked(Exception):
    """The model was asked something that has not been answered."""

    def __init__(self, argument: Any, level: Any) -> None:
        super().__init__()
        self.question = argument, level


class _Drawn:
    """Normals that were drawn before."""

    def __init__(self, normals: Sequence[Any]) -> None:
        self.normals = normals

    def draw(self, *_: Any) -> Any:
        return self.normals


class _Carried:
    """The executor term by term, whose memory outlives a program."""

    def __init__(self, kind: type[ByTerms]) -> None:
        self.kind, self.compile = kind, kind.compile
        self.engine: ByTerms | None = None

    def __call__(self, state: list[Any], width: int) -> ByTerms:
        """An engine that starts with what the one before kept."""
        memory = [] if self.engine is None else self.engine.memory
        self.engine = self.kind(state, width)
        self.engine.memory = memory
        return self.engine


class Stepper:
    """A program in pieces: it stops at each model call, and goes on when it is answered.

    Items run one by one through :func:`~sdekit.solve.solve`.  One that asks what is not known yet is stopped and run again with the
    next answer; its normals are drawn once.  So every move works, if ``apply`` of a move of one's own gives the same for the same
    arguments.  Modes run on their coefficients; questions, answers and the state are in the data's elements.

    Parameters
    ----------
    prog : Program
        For a denoiser.
    state : sequence of k arrays (n, *event)
    noise : Noise
    ids : int array (n,), optional

    Attributes
    ----------
    question : (array, float or array) or None
        What the model is asked now: ``y`` and ``sigma``, or the levels of all modes where these differ; None at the end.
    """

    def __init__(self, prog: Program, state: Sequence[Any], noise: Noise, ids: NDArray[np.int64] | None = None) -> None:
        process = prog.process
        self._process, basis = (process.reference, process.basis) if isinstance(process, Modes) else (process, None)
        self._into: Callable[[Any], Any] = _same if basis is None else basis.forward
        self._back: Callable[[Any], Any] = _same if basis is None else basis.backward
        self.noise: Noise = noise if basis is None else Turned(noise, basis)
        self.question: tuple[Any, Any] | None = None
        self._state = [self._into(block) for block in state]
        self._prog, self._ids = prog, np.arange(state[0].shape[0]) if ids is None else ids
        self._at, self._executor = 0, _Carried(prog.by_terms)
        self._answers: list[Any] = []
        self._normals: _Drawn | None = None
        self._go()

    @property
    def state(self) -> list[Any]:
        """The blocks after the last finished item."""
        return [self._back(block) for block in self._state]

    @property
    def end(self) -> float:
        """The time at which the program ends."""
        return self._prog.items[-1].s

    @property
    def asked(self) -> tuple[Any, Any]:
        """The question.

        Raises
        ------
        BadInput
            At the end.
        """
        if self.question is None:
            raise BadInput("the program is at its end: there is no question to answer")
        return self.question

    def answer(self, data: Any) -> None:
        """The denoised data for the question; the program goes on to the next.

        Raises
        ------
        BadInput
            At the end.
        """
        _ = self.asked
        self._answers.append(self._into(data))
        self._go()

    def move_to(self, y: Any) -> None:
        """Put the state where the question is ``y``.

        Raises
        ------
        BadInput
            Unless the process has one block, and no modes, and the question is the first of a step, at its state.
        """
        scale = self._first
        if scale is None or self._answers or self._prog.process.k > 1:
            raise BadInput("the state can be changed between steps only, on a process of one block without modes, not between the calls of a step")
        self._state = [y * (1.0 / scale)]
        self._go()

    @property
    def _first(self) -> float | None:
        """Coefficient of the data block in the first question of rows, if that is one number and a combination of the state alone."""
        move = self._prog.items[self._at].move
        if not isinstance(move, Rows) or isinstance(self._prog.process, Modes):
            return None
        row = move.asks[0].argument[0]
        return None if np.any(row[move.k :]) else float(row[0])

    def _go(self) -> None:
        while self._at < len(self._prog.items):
            item = self._prog.items[self._at]
            if self._normals is None:
                event = tuple(int(v) for v in self._state[0].shape[1:])
                drawn = self.noise.draw(item.addresses, self._ids, event, self._state[0]) if item.addresses else ()
                self._normals = _Drawn(list(drawn))
            known = iter(self._answers)

            def model(argument: Any, level: Any, known: Any = known) -> Any:
                for answer in known:
                    return answer
                raise _Asked(self._back(argument), level)

            single = Program(self._process, (), (item,), 0)
            try:
                self._state, _ = solve(single, self._state, model, self._normals, self._ids, executor=self._executor)
            except _Asked as asked:
                self.question = asked.question
                return
            self._at, self._answers, self._normals = self._at + 1, [], None
        self.question = None


def _same(array: Any) -> Any:
    return array


def calls(prog: Program) -> list[float]:
    """The levels at which a program asks, in order."""
    levels: list[float] = []

    def model(y: Any, sigma: float) -> Any:
        levels.append(float(sigma))
        return y

    solve(prog, [torch.zeros(1, 1, dtype=torch.float64) for _ in range(prog.process.k)], model, executor=ByTerms)
    return levels
