"""Positions of a register tile that read the same elements.

Neighbouring positions of a window without a sum over channels share most of what they read: 3 taps
of 7 positions are 21 vectors, and 9 different ones. Where a loop over taps moves as far with each
turn as from one position to the next, or a fraction of it, its turns are written out, the columns
under all of them are loaded once, and every tap takes its own. The additions and their order are
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Choose, Fetch, For, Guard, Index, Int, Load, Var, add, mul
from cnncc.loops.walk import indices, statements, subindices, values
from cnncc.targets.cpu.lane import LANE, POSITION, NotInTile, spaced
from cnncc.targets.cpu.runs import assigned
from cnncc.tensor import Extent


@dataclass(frozen=True)
class Columns:
    """What a tile loads in all turns of a loop over taps.

    load: as the loop has it. all: of one position and one turn after the other, `stride` to a
    position.
    """

    load: Load
    all: Load
    stride: int
    taps: int

    def count(self, positions: int) -> int:
        """How many there are."""
        return (positions - 1) * self.stride + self.taps

    def held(self, positions: int) -> int:
        """How many serve several taps: these wait in registers."""
        used = [p * self.stride + tap for p in range(positions) for tap in range(self.taps)]
        return sum(used.count(column) > 1 for column in range(self.count(positions)))


def columns_of(
    loop: For, sizes: Mapping[str, Extent], positions: int, vectors: int, registers: int
) -> tuple[Columns, ...]:
    """The loads of a loop whose elements the positions share; none if they do not fit the
    `registers` beside the tile.
    """
    if positions == 1 or not isinstance(loop.extent, Int) or not _is_plain(loop):
        return ()
    loads = [v for v in dict.fromkeys(values(loop.body)) if isinstance(v, Load)]
    found = {v: _columns(v, loop.var, loop.extent.value, sizes) for v in loads}
    columns = tuple(c for c in found.values() if c)
    beside = sum(found[v] is None for v in loads)
    held = positions * len(assigned(loop.body)) + sum(c.held(positions) for c in columns) + beside
    return columns if held * vectors <= registers else ()


def _is_plain(loop: For) -> bool:
    """Whether every turn does the same, in straight code."""
    plain = not any(isinstance(s, (For, Guard)) for s in statements(loop.body))
    straight = not any(isinstance(v, Choose) for v in values(loop.body))
    return plain and straight and not any(isinstance(i, Fetch) for i in indices(loop.body))


def _columns(load: Load, tap: str, taps: int, sizes: Mapping[str, Extent]) -> Columns | None:
    """The columns of a load of vectors, None where they are different ones in every turn."""
    moving = [a for a, i in enumerate(load.index) if POSITION in set(subindices(i))]
    turning = [a for a, i in enumerate(load.index) if Var(tap) in set(subindices(i))]
    lanes = any(LANE in set(subindices(i)) for i in load.index)
    if len(moving) != 1 or moving != turning or not lanes:
        return None
    (axis,) = moving
    try:
        far, rest = spaced(load.index[axis], POSITION)
        near, rest = spaced(rest, Var(tap))
    except NotInTile:
        return None
    if far is None or near is None:
        return None
    stride = _ratio(far, near, sizes)
    if not 0 < stride < taps:
        return None
    first = list(load.index)
    first[axis] = add(rest, mul(POSITION, near))
    return Columns(load, Load(load.buffer, tuple(first)), stride, taps)


def _ratio(far: Index, near: Index, sizes: Mapping[str, Extent]) -> int:
    """How often one step is the other, 0 where it is no multiple of it."""
    a, b = (extent_of(i, sizes) for i in (far, near))
    if not isinstance(a, int) or not isinstance(b, int) or b <= 0 or a % b:
        return 0
    return a // b
