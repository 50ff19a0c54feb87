"""What a bound says, with all that it rests on, for print and Jupyter."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["Assumption", "Constant", "IntervalBound", "SamplerBound", "Split", "Step"]

_WORDS = {True: "holds", False: "fails", None: "not checked"}


@dataclass(frozen=True)
class Constant:
    """A number, what it is, and how it was found."""

    name: str
    value: float
    how: str


@dataclass(frozen=True)
class Assumption:
    """What a bound rests on; ``holds`` is None where it cannot be checked from the data's law."""

    text: str
    holds: bool | None
    why: str


@dataclass(frozen=True)
class Split:
    """The two parts of a bound on W1 over an interval, and their sum.

    ``contracted`` is what is left of the error at the start of the interval, ``additional`` what solver and score add.
    """

    contracted: float
    additional: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.contracted + self.additional


def _lines(constants: tuple[Constant, ...], assumptions: tuple[Assumption, ...]) -> list[str]:
    wide = max(len(c.name) for c in constants)
    rows = [f"  {c.name:<{wide}}  {c.value:<12.5g} {c.how}" for c in constants]
    return [*rows, "assumptions", *(f"  {_WORDS[a.holds]}: {a.text} ({a.why})" for a in assumptions)]


def _table(head: list[str], rows: list[list[str]], caption: str = "") -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{top}</tr>{body}</table>"


def _tables(constants: tuple[Constant, ...], assumptions: tuple[Assumption, ...]) -> str:
    first = _table(["constant", "value", "how"], [[c.name, f"{c.value:.5g}", c.how] for c in constants])
    return first + _table(["assumption", "", "why"], [[a.text, _WORDS[a.holds], a.why] for a in assumptions])


@dataclass(frozen=True)
class IntervalBound:
    """A W1 bound of the Restart paper on one interval, as published and corrected.

    Attributes
    ----------
    sampler : {"ode", "sde", "restart"}
    published, corrected : Split
        The theorem's formula with constants on a ball, and the one that follows without the slips listed in ``slips``.
    constants : tuple of Constant
    assumptions : tuple of Assumption
    slips : tuple of str
        What was changed from the one to the other.
    reasons : tuple of str
        Why the published bound says nothing, if so.
    """

    sampler: str
    published: Split
    corrected: Split
    constants: tuple[Constant, ...]
    assumptions: tuple[Assumption, ...]
    slips: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def vacuous(self) -> bool:
        """Whether the bound says less than that all lies in the ball."""
        return bool(self.reasons)

    def __getitem__(self, name: str) -> float:
        """The constant of that name."""
        return {c.name: c.value for c in self.constants}[name]

    def _splits(self) -> list[list[str]]:
        pairs = (("published", self.published), ("corrected", self.corrected))
        return [[name, f"{s.contracted:.5g}", f"{s.additional:.5g}", f"{s.total:.5g}"] for name, s in pairs]

    def __str__(self) -> str:
        rows = [f"  {n:<10} W1 <= {t} = contracted {c} + additional {a}" for n, c, a, t in self._splits()]
        end = ["slips mended", *(f"  {slip}" for slip in self.slips), *(f"vacuous: {reason}" for reason in self.reasons)]
        return "\n".join([f"{self.sampler} bound", *rows, "constants", *_lines(self.constants, self.assumptions), *end])

    def _repr_html_(self) -> str:
        first = _table(["", "contracted", "additional", "total"], self._splits(), f"{self.sampler} bound on W1")
        end = "".join(f"<p>mended: {escape(slip)}</p>" for slip in self.slips) + "".join(f"<p>vacuous: {escape(r)}</p>" for r in self.reasons)
        return first + _tables(self.constants, self.assumptions) + end


@dataclass(frozen=True)
class Step:
    """One step in the bound of a run: levels, the defect it makes, the factor by which that can reach the end, and what it does add."""

    start: float
    stop: float
    defect: float
    factor: float
    added: float


@dataclass(frozen=True)
class SamplerBound:
    """A bound on W2 between a sampler's data and the data, by its parts.

    Attributes
    ----------
    prior, discretisation, score, end : float
        From not starting in the exact marginal, from the steps, from the error of the model, from the last step or from stopping above level 0.
    steps : tuple of Step
    constants : tuple of Constant
    assumptions : tuple of Assumption
    reasons : tuple of str
        Why the bound says nothing, if so.
    """

    prior: float
    discretisation: float
    score: float
    end: float
    steps: tuple[Step, ...]
    constants: tuple[Constant, ...]
    assumptions: tuple[Assumption, ...]
    reasons: tuple[str, ...]

    @property
    def total(self) -> float:
        """The bound."""
        return self.prior + self.discretisation + self.score + self.end

    @property
    def parts(self) -> dict[str, float]:
        """The parts by name."""
        return {name: getattr(self, name) for name in ("prior", "discretisation", "score", "end")}

    @property
    def vacuous(self) -> bool:
        """Whether the bound says less than the answer "the mean of the data" for every sample."""
        return bool(self.reasons)

    def __getitem__(self, name: str) -> float:
        """The constant of that name."""
        return {c.name: c.value for c in self.constants}[name]

    def __str__(self) -> str:
        parts = " + ".join(f"{name} {value:.5g}" for name, value in self.parts.items())
        end = [f"vacuous: {reason}" for reason in self.reasons]
        return "\n".join([f"W2 <= {self.total:.5g} = {parts}", "constants", *_lines(self.constants, self.assumptions), *end])

    def _repr_html_(self) -> str:
        first = _table([*self.parts, "total"], [[f"{v:.5g}" for v in (*self.parts.values(), self.total)]], "bound on W2")
        rows = [[f"{x:.5g}" for x in (s.start, s.stop, s.defect, s.factor, s.added)] for s in self.steps]
        second = _table(["from sigma", "to", "defect", "factor", "adds"], rows)
        return first + _tables(self.constants, self.assumptions) + second + "".join(f"<p>vacuous: {escape(r)}</p>" for r in self.reasons)
