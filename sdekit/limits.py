"""A limit of time on algebra, which has no other: an expression of one line can keep a computer busy for years."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from sympy.polys.polyerrors import BasePolynomialError

from .errors import BadInput, Refuted

__all__ = ["TooLong", "Watch"]

Found = TypeVar("Found")
_TICK = 0.02
_GIVES_UP = (ArithmeticError, BasePolynomialError, MemoryError, NotImplementedError, RecursionError, TypeError, ValueError)


class TooLong(Exception):
    """The time is over."""


@contextmanager
def _limited(seconds: float) -> Iterator[bool]:
    """Raise TooLong inside after so many seconds; no limit (False) off the main thread, on systems without timers, and inside another timer."""
    free = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not free or signal.getitimer(signal.ITIMER_REAL)[0] > 0.0:
        yield False
        return

    quiet_until = 0.0

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        nonlocal quiet_until
        # an exception in a callback of the garbage collector is lost: wait for the next tick; and never raise twice on the way out
        in_callback = frame is not None and any(getattr(call, "__code__", None) is frame.f_code for call in gc.callbacks)
        if not in_callback and time.monotonic() >= quiet_until:
            quiet_until = time.monotonic() + 1.0
            raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), _TICK)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class Watch:
    """Seconds shared by several questions, at most a third of them for one.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def ask(self, question: Callable[[], Found], otherwise: Callable[[str], Found]) -> Found:
        """The answer; ``otherwise(reason)`` when the time is over, or where sympy gives up with an error."""
        own = True
        try:
            with _limited(min(self.end - time.monotonic(), self.seconds / 3.0)) as own:
                return question()
        except TooLong:
            if not own:  # the time of a question around this one is over
                raise
            return otherwise(f"not settled in its share of {self.seconds:g} s")
        except (BadInput, Refuted):
            raise
        except _GIVES_UP as error:
            return otherwise(f"sympy gives up: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
