"""Two loops of which the inner one ends where its next turn of the outer one begins: they run as
one, in the same order.

A convolution adds up the channels of one tap and then of the next; in channels-last memory those
are neighbours, and so are their weights. Whether it is so depends on steps and extents, which a
kernel's text does not know. So the text keeps both loops, and takes the numbers of their turns from
the table: `outer` and `inner`, or 1 and `outer * inner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Body, For, Guard, Index, Int, Load, Var
from cnncc.loops.transform import accesses
from cnncc.loops.walk import condition_indices, statements, subindices, value_indices, values
from cnncc.targets.cpu.lane import NotInTile, spaced

Place = Callable[[str, tuple[Index, ...]], Index]
"""The place of an element in the memory of its buffer."""


@dataclass(frozen=True)
class Pair:
    """A loop that consists of another: the extents of both, and for every access how far it moves
    with each.
    """

    outer: Index
    inner: Index
    steps: tuple[tuple[Index, Index], ...]

    def integers(self, known: Mapping[str, int]) -> tuple[int, int]:
        """How often each loop turns, by the kernel's integers."""
        outer, inner = (_value(i, known) for i in (self.outer, self.inner))
        joined = all(_value(far, known) == inner * _value(near, known) for far, near in self.steps)
        return (1, outer * inner) if joined else (outer, inner)


def pair_of(loop: For, place: Place) -> Pair | None:
    """The loop and the one inside it; None where they are not two, or where more than addresses
    depends on them. Raises as `place`.
    """
    if len(loop.body) != 1 or not isinstance(loop.body[0], For):
        return None
    inner = loop.body[0]
    if any(isinstance(s, For) for s in statements(inner.body)):
        return None
    both = {Var(loop.var), Var(inner.var)}
    if any(both & set(subindices(i)) for i in (inner.extent, *_beside_accesses(inner.body))):
        return None
    steps: dict[tuple[Index, Index], None] = {}
    for buffer, index in accesses(inner.body):
        try:
            far, rest = spaced(place(buffer, index), Var(loop.var))
            near, _ = spaced(rest, Var(inner.var))
        except NotInTile:
            return None
        steps[far or Int(0), near or Int(0)] = None
    known = [loop.extent, inner.extent, *(i for step in steps for i in step)]
    if any(isinstance(part, Var) for i in known for part in subindices(i)):
        return None
    return Pair(loop.extent, inner.extent, tuple(steps))


def _beside_accesses(body: Body) -> list[Index]:
    """The indices of a body that are no part of an address."""
    found = [i for v in values(body) if not isinstance(v, Load) for i in value_indices(v)]
    guards = (s.condition for s in statements(body) if isinstance(s, Guard))
    return [*found, *(i for c in guards for i in condition_indices(c))]


def _value(i: Index, known: Mapping[str, int]) -> int:
    found = extent_of(i, known)
    if not isinstance(found, int):
        raise ValueError(f"{i} depends on more than the kernel's integers")
    return found
