"""Errors that teach: the value, the rule, the fix, in one line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class BadInput(ValueError):
    """Malformed input: wrong name, shape, type or range.  Raised at construction, never in a loop."""


class Refuted(ValueError):
    """A claim was disproved (for example: Q is not skew), or is not proved where a proof is required."""


class MissingExtra(ImportError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'sdekit[{extra}]'")


def unknown(kind: str, name: object, known: Iterable[str]) -> BadInput:
    """The error for a name that is not in a list, with the nearest one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return BadInput(f"unknown {kind} {name!r}; {hint}")


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float > 0, or a BadInput that names it."""
    number = finite(name, value)
    if number <= 0.0:
        raise BadInput(f"{name} = {value!r} must be positive")
    return number


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float, or a BadInput that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{name} = {value!r} must be a number") from None
    if not math.isfinite(number):
        raise BadInput(f"{name} = {value!r} must be finite")
    return number


def whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an integer >= ``least``, or a BadInput that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise BadInput(f"{name} = {value!r} must be an integer >= {least}")
    return int(value.__index__())
