"""Formulas in text, as sympy expressions, without ever evaluating text: an AST whitelist with limits on length, depth, degree, terms and digits.

Numbers are exact: ``0.04`` is the rational 1/25, so that what is proved is what was written.  :func:`write` is the way back.
"""

from __future__ import annotations

import ast
import cmath
import json
import re
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import comb
from typing import Any, NamedTuple

import sympy as sp

from .errors import BadInput, unknown

__all__ = ["FUNCTIONS", "NAME", "decimal", "parse", "shown", "write"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
"""What a symbol may be called."""

FUNCTIONS: dict[str, Callable[..., sp.Expr]] = {
    "exp": sp.exp, "log": sp.log, "sqrt": sp.sqrt, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
}  # fmt: skip
_LENGTH, _DEPTH, _DEGREE, _DIGITS, _TERMS, _CALLS = 2000, 40, 32, 60, 400, 4
_LARGEST = 1e100  # numbers beyond it, and below its inverse, would leave float64 as soon as a few of them are multiplied
_DECIMAL = re.compile(r"\d[\d_]*(\.[\d_]*)?([eE][+-]?\d+)?|\.\d[\d_]*([eE][+-]?\d+)?")


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
        For anything else, or beyond the limits: 2000 characters, depth 40, total degree 32, 400 terms when multiplied out, functions of functions
        4 deep, numbers of 60 digits and between 1e-100 and 1e100.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float | Decimal):
        raise BadInput(f"{where}: {shown(text)} must be a formula in quotes, or a number")
    try:
        source = str(text).strip()
    except ValueError:  # an integer of more than 4300 digits
        raise BadInput(f"{where}: the number is too long; at most {_DIGITS} digits") from None
    if len(source) > _LENGTH:
        raise BadInput(f"{where} has {len(source)} characters; a formula may have at most {_LENGTH}")
    where = f"{where} = {shown(source)}"
    if not source.isascii():  # Python reads look-alikes such as fullwidth letters as the plain ones
        odd = next(c for c in source if not c.isascii())
        raise BadInput(f"{where}: the character U+{ord(odd):04X} is not allowed; formulas are plain ASCII text")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise BadInput(f"{where} is not a formula; use + - * / **, brackets, names and numbers") from None
    return _Reader(source, symbols, where).read(tree.body, 0).value


def shown(value: Any) -> str:
    """``value`` for an error message: text in double quotes, at most 60 characters, on one line, control characters escaped."""
    try:
        text = json.dumps(" ".join(value.split())) if isinstance(value, str) else " ".join(repr(value).split())
    except (ValueError, RecursionError):
        text = f"a large {type(value).__name__}"
    text = text if text.isascii() else text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."


class _Read(NamedTuple):
    """An expression with bounds on what it is as a fraction of polynomials, multiplied out, and its value if it is a number."""

    value: sp.Expr
    degree: int = 0
    top: int = 1
    bottom: int = 1
    calls: int = 0
    number: complex | None = None


