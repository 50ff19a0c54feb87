"""Recipes written as spec files: the other way of :mod:`sdekit.spec`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import sympy as sp

from .blocks import folded
from .clocks import Cosine, Exponential, Expression, Linear
from .errors import BadInput
from .expression import NAME, decimal, shown, write
from .files import write_bytes
from .moving import Moving
from .recipe import Recipe
from .spec import TIME, loads
from .symbolic import UNIT

__all__ = ["dump_rate", "dumps", "save"]

_RECORDS: dict[type, str] = {Linear: "linear", Exponential: "exponential", Cosine: "cosine"}


def save(recipe: Recipe | Moving, path: str | Path) -> None:
    """Write :func:`dumps` of a recipe to a file, whole or not at all.

    Raises
    ------
    BadInput
        If the recipe cannot be held, or the file not be written.
    """
    write_bytes(Path(path), dumps(recipe).encode())


def dumps(recipe: Recipe | Moving) -> str:
    """The recipe as TOML text: ``loads(dumps(recipe)) == recipe``.

    Raises
    ------
    BadInput
        For what the format cannot hold: unspecified functions such as ``U(x)``, other functions, names or assumptions than it knows, the user's
        own clocks, and formulas beyond the limits of a spec.
    """
    if not isinstance(recipe, Recipe | Moving):
        raise BadInput(f"{shown(recipe)} must be a Recipe, or F and G")
    where = f"recipe {shown(recipe.name)} cannot be written as a spec"
    inner = [value for _, value in recipe.parameters]
    assumed = _assumed({s for s in set(recipe.symbols).union(*(v.free_symbols for v in inner)) if s not in recipe.state}, where)
    if any(z != sp.Symbol(z.name, real=True) for z in recipe.state):
        raise BadInput(f"{where}: the blocks {', '.join(str(z) for z in recipe.state)} must be symbols with the assumption real=True")
    parameters = {s.name: s for s in assumed}
    if recipe.time not in (None, UNIT):
        raise BadInput(f"{where}: its time {recipe.time} must be Symbol('B', nonnegative=True), the unit clock")
    names = {**parameters, **{z.name: z for z in recipe.state}, **({} if recipe.time is None else {"B": UNIT})}

    def put(value: sp.Expr, key: str, known: dict[str, sp.Symbol] = names) -> str:
        return f'"{write(value, known, f"{where}: {key}")}"'

    def nested(value: Any, key: str) -> str:
        value = (list(value) if 1 in value.shape else value.tolist()) if isinstance(value, sp.MatrixBase) else value
        if isinstance(value, list):
            return f"[{', '.join(nested(entry, f'{key}[{i}]') for i, entry in enumerate(value))}]"
        return put(value, key)

    def matrix(value: sp.Matrix, key: str) -> str:
        return nested(folded(value, recipe.blocks) if isinstance(recipe, Recipe) else value.tolist(), key)

    out = [f"name = {_text(recipe.name, where)}"]
    out += [f"paper = {_text(recipe.paper, where)}"] if recipe.paper else []
    out += ["state = [" + ", ".join(f'"{name}"' for name in _state(recipe, where)) + "]", "", "[parameters]"]
    given = dict(recipe.parameters)
    for name in [*given, *(s for s in sorted(parameters) if s not in given)]:
        if not NAME.fullmatch(name):
            raise BadInput(f"{where}: a parameter may not be called {shown(name)}")
        number = decimal(given[name]) if name in given and given[name].is_Rational else None
        entry = [] if name not in given else [f"value = {number or put(given[name], f'parameters.{name}', parameters)}"]
        assume = assumed.get(parameters.get(name), "positive")
        entry += [f'assume = "{assume}"'] if assume != "positive" or not entry else []
        out.append(f"{name} = {entry[0][8:] if len(entry) == 1 and name in given else '{' + ', '.join(entry) + '}'}")
    if isinstance(recipe, Moving):
        out += ["", "[process]", f"F = {matrix(recipe.F, 'F')}", f"G = {matrix(recipe.G, 'G')}"]
    else:
        out += ["", "[recipe]", f"H = {put(recipe.H, 'H')}", f"D = {matrix(recipe.D, 'D')}"]
        out += [f"Q = {matrix(recipe.Q, 'Q')}"] if recipe.Q is not None else []
        out += [f"drift = [{', '.join(put(e, f'drift[{i}]') for i, e in enumerate(recipe.claimed))}]"] if recipe.claimed is not None else []
    out += ["", "[clock]", *_clock_lines(recipe.clock, put, parameters, where)]
    out += ["", "[initial]", *(f"{z.name} = {put(value, f'initial.{z.name}', parameters)}" for z, value in recipe.initial)] if recipe.initial else []
    text = "\n".join(out) + "\n"
    loads(text, where)
    return text


def _state(recipe: Recipe | Moving, where: str) -> list[str]:
    """The entries of ``state``."""
    if isinstance(recipe, Moving):
        return [z.name for z in recipe.state]
    for block in recipe.blocks:
        if block.size > 1 and [z.name for z in block.symbols] != [f"{block.name}{i}" for i in range(1, block.size + 1)]:
            raise BadInput(f"{where}: the components {', '.join(map(str, block.symbols))} of a vector must be called x1, x2, ... after one name")
    return [block.name if block.size == 1 else f"{block.name}[{block.size}]" for block in recipe.blocks]


def _assumed(symbols: set[sp.Symbol], where: str) -> dict[sp.Symbol, str]:
    """What the format says of each parameter."""
    found: dict[sp.Symbol, str] = {}
    for symbol in sorted(symbols, key=str):
        same = [word for word in ("positive", "nonnegative", "real") if symbol == sp.Symbol(symbol.name, **{word: True})]
        if not same or symbol.name in {s.name for s in found}:
            raise BadInput(f"{where}: parameter {symbol} must be one symbol that is positive=True, nonnegative=True or real=True, and nothing else")
        found[symbol] = same[0]
    return found


def _text(value: str, where: str) -> str:
    """A TOML string."""
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise BadInput(f"{where}: {shown(value)} is not text")
    return '"' + "".join(c if c >= " " and c not in '"\\\x7f' else f"\\u{ord(c):04x}" for c in value) + '"'


def _clock_lines(clock: Any, put: Callable[..., str], parameters: dict[str, sp.Symbol], where: str) -> list[str]:
    def number(name: str) -> str:
        value = getattr(clock, name)
        return f"{name} = {put(value, f'clock.{name}', parameters) if isinstance(value, sp.Expr) else repr(float(value))}"

    if isinstance(clock, Expression):
        return ['kind = "expression"', f'rate = "{dump_rate(clock, parameters, where)}"', number("T")]
    if type(clock) not in _RECORDS:
        raise BadInput(f"{where}: its clock {shown(clock)} is none of those in sdekit.clocks")
    return [f'kind = "{_RECORDS[type(clock)]}"', *(number(field.name) for field in fields(clock))]


def dump_rate(clock: Expression, parameters: Mapping[str, sp.Symbol] | None = None, where: str = "clock") -> str:
    """The rate of an expression clock as text in ``t``."""
    (variable,) = clock.beta.variables
    return write(clock.beta.expr.xreplace({variable: TIME}), {**(parameters or {}), "t": TIME}, f"{where}: clock.rate")
