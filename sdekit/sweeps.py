"""Sweeps: a function over many points, side by side, each result in a file of its own; a sweep that was killed goes on where it was.

A result is found again by what it is a result *of*: the function's name and the point, as a checksum of their JSON.  Points may hold numbers,
strings, lists, and whatever :mod:`sdekit.record` can write: methods, grids, plans, processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput, MissingExtra
from .files import folder, read_json, sha256, write_json
from .record import to_record

__all__ = ["FORMAT", "Row", "sweep"]

FORMAT = "sdekit.sweep/1"


@dataclass(frozen=True)
class Row:
    """One point of a sweep.

    Attributes
    ----------
    key : str
        Checksum of function and point, the name of its file.
    point : mapping
        As it was given.
    result : object
        What the function returned, as JSON holds it; None if it failed.
    error : str
        What went wrong, if it failed: such a point is tried again by the next sweep.
    fresh : bool
        Whether it was computed now.
    """

    key: str
    point: Mapping[str, Any]
    result: Any
    error: str = ""
    fresh: bool = True


def sweep(
    function: Callable[..., Any],
    points: Iterable[Mapping[str, Any]],
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str | None = None,
    watch: Callable[[Row], None] | None = None,
) -> list[Row]:
    """``function(**point)`` for every point, skipping those whose result is there.

    Parameters
    ----------
    function : callable
        Of keyword arguments, to what JSON can hold (arrays become lists).  For several jobs it must be importable by name.
    points : iterable of mappings
    out : path
        Folder of the results, one JSON file each, written whole or not at all.
    jobs : int
        Processes; more than 1 needs joblib, -1 is one for each core.
    backend : str, optional
        Of joblib: local processes when absent; ``"dask"`` or ``"ray"`` where they are installed and registered with joblib.
    watch : callable, optional
        Called with each Row, in the order of the points.

    Returns
    -------
    list of Row
        In the order of the points.

    Raises
    ------
    BadInput
        For a point that cannot be written down, two equal points, or a result file that is damaged.
    MissingExtra
        For several jobs without joblib.
    """
    path, chosen = folder(out), [dict(point) for point in points]
    name = f"{function.__module__}.{function.__qualname__}"
    keys = [_key(name, point) for point in chosen]
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise BadInput(f"two points of the sweep are equal: {chosen[keys.index(twice)]!r}; give each once")
    work = ((function, name, key, point, path) for key, point in zip(keys, chosen, strict=True))
    made = (_one(*each) for each in work) if jobs == 1 else _side_by_side(work, jobs, backend)
    rows = []
    for row in made:
        rows.append(row)
        if watch is not None:
            watch(row)
    return rows


def _side_by_side(work: Iterable[Any], jobs: int, backend: str | None) -> Iterable[Row]:
    try:
        from joblib import Parallel, delayed
    except ImportError:
        raise MissingExtra("a sweep in several processes", "images") from None
    rows: Iterable[Row] = Parallel(n_jobs=jobs, backend=backend, return_as="generator")(delayed(_one)(*each) for each in work)
    return rows


def _one(function: Callable[..., Any], name: str, key: str, point: Mapping[str, Any], path: Path) -> Row:
    """The result of one point: read if it is there, else computed and written."""
    file = path / f"{key}.json"
    if file.exists():
        return Row(key, point, read_json(file, FORMAT).get("result"), fresh=False)
    begin = time.perf_counter()
    try:
        result = _plain("result", function(**point))
    except Exception as error:  # one point's failure must not end the others
        return Row(key, point, None, f"{type(error).__name__}: {error}")
    write_json(file, {"format": FORMAT, "function": name, "point": _plain("point", point), "result": result, "seconds": time.perf_counter() - begin})
    return Row(key, point, result)


def _key(name: str, point: Mapping[str, Any]) -> str:
    return sha256(json.dumps([name, _plain("point", point)], sort_keys=True).encode())[:32]


def _plain(what: str, value: Any) -> Any:
    """``value`` as JSON holds it; parts of sdekit as their records."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(what, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(what, entry) for entry in value]
    try:
        return to_record(value)
    except BadInput:
        raise BadInput(
            f"{what} of a sweep holds a {type(value).__name__}, which cannot be written down; give numbers, strings, lists or records"
        ) from None
