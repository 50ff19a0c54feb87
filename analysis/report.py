"""The report: one self-contained HTML page about a process, from its proof to pictures with an exact error."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__, catalogue
from .. import methods as m
from .._array import to_host
from ..certificate import Certificate, certify
from ..files import folder, write_bytes
from ..grids import karras
from ..methods import Method
from ..pictures import png, tile
from ..process import Process
from ..recipe import Recipe
from ..sampling import sample
from . import plots
from .orders import OrderReport, order
from .precision import work_precision

Array = NDArray[np.float64]

__all__ = ["write"]

_METHODS: tuple[Callable[[], Method], ...] = (
    m.euler, m.euler_maruyama, m.heun, lambda: m.heun(noise=1.0), m.ddim, lambda: m.exponential(2), lambda: m.exponential(3),
    lambda: m.exponential(2, of="eps"), lambda: m.exponential(1, noise=1.0), lambda: m.exponential(2, noise=1.0), m.exponential_rk,
)  # fmt: skip
_SAMPLED = (10, 20, 50)  # model calls of the sampled digits


def write(process: Process, out: str | Path, *, quick: bool = False, progress: bool = True) -> Path:
    """Write ``index.html`` about ``process``, with digits sampled by the shipped denoiser through it and through ``vp``.

    Parameters
    ----------
    process : Process
    out : path
        Folder.
    quick : bool
        Fewer samples and model calls.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    BadInput
        If the folder cannot be written; before anything is computed.
    """
    from tqdm import tqdm

    path = folder(out)
    from ..torch import data, models

    images, denoise = data.digits(), models.load("digits")
    runs = [(each, nfe) for each in dict.fromkeys((process, catalogue.vp())) for nfe in (_SAMPLED[:2] if quick else _SAMPLED)]
    bar = tqdm(total=2 + (process.recipe is not None) + len(_METHODS) + len(runs), desc="report", unit="part", disable=not progress, leave=False)
    started = count()

    def step(what: str) -> None:
        bar.n = next(started)
        bar.set_description(f"report: {what}")

    sections = [
        *_recipe_sections(process.recipe, step),
        _kernel_section(process),
        _exact_section(process, images, quick, step),
        _order_section(process, step),
        _image_section(runs, images, denoise, 100 if quick else len(images.held_out), step),
    ]
    bar.close()
    page = path / "index.html"
    write_bytes(page, _page(process, sections).encode())
    return page


def _page(process: Process, sections: Iterable[tuple[str, str]]) -> str:
    made = list(sections)
    css = resources.files(__package__).joinpath("report.css").read_text("utf-8")
    links = "".join(f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(made))
    body = "".join(f'<section id="s{i}"><h2>{escape(title)}</h2>{html}</section>' for i, (title, html) in enumerate(made))
    paper = f", {escape(process.recipe.paper)}" if process.recipe is not None and process.recipe.paper else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(process.name)}: report</title><style>{css}</style></head><body>'
        f"<h1>{escape(process.name)}</h1><p class=lead>A linear diffusion on {process.k} block{'s' * (process.k > 1)} "
        f"({', '.join(map(escape, process.blocks))}){paper}. Made by sdekit {__version__}.</p><nav>{links}</nav>{body}</body></html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    made = list(rows)

    def cell(value: Any, tag: str, like: Any) -> str:
        kind = " class=number" if isinstance(like, int | float | np.number) else ""
        text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
        return f"<{tag}{kind}>{text if text.startswith('<') else escape(text)}</{tag}>"

    top = "".join(cell(name, "th", like) for name, like in zip(head, made[0], strict=True))
    body = "".join("<tr>" + "".join(cell(value, "td", value) for value in row) + "</tr>" for row in made)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class=wide><table>{title}<tr>{top}</tr>{body}</table></div>"


def _mark(word: str) -> str:
    return f'<span class="{escape(word)}">{escape(word)}</span>'


def _figure(draw: Callable[[Any], Any], caption: str, size: tuple[float, float] = (7.0, 3.6)) -> str:
    """An SVG figure, inlined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img src="data:image/svg+xml;base64,{source}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _recipe_sections(recipe: Recipe | None, step: Callable[[str], None]) -> list[tuple[str, str]]:
    if recipe is None:
        return [("Recipe", "<p>This process was given by numbers, not by a recipe: there is nothing to prove beyond its kernel.</p>")]
    step("certificate")
    certificate = certify(recipe)
    values = ", ".join(f"{name} = {value}" for name, value in recipe.parameters)
    note = f"<p class=note>Claims hold for all values that the assumptions on the parameters allow. Defaults: {escape(values)}.</p>" if values else ""
    return [
        ("Certificate", _claims(certificate) + note),
        ("Derivation", certify(_at_defaults(recipe)).derivation().html()),
    ]


