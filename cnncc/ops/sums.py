"""Sums of products in parts.

The rounding error of a sum grows with the length of its chain of additions. In parts that are added
up in the end the chains are short, and it costs next to nothing: a register tile gives its vectors
away once per part.
"""

from __future__ import annotations

from collections.abc import Sequence

from cnncc.loops.build import serial
from cnncc.loops.ir import Assign, For, Index, Let, Lit, Ref, Value, prim
from cnncc.tensor import Extent

Loops = Sequence[tuple[str, Index | int]]

LONG = 32
"""Terms that are worth a part of their own."""

BLOCKS = (64, 32)


def summed(parts: Loops, terms: Loops, factors: tuple[Value, Value]) -> For:
    """Adds to `acc`, for every turn of the loops `parts`, the sum of products over `terms`."""
    a, b = factors
    return serial(
        parts,
        Let("part", Lit(0.0)),
        serial(terms, Assign("part", prim("fma", a, b, Ref("part")))),
        Assign("acc", prim("add", Ref("acc"), Ref("part"))),
    )


def is_long(extent: Extent) -> bool:
    """Whether so many terms are a part of their own."""
    return not isinstance(extent, int) or extent >= LONG


def block_of(extent: Extent) -> int:
    """The terms of a part of a sum over so many, 0 where it is one chain."""
    if not isinstance(extent, int):
        return 0
    return next((b for b in BLOCKS if extent % b == 0 and extent >= 2 * b), 0)
