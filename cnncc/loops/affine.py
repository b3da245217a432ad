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
from typing import assert_never

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
    """constant + the sum of coefficient * atom; no coefficient is zero.

    Atoms are loop variables, and indices that are not affine themselves, such as a quotient.
    """

    constant: Extent
    terms: Mapping[Index, Extent]

    def plus(self, other: Linear, times: int = 1) -> Linear:
        """self + times * other."""
        terms = dict(self.terms)
        for atom, c in other.terms.items():
            terms[atom] = terms.get(atom, 0) + times * c
        left = {atom: c for atom, c in terms.items() if c != 0}
        return Linear(self.constant + times * other.constant, left)

    def scaled(self, factor: Extent) -> Linear:
        if factor == 0:
            return Linear(0, {})
        return Linear(self.constant * factor, {a: c * factor for a, c in self.terms.items()})


def linear(i: Index, sizes: Mapping[str, Extent]) -> Linear:
    """The index as an affine function of its loop variables and of what is not affine in it."""
    match i:
        case Int(n):
            return Linear(n, {})
        case Size(name):
            return Linear(sizes[name], {})
        case Add(a, b):
            return linear(a, sizes).plus(linear(b, sizes))
        case Mul(a, b):
            x, y = linear(a, sizes), linear(b, sizes)
            if not x.terms:
                return y.scaled(x.constant)
            return x.scaled(y.constant) if not y.terms else Linear(0, {i: 1})
        case Div() | Mod() | Least():
            constant = _constant(i, sizes)
            return Linear(0, {i: 1}) if constant is None else Linear(constant, {})
        case Var() | Fetch():
            return Linear(0, {i: 1})
        case _:
            assert_never(i)


def extent_of(i: Index, sizes: Mapping[str, Extent]) -> Extent | None:
    """The value of an index without loop variables; None when it has some, or reads a buffer."""
    sum_ = linear(i, sizes)
    return None if sum_.terms else sum_.constant


def _constant(i: Div | Mod | Least, sizes: Mapping[str, Extent]) -> Extent | None:
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
        if sum_.constant != 0 or not all(isinstance(atom, Var) for atom in sum_.terms):
            return None
        named = {atom.name: c for atom, c in sum_.terms.items() if isinstance(atom, Var)}
        digits = {v: c for v, c in named.items() if extents.get(v) != 1}
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
