"""The primitives of the loop IR as NumPy functions: the table that defines them for every target.

Operands are arrays or scalars of one float type, and results have that type. Every function rounds
once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnncc.loops import numerics

__all__ = ["PRIMITIVES", "exponent", "mantissa"]


def _bits(x: Any) -> tuple[Any, int, int]:
    """The bits of floats as signed integers, with the exponent's bias and the number of bits after
    the point."""
    return (x.view(np.int32), 127, 23) if x.dtype == np.float32 else (x.view(np.int64), 1023, 52)


def exponent(x: Any) -> Any:
    """The exponent field minus the bias: floor(log2(abs(x))) for a normal x.

    It is one below the smallest exponent for zeros and denormals, and one above the largest for
    infinity and NaN.
    """
    bits, bias, point = _bits(x)
    field = (bits >> bits.dtype.type(point)) & bits.dtype.type(2 * bias + 1)
    return (field - bits.dtype.type(bias)).astype(x.dtype)


def mantissa(x: Any) -> Any:
    """The bits after the point behind a one: abs(x) / 2^exponent(x), in [1, 2), for a normal x.

    The formula on bits holds for the others too: 1 for zeros and infinities.
    """
    bits, bias, point = _bits(x)
    fraction = bits & bits.dtype.type((1 << point) - 1)
    one = bits.dtype.type(bias << point)
    return (fraction | one).view(x.dtype)


def _truth(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A comparison that yields 1.0 or 0.0."""
    return lambda x, y: compare(x, y).astype(x.dtype)


def _select(c: Any, x: Any, y: Any) -> Any:
    chosen: Any = np.where(c != 0, x, y)
    return chosen[()]


PRIMITIVES: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "fma": numerics.fma,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "floor": np.floor,
    "rint": numerics.rint,
    "max": numerics.maximum,
    "min": numerics.minimum,
    "lt": _truth(np.less),
    "le": _truth(np.less_equal),
    "eq": _truth(np.equal),
    "ne": _truth(np.not_equal),
    "select": _select,
    "copysign": np.copysign,
    "scale2": numerics.scale2,
    "exponent": exponent,
    "mantissa": mantissa,
}
