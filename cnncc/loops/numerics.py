"""The arithmetic that every target must reproduce bit for bit, written in NumPy.

A kernel of the CPU target runs on fused multiply-add hardware; the loop interpreter, the un-jitted
kernels and the tests have only NumPy, which has no fused multiply-add.  This module supplies the
missing operations with the very same bits: `fma` rounds once, `maximum` and `minimum` propagate
NaN as PyTorch does, `scale2` multiplies by a power of two by building its bits.  Nothing here
depends on Numba, so it can serve as the definition.

All functions take NumPy arrays or scalars of float32 or float64 (Python numbers adapt to the other
operands), follow broadcasting, and return the operands' dtype: an array, or a NumPy scalar when
every operand is a scalar.  Signs and payloads of NaN are not part of the definition; every other
bit is, signs of zeros and denormals included.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

__all__ = [
    "exponent", "fma", "from_bf16", "mantissa", "maximum", "minimum", "power2", "relu", "rint",
    "scale2", "to_bf16",
]  # fmt: skip

_VELTKAMP = 134217729.0  # 2**27 + 1 splits a float64 into two halves of at most 26 bits

# Outside these magnitudes the splitting could overflow or the product's error could be below the
# smallest denormal.
_LARGEST_FACTOR, _LARGEST_SUM = 2.0**990, 2.0**1000
_SMALLEST_PRODUCT = 2.0**-900


def _operands(*values: Any) -> tuple[np.ndarray[Any, Any], ...]:
    """The operands as arrays of their common dtype; TypeError unless that is float32 or float64."""
    dtype = np.result_type(*values)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"operands must be float32 or float64, but their common dtype is {dtype}")
    return tuple(np.asarray(value, dtype) for value in values)


def fma(x: Any, y: Any, z: Any) -> Any:
    """x * y + z with one rounding, to nearest even (IEEE 754-2019, fusedMultiplyAdd)."""
    x, y, z = _operands(x, y, z)
    with np.errstate(all="ignore"):
        return (_fma32(x, y, z) if x.dtype == np.float32 else _fma64(x, y, z))[()]


def _fma32(x: Any, y: Any, z: Any) -> Any:
    """The product of two float32 is exact in float64; the sum is rounded to odd, then to float32.

    Rounding the float64 sum to nearest and again to float32 would be wrong where the first
    rounding lands on a midpoint of the second.  Rounding to odd first is safe because 53 >= 24 + 2
    (Boldo and Melquiond 2008).
    """
    product = x.astype(np.float64) * y.astype(np.float64)
    addend = z.astype(np.float64)
    total, error = _two_sum(product, addend)
    return _to_odd(total, error).astype(np.float32)


def _fma64(x: Any, y: Any, z: Any) -> Any:
    """Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008), with an exact
    path for extremes."""
    x, y, z = np.broadcast_arrays(x, y, z)
    naive = x * y + z  # right where an operand is infinite or NaN and where the product is zero
    plain = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(z)) | (x == 0) | (y == 0)
    magnitude = np.abs(x * y)
    tame = (
        (np.maximum(np.abs(x), np.abs(y)) < _LARGEST_FACTOR)
        & (magnitude >= _SMALLEST_PRODUCT)
        & (magnitude < _LARGEST_SUM)
        & (np.abs(z) < _LARGEST_SUM)
    )
    product_high, product_low = _two_product(x, y)
    middle, low = _two_sum(z, product_low)
    high, rest = _two_sum(product_high, middle)
    result = np.where(plain, naive, high + _to_odd(*_two_sum(low, rest)))
    for index in np.argwhere(~plain & ~tame):
        place = tuple(index)
        result[place] = _exact_fma(float(x[place]), float(y[place]), float(z[place]))
    return result


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """(s, e) with s = a + b rounded and s + e = a + b exactly (Knuth)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _two_product(x: Any, y: Any) -> tuple[Any, Any]:
    """(p, e) with p = x * y rounded and p + e = x * y exactly (Dekker, with Veltkamp's
    splitting)."""
    product = x * y
    x_high = _VELTKAMP * x - (_VELTKAMP * x - x)
    y_high = _VELTKAMP * y - (_VELTKAMP * y - y)
    x_low, y_low = x - x_high, y - y_high
    error = x_low * y_low - (((product - x_high * y_high) - x_low * y_high) - x_high * y_low)
    return product, error


def _to_odd(nearest: Any, error: Any) -> Any:
    """`nearest + error` rounded to odd, given the nearest float64 and its exact error.

    An inexact sum lies between two neighbours of which one has an odd last bit; that one keeps the
    information "inexact" through a second rounding.  Consecutive floats of one sign are
    consecutive integers as bits.
    """
    bits = np.asarray(nearest).view(np.int64)
    fix = (error != 0) & np.isfinite(nearest) & ((bits & 1) == 0)
    away_from_zero = (error > 0) == (nearest > 0)
    return (bits + np.where(fix, np.where(away_from_zero, 1, -1), 0)).view(np.float64)