class _Reader:
    """Builds the expression bottom up, checking the bounds of everything before it is built."""

    def __init__(self, source: str, symbols: Mapping[str, sp.Symbol], where: str) -> None:
        self.source, self.symbols, self.where = source, symbols, where

    def read(self, node: ast.AST, depth: int) -> _Read:
        """The expression of ``node``."""
        if depth > _DEPTH:
            raise BadInput(f"{self.where} is nested deeper than {_DEPTH}")
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return self._number(ast.get_source_segment(self.source, node) or repr(node.value))
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.UAdd() | ast.USub() as op, operand=inner):
                made = self.read(inner, depth + 1)
                number = None if made.number is None else -made.number
                return made._replace(value=-made.value, number=number) if isinstance(op, ast.USub) else made
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self._sum(node, depth)
            case ast.BinOp(op=ast.Mult() | ast.Div() as op, left=left, right=right):
                return self._product(self.read(left, depth + 1), self.read(right, depth + 1), isinstance(op, ast.Div))
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self._power(self.read(left, depth + 1), self.read(right, depth + 1).value)
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]):
                if name not in FUNCTIONS:
                    raise BadInput(f"{self.where}: {unknown('function', name, FUNCTIONS)}")
                return self._call(name, self.read(inner, depth + 1))
            case _:
                raise BadInput(
                    f"{self.where}: {type(node).__name__} is not allowed; use + - * / **, brackets, names, numbers and {', '.join(FUNCTIONS)}"
                )

    def _number(self, text: str) -> _Read:
        digits = sum(c.isdigit() for c in text)
        exponent = re.search(r"[eE]([+-]?\d+)$", text)
        if not _DECIMAL.fullmatch(text):
            raise BadInput(f"{self.where}: {shown(text)} is not a decimal number")
        if digits > _DIGITS or (exponent and abs(int(exponent.group(1))) > 300):
            raise BadInput(f"{self.where}: the number {shown(text)} is too long; at most {_DIGITS} digits and a size between 1e-100 and 1e100")
        value = sp.Rational(text.replace("_", ""))
        return self._checked(lambda: value, _Read(value, number=float(value)))

    def _name(self, name: str) -> _Read:
        if name in self.symbols:
            return _Read(self.symbols[name], 1)
        if name == "pi":
            return _Read(sp.pi, number=cmath.pi)
        raise BadInput(f"{self.where}: {unknown('name', name, [*self.symbols, 'pi', *FUNCTIONS])}")

    def _sum(self, node: ast.AST, depth: int) -> _Read:
        """A chain ``a + b - c`` at once: it is long, not deep."""
        parts: list[_Read] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            right = self.read(node.right, depth + 1)
            minus = isinstance(node.op, ast.Sub)
            number = None if right.number is None else -right.number if minus else right.number
            parts.append(right._replace(value=-right.value if minus else right.value, number=number))
            node = node.left
        parts.append(self.read(node, depth + 1))
        made = parts[-1]
        for part in reversed(parts[:-1]):
            shared = part.bottom == made.bottom == 1
            number = None if made.number is None or part.number is None else made.number + part.number
            top = made.top + part.top if shared else made.top * part.bottom + part.top * made.bottom
            made = _Read(made.value, max(made.degree, part.degree), top, made.bottom * part.bottom, max(made.calls, part.calls), number)
            self._bounded(made)
        return self._checked(lambda: sp.Add(*(part.value for part in reversed(parts))), made)

    def _product(self, a: _Read, b: _Read, divide: bool) -> _Read:
        number = None if a.number is None or b.number is None else self._computed(lambda x, y: x / y if divide else x * y, a.number, b.number)
        if divide and b.value == 0:
            raise BadInput(f"{self.where} divides by zero")
        top, bottom = (a.top * b.bottom, a.bottom * b.top) if divide else (a.top * b.top, a.bottom * b.bottom)
        bound = _Read(a.value, a.degree + b.degree, top, bottom, max(a.calls, b.calls), number)
        return self._checked(lambda: a.value / b.value if divide else a.value * b.value, bound)

    def _power(self, base: _Read, exponent: sp.Expr) -> _Read:
        if not (exponent.is_Rational and abs(exponent.p) <= _DEGREE and exponent.q <= 6):
            raise BadInput(f"{self.where}: the exponent '{exponent}' must be a number of size at most {_DEGREE} (write exp(...) for others)")
        if base.value == 0 and exponent <= 0:
            raise BadInput(f"{self.where} divides by zero")
        n = abs(int(exponent.p))
        top, bottom = comb(n + base.top - 1, n), comb(n + base.bottom - 1, n)
        number = None if base.number is None else self._computed(pow, base.number, float(exponent))
        calls = base.calls + (exponent.q > 1 and number is None)
        bound = _Read(base.value, max(1, base.degree) * max(1, n), *((top, bottom) if exponent.p >= 0 else (bottom, top)), calls, number)
        return self._checked(lambda: base.value**exponent, bound)

    def _call(self, name: str, inner: _Read) -> _Read:
        if name == "sqrt":
            return self._power(inner, sp.S.Half)
        number = None if inner.number is None else self._computed(getattr(cmath, name), inner.number)
        two = 2 if name in ("tan", "tanh") else 1  # as a fraction of exponentials
        bound = inner._replace(top=2 * inner.top * inner.bottom, bottom=two, calls=inner.calls + (number is None), number=number)
        return self._checked(lambda: FUNCTIONS[name](inner.value), bound)

    def _computed(self, function: Callable[..., complex], *values: complex | float) -> complex:
        try:
            return complex(function(*values))
        except ZeroDivisionError:
            raise BadInput(f"{self.where} divides by zero") from None
        except (OverflowError, ValueError):
            return complex("nan")

    def _bounded(self, bound: _Read) -> None:
        """Raise BadInput if an expression with these bounds is out of the ordinary; nothing large has been built yet."""
        if bound.degree > _DEGREE:
            raise BadInput(f"{self.where} has a degree above {_DEGREE}")
        if bound.top > _TERMS or bound.bottom > _TERMS:
            raise BadInput(f"{self.where} has more than {_TERMS} terms when it is multiplied out")
        if bound.calls > _CALLS:
            raise BadInput(f"{self.where} has functions or roots of each other more than {_CALLS} deep")
        if bound.number is not None:
            if cmath.isnan(bound.number) or bound.number.imag != 0.0:
                raise BadInput(f"{self.where} is not a finite real formula")
            if bound.number != 0 and not 1.0 / _LARGEST <= abs(bound.number) <= _LARGEST:
                raise BadInput(f"{self.where} holds a number beyond 1e100 or below 1e-100: it is too long for exact arithmetic in float64's range")

    def _checked(self, build: Callable[[], sp.Expr], bound: _Read) -> _Read:
        self._bounded(bound)
        value = build()
        if value.has(sp.zoo, sp.nan, sp.oo, sp.I):
            raise BadInput(f"{self.where} is not a finite real formula")
        if any(max(number.p.bit_length(), number.q.bit_length()) > 2048 for number in value.atoms(sp.Rational)):
            raise BadInput(f"{self.where} holds a number of more than 600 digits")
        return bound._replace(value=value)


