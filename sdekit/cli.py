"""The command line: parses, calls, prints.  Exit codes: 0 done, 1 refuted or failed, 2 bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import BadInput, MissingExtra, Refuted, unknown

if TYPE_CHECKING:
    from .grids import Grid
    from .methods import Method
    from .moving import Moving
    from .process import Process
    from .recipe import Recipe

__all__ = ["app", "main"]

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
    from .methods import SHIPPED

    return SHIPPED


def grids() -> dict[str, Callable[[int], Grid]]:
    """The names of grids on the command line."""
    from . import grids as g

    return {
        "karras": g.karras, "logsnr": g.logsnr, "polyexponential": lambda n: g.polyexponential(n, rho=2.0), "arctan": g.arctan, "beta": g.beta,
        "vp": g.vp, "ays": g.ays, "ays_sdxl": lambda n: g.ays(n, "sdxl"), "uniform": g.uniform, "quadratic": g.quadratic, "cosine": g.cosine,
    }  # fmt: skip


def _pick(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def _recipe(which: str) -> Recipe | Moving:
    from . import catalogue
    from .spec import load

    if which.endswith(".toml") or Path(which).is_file():
        return load(which)
    return catalogue.recipe(which)


def _process(which: str, param: Sequence[str] | None) -> Process:
    values: dict[str, Any] = {}
    for entry in param or ():
        name, _, text = entry.partition("=")
        try:
            values[name.strip()] = float(text)
        except ValueError:
            raise BadInput(f"--param {entry!r} must be NAME=NUMBER, such as Gamma=0.02") from None
    return _recipe(which).process(**values)


def _show(as_json: bool, data: dict[str, Any], text: Any) -> None:
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
def _bar(as_json: bool, total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr: a function that moves it forward."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, disable=as_json, leave=False, file=sys.stderr) as bar:

        def forward(count: int) -> None:
            bar.update(count)

        yield forward


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="processes|methods|grids|models", help="What to list.")] = "processes", as_json: Json = False
) -> None:
    """List what there is.

    Example: sdekit list methods
    """
    from . import catalogue

    def models() -> list[str]:
        from .torch import models

        return models.names()

    known: dict[str, Callable[[], Any]] = {
        "processes": catalogue.names,
        "methods": lambda: list(methods()),
        "grids": lambda: list(grids()),
        "models": models,
    }
    found = list(_pick("list", what, known)())
    _show(as_json, {what: found}, "\n".join(found))


@app.command()
def certify(which: Which, as_json: Json = False) -> None:
    """Check every claim of a process; exit code 1 if one that it asserts is refuted.

    Example: sdekit certify psld        Example: sdekit certify my.toml --json
    """
    from .certificate import certify as check

    certificate = check(_recipe(which))  # type: ignore[arg-type]
    _show(as_json, {"name": certificate.recipe.name, "claims": certificate.as_dict(), "false": certificate.false}, certificate)
    if certificate.false:
        raise typer.Exit(1)


@app.command()
def kernel(which: Which, t: Annotated[float, typer.Option("--t", help="Time.")], param: Param = None, as_json: Json = False) -> None:
    """The perturbation kernel p(z_t | x_0): mean, covariance, lower factor, level.

    Example: sdekit kernel psld --t 0.1
    """
    import numpy as np

    process = _process(which, param)
    k = process.kernel(t)
    data = {"process": process.name, "blocks": list(process.blocks), "t": t, "psi": k.psi.tolist(), "cov": k.cov.tolist(), "chol": k.chol.tolist(),
            "sigma_eff": float(process.sigma_eff(t))}  # fmt: skip
    lines = [f"{process.name} at t = {t:g}, blocks {', '.join(process.blocks)}"]
    lines += [
        f"  {name:<10} {np.array2string(np.asarray(data[name]), precision=12, prefix=' ' * 13)}" for name in ("psi", "cov", "chol", "sigma_eff")
    ]
    _show(as_json, data, "\n".join(lines))


@app.command()
def order(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See: sdekit list methods.")],
    process: Annotated[str, typer.Option("--process", metavar="NAME|SPEC")] = "vp",
    param: Param = None,
    exact_start: Annotated[bool, typer.Option("--exact-start", help="Exact past values for multistep methods.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a method's order of convergence and judge its claim; exit code 1 if the claim is refuted.

    Example: sdekit order heun --process psld
    """
    from . import analysis

    report = analysis.order(_pick("method", method, methods())(), _process(process, param), start="exact" if exact_start else "cold")
    table = "\n".join(f"  {n:>5} steps  error {e:.3e}" for n, e in zip(report.steps, report.errors, strict=True))
    _show(as_json, vars(report), f"{report}\n{table}")
    if report.verdict == "refuted":
        raise typer.Exit(1)


