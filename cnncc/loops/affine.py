"""Affine indices: what an index is as a sum of loop variables with coefficients, and how to undo
it.

A coefficient is an `Extent`, so `g * KG + k` is affine in g and k whether the size KG is a number
or symbolic. Where such an index runs over all elements of an axis exactly once (a mixed-radix
number: each coefficient is the product of the extents of the faster variables), `unpack` gives the
variables back from the element: `g = i // KG`, `k = i % KG`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnncc.loops.ir import (
    Add,
    Div,
    Fetch,
    Index,
    Int,
    Least,
    Mod,
    Mul,
    Size,
    Var,
    floordiv,
    ix,
    mod,
    mul,
)
from cnncc.tensor import Extent

__all__ = ["Linear", "extent_of", "linear", "unpack"]


@dataclass(frozen=True)
class Linear:
    """constant + the sum of coefficient * variable; no coefficient is zero."""

    constant: Extent
    terms: Mapping[str, Extent]


def linear(i: Index, sizes: Mapping[str, Extent]) -> Linear | None:
    """The index as an affine function of the loop variables; None when it is not one."""
    match i:
        case Int(n):
            return Linear(n, {})
        case Size(name):
            return Linear(sizes[name], {})
        case Var(name):
            return Linear(0, {name: 1})
        case Add(a, b):
            return _sum(linear(a, sizes), linear(b, sizes))
        case Mul(a, b):
            return _product(linear(a, sizes), linear(b, sizes))
        case Div() | Mod() | Least():
            constant = _rounded(i, sizes)
            return None if constant is None else Linear(constant, {})
        case Fetch():
            return None


def extent_of(i: Index, sizes: Mapping[str, Extent]) -> Extent | None:
    """The value of an index without loop variables; None when it has some, or reads a buffer."""
    sum_ = linear(i, sizes)
    return None if sum_ is None or sum_.terms else sum_.constant


def _sum(a: Linear | None, b: Linear | None) -> Linear | None:
    if a is None or b is None:
        return None
    terms = dict(a.terms)
    for name, c in b.terms.items():
        terms[name] = terms.get(name, 0) + c
    return Linear(a.constant + b.constant, {name: c for name, c in terms.items() if c != 0})


def _product(a: Linear | None, b: Linear | None) -> Linear | None:
    if a is None or b is None or (a.terms and b.terms):
        return None
    sum_, factor = (a, b.constant) if a.terms else (b, a.constant)
    if factor == 0:
        return Linear(0, {})
    return Linear(sum_.constant * factor, {name: c * factor for name, c in sum_.terms.items()})


def _rounded(i: Div | Mod | Least, sizes: Mapping[str, Extent]) -> Extent | None:
    """A quotient, remainder or minimum without variables, as far as extents can express it."""
    a, b = extent_of(i.a, sizes), extent_of(i.b, sizes)
    if a is None or not isinstance(b, int):
        return None
    if isinstance(i, Least):
        return min(a, b) if isinstance(a, int) else None
    if b <= 0:
        return None
    return a // b if isinstance(i, Div) else a - (a // b) * b


def unpack(
    index: tuple[Index, ...],
    loops: Mapping[str, Index],
    axes: tuple[Index, ...],
    sizes: Mapping[str, Extent],
    element: tuple[Index, ...],
) -> dict[str, Index] | None:
    """The loop variables for which `index` is `element`.

    `loops` gives the extent of every variable, `axes` the extents of what is indexed. The answer
    has every variable of `loops`; None when `index` does not run over all elements of the axes
    exactly once.
    """
    found: dict[str, Index] = {}
    extents = {var: extent_of(e, sizes) for var, e in loops.items()}
    for var, extent in extents.items():
        if extent is None:
            return None
        if extent == 1:
            found[var] = Int(0)
    for part, axis, at in zip(index, axes, element, strict=True):
        sum_ = linear(part, sizes)
        if sum_ is None or sum_.constant != 0:
            return None
        digits = {v: c for v, c in sum_.terms.items() if extents.get(v) != 1}
        faster: Index = ix(1)
        while digits:
            place = extent_of(faster, sizes)
            digit = next((v for v, c in digits.items() if c == place), None)
            if digit is None or digit in found or digit not in loops:
                return None
            del digits[digit]
            quotient = floordiv(at, faster)
            found[digit] = mod(quotient, loops[digit]) if digits else quotient
            faster = mul(faster, loops[digit])
        if extent_of(faster, sizes) != extent_of(axis, sizes):
            return None
    return found if len(found) == len(loops) else None
