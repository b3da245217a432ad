"""The primitives of the loop IR as NumPy functions: the table that defines them for every target.

Operands are arrays or scalars of one float type, and results have that type. Every function rounds
once; what NumPy does not have comes from loops/numerics.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnncc.loops import numerics

__all__ = ["PRIMITIVES"]


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
    "power2": numerics.power2,
    "exponent": numerics.exponent,
    "mantissa": numerics.mantissa,
}
