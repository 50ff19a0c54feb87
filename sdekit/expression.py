"""Formulas in text, as sympy expressions, without ever evaluating text: an AST whitelist with limits on length, depth, degree and digits.

Numbers are exact: ``0.04`` is the rational 1/25, so that what is proved is what was written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp

from .errors import BadInput, unknown

__all__ = ["FUNCTIONS", "NAME", "parse"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
"""What a symbol may be called."""

FUNCTIONS: dict[str, Callable[..., sp.Expr]] = {
    "exp": sp.exp, "log": sp.log, "sqrt": sp.sqrt, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
}  # fmt: skip
_LENGTH, _DEPTH, _DEGREE, _DIGITS = 2000, 40, 32, 60
_BINARY: dict[type, Callable[[sp.Expr, sp.Expr], sp.Expr]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def parse(text: Any, symbols: Mapping[str, sp.Symbol], where: str = "expression") -> sp.Expr:
    """The expression written in ``text``.

    Parameters
    ----------
    text : str or number
        ``+ - * / **``, brackets, numbers, ``pi``, the names in ``symbols`` and the functions exp, log, sqrt, sin, cos, tan, sinh, cosh, tanh.
    symbols : mapping of str to Symbol
    where : str
        What the text is, for error messages.

    Raises
    ------
    BadInput
        For anything else, or beyond the limits: 2000 characters, depth 40, total degree 32, numbers of 60 digits.
    """
    if isinstance(text, bool) or not (isinstance(text, str) or hasattr(text, "as_tuple") or isinstance(text, int | float)):
        raise BadInput(f"{where}: {text!r} must be a formula in quotes, or a number")
    source = str(text)
    if len(source) > _LENGTH:
        raise BadInput(f"{where} has {len(source)} characters; a formula may have at most {_LENGTH}")
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise BadInput(f"{where} = {_short(source)!r} is not a formula; use + - * / **, brackets, names and numbers") from None
    return _Reader(source.strip(), symbols, f"{where} = {_short(source)!r}").read(tree.body, 0)[0]


def _short(source: str) -> str:
    flat = " ".join(source.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."


class _Reader:
    """Builds the expression bottom up, with a bound on the degree of everything built."""

    def __init__(self, source: str, symbols: Mapping[str, sp.Symbol], where: str) -> None:
        self.source, self.symbols, self.where = source, symbols, where

    def read(self, node: ast.AST, depth: int) -> tuple[sp.Expr, int]:
        """The expression of ``node``, and a bound on its degree."""
        if depth > _DEPTH:
            raise BadInput(f"{self.where} is nested deeper than {_DEPTH}")
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return self._number(ast.get_source_segment(self.source, node) or repr(node.value)), 0
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=inner):
                value, degree = self.read(inner, depth + 1)
                return (-value if isinstance(node.op, ast.USub) else value), degree
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self._power(*self.read(left, depth + 1), self.read(right, depth + 1)[0])
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
                (a, m), (b, n) = self.read(left, depth + 1), self.read(right, depth + 1)
                if isinstance(op, ast.Div) and b == 0:
                    raise BadInput(f"{self.where} divides by zero")
                degree = max(m, n) if isinstance(op, ast.Add | ast.Sub) else m + n
                return self._checked(_BINARY[type(op)](a, b), degree)
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]):
                if name not in FUNCTIONS:
                    raise BadInput(f"{self.where}: {unknown('function', name, FUNCTIONS)}")
                value, degree = self.read(inner, depth + 1)
                return self._checked(FUNCTIONS[name](value), degree)
            case _:
                raise BadInput(
                    f"{self.where}: {type(node).__name__} is not allowed; use + - * / **, brackets, names, numbers and {', '.join(FUNCTIONS)}"
                )

    def _number(self, text: str) -> sp.Expr:
        digits = sum(c.isdigit() for c in text)
        exponent = re.search(r"[eE]([+-]?\d+)$", text)
        if not re.fullmatch(r"\d[\d_]*(\.[\d_]*)?([eE][+-]?\d+)?|\.\d[\d_]*([eE][+-]?\d+)?", text):
            raise BadInput(f"{self.where}: {_short(text)!r} is not a decimal number")
        if digits > _DIGITS or (exponent and abs(int(exponent.group(1))) > 300):
            raise BadInput(f"{self.where}: the number {_short(text)!r} is too long; at most {_DIGITS} digits and an exponent of 300")
        return sp.Rational(text.replace("_", ""))

    def _name(self, name: str) -> tuple[sp.Expr, int]:
        if name in self.symbols:
            return self.symbols[name], 1
        if name == "pi":
            return sp.pi, 0
        raise BadInput(f"{self.where}: {unknown('name', name, [*self.symbols, 'pi', *FUNCTIONS])}")

    def _power(self, base: sp.Expr, degree: int, exponent: sp.Expr) -> tuple[sp.Expr, int]:
        if not (exponent.is_Rational and abs(exponent.p) <= _DEGREE and exponent.q <= 6):
            raise BadInput(
                f"{self.where}: the exponent {_short(str(exponent))!r} must be a number of size at most {_DEGREE} (write exp(...) for others)"
            )
        if base == 0 and exponent <= 0:
            raise BadInput(f"{self.where} divides by zero")
        return self._checked(base**exponent, max(1, degree) * max(1, abs(int(exponent.p))))

    def _checked(self, value: sp.Expr, degree: int) -> tuple[sp.Expr, int]:
        if degree > _DEGREE:
            raise BadInput(f"{self.where} has a degree above {_DEGREE}")
        if value.has(sp.zoo, sp.nan, sp.oo, sp.I):
            raise BadInput(f"{self.where} is not a finite real formula")
        return value, degree
