"""Indices that differ between the lanes of a vector or the parts of a tile, taken apart: `k0 + 16 *
vector + lane`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cnncc.loops.ir import Add, Index, Int, Mul, Size, Var, add, mul
from cnncc.loops.walk import subindices

LANE = Var("lane")
BLOCK = Var("k0")  # first lane of the block
POSITION = Var("position")  # within a register tile
VECTOR = Var("vector")  # within a register tile


class NotInLanes(Exception):
    """This body has no vector form."""


class NotInTile(Exception):
    """This body has no form in which a tile is one value: its parts are written one by one."""


def spaced(i: Index, var: Var = LANE) -> tuple[Index | None, Index]:
    """i = step * var + rest, the step an index without it (None: it does not occur)."""
    match i:
        case Var():
            return (Int(1), Int(0)) if i == var else (None, i)
        case Int() | Size():
            return None, i
        case Add(a, b):
            (x, p), (y, q) = spaced(a, var), spaced(b, var)
            if x is None and y is None:
                return None, i
            return (y if x is None else x if y is None else add(x, y)), add(p, q)
        case Mul(a, b):
            x, p = spaced(a, var)
            y, q = spaced(b, var)
            if x is None and y is None:
                return None, i
            if y is None:
                return (None if x is None else mul(x, b)), mul(p, b)
            if x is None:
                return mul(y, a), mul(q, a)
        case _ if var not in subindices(i):
            return None, i
    if var == LANE:
        raise NotInLanes(f"lanes are not evenly spaced in {i}")
    raise NotInTile(f"{var.name}s are not evenly spaced in {i}")


def split_block(i: Index, group: Index | None = None) -> tuple[Index | None, Index]:
    """i = start + rest, when the block's start k0 is a term of its own. A group of channels that is
    whole blocks begins with one: then the start is that of the group's block.
    """
    terms = list(_terms(i))
    if BLOCK not in terms:
        return None, i
    start: Index = Int(0)
    rest: Index = Int(0)
    for term in terms:
        if term == BLOCK or (group is not None and isinstance(term, Mul) and term.b == group):
            start = add(start, term)
        else:
            rest = add(rest, term)
    return start, rest


def _terms(i: Index) -> Iterator[Index]:
    if isinstance(i, Add):
        yield from _terms(i.a)
        yield from _terms(i.b)
    else:
        yield i
