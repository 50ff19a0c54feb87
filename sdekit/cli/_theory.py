"""Commands about processes and samplers: lists, proofs, kernels, orders, comparisons, audits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BadInput
from ._common import Json, Param, Which, app, bar, grids, methods, pick, process_of, recipe_of, show

if TYPE_CHECKING:
    from ..law import Law


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="processes|methods|grids|models", help="What to list.")] = "processes", as_json: Json = False
) -> None:
    """List what there is.

    Example: sdekit list methods
    """
    from .. import catalogue

    def models() -> list[str]:
        from ..torch import models

        return models.names()

    known: dict[str, Callable[[], Any]] = {
        "processes": catalogue.names,
        "methods": lambda: list(methods()),
        "grids": lambda: list(grids()),
        "models": models,
    }
    found = list(pick("list", what, known)())
    show(as_json, {what: found}, "\n".join(found))


@app.command()
def certify(which: Which, as_json: Json = False) -> None:
    """Check every claim of a process; exit code 1 if one that it asserts is refuted.

    Example: sdekit certify psld        Example: sdekit certify my.toml --json
    """
    from ..certificate import certify as check

    certificate = check(recipe_of(which))  # type: ignore[arg-type]
    show(as_json, {"name": certificate.recipe.name, "claims": certificate.as_dict(), "false": certificate.false}, certificate)
    if certificate.false:
        raise typer.Exit(1)


@app.command()
def kernel(which: Which, t: Annotated[float, typer.Option("--t", help="Time.")], param: Param = None, as_json: Json = False) -> None:
    """The perturbation kernel p(z_t | x_0): mean, covariance, lower factor, level.

    Example: sdekit kernel psld --t 0.1
    """
    import numpy as np

    process = process_of(which, param)
    k = process.kernel(t)
    data = {"process": process.name, "blocks": list(process.blocks), "t": t, "psi": k.psi.tolist(), "cov": k.cov.tolist(), "chol": k.chol.tolist(),
            "sigma_eff": float(process.sigma_eff(t))}  # fmt: skip
    lines = [f"{process.name} at t = {t:g}, blocks {', '.join(process.blocks)}"]
    lines += [
        f"  {name:<10} {np.array2string(np.asarray(data[name]), precision=12, prefix=' ' * 13)}" for name in ("psi", "cov", "chol", "sigma_eff")
    ]
    show(as_json, data, "\n".join(lines))


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
    from .. import analysis

    report = analysis.order(pick("method", method, methods())(), process_of(process, param), start="exact" if exact_start else "cold")
    table = "\n".join(f"  {n:>5} steps  error {e:.3e}" for n, e in zip(report.steps, report.errors, strict=True))
    show(as_json, vars(report), f"{report}\n{table}")
    if report.verdict == "refuted":
        raise typer.Exit(1)


def _laws() -> dict[str, Callable[[], Law]]:
    """The data of the command line."""
    from .. import analysis, law

    def digits() -> Law:
        from ..torch import data as images

        return images.digits().gaussian()

    return {
        "gaussian": lambda: law.Gaussian(0.0, 0.25),
        "mixture": lambda: law.Mixture([0.3, 0.7], [-0.8, 0.5], [0.01, 0.04]),
        "circle": lambda: analysis.Manifold("circle", 16, 0.02).law,
        "digits": digits,
    }


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
    from .. import analysis

    chosen = [pick("method", name.strip(), methods())() for name in methods_.split(",")]
    try:
        budgets = [int(entry) for entry in nfe.split(",")]
    except ValueError:
        raise BadInput(f"--nfe {nfe!r} must be whole numbers with commas, such as 10,20,50") from None
    table = analysis.work_precision(process_of(which, param), chosen, budgets, data=pick("data", data, _laws())())
    show(as_json, {"process": table.process, "data": data, "cells": table.rows()}, table)


@app.command()
def tune(
    what: Annotated[str, typer.Argument(metavar="restart", help="What to choose.")],
    which: Which,
    method: Annotated[str, typer.Option("--method")] = "exponential_rk2",
    nfe: Annotated[int, typer.Option("--nfe", min=8, help="Most model calls.")] = 43,
    data: Annotated[str, typer.Option("--data", metavar="gaussian|mixture|digits")] = "digits",
    covariance: Annotated[float, typer.Option("--covariance", help="The model believes in this many times the covariance: a score error.")] = 1.0,
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Choose Restart's intervals, repetitions, noise and main grid under a budget; says when Restart cannot help, and why.

    Example: sdekit tune restart edm --nfe 43 --data digits --covariance 0.8
    """
    from .. import analysis, imperfect
    from ..record import to_record

    pick("subject of tune", what, {"restart": None})
    law = pick("data", data, _laws())()
    model = None if covariance == 1.0 else imperfect.scaled_covariance(law, covariance)
    found = analysis.tune_restart(process_of(which, param), pick("method", method, methods())(), data=law, model=model, nfe=nfe)
    told = {name: getattr(found, name) for name in ("intervals", "S_noise", "nfe", "error", "ode", "sde", "plateau", "reach", "helps", "explanation")}
    show(as_json, {"process": which, "data": data, **told, "plan": to_record(found.plan)}, found)


@app.command()
def audit(
    library: Annotated[str, typer.Argument(metavar="diffusers", help="The library.")],
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="Audits whose name has TEXT in it.")] = "",
    as_json: Json = False,
) -> None:
    """Audit the samplers of an installed library: exact law, true order, model calls, faults; exit code 1 if a fault is found.

    Example: sdekit audit diffusers        Example: sdekit audit diffusers --only PNDM --json
    """
    from ..analysis import foreign

    pick("library", library, {"diffusers": None})
    with bar(as_json, len(foreign.cases(only)), "audit") as forward:
        found = foreign.diffusers(only, forward)
    show(as_json, found.as_dict(), found)
    if found.faulty:
        raise typer.Exit(1)
