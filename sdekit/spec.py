"""Spec files: a recipe in TOML, in the users' own format.  Nothing in a file is evaluated; formulas go through :mod:`sdekit.expression`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

import sympy as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .clocks import Cosine, Exponential, Expression, Linear, expression
from .errors import BadInput, unknown
from .expression import FUNCTIONS, NAME, parse, shown
from .moving import Moving
from .recipe import Recipe

__all__ = ["BLOCKS", "load", "load_rate", "loads"]

_LARGEST = 100_000  # bytes of a spec file
BLOCKS = 8
"""The most blocks that a spec file may have, or components where blocks are vectors."""
_PARAMETERS = 64
TIME = sp.Symbol("t", nonnegative=True)
"""The time in the rate of a clock."""
UNIT = sp.Symbol("B", nonnegative=True)
"""The unit clock in the parts of a recipe or a process that vary."""
Formula = str | int | Decimal | float
Row = Annotated[list[Formula], Field(max_length=BLOCKS)]
Matrix = Annotated[list[Row], Field(max_length=BLOCKS)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class _Parameter(_Table):
    value: Formula | None = None
    assume: Literal["positive", "nonnegative", "real"] = "positive"


class _Parts(_Table):
    H: Formula
    D: Matrix
    Q: Matrix | None = None
    drift: Row | None = None


class _Linear(_Table):
    F: Matrix
    G: Matrix


class _ConstantClock(_Table):
    kind: Literal["constant"]
    beta: Formula = 1
    T: Formula = 1


class _LinearClock(_Table):
    kind: Literal["linear"]
    beta_min: Formula
    beta_max: Formula
    T: Formula = 1


class _ExponentialClock(_Table):
    kind: Literal["exponential"]
    beta_min: Formula
    beta_max: Formula
    T: Formula = 1


class _CosineClock(_Table):
    kind: Literal["cosine"]
    s: Formula = Decimal("0.008")
    T: Formula = Decimal("0.9999")


class _ExpressionClock(_Table):
    kind: Literal["expression"]
    rate: Formula
    T: Formula = 1


_KINDS: dict[str, type[_Table]] = {
    "constant": _ConstantClock, "linear": _LinearClock, "exponential": _ExponentialClock, "cosine": _CosineClock, "expression": _ExpressionClock,
}  # fmt: skip
_AnyClock = Annotated[
    _ConstantClock | _LinearClock | _ExponentialClock | _CosineClock | _ExpressionClock,
    Field(discriminator="kind"),
]


class _Spec(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    paper: Annotated[str, Field(max_length=200)] = ""
    state: Annotated[list[str], Field(min_length=1, max_length=BLOCKS)]
    parameters: Annotated[dict[str, _Parameter | Formula], Field(max_length=_PARAMETERS)] = {}
    recipe: _Parts | None = None
    process: _Linear | None = None
    clock: _AnyClock = _ConstantClock(kind="constant")
    initial: dict[str, Formula] = {}


def load(path: str | Path) -> Recipe | Moving:
    """The recipe in a TOML file.

    Parameters
    ----------
    path : str or Path
        Keys: ``name``, ``paper``, ``state``, and tables ``[parameters]``, ``[recipe]`` (``H``, ``D`` and ``Q`` or ``drift``), ``[clock]``,
        ``[initial]``; instead of ``[recipe]`` a process without a fixed law has ``[process]`` (``F`` and ``G``).  ``D``, ``Q``, ``drift``, ``F`` and
        ``G`` may depend on the unit clock ``B``.  The catalogue's files are examples.

    Raises
    ------
    BadInput
        With the file, the key, the value and the rule, for anything malformed.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the spec file {str(file)!r}: {error.strerror or error}") from None
    if len(raw) > _LARGEST:
        raise BadInput(f"{file.name} has {len(raw)} bytes; a spec file may have at most {_LARGEST}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return loads(text, file.name)


def loads(text: str, where: str = "spec") -> Recipe | Moving:
    """The recipe in TOML text; see :func:`load`."""
    if len(text) > _LARGEST:
        raise BadInput(f"{where} has {len(text)} characters; a spec may have at most {_LARGEST}")
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        said = "a number is too large" if isinstance(error, InvalidOperation) else _cut(" ".join(str(error).split()))
        raise BadInput(f"{where} is not TOML: {said}") from None
    at = _Places(text, where)
    try:
        spec = _Spec.model_validate(data)
    except ValidationError as error:
        raise _first(error, data, at) from None
    except RecursionError:
        raise BadInput(f"{where}: tables or lists are nested too deeply") from None
    return _build(spec, at)


class _Places:
    """Where keys stand in the text: ``at("recipe.D[0][1]")`` is the file and, if the key is found, its line."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.lines = text, where, _lines(text)

    def __call__(self, key: str = "", value: Any = None) -> str:
        path = tuple(re.sub(r"\[.*", "", key).split(".")) if key else ()
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)
        if line and isinstance(value, str) and "[" in key:  # an entry of a matrix that is written over several lines
            after = [n for n in self.lines.values() if n > line]
            body = self.text.split("\n")[line - 1 : min(after, default=line + 200) - 1]
            found = [i for i, row in enumerate(body) if f'"{value}"' in row or f"'{value}'" in row]
            line += found[0] if len(found) == 1 else 0
        return f"{self.where}, line {line}" if line else self.where


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Lines of tables and keys that are written plainly; keys in quotes are left out, and so is everything if a string spans lines."""
    found: dict[tuple[str, ...], int] = {}
    if '"""' in text or "'''" in text:
        return found
    table: tuple[str, ...] = ()
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', "_", line).split("#")[0].strip()
        header, key = re.fullmatch(r"\[([\w.\- ]+)\]", bare), re.match(r"([A-Za-z0-9_.\- ]+?)\s*=", line.strip())
        if depth == 0 and header:
            table = tuple(part.strip() for part in header.group(1).split("."))
            found.setdefault(table, number)
        elif depth == 0 and key:
            found.setdefault((*table, *(part.strip() for part in key.group(1).split("."))), number)
        if not (depth == 0 and header):
            depth = max(0, depth + sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}"))
    return found


def _first(error: ValidationError, data: dict[str, Any], at: _Places) -> BadInput:
    """One line for the first thing that is wrong."""
    found = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    path = [str(part) for part in found["loc"] if not str(part).startswith(("function", "str", "int", "is-instance", "float", "_"))]
    if path[:1] == ["clock"] and len(path) > 1 and path[1] in _KINDS:
        del path[1]
    key = _cut(".".join(" ".join(part.split()) for part in path)) or "file"
    kind = found["type"]
    if kind == "extra_forbidden":
        known: dict[str, type[BaseModel]] = {
            "recipe": _Parts,
            "process": _Linear,
            "parameters": _Parameter,
            "clock": _KINDS.get(str(found["loc"][-2:][0]), _Table),
        }
        table = known.get(path[0], _Spec) if len(path) > 1 else _Spec
        names = [".".join((*path[:-1], name)) for name in table.model_fields]
        return BadInput(f"{at(key)}: {unknown('key', key, names)}")
    if kind == "missing":
        return BadInput(f"{at('.'.join(path[:-1]))}: key {key!r} is missing")
    if kind.startswith("union_tag"):
        given = data["clock"].get("kind") if isinstance(data.get("clock"), dict) else None
        return BadInput(f"{at('clock.kind')}: clock.kind = {shown(given)} must be one of {', '.join(_KINDS)}")
    plain = "must be a number, a formula in quotes, or {value = ..., assume = ...}"
    said = plain if "_Parameter" in found["msg"] else " ".join(found["msg"].split())
    return BadInput(f"{at(key)}: {key} = {shown(found.get('input'))}: {said[0].lower()}{said[1:]}")


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."


def _symbol(name: str, where: str, assume: str) -> sp.Symbol:
    if not NAME.fullmatch(name) or name in FUNCTIONS or name in {"pi", "t", "B"}:
        raise BadInput(f"{where}: {shown(name)} cannot be a symbol; use a letter, then letters, digits and _ (at most 32), and no function's name")
    return sp.Symbol(name, **{assume: True})


def _build(spec: _Spec, at: _Places) -> Recipe | Moving:
    state = [_symbol(name, at("state"), "real") for name in spec.state]
    wrapped = {name: p if isinstance(p, _Parameter) else _Parameter(value=p) for name, p in spec.parameters.items()}
    parameters = {name: _symbol(name, at(f"parameters.{name}"), p.assume) for name, p in wrapped.items()}
    if len(set(spec.state)) != len(spec.state) or set(spec.state) & set(parameters):
        raise BadInput(f"{at('state')}: names of blocks and parameters must all differ")
    names = {**parameters, **{z.name: z for z in state}}
    n = len(state)

    def read(value: Formula, key: str, known: dict[str, sp.Symbol] = parameters) -> sp.Expr:
        return parse(value, known, f"{at(key, value)}: {key}")

    def matrix(rows: list[list[Formula]], key: str, known: dict[str, sp.Symbol], square: bool = True) -> list[list[sp.Expr]]:
        width = n if square or not rows else len(rows[0])
        if len(rows) != n or any(len(row) != width for row in rows) or not width:
            shape = f"a {n} x {n} matrix, one row and column for each block" if square else f"{n} rows of one length, one for each block"
            raise BadInput(f"{at(key)}: {key} must be {shape} of the state")
        return [[read(entry, f"{key}[{i}][{j}]", known) for j, entry in enumerate(row)] for i, row in enumerate(rows)]

    parts = spec.recipe
    if (parts is None) == (spec.process is None):
        raise BadInput(f"{at.where}: give a table [recipe] (H, D and Q or drift), or a table [process] (F and G), not both")
    moving = {**names, "B": UNIT}
    for name in spec.initial:
        if name not in spec.state:
            raise BadInput(f"{at(f'initial.{name}')}: {unknown('block', name, spec.state)}")
    more: dict[str, Any] = {
        "initial": {name: read(value, f"initial.{name}") for name, value in spec.initial.items()},
        "parameters": {name: read(p.value, f"parameters.{name}") for name, p in wrapped.items() if p.value is not None},
        "name": spec.name,
        "paper": spec.paper,
    }
    clock = _clock(spec.clock, read, parameters, at)
    if spec.process is not None:
        known = {**parameters, "B": UNIT}
        F, G = (matrix(rows, f"process.{name}", known, name == "F") for name, rows in (("F", spec.process.F), ("G", spec.process.G)))
        return Moving(tuple(state), sp.ImmutableMatrix(F), sp.ImmutableMatrix(G), clock, UNIT, **more)
    assert parts is not None  # noqa: S101 - by the check above
    if (parts.Q is None) == (parts.drift is None):
        raise BadInput(f"{at('recipe')}: [recipe] must have either Q or drift")
    H, D = read(parts.H, "recipe.H", names), matrix(parts.D, "recipe.D", moving)
    Q = None if parts.Q is None else matrix(parts.Q, "recipe.Q", moving)
    try:
        if parts.drift is not None:
            drift = [read(entry, f"recipe.drift[{i}]", moving) for i, entry in enumerate(parts.drift)]
            if len(drift) != n:
                raise BadInput(f"{at('recipe.drift')}: recipe.drift has {len(drift)} entries; the state has {n}")
            return Recipe.from_drift(state, drift, D, H, clock, **more, time=_used(drift, D))
        return Recipe(state, H, D, Q, clock, **more, time=_used(Q or [], D))
    except BadInput as error:
        said = str(error)
        raise error if said.startswith(at.where) else BadInput(f"{at('recipe')}: {said}") from None


def _used(*parts: Any) -> sp.Symbol | None:
    return UNIT if UNIT in sp.Matrix(sp.flatten(parts)).free_symbols else None


def _clock(spec: Any, read: Callable[..., sp.Expr], parameters: dict[str, sp.Symbol], at: _Places) -> Any:
    def number(name: str) -> Any:
        """A number is a float, as in :mod:`sdekit.clocks`; a formula stays exact until parameters have values."""
        raw = getattr(spec, name)
        made = read(raw, f"clock.{name}")
        return made if isinstance(raw, str) else float(made)

    if spec.kind == "expression":
        rate, T = read(spec.rate, "clock.rate", {**parameters, "t": TIME}), number("T")
        try:
            return expression(rate, TIME, T)
        except BadInput as error:
            raise BadInput(f"{at('clock.rate')}: {error}") from None
    values = {name: number(name) for name in type(spec).model_fields if name != "kind"}
    if spec.kind == "constant":
        return Linear(values["beta"], values["beta"], values["T"])
    return {"linear": Linear, "exponential": Exponential, "cosine": Cosine}[spec.kind](**values)


def load_rate(text: str, T: float) -> Expression:
    """The clock whose rate :func:`dump_rate` wrote."""
    return expression(parse(text, {"t": TIME}, "clock.rate"), TIME, T)
