"""Spec files: a recipe in TOML, in the users' own format.  Nothing in a file is evaluated; formulas go through :mod:`sdekit.expression`."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import sympy as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .clocks import Cosine, Exponential, Linear
from .errors import BadInput, unknown
from .expression import FUNCTIONS, NAME, parse
from .recipe import Recipe

__all__ = ["load", "loads"]

_LARGEST = 100_000  # bytes of a spec file
Formula = str | int | Decimal | float


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class _Parameter(_Table):
    value: Formula
    assume: Literal["positive", "nonnegative", "real"] = "positive"


class _Parts(_Table):
    H: Formula
    D: list[list[Formula]]
    Q: list[list[Formula]] | None = None
    drift: list[Formula] | None = None


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


_AnyClock = Annotated[_ConstantClock | _LinearClock | _ExponentialClock | _CosineClock, Field(discriminator="kind")]


class _Spec(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    paper: Annotated[str, Field(max_length=200)] = ""
    state: Annotated[list[str], Field(min_length=1, max_length=8)]
    parameters: dict[str, _Parameter | Formula] = {}
    recipe: _Parts
    clock: _AnyClock = _ConstantClock(kind="constant")
    initial: dict[str, Formula] = {}


def load(path: str | Path) -> Recipe:
    """The recipe in a TOML file.

    Parameters
    ----------
    path : str or Path
        Keys: ``name``, ``paper``, ``state``, and tables ``[parameters]``, ``[recipe]`` (``H``, ``D`` and ``Q`` or ``drift``), ``[clock]``,
        ``[initial]``; the catalogue's files are examples.

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


def loads(text: str, where: str = "spec") -> Recipe:
    """The recipe in TOML text; see :func:`load`."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{where} is not TOML: {error}") from None
    try:
        spec = _Spec.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first(error, data)}") from None
    return _build(spec, where)


def _first(error: ValidationError, data: dict[str, Any]) -> str:
    """One line for the first thing that is wrong."""
    found = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    path = [str(part) for part in found["loc"] if not str(part).startswith(("function", "str", "int", "is-instance", "float", "_"))]
    key = ".".join(path) or "file"
    kind = found["type"]
    if kind == "extra_forbidden":
        known: dict[str, type[BaseModel]] = {"recipe": _Parts, "parameters": _Parameter}
        table = _Spec if len(path) == 1 else known.get(path[0])
        return str(unknown("key", key, table.model_fields)) if table is not None else f"unknown key {key!r}"
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind.startswith("union_tag"):
        return f"clock.kind = {data.get('clock', {}).get('kind')!r} must be one of constant, linear, exponential, cosine"
    value = repr(found.get("input"))
    return f"{key} = {value if len(value) <= 60 else value[:57] + '...'}: {found['msg'][0].lower()}{found['msg'][1:]}"


def _symbol(name: str, where: str, assume: str) -> sp.Symbol:
    if not NAME.fullmatch(name) or name in FUNCTIONS or name in {"pi", "t", "B"}:
        raise BadInput(f"{where}: {name!r} cannot be a symbol; use a letter, then letters, digits and _ (at most 32), and no function's name")
    return sp.Symbol(name, **{assume: True})


def _build(spec: _Spec, where: str) -> Recipe:
    state = [_symbol(name, where, "real") for name in spec.state]
    wrapped = {name: p if isinstance(p, _Parameter) else _Parameter(value=p) for name, p in spec.parameters.items()}
    parameters = {name: _symbol(name, where, p.assume) for name, p in wrapped.items()}
    if len(set(spec.state)) != len(spec.state) or set(spec.state) & set(parameters):
        raise BadInput(f"{where}: names of blocks and parameters must all differ")
    names = {**parameters, **{z.name: z for z in state}}

    def read(value: Formula, key: str, known: dict[str, sp.Symbol] = parameters) -> sp.Expr:
        return parse(value, known, f"{where}: {key}")

    def matrix(rows: list[list[Formula]], key: str) -> list[list[sp.Expr]]:
        return [[read(entry, f"{key}[{i}][{j}]", names) for j, entry in enumerate(row)] for i, row in enumerate(rows)]

    parts = spec.recipe
    if (parts.Q is None) == (parts.drift is None):
        raise BadInput(f"{where}: [recipe] must have either Q or drift")
    more: dict[str, Any] = {
        "initial": {name: read(value, f"initial.{name}") for name, value in spec.initial.items()},
        "parameters": {name: read(p.value, f"parameters.{name}") for name, p in wrapped.items()},
        "name": spec.name,
        "paper": spec.paper,
    }
    H, D, clock = read(parts.H, "recipe.H", names), matrix(parts.D, "recipe.D"), _clock(spec.clock, read)
    try:
        if parts.drift is not None:
            drift = [read(entry, f"recipe.drift[{i}]", names) for i, entry in enumerate(parts.drift)]
            return Recipe.from_drift(state, drift, D, H, clock, **more)
        return Recipe(state, H, D, matrix(parts.Q or [], "recipe.Q"), clock, **more)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _clock(spec: Any, read: Any) -> Any:
    values = {name: read(getattr(spec, name), f"clock.{name}") for name in type(spec).model_fields if name != "kind"}
    match spec.kind:
        case "constant":
            return Linear(values["beta"], values["beta"], values["T"])
        case "linear":
            return Linear(**values)
        case "exponential":
            return Exponential(**values)
        case _:
            return Cosine(**values)
