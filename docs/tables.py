"""Write the manual's tables of methods and of processes from the records themselves.

python docs/tables.py          writes docs/methods.md and docs/processes.md; a test compares them with what this makes
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

import sdekit as sk
from sdekit import BadInput, grids, plans
from sdekit.methods import SHIPPED, Method
from sdekit.solve import program

HERE = Path(__file__).parent


def call(method: Method) -> str:
    """The shortest call that makes the method."""
    name, arguments = method.origin or (method.name, ())
    defaults = {key: p.default for key, p in inspect.signature(getattr(sk.methods, name)).parameters.items()}
    given = [(key, value) for key, value in arguments if defaults[key] is inspect.Parameter.empty or value != defaults[key]]
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in given)})"


def memory(method: Method) -> str:
    """Blocks kept from step to step, for one block and for two."""
    kept = []
    for process in (sk.catalogue.vp(), sk.catalogue.psld()):
        try:
            items = program(process, plans.run(grids.logsnr(8, 0.1, 5.0), method)).items
        except BadInput:
            kept.append("-")
            continue
        kept.append(str(len(items[-1].move.keep)))
    return kept[0] if kept[0] == kept[1] or kept[1] == "-" else f"{kept[0]} ({kept[1]})"


def number(value: float | None) -> str:
    """An order, or nothing."""
    return "" if value is None else f"{value:g}"


def methods() -> str:
    """The page of methods."""
    head = ["CLI name", "`sdekit.methods.`", "calls a step", "memory", "ODE", "one block", "exact start", "weak", "strong", "reference"]
    rows = []
    for name, make in SHIPPED.items():
        m = make()
        o = m.orders
        calls = f"{m.asks}" + (f", first {'+'.join(map(str, m.start))}" if m.start else "")
        orders = [number(v) for v in (o.ode, o.one_block, o.exact_start, o.weak, o.strong)]
        rows.append([name, f"`{call(m)}`", calls, memory(m), *orders, m.reference])
    text = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
    return f"""# Methods

Every shipped method with its usual options.  This page is made from the records by `python docs/tables.py`.

Orders are claims, each measured by a test on the method's exact map: on VP, EDM, CLD and PSLD, for Gaussian data of four variances at once, and on
a mixture against a reference flow; from a cold start, in an interior window of levels (the step to the data is a step of its own).

*one block*: the order of the ODE where one block has a higher one.  *exact start*: from exact past values.  *weak*: of mean and covariance, with
noise.  *strong*: in root mean square on the same Brownian path.  *memory*: blocks kept from one step to the next on a process with one block (two).

{text}
"""


def processes() -> str:
    """The page of processes."""
    rows = []
    for name in sk.catalogue.names():
        recipe = sk.catalogue.recipe(name)
        parameters = ", ".join(f"{key} = {value}" for key, value in recipe.parameters) or ""
        try:
            process = recipe.process()
        except (BadInput, sk.Refuted):
            rows.append([name, ", ".join(str(s) for s in recipe.state), parameters, "not linear: certified, simulated, reversed", ""])
            continue
        levels = process.sigma_eff([1e-3 * process.T, process.T])
        top = f"{levels[1]:.4g}" if np.isfinite(levels[1]) else "infinite"
        rows.append([name, ", ".join(process.blocks), parameters, f"{levels[0]:.4g} .. {top}", f"{process.T:g}"])
    head = ["name", "blocks", "parameters", "sigma_eff from T/1000 to T", "T"]
    text = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
    return f"""# Processes

The shipped processes, each a TOML file in the format of your own; `sdekit certify NAME` prints the proofs.  This page is made by
`python docs/tables.py`.

{text}
"""


PAGES = {"methods.md": methods, "processes.md": processes}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make())
