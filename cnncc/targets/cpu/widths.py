"""How many positions a register tile has, by a simple model of the FMA and load units.

The width is that of the least cycles, among those whose accumulators stay in registers; of equals
the one nearest to POSITIONS, because a longer row of positions reads more lines of memory at a time
and gains nothing, unless its weights come from further away than the L1 cache of a core that needs
them fast. Where registers are few and none divides an axis, tiles of a second width follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Index, Int
from cnncc.tensor import Extent

WIDTHS = {32: tuple(range(16, 1, -1)), 16: tuple(range(14, 1, -1))}  # by registers
POSITIONS = 7  # of a tile of two vectors, twice as many of one, for as many sums at a time; with
# twice as many the same work takes 4 to 18 % more time where the input is not in the L1 cache
MORE_POSITIONS = 14  # where the weights are not there either: each is read for half as many tiles
LATENCY = 4  # cycles until a sum can be added to; two FMAs and two loads start in each
SLACK = 1.1  # sums that are just enough for two units wait whenever something is late
WORTH = 0.97  # of the cycles of equal tiles, for the text of another width


def tile_widths(
    extent: Extent | None,
    vectors: int,
    held: int,
    usual: Sequence[int] = (),
    positions: int = POSITIONS,
) -> list[int]:
    """The possible widths, none for no tile; first those that take the least cycles for the axis by
    the model, or for a position where the extent is not known. `usual`: extents to choose for then.
    `positions`: of a tile of two vectors, among equals.

    A tile's numbers come one at a time beside its accumulators and the vectors that they share.
    """
    allowed = [w for w in WIDTHS[held] if w * vectors + vectors + 1 <= held]

    def rank(width: int) -> tuple[float, int]:
        if isinstance(extent, int):
            cycles = tile_cycles(extent, width, vectors)
        elif usual:
            cycles = sum(with_rest(n, width, vectors) / n for n in usual)
        else:
            cycles = _cycles(width, vectors) / width
        return cycles, abs(width - max(positions, 2 * positions // vectors))

    return sorted((w for w in allowed if not isinstance(extent, int) or w <= extent), key=rank)


def second_width(extent: int, width: int, vectors: int, held: int) -> int:
    """The width of a second kind of tiles behind some of the first, where both together spare
    enough of what a last tile of the first kind computes again; 0 for none.
    """
    equal = tile_cycles(extent, width, vectors)
    found = {
        other: (Mixed(Int(extent), width, other, vectors).cycles(extent), -other)
        for other in WIDTHS[held]
        if other < width and other * vectors >= LATENCY
    }
    best = min(found, key=lambda other: found[other], default=0)
    return best if best and found[best][0] <= WORTH * equal else 0


@dataclass(frozen=True)
class Mixed:
    """An axis in tiles of one width and behind them tiles of another one, the last of which may
    compute some positions again.
    """

    extent: Index
    first: int
    second: int
    vectors: int

    def integers(self, known: Mapping[str, int]) -> tuple[int]:
        """Where the second kind begins, by the kernel's integers."""
        extent = extent_of(self.extent, known)
        if not isinstance(extent, int):
            raise ValueError(f"{self} depends on more than the kernel's integers")
        return (self.begin(extent),)

    def begin(self, extent: int) -> int:
        """So that the tiles take the least cycles."""
        ends = range(0, extent + 1, self.first)
        return min(ends, key=lambda end: (self._cycles(extent, end), -end))

    def cycles(self, extent: int) -> float:
        """By the model, for one term of the sums of all positions."""
        return self._cycles(extent, self.begin(extent))

    def _cycles(self, extent: int, end: int) -> float:
        rest = tile_cycles(extent - end, self.second, self.vectors)
        return end // self.first * _cycles(self.first, self.vectors) + rest


def tile_cycles(extent: int, width: int, vectors: int) -> float:
    """By the model, for one term of the sums of all positions of an axis."""
    return -(-extent // width) * _cycles(width, vectors)


def with_rest(extent: int, width: int, vectors: int) -> float:
    """Cycles for tiles and the positions that are left, one by one."""
    return extent // width * _cycles(width, vectors) + extent % width * _cycles(1, vectors)


def _cycles(width: int, vectors: int) -> float:
    """For one term of the sums of a tile."""
    return max(width * vectors / 2, (width + vectors) / 2, SLACK * LATENCY)
