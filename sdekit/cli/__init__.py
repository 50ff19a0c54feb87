"""The command line: parses, calls, prints.  Exit codes: 0 done, 1 refuted or failed, 2 bad input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from ..errors import BadInput, MissingExtra, Refuted
from . import _theory, _work  # noqa: F401 - they add their commands
from ._common import app

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.  Errors are one line on stderr."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False, prog_name="sdekit")
        return code if isinstance(code, int) else 0
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (BadInput, MissingExtra) as error:
        return _failed(2, error)
    except Refuted as error:
        return _failed(1, error)
    except typer.Abort:
        return _failed(1, "interrupted")
    except KeyboardInterrupt:
        return _failed(1, "interrupted; repeat the command to go on")
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own complaints
            return _failed(2, error.format_message())
        raise


def _failed(code: int, error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
    return code
