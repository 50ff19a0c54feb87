"""The audit of diffusers: which schedulers, with which options, claiming what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import unknown
from .audits import AuditReport, Audits
from .schedulers import STEPS, Case, library

__all__ = ["cases", "check", "diffusers"]

_INTERIOR = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}


def _formulas() -> Iterator[Case]:
    eps_v = ("eps", "v")
    yield Case("DDIM", "DDIM", 1, options={"clip_sample": False, "steps_offset": 1})
    yield Case("DDIM eta=1", "DDIM", 1, options={"clip_sample": False, "steps_offset": 1}, ask={"eta": 1.0})
    yield Case("DDPM", "DDPM", 1, options={"clip_sample": False}, cut=True)
    yield Case("PNDM", "PNDM", 2, eps_v, {"steps_offset": 2}, stride=2, calls=(1, 9))
    yield Case("PNDM skip_prk_steps", "PNDM", 2, eps_v, {"steps_offset": 1, "skip_prk_steps": True}, calls=(1, 1))
    yield Case("IPNDM", "IPNDM", 2, ("v",))
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        noisy = algorithm.startswith("sde")
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
            options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind, **_INTERIOR}
            yield Case(
                f"DPMSolverMultistep {algorithm} {order}{f' {kind}' * (order == 2)}", "DPMSolverMultistep", min(order, 2) if noisy else order,
                options=options, fine=order == 3, exact_transfer=algorithm != "sde-dpmsolver",
            )  # fmt: skip
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
        noisy = algorithm.startswith("sde")
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")):
            options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind, **_INTERIOR}
            yield Case(
                f"DPMSolverSinglestep {algorithm} {order}{f' {kind}' * (order > 1)}", "DPMSolverSinglestep", min(order, 2) if noisy else order,
                options=options, steps=tuple(n // 4 * 3 for n in STEPS) if order == 3 else STEPS,
            )  # fmt: skip
    for order in (1, 2, 3):
        yield Case(f"DEISMultistep {order}", "DEISMultistep", order, options={"solver_order": order, "lower_order_final": False}, fine=order == 3)
    for kind in ("bh1", "bh2"):
        for order in (1, 2, 3):
            options = {"solver_order": order, "solver_type": kind, **_INTERIOR}
            yield Case(f"UniPCMultistep {kind} {order}", "UniPCMultistep", order + 1, options=options, fine=order == 3)
    for order in (1, 2, 3):
        for tau in (0.0, 1.0):
            options = {"predictor_order": order, "corrector_order": order, "tau_func": lambda _, tau=tau: tau, "lower_order_final": False}
            yield Case(f"SASolver {order} tau={tau:g}", "SASolver", 1 if tau else order, options=options, steps=(*STEPS[1:], 512))
    yield Case("Euler", "EulerDiscrete", 1, cut=True)
    yield Case("Heun", "HeunDiscrete", 2, cut=True, calls=(2, 0))
    yield Case("KDPM2", "KDPM2Discrete", 2, eps_v, cut=True, calls=(2, 0))
    yield Case("LMS", "LMSDiscrete", 4, cut=True, fine=True, steps=STEPS[1:])
    yield Case("EulerAncestral", "EulerAncestralDiscrete", 1, eps_v, cut=True)
    yield Case("KDPM2Ancestral", "KDPM2AncestralDiscrete", 2, eps_v, cut=True, calls=(2, 0))
    yield Case("DPMSolverSDE", "DPMSolverSDE", 2, eps_v, cut=True, calls=(2, 0))


def _shipped() -> Iterator[Case]:
    eps = ("eps",)

    def case(scheduler: str, options: Mapping[str, Any] | None = None, note: str = "", **more: Any) -> Case:
        return Case(f"{scheduler} shipped{note}", scheduler, more.pop("claimed", None), more.pop("kinds", eps), options or {}, shipped=True,
                    steps=more.pop("steps", (10, 20, 50)), **more)  # fmt: skip

    for spacing in ("leading", "linspace", "trailing"):
        for scheduler, options in (
            ("DDIM", {"clip_sample": False}), ("DDPM", {"clip_sample": False}), ("DPMSolverMultistep", {}), ("EulerDiscrete", {}),
        ):  # fmt: skip
            yield case(scheduler, {**options, "timestep_spacing": spacing}, f" {spacing}")
        yield case("PNDM", {"timestep_spacing": spacing}, f" {spacing}", calls=(1, 9))
        yield case("PNDM", {"timestep_spacing": spacing, "skip_prk_steps": True}, f" skip_prk_steps {spacing}", calls=(1, 1))
    yield case("DDIM", {"clip_sample": False, "timestep_spacing": "trailing"}, " trailing, 30 steps", steps=(30,))
    yield case("PNDM", {"skip_prk_steps": True, "steps_offset": 1}, " as in Stable Diffusion", calls=(1, 1))
    yield case("PNDM", {}, " odd strides", calls=(1, 9), steps=(24, 40))
    yield case("IPNDM", kinds=("v",), claimed=2, steps=STEPS)
    yield case("DPMSolverMultistep", {"solver_order": 3}, " 3")
    yield case("DPMSolverMultistep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, " dpmsolver")
    yield case("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, " sde-dpmsolver++")
    yield case("DPMSolverMultistep", {"use_karras_sigmas": True}, " karras", kinds=("x0",))
    yield case("DPMSolverSinglestep")
    yield case("DPMSolverSinglestep", {"solver_order": 3}, " 3")
    yield case("DEISMultistep")
    yield case("UniPCMultistep")
    yield case("UniPCMultistep", {"use_karras_sigmas": True}, " karras", kinds=("x0",))
    yield case("UniPCMultistep", {"solver_type": "bh1"}, " bh1")
    yield case("SASolver")
    yield case("EulerAncestralDiscrete")
    yield case("HeunDiscrete", calls=(2, -1))
    yield case("KDPM2Discrete", calls=(2, -1), steps=(10, 20))
    yield case("KDPM2AncestralDiscrete", calls=(2, -1), steps=(10, 20))
    yield case("LMSDiscrete")
    yield case("DPMSolverSDE", calls=(2, -1))
    yield case("DPMSolverMultistep", note=" 1000 steps", steps=(1000,))
    yield case("UniPCMultistep", note=" 1000 steps", steps=(1000,))


def cases(only: str = "") -> tuple[Case, ...]:
    """The audits of the installed diffusers whose names have ``only`` in them; without DPMSolverSDE where torchsde, which it needs, is missing.

    Raises
    ------
    MissingExtra
        If diffusers or torch is not installed.
    BadInput
        If there is none.
    """
    usable = library().utils.is_torchsde_available()
    known = [case for case in (*_formulas(), *_shipped()) if usable or case.scheduler != "DPMSolverSDE"]
    chosen = tuple(case for case in known if only in case.name)
    if not chosen:
        raise unknown("audit", only, {case.name.split()[0] for case in known})
    return chosen


def check(name: str) -> AuditReport:
    """One audit by its full name.

    Raises
    ------
    BadInput
        For an unknown name.
    """
    known = {case.name: case for case in cases()}
    if name not in known:
        raise unknown("audit", name, known)
    return known[name].report()


def diffusers(only: str = "", watch: Callable[[int], None] | None = None) -> Audits:
    """Audit the installed diffusers.

    Parameters
    ----------
    only : str
        Audits whose name has this in it.
    watch : callable, optional
        Called with 1 after each audit.

    Raises
    ------
    MissingExtra, BadInput
        As :func:`cases`.
    """
    reports = []
    for case in cases(only):
        reports.append(case.report())
        if watch is not None:
            watch(1)
    return Audits(f"diffusers {library().__version__}", tuple(reports))