def write(value: sp.Expr, symbols: Mapping[str, sp.Symbol], where: str = "expression") -> str:
    """The text that :func:`parse` reads as ``value``.

    Raises
    ------
    BadInput
        For what the format cannot hold: other symbols and functions, and what is beyond the limits of :func:`parse`.
    """
    text = _Writer(symbols, where).write(value)
    made = parse(text, symbols, where)
    if made != value and sp.expand(made - value) != 0:
        raise BadInput(f"{where} = {shown(text)} cannot be written exactly")
    return text


def decimal(value: sp.Rational) -> str | None:
    """A rational as a decimal number of at most 60 digits, if it is one."""
    q, twos, fives = int(value.q), 0, 0
    while q % 2 == 0:
        q, twos = q // 2, twos + 1
    while q % 5 == 0:
        q, fives = q // 5, fives + 1
    if q > 1:
        return None
    places = max(twos, fives)
    digits = str(abs(int(value.p)) * 2 ** (places - twos) * 5 ** (places - fives))
    sign, short = "-" if value < 0 else "", digits.rstrip("0")
    if places == 0 and len(digits) <= 20:
        return sign + digits
    exponent = len(digits) - places - 1
    if not short or len(short) > _DIGITS - 4:
        return None
    if -5 <= exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{short}"
    if 0 <= exponent < len(short) - 1:
        return f"{sign}{short[: exponent + 1]}.{short[exponent + 1 :]}"
    return f"{sign}{short[0]}{'.' + short[1:] if short[1:] else ''}e{exponent}"


class _Writer:
    def __init__(self, symbols: Mapping[str, sp.Symbol], where: str) -> None:
        self.symbols, self.where = symbols, where
        self.names = {function: name for name, function in FUNCTIONS.items() if name != "sqrt"}

    def write(self, value: sp.Expr) -> str:
        """A sum, product or atom as it stands alone."""
        if value.is_Add:
            terms = [self.write(term) for term in value.as_ordered_terms()]
            return terms[0] + "".join(f" - {term[1:]}" if term.startswith("-") else f" + {term}" for term in terms[1:])
        if value.is_Rational:
            plain = str(value)  # p/q
            return plain if len(plain) <= 10 else decimal(value) or plain
        if value.is_Mul:
            return self._product(value)
        return self._power(value, sp.S.One) if not value.is_Pow else self._product(value)

    def _product(self, value: sp.Expr) -> str:
        number, factors = value.as_coeff_mul()
        sums = any(factor.as_base_exp()[0].is_Add for factor in factors)
        above: list[str] = []
        below: list[str] = []
        for factor in factors:
            base, exponent = (factor.base, factor.exp) if factor.is_Pow else (factor, sp.S.One)
            if not exponent.is_Rational:
                raise BadInput(f"{self.where}: {factor} has an exponent that is not a number; write it as exp(...)")
            (below if exponent < 0 else above).append(self._power(base, abs(exponent)))
        # a number beside a sum would be multiplied into it, so it comes last
        whole, part = ([str(abs(number.p))] if abs(number.p) != 1 else []), ([str(number.q)] if number.q != 1 else [])
        if number.is_Rational and decimal(number) and max(abs(number.p), number.q) > 10**6:
            whole, part = [str(decimal(abs(number)))], []
        sign = "-" if number < 0 else ""
        if sums and above:  # a number next to a sum alone would be multiplied into it
            return (
                sign + "*".join(above) + "".join(f"/{factor}" for factor in below) + "".join(f"*{n}" for n in whole) + "".join(f"/{n}" for n in part)
            )
        text = sign + ("*".join([*whole, *above]) or "1")
        if sums or len(below) + len(part) < 2:
            return text + "".join(f"/{factor}" for factor in [*below, *part])
        return f"{text}/({'*'.join([*part, *below])})"

    def _power(self, base: sp.Expr, exponent: sp.Rational) -> str:
        if exponent == sp.S.Half:
            return f"sqrt({self.write(base)})"
        text = self._atom(base)
        if exponent == 1:
            return text
        return f"{text}**{exponent}" if exponent.is_Integer else f"{text}**({exponent})"

    def _atom(self, value: sp.Expr) -> str:
        if value.is_Symbol:
            if self.symbols.get(value.name) != value:
                raise BadInput(f"{self.where}: {value} is not among the names {', '.join(self.symbols)}, or has other assumptions than they")
            return str(value.name)
        if value is sp.pi or value is sp.E:
            return "pi" if value is sp.pi else "exp(1)"
        if value.is_Integer and value >= 0:
            return self.write(value)
        if value.func in self.names and len(value.args) == 1:
            return f"{self.names[value.func]}({self.write(value.args[0])})"
        if value.is_Add or value.is_Mul or value.is_Pow or value.is_Rational:
            return f"({self.write(value)})"
        raise BadInput(f"{self.where}: {shown(str(value))} cannot be written in a spec file, which knows + - * / ** and {', '.join(FUNCTIONS)}")
