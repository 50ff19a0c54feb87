"""What the commands share: options, names of the command line, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BadInput, unknown

if TYPE_CHECKING:
    from ..grids import Grid
    from ..methods import Method
    from ..moving import Moving
    from ..process import Process
    from ..recipe import Recipe

__all__ = ["Json", "Out", "Param", "Which", "app", "bar", "grids", "methods", "pick", "process_of", "recipe_of", "show"]

app = typer.Typer(
    help="Declare a diffusion by (H, D, Q); get a proof, its kernel, samples and exact errors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Which = Annotated[str, typer.Argument(metavar="NAME|SPEC", help="A process of the catalogue, or a TOML file.")]
Param = Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the process, e.g. -p Gamma=0.02.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]


def methods() -> dict[str, Callable[[], Method]]:
    """The names of methods on the command line."""
    from ..methods import SHIPPED

    return SHIPPED


def grids() -> dict[str, Callable[[int], Grid]]:
    """The names of grids on the command line."""
    from .. import grids as g

    return {
        "karras": g.karras, "logsnr": g.logsnr, "polyexponential": lambda n: g.polyexponential(n, rho=2.0), "arctan": g.arctan, "beta": g.beta,
        "vp": g.vp, "ays": g.ays, "ays_sdxl": lambda n: g.ays(n, "sdxl"), "uniform": g.uniform, "quadratic": g.quadratic, "cosine": g.cosine,
    }  # fmt: skip


def pick(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def recipe_of(which: str) -> Recipe | Moving:
    from .. import catalogue
    from ..spec import load

    if which.endswith(".toml") or Path(which).is_file():
        return load(which)
    return catalogue.recipe(which)


def process_of(which: str, param: Sequence[str] | None) -> Process:
    values: dict[str, Any] = {}
    for entry in param or ():
        name, _, text = entry.partition("=")
        try:
            values[name.strip()] = float(text)
        except ValueError:
            raise BadInput(f"--param {entry!r} must be NAME=NUMBER, such as Gamma=0.02") from None
    return recipe_of(which).process(**values)


def show(as_json: bool, data: dict[str, Any], text: Any) -> None:
    print(json.dumps(_plain(data), allow_nan=False) if as_json else text)  # noqa: T201 - the command line's output


def _plain(data: Any) -> Any:
    """``data`` as JSON can hold it: arrays as lists, numbers that are not finite as null."""
    if hasattr(data, "tolist"):
        data = data.tolist()
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data


@contextmanager
def bar(quiet: bool, total: int, what: str, images: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr: a function that moves it forward; with ``images`` it tells how many of them are made in a second."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, disable=quiet, leave=False, file=sys.stderr) as shown:

        def forward(count: int) -> None:
            shown.update(count)
            rate = shown.format_dict["rate"] or shown.n / max(shown.format_dict["elapsed"], 1e-9)
            if images:
                shown.set_postfix_str(f"{images * rate / total:.3g} images/s", refresh=False)

        yield forward
