"""Sampling into a folder: shards by sample id, a manifest that lists what is done; a killed run goes on where it was.

Several workers share a folder: shard ``i`` belongs to worker ``i mod size``, each worker lists its own shards in a manifest of its own, and the first
joins them at the end.  Noise is addressed by sample id, so that the samples do not depend on the number of workers.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import __version__
from ._array import to_host
from .errors import BadInput, MissingExtra, whole
from .files import folder, read_bytes, read_json, sha256, write_bytes, write_json
from .modes import Modes
from .motion import Uniform
from .plans import Plan
from .process import Process
from .record import to_record
from .sampling import prepare, sample
from .solve import Event

__all__ = ["FORMAT", "Alone", "World", "load_samples", "sample_to"]

FORMAT = "sdekit.samples/1"


class World(Protocol):
    """Workers that share a run: see :func:`sdekit.torch.distributed.world`."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait until all workers are here."""
        ...

    def total(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum of float64 arrays over the workers, for each of them."""
        ...


class Alone:
    """One worker."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def total(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The values."""
        return values


def sample_to(
    out: str | Path,
    process: Process | Modes,
    denoise: Any,
    plan: Plan,
    *,
    n: int,
    seed: int = 0,
    shard: int = 256,
    settings: Mapping[str, Any] | None = None,
    watch: Callable[[int, Event], None] | None = None,
    world: World | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Draw samples ``0 .. n-1`` into a folder, skipping those that are there already.

    Parameters
    ----------
    out : path
        Receives ``samples-*.safetensors`` (tensors ``x`` and ``nfe``) and ``manifest.json``.
    process, denoise, plan
        As for :func:`sdekit.sample`.
    n, seed, shard : int
        Samples, seed, samples in a file.
    settings : mapping, optional
        What identifies the run beside the process and the seed: a folder that holds another run is refused.
    watch : callable, optional
        Called as ``watch(first_id, event)`` after each move.
    world : World, optional
        The workers that share the folder.  A run may be resumed by another number of workers.
    **options
        ``dtype``, ``device``, ``batch`` and ``start`` of :func:`sdekit.sample`.

    Returns
    -------
    dict
        The manifest.  Its ``statistics`` are the number of finite samples, the mean and the mean square of their elements, in float64.

    Raises
    ------
    BadInput
        If the folder cannot be written, holds another run or a damaged one.
    """
    safetensors = _safetensors()
    n, shard = whole("n", n), whole("shard", shard)
    nfe = prepare(process, None, None, plan).nfe if plan.control is None else None  # adaptive: each sample has its own
    path = folder(out)
    identity = {
        "process": _process_identity(process), "method": _identity(plan.method),
        "grid": _identity(plan.grid), "transforms": [_identity(transform) for transform in plan.transforms],
        "nfe": nfe, **({} if plan.control is None else {"control": to_record(plan.control)}), "seed": seed, "shard": shard, **(settings or {}),
    }  # fmt: skip
    world = Alone() if world is None else world
    own = path / ("manifest.json" if world.rank == 0 else _part(world.rank))
    known = _known(path, identity)
    manifest: dict[str, Any] = {"format": FORMAT, "version": __version__, "numpy": importlib.metadata.version("numpy"), "run": identity}
    manifest["shards"] = known if world.rank == 0 else {}
    if world.rank == 0:
        write_json(own, manifest)
    world.barrier()  # all have read what was there, and the first has listed it
    for stale in path.glob(_part("*")) if world.rank == 0 else ():
        if int(stale.stem.split("-")[1]) >= world.size:
            stale.unlink()
    for i, first in enumerate(range(0, n, shard)):
        name, ids = _shard(first), np.arange(first, min(first + shard, n))
        if i % world.size != world.rank or known.get(name, {}).get("n") == len(ids):
            continue

        def shown(event: Event, first: int = first) -> None:
            if watch is not None:
                watch(first, event)

        made = sample(process, denoise, plan=plan, ids=ids, seed=seed, watch=shown, **options)
        data = safetensors.save({"x": np.ascontiguousarray(to_host(made.x)), "nfe": made.nfe})
        bad = [int(i) for i, status in zip(ids, made.status, strict=True) if status != "ok"]
        entry = {"n": len(ids), "sha256": write_bytes(path / name, data), "nonfinite": bad}
        entry |= {} if plan.control is None else {"nfe": float(np.mean(made.nfe))}
        manifest["shards"] = dict(sorted({**manifest["shards"], name: entry}.items()))
        write_json(own, manifest)
    world.barrier()
    if world.rank == 0:
        manifest["shards"] = dict(sorted(_known(path, identity).items()))
    manifest["statistics"] = _statistics(path, [_shard(first) for i, first in enumerate(range(0, n, shard)) if i % world.size == world.rank], world)
    if world.rank == 0:
        write_json(own, manifest)
        for part in path.glob(_part("*")):
            part.unlink()
    world.barrier()
    return read_json(path / "manifest.json", FORMAT)


def _shard(first: int) -> str:
    return f"samples-{first:07d}.safetensors"


def _part(rank: object) -> str:
    return f"manifest-{rank}.json"


def _statistics(path: Path, names: list[str], world: World) -> dict[str, float]:
    """Number, mean and mean square over the shards of all workers, from one sum over them."""
    sums = np.zeros(4)
    for name in names:
        x = np.asarray(_safetensors().load(read_bytes(path / name))["x"], float)
        x = x.reshape(len(x), -1)
        x = x[np.all(np.isfinite(x), axis=1)]
        sums += (len(x), x.size, np.sum(x), np.sum(x * x))
    n, size, one, two = world.total(sums).tolist()
    return {"n": int(n), "mean": one / max(size, 1.0), "mean_square": two / max(size, 1.0)}


def load_samples(out: str | Path) -> np.ndarray[Any, Any]:
    """All samples of a folder that :func:`sample_to` wrote, checked against its manifest.

    Raises
    ------
    BadInput
        If the manifest or a shard is missing, damaged, or not of the other's run.
    """
    path = Path(out)
    parts = []
    for name, entry in sorted(_shards(path / "manifest.json", read_json(path / "manifest.json", FORMAT)).items()):
        data = read_bytes(path / name)
        if sha256(data) != entry["sha256"]:
            raise BadInput(f"{str(path / name)!r} was changed since it was written: its sha256 is not the manifest's; remove it and sample again")
        parts.append(_safetensors().load(data)["x"])
    return np.concatenate(parts)


def _process_identity(process: Process | Modes) -> dict[str, Any]:
    """The process's record; for one that varies its kernels at 64 times, and for modes all that they are, as a checksum."""
    if isinstance(process, Modes):
        each = [_process_identity(own) for own in process.processes]
        text = repr((each, process.index.tolist(), process.scale.tolist(), process.basis.key))
        return {"name": process.name, "shape": list(process.basis.shape), "T": process.T, "modes": sha256(text.encode())}
    if isinstance(process.motion, Uniform):
        return {key: value for key, value in to_record(process).items() if key != "recipe"}
    kernel = process.kernel(process.T * np.arange(1, 65) / 64)
    digits = np.concatenate([kernel.psi.ravel(), kernel.cov.ravel()]).round(10) + 0.0
    return {"name": process.name, "blocks": list(process.blocks), "T": process.T, "kernels": sha256(digits.tobytes())}


def _identity(part: Any) -> Any:
    """A part of a plan as data; what is the user's own code is known by its text only."""
    try:
        return to_record(part)
    except BadInput:
        return getattr(part, "name", None) or repr(part)


def _known(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The shards of an earlier run of the same settings that are whole, whoever listed them."""
    found: dict[str, Any] = {}
    for listed in sorted([*path.glob("manifest.json"), *path.glob(_part("*"))]):
        found |= _done(path, listed, identity)
    return found


def _done(path: Path, listed: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    manifest = read_json(listed, FORMAT)
    before = manifest.get("run")
    before = before if isinstance(before, dict) else {}
    for key in identity:
        if before.get(key) != identity[key]:
            raise BadInput(
                f"{str(path)!r} holds another run: {key} was {_short(before.get(key))}, now {_short(identity[key])}; choose another folder"
            )
    shards = _shards(listed, manifest)
    return {name: entry for name, entry in shards.items() if (path / name).exists() and sha256(read_bytes(path / name)) == entry["sha256"]}


def _shards(listed: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's list of shards, if it has the form of one."""
    shards = manifest.get("shards")
    if isinstance(shards, dict) and all(
        Path(name).name == name and isinstance(entry, dict) and isinstance(entry.get("n"), int) and isinstance(entry.get("sha256"), str)
        for name, entry in shards.items()
    ):
        return shards
    raise BadInput(f"{str(listed)!r} does not list shards as this version writes them: it is damaged; remove the folder's content")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _safetensors() -> Any:
    try:
        from safetensors import numpy as library
    except ImportError:
        raise MissingExtra("writing samples", "torch") from None
    return library
