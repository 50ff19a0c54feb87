"""Files written whole or not at all, and JSON records: shared by runs, training and reports."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BadInput

__all__ = ["folder", "read_bytes", "read_json", "sha256", "write_bytes", "write_json"]


def folder(path: str | os.PathLike[str]) -> Path:
    """``path`` as an existing folder, made if need be.

    Raises
    ------
    BadInput
        If it cannot be made or written to.
    """
    made = Path(path)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(made, error) from None
    if not os.access(made, os.W_OK | os.X_OK):
        raise BadInput(f"out = {str(made)!r} cannot be written to; choose a folder that you own")
    return made


def sha256(data: bytes) -> str:
    """Checksum in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> str:
    """Write to a file beside ``path``, flush it to the disk, and let it take the name in one move; returns the sha256.

    Raises
    ------
    BadInput
        If the file cannot be written; what was there before stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(path, error) from None
    return sha256(data)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file; see :func:`write_bytes`."""
    write_bytes(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises
    ------
    BadInput
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{str(path)!r} cannot be read: {error.strerror}; give another path, or make it again") from None


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """A JSON object whose entry ``format`` is ``kind``.

    Raises
    ------
    BadInput
        If it is missing, not JSON, or of another format.
    """
    try:
        record = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        raise BadInput(f"{str(path)!r} is not JSON: it is damaged; remove it and make it again") from None
    found = record.get("format") if isinstance(record, dict) else type(record).__name__
    if found != kind:
        raise BadInput(f"{str(path)!r} has format {found!r}; this version reads {kind!r}")
    return dict(record)


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{str(path)!r} cannot be written: {error.strerror}; choose another folder")


def _flush(directory: Path) -> None:
    if os.name == "nt":  # no folder can be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