def _claims(certificate: Certificate) -> str:
    rows = [(name, _mark(str(claim.verdict)), claim.statement, claim.evidence) for name, claim in certificate.claims()]
    return _table(["claim", "verdict", "statement", "evidence"], rows)


def _at_defaults(recipe: Recipe) -> Recipe:
    """The recipe at its default parameters: critical damping has another closed form than its neighbours."""
    from ..recipe import resolved

    return resolved(recipe, {}) if recipe.parameters else recipe


def _kernel_section(process: Process) -> tuple[str, str]:
    times = [f * process.T for f in (1e-3, 1e-2, 0.1, 0.5, 1.0)]
    rows = []
    for t in times:
        k = process.kernel(t)
        rows.append((t, *k.psi.tolist(), *np.sqrt(np.diag(k.cov)).tolist(), float(process.sigma_eff(t))))
    head = ["t", *[f"mean of {b}" for b in process.blocks], *[f"std of {b}" for b in process.blocks], "sigma_eff"]
    others = [p for p in (catalogue.vp(), catalogue.edm()) if p != process]
    return "Kernel", (
        _figure(lambda ax: plots.kernel(process, ax), "Mean and standard deviation of each block, given that the data are 1.")
        + _figure(lambda ax: plots.sigma_eff([process, *others], ax), "The noise level of the denoising problem that each time is equal to.")
        + _table(head, rows, "p(z_t | x_0), with the auxiliary start integrated out; computed as factors, without any added epsilon")
    )


def _exact_section(process: Process, images: Any, quick: bool, step: Callable[[str], None]) -> tuple[str, str]:
    step("exact errors")
    law = images.gaussian()
    budgets = (10, 20, 50) if quick else (5, 10, 20, 35, 50, 100)
    methods = [make() for make in _METHODS]
    table = work_precision(process, methods, budgets, data=law)
    chosen = [b for b in (10, 20, 50) if b in budgets]
    rows = []
    for method in methods:
        cells = {cell.asked: cell for cell in table.cells if cell.method == method.name}
        rows.append((method.name, *[cells[b].w2 for b in chosen]))
    best = min((cell for cell in table.cells if cell.asked == chosen[-1]), key=lambda cell: cell.w2)
    return "Exact error", (
        "<p>Data: the normal law with the mean and covariance of the training digits (64 pixels), on which every method's output law is known "
        "exactly. The distance is W2 in pixel units over all 64 pixels; grid: EDM's, ending at the data.</p>"
        + _figure(lambda ax: plots.work_precision(table, ax), "Exact W2 to the data against model calls.", (7.0, 5.0))
        + _table(["method", *[f"NFE {b}" for b in chosen]], rows, f"Exact W2; the least at {chosen[-1]} calls is {best.method}'s")
    )


