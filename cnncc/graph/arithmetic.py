"""Compile-time arithmetic and comparison. Integers are exact and stay below 2^63; `/` gives an
integer where the division has no remainder and a float otherwise; extents that are not known yet
can be added, multiplied and floor-divided, and compared where the answer does not depend on them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from cnncc.graph.limits import EXTENT_SIZE, INTEGER, extent_size
from cnncc.graph.values import Value, is_number, kind, show
from cnncc.syntax.tree import BinaryOperator
from cnncc.tensor import Poly, symbols


class Impossible(Exception):
    """The operands do not allow the operation: a code, the rule with the values, and a fix."""

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.fix = code, message, fix


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def apply(sign: BinaryOperator, left: Value, right: Value) -> Value:
    """`left sign right` for numbers and extents. Raises Impossible."""
    if sign in ("==", "!="):
        return equal(left, right) == (sign == "==")
    for value in (left, right):
        if not is_number(value) and not isinstance(value, Poly):
            raise Impossible(
                "E0308", f"`{sign}` takes two numbers, but got {show(value)}, {kind(value)}"
            )
    if sign in _ORDER:
        return _ordered(sign, left, right)
    try:
        result: Value = _bounded(_compute(sign, left, right))
        return result
    except OverflowError:
        raise Impossible("E0125", f"{left} {sign} {right} is too large") from None


def negative(value: Value) -> int | float | Poly:
    """`-value` for a number or extent. Raises Impossible."""
    if not is_number(value) and not isinstance(value, Poly):
        raise Impossible("E0308", f"`-` takes a number, but got {show(value)}, {kind(value)}")
    assert isinstance(value, int | float | Poly)
    return -value


def equal(left: Value, right: Value) -> bool:
    """Whether two values are the same. Raises Impossible where that depends on an extent."""
    match left, right:
        case (list() | tuple(), list() | tuple()):
            if type(left) is not type(right) or len(left) != len(right):
                return False
            return all(equal(a, b) for a, b in zip(left, right, strict=True))
        case (bool(), _) | (_, bool()):
            return isinstance(left, bool) and isinstance(right, bool) and left == right
        case (int() | float() | Poly(), int() | float() | Poly()):
            if isinstance(left, float) or isinstance(right, float):
                if isinstance(left, Poly) or isinstance(right, Poly):
                    raise _unknown("==", left, right)
                return left == right
            difference = left - right
            if isinstance(difference, int):
                return difference == 0
            raise _unknown("==", left, right)
    return type(left) is type(right) and left == right


def _ordered(sign: str, left: Any, right: Any) -> bool:
    if isinstance(left, Poly) or isinstance(right, Poly):
        if isinstance(left, float) or isinstance(right, float):
            raise _unknown(sign, left, right)
        difference = left - right
        if not isinstance(difference, int):
            raise _unknown(sign, left, right)
        left, right = difference, 0
    return _ORDER[sign](left, right)


def _unknown(sign: str, left: Value, right: Value) -> Impossible:
    names = sorted({n for v in (left, right) if isinstance(v, Poly) for n in symbols(v)})
    which = " and ".join(f"`{n}`" for n in names)
    return Impossible(
        "E0315",
        f"whether {left} {sign} {right} depends on {which}, which only the data will tell",
        "give the input fixed extents",
    )


def _compute(sign: str, left: Any, right: Any) -> Any:
    if isinstance(left, Poly) or isinstance(right, Poly):
        return _compute_extent(sign, left, right)
    if sign in ("/", "//", "%") and right == 0:
        raise Impossible("E0309", f"{left} {sign} {right} divides by zero")
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            exact = isinstance(left, int) and isinstance(right, int) and left % right == 0
            return left // right if exact else left / right
        case "//":
            return left // right
        case "%":
            return left % right
    raise AssertionError(sign)


def _compute_extent(sign: str, left: Any, right: Any) -> Any:
    if isinstance(left, float) or isinstance(right, float):
        raise Impossible(
            "E0308", f"`{sign}` takes a whole number beside an extent, but got {left} and {right}"
        )
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//" | "%" if isinstance(right, int) and right > 0:
            quotient = left // right
            return quotient if sign == "//" else left - quotient * right
    raise Impossible(
        "E0315",
        f"{left} {sign} {right} cannot be worked out before the data is there",
        "`//` and `%` by a positive whole number can" if sign in ("/", "//", "%") else "",
    )


def _bounded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise Impossible("E0125", "the result is beyond the range of 64-bit floats")
    if isinstance(value, int) and abs(value) >= INTEGER:
        raise Impossible("E0125", f"a whole number lies below 2^63, but this one is {value}")
    if isinstance(value, Poly) and (
        extent_size(value) > EXTENT_SIZE or any(abs(c) >= INTEGER for _, c in value.terms)
    ):
        raise Impossible("E0125", "the formula of an extent becomes too large")
    return value
