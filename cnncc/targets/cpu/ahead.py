"""What the sums of a register tile fetch in advance: the input of the next tile, and the weights
that come next.

A processor fetches ahead by itself where memory is read in order. A tile reads some positions at a
time, each of them a piece as long as its channels, and of weights that serve few positions every
piece is new; both come late. The turns of the innermost loop fetch them, each its share. These are
hints: no bit depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import For, Index, Int, Load, Nest, Size, Var, add, mul
from cnncc.loops.rewrite import map_index
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.indices import Steps
from cnncc.targets.cpu.lane import BLOCK, POSITION, NotInTile, spaced
from cnncc.targets.cpu.schedule import Schedule

Place = Callable[[str, tuple[Index, ...]], tuple[Index, Steps]]
"""The place of an element in the memory of its buffer, and the steps from there."""

CHANNELS = 32  # two lines of a cache: an input with fewer needs no hint
APART = 1.25  # times its channels: further apart, positions have something else between them
POSITIONS = 64  # that share weights; where more do, weights come while others are used
PLACES = 256  # the same where rows have weights of their own, which lie behind each other


@dataclass(frozen=True)
class Share:
    """Elements of the next tile's input that each channel of this one fetches. `step`: from one of
    the positions to the next.
    """

    positions: int
    step: Index
    channels: Index

    def integers(self, known: Mapping[str, int]) -> tuple[int]:
        """By the kernel's integers; 0, the same line again, where positions do not follow each
        other.
        """
        step, channels = (extent_of(i, known) for i in (self.step, self.channels))
        if not isinstance(step, int) or not isinstance(channels, int):
            raise ValueError(f"{self} depends on more than the kernel's integers")
        return (self.positions * step // channels if step <= APART * channels else 0,)


@dataclass(frozen=True)
class Inputs:
    """A hint: `start` of the next tile's input, and the share of it that a `channel` fetches."""

    buffer: str
    start: Index
    channel: Index
    share: Share


@dataclass(frozen=True)
class Weights:
    """A hint: where the weights lie that come after those of a load, which are as many."""

    load: Load
    start: Index


@dataclass(frozen=True)
class Ahead:
    """Finds the hints of a segment's sums. `innermost`: for every buffer the axis that runs fastest
    in memory.
    """

    nest: Nest
    schedule: Schedule
    innermost: Mapping[str, int]

    def of(self, loop: For, positions: int, place: Place) -> Iterator[Inputs | Weights]:
        """The hints of a tile's innermost loop. Raises as `place`."""
        for v in dict.fromkeys(v for v in values(loop.body) if isinstance(v, Load)):
            _, steps = place(v.buffer, v.index)
            try:
                if self._batched(v) and steps.spread == (True, False, False):
                    yield from self._inputs(v, loop, positions, place)
                elif not self._batched(v) and steps.position is None and steps.lane == Int(1):
                    yield from self._weights(v, place)
            except NotInTile:
                continue  # what is not evenly spaced has no next place

    def _batched(self, v: Load) -> bool:
        extents = self.nest.buffer(v.buffer).extents
        return bool(extents) and extents[0] == Size("n")

    def _inputs(self, v: Load, loop: For, positions: int, place: Place) -> Iterator[Inputs]:
        axis = self.innermost[v.buffer]
        channel, channels = v.index[axis], self.nest.buffer(v.buffer).extents[axis]
        rows = {Var(r) for r in (*self.schedule.rows, self.schedule.tile)}
        most = extent_of(channels, self.nest.sizes)
        if (
            not isinstance(most, int)
            or most < CHANNELS
            or (isinstance(loop.extent, Size) and loop.extent.name not in self.nest.sizes)
            or spaced(channel, Var(loop.var))[0] != Int(1)
            or {*rows, POSITION} & set(subindices(channel))
        ):
            return

        def following(i: Index) -> Index | None:
            return Int(positions) if i == POSITION else None

        index = [map_index(i, following) for i in v.index]
        index[axis] = Int(0)
        _, steps = place(v.buffer, v.index)
        assert steps.position is not None
        share = Share(positions, steps.position, channels)
        yield Inputs(v.buffer, place(v.buffer, tuple(index))[0], channel, share)

    def _weights(self, v: Load, place: Place) -> Iterator[Weights]:
        s = self.schedule
        used = {part for i in v.index for part in subindices(i)}
        own = [r for r in s.rows if Var(r) in used]
        loops, _ = parallel_loops(self.nest)
        sharing = 1
        for name in (s.tile, *s.rows):
            if name in own or name == "i_n":
                continue
            extent = extent_of(loops[name], self.nest.sizes)
            if not isinstance(extent, int):
                return
            sharing *= extent
        start, _ = place(v.buffer, v.index)
        if own and sharing <= PLACES:
            step, _ = spaced(start, Var(own[-1]))
            yield Weights(v, add(start, step or Int(0)))
        elif not own and sharing <= POSITIONS and BLOCK in used:
            yield Weights(v, add(start, mul(Size(f"{v.buffer}_panel"), s.block)))
