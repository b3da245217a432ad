"""Long sums over a batch in stretches that stay in cache.

The gradient of a weight is a sum over all positions of all samples, and every tap and every tile of
channels reads the same positions. Tap by tap, all of them would come from far away each time. In
stretches all taps and tiles go over the positions of one stretch, each takes its total from memory
and puts it back: the same additions in the same order, so a total does not depend on the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnncc.loops.ir import (
    Body,
    Choose,
    For,
    Index,
    Int,
    Kind,
    Least,
    Let,
    Lit,
    Load,
    Nest,
    Ref,
    Size,
    Statement,
    Store,
    Value,
    Var,
    add,
    mul,
    test,
)
from cnncc.loops.rewrite import substitute
from cnncc.loops.transform import parallel_loops

STRETCH = "stretch"
_SAMPLES = Size("n")


@dataclass(frozen=True)
class Stretches:
    """A kernel's sum: its outer loops, outermost first, and what it does in one stretch of them."""

    axes: tuple[tuple[str, Index, str], ...]  # variable, extent, run-time length of a stretch
    body: Body


def in_stretches(nest: Nest, number: int) -> Stretches | None:
    """The sum of segment `number` of a kernel in stretches, None where it is no sum over a batch
    whose totals are stored as they are.
    """
    _, body = parallel_loops(nest)
    totals = {s.name: s.value for s in body if isinstance(s, Let) and isinstance(s.value, Lit)}
    stored: dict[str, Store] = {}
    for s in body:
        if isinstance(s, Store) and isinstance(s.value, Ref) and s.value.name in totals:
            stored[s.value.name] = s
    loop = next((s for s in body if isinstance(s, For)), None)
    if loop is None or len(body) != 2 * len(totals) + 1 or stored.keys() != totals.keys():
        return None
    axes: list[tuple[str, Index]] = []
    inner: Body = (loop,)
    while len(inner) == 1 and isinstance(inner[0], For) and inner[0].kind is Kind.SERIAL:
        axes.append((inner[0].var, inner[0].extent))
        inner = inner[0].body
    if not axes or axes[0][1] != _SAMPLES:
        return None
    begun: Index = Int(0)
    for var, _ in axes:
        begun = add(begun, first(var))
    turns: Body = substitute(inner, {var: add(first(var), Var(var)) for var, _ in axes})
    lengths = [f"{STRETCH}{number}_{a}" for a in range(len(axes))]
    for (var, extent), length in reversed(list(zip(axes, lengths, strict=True))):
        left = Least(Size(length), add(extent, mul(first(var), -1)))
        turns = (For(var, left, Kind.SERIAL, turns),)
    so_far = [_begin(name, totals[name], stored[name], begun) for name in totals]
    return Stretches(
        tuple((var, extent, length) for (var, extent), length in zip(axes, lengths, strict=True)),
        (*so_far, *turns, *stored.values()),
    )


def first(var: str) -> Var:
    """The first turn of a loop that belongs to a stretch."""
    return Var(f"{var}0")


def _begin(name: str, start: Value, store: Store, begun: Index) -> Statement:
    """A total as the stretches before left it."""
    so_far = Load(store.buffer, store.index)
    return Let(name, Choose(test("==", begun, 0), start, so_far))


def lengths_of(extents: Sequence[int], read: int, fitting: int) -> tuple[int, ...]:
    """How far a stretch goes along each axis of a sum, where all turns read `read` bytes and
    `fitting` should not be passed.

    Ensures: stretches follow each other in the order of the turns, so at most one length is neither
    1 nor the whole axis, those before it are 1 and those after it whole.
    """
    lengths: list[int] = []
    for extent in extents:
        if lengths and lengths[-1] > 1:
            lengths.append(extent)
            continue
        read = -(-read // max(extent, 1))
        lengths.append(max(1, min(extent, fitting // max(read, 1))))
    return tuple(lengths)