def _order_section(process: Process, step: Callable[[str], None]) -> tuple[str, str]:
    counts = (10, 20, 40, 80, 160, 320)
    reports: list[OrderReport] = []
    for make in _METHODS:
        method = make()
        step(f"order of {method.name}")
        reports.append(order(method, process, steps=counts))
        if (method.orders.exact_start or 0) > (method.orders.ode or 0):
            reports.append(order(method, process, steps=counts, start="exact"))
    rows = []
    for r in reports:
        slopes = f"{r.interval[0]:.2f} to {r.interval[1]:.2f}"
        rows.append((r.method, r.kind.replace("_", " "), "" if r.claimed is None else r.claimed, round(r.order, 3), slopes, _mark(r.verdict)))
    shown = [r for r in reports if r.kind != "weak"]

    def draw(ax: Any) -> None:
        for r in shown:
            ax.loglog(r.steps, r.errors, "o-", label=f"{r.method}{' (exact start)' if r.kind == 'exact_start' else ''}: {r.order:.2f}")
        ax.set(xlabel="steps", ylabel="relative error of the map")
        ax.legend(fontsize="x-small")

    low, high = reports[0].window[1], reports[0].window[0]
    return "Measured orders", (
        f"<p>Error of the sampler's exact map (ODE) or of its mean and covariance (noise) against the exact reverse equation, for four variances of "
        f"the data at once, on levels from {high:.3g} to {low:.3g}. The interval is the range of the last three slopes; nothing is sampled.</p>"
        + _table(["method", "kind", "claimed", "measured", "last slopes", "verdict"], rows)
        + _figure(draw, "Errors of the deterministic methods.", (7.0, 4.4))
    )


def _image_section(runs: Sequence[tuple[Process, int]], images: Any, denoise: Any, n: int, step: Callable[[str], None]) -> tuple[str, str]:
    from ..torch import metrics

    method = m.exponential(2)
    pictures = [("digits that were held out", images.held_out[:64])]
    judged: list[tuple[str, Any]] = [("a normal law fitted to the pixels", metrics.gaussian_baseline(images, n))]
    for each, nfe in runs:
        step(f"sampling {each.name}, {nfe} calls")
        x = to_host(sample(each, denoise, method=method, grid=karras(nfe), n=n, seed=0).x)
        pictures.append((f"{each.name}, {nfe} model calls", x[:64]))
        judged.append((f"{each.name}, {nfe} calls", x))
    step("distances")
    html = "".join(
        f'<figure><img src="{_picture(x, images.range)}" alt="{escape(c)}"><figcaption>{escape(c)}</figcaption></figure>' for c, x in pictures
    )
    return "Sampled digits", (
        f"<p>One denoiser, trained once on {len(images.train)} digits, drives every process through sigma_eff; method {escape(method.name)} on "
        f"EDM's grid, the same seed everywhere.</p><div class=row>{html}</div>" + _judged(judged, images)
    )


def _judged(samples: Sequence[tuple[str, Any]], images: Any) -> str:
    """Each measure of each set of samples, on the scale of held-out images; what fails is marked."""
    from ..torch.metrics import judge

    found = [(name, judge(x, images)) for name, x in samples]
    measures = found[0][1].measures
    rows: list[Sequence[Any]] = [
        (name, *[f'<span class="{"pass" if m.passed else "fail"}">{m.value:.3f}</span>' for m in result.measures]) for name, result in found
    ]
    rows.append(("held-out digits", *[f"{m.held_out:.3f}" for m in measures]))
    rows.append(("limit", *[f"{'at most' if m.at_most else 'at least'} {m.limit:.3f}" for m in measures]))
    legend = "".join(f"<li><b>{escape(m.name.replace('_', ' '))}</b>: {escape(m.meaning)}</li>" for m in measures)
    n = found[0][1].n
    table = _table(
        ["samples", *[m.name.replace("_", " ") for m in measures]], rows, f"{n} samples of each kind against {len(images.train)} training digits"
    )
    moral = "A law with the right mean and covariance passes on Frechet alone, which is why it is not enough."
    return f"{table}<ul class=note>{legend}</ul><p class=note>{moral}</p>"


def _picture(x: Array, range: tuple[float, float]) -> str:  # noqa: A002
    return "data:image/png;base64," + base64.b64encode(png(tile(x, 8, range), 4)).decode()