@app.command()
def sample(
    which: Which,
    model: Annotated[str, typer.Option("--model", metavar="NAME|DIR", help="A shipped model, or a folder that train wrote.")] = "digits",
    method: Annotated[str, typer.Option("--method")] = "exponential2",
    grid: Annotated[str, typer.Option("--grid")] = "karras",
    steps: Annotated[int, typer.Option("--steps", min=1)] = 20,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples.")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    out: Out = Path("out"),
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Draw samples of a model with any process: a PNG grid, the samples (safetensors) and a manifest; a killed run goes on when repeated.

    Example: sdekit sample psld --model digits --steps 20 --n 64 -o out/
    """
    from .pictures import write_grid
    from .plans import run
    from .runs import load_samples, sample_to

    process = _process(which, param)
    plan = run(_pick("grid", grid, grids())(steps), _pick("method", method, methods())())
    denoise = _model(model)
    settings = {"model": model, "sha256": denoise.record.get("sha256")}
    shard = 256
    with _bar(as_json, -(-n // shard) * len(plan.grid.times(process)), "sampling") as forward:
        manifest = sample_to(out, process, denoise, plan, n=n, seed=seed, shard=shard, settings=settings, watch=lambda _, __: forward(1))
    picture = write_grid(out / "grid.png", load_samples(out)[: min(n, 64)], denoise.record.get("data", {}).get("range", (-1.0, 1.0)))
    bad = sum(len(entry["nonfinite"]) for entry in manifest["shards"].values())
    data = {"out": str(out), "n": n, "nfe": manifest["run"]["nfe"], "grid": str(picture), "nonfinite": bad}
    _show(as_json, data, f"{n} samples of {model} by {process.name}, {data['nfe']} model calls each: {picture}")
    if bad:
        raise typer.Exit(1)


def _model(name: str) -> Any:
    from .torch import models

    return models.load(name)


@app.command()
def compare(
    which: Which,
    methods_: Annotated[str, typer.Option("--methods", metavar="A,B,...")] = "euler,heun,exponential2,exponential3,exponential2_sde",
    nfe: Annotated[str, typer.Option("--nfe", metavar="N,N,...")] = "10,20,50",
    data: Annotated[str, typer.Option("--data", metavar="gaussian|mixture|circle|digits")] = "gaussian",
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Work against precision: W2 to the data of each method at each number of model calls, exact for Gaussian data.

    gaussian: N(0, 0.25).  mixture: 0.3 N(-0.8, 0.01) + 0.7 N(0.5, 0.04), by samples.  circle: the unit circle in 16
    dimensions with noise 0.02, by paths of the ODE methods.  digits: the normal law with the digits' mean and covariance.

    Example: sdekit compare psld --methods heun,exponential2 --nfe 10,20,50
    """
    from . import analysis, law
    from .law import Law

    def digits() -> Law:
        from .torch import data as images

        return images.digits().gaussian()

    laws: dict[str, Callable[[], Law]] = {
        "gaussian": lambda: law.Gaussian(0.0, 0.25),
        "mixture": lambda: law.Mixture([0.3, 0.7], [-0.8, 0.5], [0.01, 0.04]),
        "circle": lambda: analysis.Manifold("circle", 16, 0.02).law,
        "digits": digits,
    }
    chosen = [_pick("method", name.strip(), methods())() for name in methods_.split(",")]
    try:
        budgets = [int(entry) for entry in nfe.split(",")]
    except ValueError:
        raise BadInput(f"--nfe {nfe!r} must be whole numbers with commas, such as 10,20,50") from None
    table = analysis.work_precision(_process(which, param), chosen, budgets, data=_pick("data", data, laws)())
    _show(as_json, {"process": table.process, "data": data, "cells": table.rows()}, table)


@app.command()
def train(
    which: Which,
    data: Annotated[str, typer.Option("--data", metavar="digits")] = "digits",
    out: Out = Path("ckpt"),
    steps: Annotated[int | None, typer.Option("--steps", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train a denoiser on images; goes on where it was killed.  One denoiser serves every process, so NAME is edm.

    Example: sdekit train edm --data digits -o ckpt/
    """
    if which != "edm":
        raise BadInput(
            f"train {which!r}: a denoiser D(y; sigma) is trained once, as edm, and then samples any process: sdekit sample {which} --model {out}"
        )
    from .torch import data as images
    from .torch import training

    chosen = _pick("data", data, {"digits": images.digits})()
    settings: dict[str, Any] = {} if steps is None else {"steps": steps}
    denoise = training.train(chosen, out, seed=seed, progress=not as_json, **settings)
    record = denoise.record
    summary = {"out": str(out), "parameters": record["parameters"], "loss": record["loss"], "seconds": record["seconds"], "sha256": record["sha256"]}
    _show(as_json, summary, f"{out}: {record['parameters']:,} parameters, loss {record['loss']:.4f}, {record['seconds']:.0f} s")


@app.command()
def report(
    which: Which,
    data: Annotated[str, typer.Option("--data", metavar="digits")] = "digits",
    out: Out = Path("report"),
    param: Param = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples and steps: a look at the page in seconds.")] = False,
    as_json: Json = False,
) -> None:
    """One self-contained page: certificate, derivation, kernel, exact errors, measured orders, sampled images with distances and floors.

    Example: sdekit report psld --data digits -o report/
    """
    from .analysis import report as page

    _pick("data", data, {"digits": None})
    made = page.write(_process(which, param), out, quick=quick, progress=not as_json)
    _show(as_json, {"page": str(made)}, str(made))


@app.command()
def audit(
    library: Annotated[str, typer.Argument(metavar="diffusers", help="The library.")],
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="Audits whose name has TEXT in it.")] = "",
    as_json: Json = False,
) -> None:
    """Audit the samplers of an installed library: exact law, true order, model calls, faults; exit code 1 if a fault is found.

    Example: sdekit audit diffusers        Example: sdekit audit diffusers --only PNDM --json
    """
    from .analysis import foreign

    _pick("library", library, {"diffusers": None})
    with _bar(as_json, len(foreign.cases(only)), "audit") as forward:
        found = foreign.diffusers(only, forward)
    _show(as_json, found.as_dict(), found)
    if found.faulty:
        raise typer.Exit(1)


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


if __name__ == "__main__":
    sys.exit(main())
