"""What the sums of a register tile fetch in advance: the input of the next tile, and the weights
that come next.

A processor fetches ahead by itself where memory is read in order. A tile reads some positions at a
time, each of them a piece as long as its channels, and of weights that serve few positions every
piece is new; both come late. The turns of the innermost loop fetch them, a little each. Every tap
of a window names what it reads itself, also where the tap before has fetched most of it, and a
stride leaves hints that name what is there: where sums are bound by arithmetic, no time was
measured for those. No bit depends on a hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, prod

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import For, Index, Int, Load, Nest, Size, Var, mul
from cnncc.loops.rewrite import map_index
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.indices import Steps
from cnncc.targets.cpu.lane import BLOCK, POSITION, NotInTile, spaced
from cnncc.targets.cpu.schedule import Schedule
from cnncc.tensor import Extent

Place = Callable[[str, tuple[Index, ...]], tuple[Index, Steps]]
"""The place of an element in the memory of its buffer, and the steps from there."""

CHANNELS = 32  # two lines of a cache: an input with fewer needs no hint
APART = 1.25  # times its channels: further apart, positions have something else between them
FEW = 64  # positions that share weights; where more do, weights come while others are used
FEW_IN_A_ROW = 128  # the same where rows have weights of their own, which lie behind each other
WHOLE_MAP = 2  # times as many may there be in a kernel's text, which may run band by band


@dataclass(frozen=True)
class Apiece:
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
    """A hint: `start` of the next tile's input, and how much of it a `channel` fetches."""

    buffer: str
    start: Index
    channel: Index
    apiece: Apiece


@dataclass(frozen=True)
class Next:
    """How far weights lie from those that come next. `sharing`: the extents of the positions of a
    sample that share weights; where all samples have more than `most`, these come while they are
    used.
    """

    step: Index
    sharing: tuple[Index, ...]
    most: int

    def integers(self, known: Mapping[str, int]) -> tuple[int]:
        """By the kernel's integers; 0, the same weights again, where the positions are too many."""
        step = extent_of(self.step, known)
        if not isinstance(step, int):
            raise ValueError(f"{self} depends on more than the kernel's integers")
        samples = known.get("n", 1)
        return (step if samples * self.positions(known) <= self.most else 0,)

    def positions(self, known: Mapping[str, Extent]) -> float:
        """Of a sample that share weights; infinite where their number is not known."""
        extents = [extent_of(i, known) for i in self.sharing]
        if not all(isinstance(e, int) for e in extents):
            return inf
        return prod(e for e in extents if isinstance(e, int))


@dataclass(frozen=True)
class Weights:
    """A hint: weights as many as those of a load, which lie at `start`, and how far from there."""

    load: Load
    start: Index
    next: Next


@dataclass(frozen=True)
class Coming:
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
        apiece = Apiece(positions, steps.position, channels)
        yield Inputs(v.buffer, place(v.buffer, tuple(index))[0], channel, apiece)

    def _weights(self, v: Load, place: Place) -> Iterator[Weights]:
        s = self.schedule
        used = {part for i in v.index for part in subindices(i)}
        own = [r for r in s.rows if Var(r) in used]
        loops, _ = parallel_loops(self.nest)
        sharing = tuple(loops[r] for r in (s.tile, *s.rows) if r not in own and r != "i_n")
        start, _ = place(v.buffer, v.index)
        if own:
            step, most = spaced(start, Var(own[-1]))[0] or Int(0), FEW_IN_A_ROW
        else:
            step, most = mul(Size(f"{v.buffer}_panel"), s.block), FEW
        found = Next(step, sharing, most)
        few = found.positions(self.nest.sizes) <= (WHOLE_MAP * most if own else most)
        if few and (own or BLOCK in used):
            yield Weights(v, start, found)
