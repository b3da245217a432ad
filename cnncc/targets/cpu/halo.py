"""Borders: how far the windows of a nest reach beyond a tensor, so that its memory can hold what
lies outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Body,
    Choose,
    For,
    Guard,
    Index,
    Let,
    Load,
    Nest,
    Prim,
    Store,
    Value,
)
from cnncc.loops.key import This
from cnncc.loops.ranges import Scope

WIDEST = 64  # a wider border costs more memory than testing costs time

Halo = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Border:
    """Per spatial axis (lo, hi) positions beyond the tensor, and what they hold."""

    halo: Halo
    fill: float

    def covers(self, other: Border) -> bool:
        """Whether reads that need the other border find it in this one."""
        pairs = zip(self.halo, other.halo, strict=True)
        wide = all(a >= c and b >= d for (a, b), (c, d) in pairs)
        return wide and self.same_fill(other)

    def same_fill(self, other: Border) -> bool:
        """Equal as bits: 0.0 and -0.0 differ."""
        return self.fill.hex() == other.fill.hex()

    def joined(self, other: Border) -> Border:
        pairs = zip(self.halo, other.halo, strict=True)
        return Border(tuple((max(a, c), max(b, d)) for (a, b), (c, d) in pairs), self.fill)


def borders(nest: Nest) -> Mapping[str, Border]:
    """For every buffer that is read outside its extents the border that would make each such Load
    an ordinary one.

    Buffers for which there is none (reads outside the channels or the batch, different fills, a
    reach that depends on a symbolic extent) are left out: their Loads stay tests.
    """
    return _borders(This(nest))


@lru_cache(maxsize=1024)  # asked when memory is laid out, and when the kernel is emitted
def _borders(this: This) -> Mapping[str, Border]:
    nest = this.nest
    found: dict[str, Border | None] = {}
    for load, scope in _loads(nest.body, Scope(nest.sizes)):
        if load.outside is None:
            continue
        border = _border(nest, load, scope)
        known = found.get(load.buffer, border)
        if border is None or known is None or not known.same_fill(border):
            found[load.buffer] = None
        else:
            found[load.buffer] = known.joined(border)
    return {buffer: b for buffer, b in found.items() if b is not None}


def _border(nest: Nest, load: Load, scope: Scope) -> Border | None:
    extents = nest.buffer(load.buffer).extents
    if len(load.index) < 3 or load.outside is None:
        return None
    halo: list[tuple[int, int]] = []
    for axis, (i, extent) in enumerate(zip(load.index, extents, strict=True)):
        r, e = scope.range(i), scope.range(extent).hi
        if r.lo is None or r.hi is None or e is None:
            return None
        lo, hi = 0 - r.lo, r.hi + 1 - e
        if not isinstance(lo, int) or not isinstance(hi, int):
            return None
        if axis < 2 and (lo > 0 or hi > 0):
            return None
        if axis >= 2:
            halo.append((max(lo, 0), max(hi, 0)))
    if max(max(pair) for pair in halo) > WIDEST:
        return None
    return Border(tuple(halo), load.outside)


def _loads(body: Body, scope: Scope) -> Iterator[tuple[Load, Scope]]:
    for s in body:
        match s:
            case For(var, extent, _, inner):
                yield from _loads(inner, scope.inside(var, extent))
            case Guard(condition, inner):
                yield from _loads(inner, scope.where(condition))
            case Let(_, v) | Assign(_, v) | Store(_, _, v) | Accumulate(_, _, v):
                yield from _value_loads(v, scope)
            case _:
                pass


def _value_loads(v: Value, scope: Scope) -> Iterator[tuple[Load, Scope]]:
    match v:
        case Load():
            yield v, scope
        case Prim(_, args):
            for a in args:
                yield from _value_loads(a, scope)
        case Choose(_, a, b):
            yield from _value_loads(a, scope)
            yield from _value_loads(b, scope)
        case _:
            return


def product_of(indices: Sequence[Index], values: Mapping[str, int]) -> int:
    """The product of concrete extents (Int and Size), for counting rows."""
    total = 1
    for i in indices:
        r = Scope(values).range(i).hi
        if not isinstance(r, int):
            raise ValueError(f"{i} is not concrete")
        total *= r
    return total
