"""What the scripts share: options, data with where they come from, figures drawn from the data alone, claims that can fail."""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

import sdekit as sk
from sdekit.analysis.families import Spectrum
from sdekit.law import Gaussian
from sdekit.plans import Plan
from sdekit.process import Process
from sdekit.solve import program

ROOT = Path(__file__).resolve().parent
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")  # Okabe and Ito: told apart by all eyes
MARKERS = "osD^vPX*"

Data = Mapping[str, NDArray[Any]]
Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Found:
    """What a script computed: ``arrays`` for the figure, ``measured`` numbers for the claims, and how they came about."""

    arrays: Data
    measured: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class Script:
    """One figure: ``compute(quick)``, ``draw(axes, data)`` and the bounds of what is measured.

    Attributes
    ----------
    file : str
        ``__file__`` of the script; data go to ``data/`` beside it, figures beside it.
    compute : callable
        ``compute(quick) -> Found``; ``quick`` means the same claims in seconds.
    draw : callable
        ``draw(axes, data)``, with one Axes for each panel.
    claims : mapping
        Name of a measured number to its least and greatest value.
    panels : int
    size : (float, float)
        Inches.
    """

    file: str
    compute: Callable[[bool], Found]
    draw: Callable[[list[Any], Data], None]
    claims: Bounds
    panels: int = 1
    size: tuple[float, float] = (6.4, 4.2)

    @property
    def name(self) -> str:
        """The script as ``folder.name``."""
        return ".".join(Path(self.file).resolve().relative_to(ROOT).with_suffix("").parts)

    def main(self, argv: Sequence[str] | None = None) -> dict[str, float]:
        """Compute, write, draw, and print what the claims say; the measured numbers come back."""
        parser = argparse.ArgumentParser(prog=f"python -m paper_figures.{self.name}")
        parser.add_argument("--quick", action="store_true", help="the same claims in seconds, into a temporary folder unless --out is given")
        parser.add_argument("--draw", action="store_true", help="draw from the data that are there")
        parser.add_argument("--out", type=Path, help="folder for data and figures (default: the script's)")
        given = parser.parse_args(argv)
        out = given.out or (Path(tempfile.mkdtemp()) if given.quick else Path(self.file).parent)
        stem = Path(self.file).stem
        if not given.draw:
            begin = time.process_time()
            found = self.compute(given.quick)
            self._write(found, out / "data", stem, given.quick, time.process_time() - begin)
        with np.load(out / "data" / f"{stem}.npz", allow_pickle=False) as arrays:
            self._figure(dict(arrays), out / stem)
        measured: dict[str, float] = json.loads((out / "data" / f"{stem}.json").read_text("utf-8"))["measured"]
        for name, value in measured.items():
            bounds = self.claims.get(name)
            print(f"{self.name}: {name} = {value:.6g}" + (f" in [{bounds[0]:g}, {bounds[1]:g}]: {verdict(value, bounds)}" if bounds else ""))
        return measured

    def _write(self, found: Found, folder: Path, stem: str, quick: bool, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{stem}.npz", **found.arrays)
        versions = {name: version(name) for name in ("numpy", "scipy", "matplotlib", *(("torch",) if "torch" in sys.modules else ()))}
        record = {
            "command": f"python -m paper_figures.{self.name}" + (" --quick" if quick else ""),
            "seconds": float(f"{seconds:.1g}"),
            "seeds": list(found.seeds),
            "versions": {"sdekit": sk.__version__, "python": platform.python_version(), **versions},
            "settings": found.settings,
            "measured": {name: float(f"{value:.8g}") for name, value in found.measured.items()},
            "claims": {name: [b if math.isfinite(b) else None for b in bounds] for name, bounds in self.claims.items()},
        }
        (folder / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    def _figure(self, data: Data, path: Path) -> None:
        figure = Figure(figsize=self.size, layout="constrained")
        axes = list(np.ravel(figure.subplots(1, self.panels)))
        for ax in axes:
            ax.set_prop_cycle(color=COLOURS, marker=list(MARKERS))
            ax.grid(alpha=0.25)
        self.draw(axes, data)
        for ax in axes:
            if ax.get_xscale() == "log" and abs(math.log10(ax.get_xlim()[1] / ax.get_xlim()[0])) < 2.0:  # enough labels, none over another
                ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                ax.xaxis.set_major_formatter("{x:g}")
                ax.xaxis.set_minor_formatter(NullFormatter())
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})


def verdict(value: float, bounds: tuple[float, float]) -> str:
    """Whether a measured number keeps its claim."""
    return "holds" if bounds[0] <= value <= bounds[1] else "BROKEN"


def broken(measured: Mapping[str, float], claims: Bounds) -> list[str]:
    """The claims that do not hold, or were not measured."""
    return [name for name, bounds in claims.items() if name not in measured or verdict(measured[name], bounds) == "BROKEN"]


@lru_cache(maxsize=4)
def _spectrum(law: Gaussian) -> Spectrum:
    return Spectrum.of([law])


def exact_parts(process: Process, plan: Plan, law: Gaussian) -> tuple[float, float, float]:
    """Exact W2 of a plan that ends with ``denoise()`` on a centred normal law, from the prior, over the size of the data; equal modes once.

    The whole; what the steps and the prior cause (the distance to the exact law, denoised at the same level); and what that level loses.
    """
    spectrum, made = _spectrum(law), program(process, plan)
    spread, sigma = np.sqrt(spectrum.variances), float(process.sigma_eff(plan.grid.times(process)[-1]))
    found = spread + spectrum.gaps(made)[1]
    end = spread**2 / np.hypot(spread, sigma)
    whole, steps, lost = (float(spectrum.sums(gap**2)[0]) for gap in (found - spread, found - end, end - spread))
    size = float(spectrum.sums(spread**2)[0])
    return whole / size, steps / size, lost / size


def spreads(found: Mapping[str, Any]) -> dict[str, float]:
    """Mean over the seeds (first axis) of each quantity, and its standard error where there are more seeds than one."""
    rows = {name: np.asarray(values, float) for name, values in found.items()}
    means = {name: float(row.mean()) for name, row in rows.items()}
    return means | {f"{name}_standard_error": float(row.std(ddof=1) / np.sqrt(len(row))) for name, row in rows.items() if len(row) > 1}


def to_ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bars from the mean over the seeds (first axis) to the least and the greatest."""
    mean = values.mean(axis=0)
    return np.stack([mean - values.min(axis=0), values.max(axis=0) - mean])


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks on one thread: more wait for each other."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def slope(errors: NDArray[np.float64], steps: NDArray[np.float64]) -> float:
    """The order that the last two errors show."""
    return float(np.log(errors[-2] / errors[-1]) / np.log(steps[-1] / steps[-2]))
