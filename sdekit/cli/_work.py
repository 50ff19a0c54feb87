"""Commands that sample and train: with files, progress, and resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BadInput
from ._common import Json, Out, Param, Which, app, bar, grids, methods, pick, process_of, show


@app.command()
def sample(
    which: Which,
    model: Annotated[str, typer.Option("--model", metavar="NAME|DIR", help="A shipped model, or a folder that train wrote.")] = "digits",
    method: Annotated[str, typer.Option("--method")] = "exponential2",
    grid: Annotated[str, typer.Option("--grid")] = "karras",
    steps: Annotated[int, typer.Option("--steps", min=1)] = 20,
    rtol: Annotated[float | None, typer.Option("--rtol", help="Adaptive steps at this tolerance, each sample its own, instead of --method.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples.")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    out: Out = Path("out"),
    device: Annotated[str | None, typer.Option("--device", metavar="cpu|cuda|...", help="Where to run; the model's own when absent.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="float32|float64", help="Of the state.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", metavar="float32|bfloat16|float16", help="Of the network.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network first.")] = False,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples run together; results do not depend on it.")] = None,
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Draw samples of a model with any process: a PNG grid, the samples (safetensors) and a manifest; a killed run goes on when repeated.

    Example: sdekit sample psld --model digits --steps 20 --n 64 -o out/

    Adaptive: sdekit sample psld --rtol 0.02 (Gotta Go Fast, on a Brownian path).
    Several workers: torchrun --nproc-per-node 8 -m sdekit sample psld --n 50000 --device cuda -o out/
    """
    from ..control import gotta_go_fast
    from ..pictures import write_grid
    from ..plans import run
    from ..runs import load_samples, sample_to
    from ..torch.distributed import local_device, world

    process = process_of(which, param)
    made = pick("method", method, methods())() if rtol is None else gotta_go_fast(rtol=rtol)
    plan = run(pick("grid", grid, grids())(steps), made)
    place = local_device(device)
    denoise = _model(model, place, precision, compiled)
    own = getattr(denoise, "process", process)
    if not own.compare(process).same:
        raise BadInput(f"model {model!r} was trained on another {own.name} than {which} with these parameters, and samples that one only")
    settings = {"model": model, "sha256": denoise.record.get("sha256")}
    settings |= {name: value for name, value in (("dtype", dtype), ("precision", precision)) if value is not None}
    shard, moves = 256, len(plan.grid.times(process))
    with world(device) as workers:
        mine = -(-(-(-n // shard) - workers.rank) // workers.size)
        with bar(as_json or workers.rank > 0, mine * moves, "sampling", min(n, mine * shard)) as forward:
            manifest = sample_to(
                out, process, denoise, plan, n=n, seed=seed, shard=shard, settings=settings, watch=lambda _, __: forward(1), world=workers,
                device=place, dtype=dtype, batch=batch,
            )  # fmt: skip
        if workers.rank > 0:
            return
    picture = write_grid(out / "grid.png", load_samples(out)[: min(n, 64)], denoise.record.get("data", {}).get("range", (-1.0, 1.0)))
    bad = sum(len(entry["nonfinite"]) for entry in manifest["shards"].values())
    shards = list(manifest["shards"].values())
    calls = (
        manifest["run"]["nfe"] if rtol is None else round(sum(entry["n"] * entry["nfe"] for entry in shards) / sum(entry["n"] for entry in shards), 1)
    )
    data = {"out": str(out), "n": n, "nfe": calls, "grid": str(picture), "nonfinite": bad}
    show(as_json, data, f"{n} samples of {model} by {process.name}, {calls} model calls each: {picture}")
    if bad:
        raise typer.Exit(1)


def _model(name: str, device: str | None, precision: str | None, compiled: bool) -> Any:
    from ..torch import models

    denoise = models.load(name)
    if hasattr(denoise, "gradient"):
        raise BadInput(f"model {name!r} is a classifier: it guides a denoiser (sdekit.torch.guidance.Classified), but samples nothing itself")
    return denoise.prepared(device, precision, compiled)


@app.command()
def train(
    which: Which,
    data: Annotated[str, typer.Option("--data", metavar="digits|patches|DIR|FILE.npz", help="Images; folders in DIR are classes.")] = "digits",
    out: Out = Path("ckpt"),
    steps: Annotated[int | None, typer.Option("--steps", min=1)] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Side of patches (32), or to scale DIR's images to.")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Train on the classes too; a tenth of them is left out.")] = False,
    native: Annotated[bool, typer.Option("--native", help="A network on the whole state of NAME, which samples NAME only.")] = False,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda|...")] = "cpu",
    precision: Annotated[str, typer.Option("--precision", metavar="float32|bfloat16")] = "float32",
    log: Annotated[Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write losses for TensorBoard.")] = None,
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Train a denoiser on images; goes on where it was killed.  One denoiser serves every process, so NAME is edm, unless --native.

    Example: sdekit train edm --data digits -o ckpt/        Example: sdekit train psld --native --data patches -o psld/

    Adaptive: sdekit sample psld --rtol 0.02 (Gotta Go Fast, on a Brownian path).
    Several workers: torchrun --nproc-per-node 8 -m sdekit train edm --data photos/ --size 64 --device cuda -o ckpt/
    """
    if which != "edm" and not native:
        raise BadInput(
            f"train {which!r}: a denoiser D(y; sigma) is trained once, as edm, and then samples any process: sdekit sample {which} --model {out}"
        )
    from ..torch import matching, training

    chosen = _images(data, size)
    given: dict[str, Any] = {"steps": steps, "batch": batch, "label_dropout": 0.1 if classes else None, "precision": precision}
    loss = matching.Matching(process_of(which, param), chosen.spread) if native else None
    denoise = training.train(
        chosen, out, loss=loss, seed=seed, progress=not as_json, device=device, watch=None if log is None else training.tensorboard(log),
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    record = denoise.record
    summary = {"out": str(out), "parameters": record["parameters"], "loss": record["loss"], "seconds": record["seconds"], "sha256": record["sha256"]}
    show(as_json, summary, f"{out}: {record['parameters']:,} parameters, loss {record['loss']:.4f}, {record['seconds']:.0f} s")


def _images(data: str, size: int | None) -> Any:
    from ..torch import sources
    from ..torch.data import digits

    if Path(data).is_dir():
        return sources.folder(data, size=size)
    if data.endswith(".npz"):
        return sources.from_npz(data)
    return pick("data", data, {"digits": digits, "patches": lambda: sources.patches(size or 32)})()


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
    from ..analysis import report as page

    pick("data", data, {"digits": None})
    made = page.write(process_of(which, param), out, quick=quick, progress=not as_json)
    show(as_json, {"page": str(made)}, str(made))
