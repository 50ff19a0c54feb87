"""sympy expressions as functions of arrays, without generating or evaluating any code: the expression is walked once into a list of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, mul
from typing import Any

import numpy as np
import sympy as sp

from ._array import namespace
from .errors import BadInput

__all__ = ["numeric"]

_NAMES: dict[Any, str] = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh",
    sp.Abs: "abs", sp.sign: "sign", sp.atan: "arctan", sp.asin: "arcsin", sp.acos: "arccos",
}  # fmt: skip
_TORCH = {"arctan": "atan", "arcsin": "asin", "arccos": "acos"}


def numeric(symbols: Sequence[sp.Symbol], expressions: Sequence[Any]) -> Callable[..., list[Any]]:
    """A function of as many arrays as there are ``symbols`` that returns the values of ``expressions``.

    Parameters
    ----------
    symbols : sequence of Symbol
    expressions : sequence of expressions in these symbols
        Sums, products, rational powers, exp, log, sin, cos, tan, sinh, cosh, tanh, abs, sign, atan, asin, acos.  Shared parts are computed once.

    Returns
    -------
    callable
        ``f(*values) -> list``; values are numbers or arrays (NumPy or torch) that broadcast; a constant expression gives a Python float.

    Raises
    ------
    BadInput
        For an unknown symbol, an unspecified function such as ``U(x)``, or a function that is not in the list.
    """
    inputs = {symbol: i for i, symbol in enumerate(symbols)}
    slots: dict[Any, int] = {}
    program: list[tuple[Callable[..., Any], tuple[int, ...]]] = []

    def place(node: Any, operation: Callable[..., Any], arguments: tuple[int, ...] = ()) -> int:
        slots[node] = len(program)
        program.append((operation, arguments))
        return slots[node]

    def read(node: Any) -> int:
        if node in slots:
            return slots[node]
        if node in inputs:
            index = inputs[node]
            return place(node, lambda values, index=index: values[index])
        if node.is_number and not node.free_symbols:
            value = float(node)
            return place(node, lambda _, value=value: value)
        if node.is_Symbol:
            raise BadInput(f"{node} is not among the symbols {', '.join(str(s) for s in symbols)}; give it a value first")
        if node.is_Pow and node.base is not sp.E and node.exp.is_Rational:
            return place(node, _power(node.exp), (read(node.base),))
        if node.is_Pow and node.base is not sp.E:
            return place(node, lambda _, a, b: a**b, (read(node.base), read(node.exp)))
        arguments = tuple(read(part) for part in node.args) if node.args and not node.is_Derivative else ()
        if node.is_Add or node.is_Mul:
            combine = add if node.is_Add else mul
            return place(node, lambda _, *parts, combine=combine: reduce(combine, parts), arguments)
        if node.func in _NAMES:
            return place(node, _function(_NAMES[node.func]), arguments)
        raise BadInput(f"{node} has no numeric value: {type(node).__name__} is not one of {', '.join(_NAMES.values())}")

    wanted = [read(expression if isinstance(expression, sp.Expr) else sp.Float(expression)) for expression in expressions]

    def run(*values: Any) -> list[Any]:
        if len(values) != len(inputs):
            raise BadInput(f"{len(values)} values for {len(inputs)} symbols ({', '.join(str(s) for s in symbols)})")
        found: list[Any] = []
        for operation, arguments in program:
            found.append(operation(values, *(found[i] for i in arguments)))
        return [found[i] for i in wanted]

    return run


def _power(exponent: sp.Rational) -> Callable[..., Any]:
    if exponent == -1:
        return lambda _, a: 1.0 / a
    if exponent == sp.S.Half:
        return lambda _, a: namespace(a).sqrt(a)
    if exponent == -sp.S.Half:
        return lambda _, a: 1.0 / namespace(a).sqrt(a)
    if exponent.is_Integer and exponent < 0:
        return lambda _, a, n=int(-exponent): 1.0 / a**n
    power = int(exponent) if exponent.is_Integer else float(exponent)
    return lambda _, a: a**power


def _function(name: str) -> Callable[..., Any]:
    def call(_: Any, a: Any) -> Any:
        space = namespace(a)
        return getattr(space, name if space is np or hasattr(space, name) else _TORCH.get(name, name))(a)

    return call