def _exact_fma(x: float, y: float, z: float) -> float:
    """fma of finite numbers by integer arithmetic; the quotient of two Python integers is
    correctly rounded."""
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def maximum(x: Any, y: Any) -> Any:
    """The larger operand, NaN if either is NaN, y if they are equal (torch.maximum)."""
    x, y = _operands(x, y)
    return np.where((x > y) | (x != x), x, y)[()]


def minimum(x: Any, y: Any) -> Any:
    """The smaller operand, NaN if either is NaN, y if they are equal (torch.minimum)."""
    x, y = _operands(x, y)
    return np.where((x < y) | (x != x), x, y)[()]


def relu(x: Any) -> Any:
    """0 where 0 > x, else x: keeps NaN and -0 (torch.relu)."""
    (x,) = _operands(x)
    return np.where(x < 0, x.dtype.type(0), x)[()]


def rint(x: Any) -> Any:
    """The nearest integer, ties to even (IEEE 754-2019, roundToIntegralTiesToEven)."""
    (x,) = _operands(x)
    return np.rint(x)[()]


def scale2(x: Any, n: Any) -> Any:
    """x * 2**n for integer-valued n, as two products by powers of two built from bits.

    n is cut to [-252, 254] in float32 and to [-2044, 2046] in float64 (a NaN counts as the lowest)
    and split into n // 2 and the rest, so that every factor is a normal number.  The result is
    exact where it is normal, and rounded once where it is denormal as long as x * 2**(n // 2) is
    normal; overflow gives infinity.
    """
    x, n = _operands(x, n)
    with np.errstate(all="ignore"):
        return (x * _power_of_two(n, first=True) * _power_of_two(n, first=False))[()]


def power2(n: Any) -> Any:
    """2**n for a whole number n of -126 to 127 in float32, of -1022 to 1023 in float64. What it
    gives for others is no power, but the same everywhere.

    The sum with 1.5 * 2**width has n in its last bits, and needs no conversion.
    """
    (n,) = _operands(n)
    integer, bias, width = _layout(n.dtype)
    with np.errstate(all="ignore"):
        bits = (n + n.dtype.type(1.5 * 2.0**width)).view(integer)
        return ((bits << integer(width)) + (integer(bias) << integer(width))).view(n.dtype)[()]


def _power_of_two(n: Any, *, first: bool) -> Any:
    """2**(n // 2) if first, else 2**(n - n // 2), after cutting n to the range that scale2
    documents."""
    integer, bias, width = _layout(n.dtype)
    lowest, highest = n.dtype.type(2 - 2 * bias), n.dtype.type(2 * bias)
    n = np.where(n > lowest, n, lowest)
    exponent = np.where(n < highest, n, highest).astype(integer)
    half = exponent >> integer(1)
    part = half if first else exponent - half
    return ((part + integer(bias)) << integer(width)).view(n.dtype)


def exponent(x: Any) -> Any:
    """The exponent e of a normal number x = m * 2**e with 1 <= |m| < 2, as a number of x's dtype.

    It is the bit field less its bias, so zeros and denormals give -127 (-1023 in float64),
    infinities and NaN 128 (1024).
    """
    (x,) = _operands(x)
    integer, bias, width = _layout(x.dtype)
    field = (x.view(integer) >> integer(width)) & integer(2 * bias + 1)
    return (field - integer(bias)).astype(x.dtype)[()]


def mantissa(x: Any) -> Any:
    """The signed mantissa m of a normal number x = m * 2**e with 1 <= |m| < 2; `exponent` is the
    other half.

    The bit field of the exponent is replaced by that of 1, so zeros give 1 and infinities too,
    with their signs.
    """
    (x,) = _operands(x)
    integer, bias, width = _layout(x.dtype)
    keep = integer(-1 - ((2 * bias + 1) << width))
    return ((x.view(integer) & keep) | integer(bias << width)).view(x.dtype)[()]


def to_bf16(x: Any) -> Any:
    """The 16 bits of the nearest bfloat16, ties to even; a float64 is rounded to float32 first.

    Denormals are kept, what is too large becomes infinite, NaN stays NaN.
    """
    (x,) = _operands(x)
    with np.errstate(over="ignore"):
        bits = x.astype(np.float32).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        nearest = np.where(x != x, bits | np.uint32(1 << 22), bits + half)
    return (nearest >> np.uint32(16)).astype(np.uint16)[()]


def from_bf16(bits: Any) -> Any:
    """The float32 whose upper 16 bits these are: the value of a bfloat16, exactly."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)[()]


def _layout(dtype: np.dtype[Any]) -> tuple[Any, int, int]:
    """(integer type of the same size, exponent bias, mantissa bits) of float32 or float64."""
    return (np.int32, 127, 23) if dtype == np.float32 else (np.int64, 1023, 52)
