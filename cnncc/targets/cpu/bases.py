"""Sums that many addresses of a body have in common, such as the corner of a tile.

Numba types and lowers every operation of the text, which takes far longer than LLVM takes to find
that they repeat. So a sum that several places of one buffer share gets a name of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cnncc.loops.ir import Add, Index, Int, Mul, Size, add, mul
from cnncc.loops.walk import subindices

FEWEST = 4  # addresses that make a name worth a line

Base = tuple[Index, ...]
"""The summands of an address that name a variable or its buffer's beginning, in order."""


def summands(i: Index) -> list[Index]:
    """The terms of a sum, products of sums multiplied out."""
    match i:
        case Add(a, b):
            return summands(a) + summands(b)
        case Mul(a, b):
            return [mul(x, y) for x in summands(a) for y in summands(b)]
        case _:
            return [i]


def parted(place: Index, start: Size) -> tuple[Base, Index]:
    """An address as its base and what is left: a sum of multiples of steps."""
    base: list[Index] = []
    rest: Index = Int(0)
    for term in summands(place):
        if term != start and all(isinstance(p, (Int, Size, Mul)) for p in subindices(term)):
            rest = add(rest, term)
        else:
            base.append(term)
    return tuple(base), rest


def shared(bases: Iterable[tuple[str, Base]]) -> list[tuple[str, Base]]:
    """The bases, each with its buffer, that are worth a name, in order of appearance."""
    return [found for found, times in Counter(bases).items() if times >= FEWEST]


def total(base: Base) -> Index:
    """A base as an index."""
    found: Index = Int(0)
    for term in base:
        found = add(found, term)
    return found
