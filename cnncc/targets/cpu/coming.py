"""What the sums of a register tile fetch in advance: the input of the next tile, and the weights
that come next, or come later in the same loop.

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
from cnncc.loops.ir import For, Index, Int, Load, Nest, Size, Var, add, floordiv, mul
from cnncc.loops.rewrite import map_index
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.emitted import ROWS_PER_TASK
from cnncc.targets.cpu.indices import Steps
from cnncc.targets.cpu.lane import BLOCK, POSITION, NotInTile, spaced
from cnncc.targets.cpu.layout import ALIGN
from cnncc.targets.cpu.schedule import Schedule

Place = Callable[[str, tuple[Index, ...]], tuple[Index, Steps]]
"""The place of an element in the memory of its buffer, and the steps from there."""

CHANNELS = 32  # two lines of a cache: an input with fewer needs no hint
APART = 1.25  # times its channels: further apart, positions have something else between them
LINES_AHEAD = 32  # turns of a loop: 4 KB of weights in two vectors, while memory answers
FEW = 1024  # positions of a sample that share weights; where more do, weights are soon the old ones


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
    """The weights of a loop that come after all tiles which share those of now, each tile fetching
    a part of them.

    step: how far they lie from those of now. turn: elements that a turn of the loop reads, of so
    many turns. positions: of a tile. sharing: the extents of the positions that share weights.
    """

    step: Index
    turn: Index
    turns: Index
    positions: int
    sharing: tuple[Index, ...]

    def integers(self, known: Mapping[str, int]) -> tuple[int, int, int]:
        """By the kernel's integers: the step, and how many elements a position fetches, and each of
        its tile's turns.
        """
        wanted = (self.step, self.turn, self.turns, *self.sharing)
        found = [e for i in wanted if isinstance(e := extent_of(i, known), int)]
        if len(found) < len(wanted):
            raise ValueError(f"{self} depends on more than the kernel's integers")
        step, turn, turns, *sharing = found
        count = max(prod(sharing), self.positions)  # one tile at least
        return step, turn * turns // count, -(-turn * self.positions // count)


@dataclass(frozen=True)
class Weights:
    """A hint: where the weights of a loop begin, the first of the positions that share them, and
    the ones that come next.
    """

    buffer: str
    start: Index
    position: Index
    next: Next


@dataclass(frozen=True)
class Line:
    """A hint: where a line of the weights lies that a later turn of the same loop reads."""

    buffer: str
    place: Index


@dataclass(frozen=True)
class Share:
    """What each tile of a chunk of rows fetches of what comes behind the chunk, and each turn of
    its loop: a line at most, so where turns are few, some of it is left out. `tiles`: extents by
    which the tiles are counted.
    """

    turns: Index
    tiles: tuple[Index, ...]

    def integers(self, known: Mapping[str, int]) -> tuple[int, int]:
        """By the kernel's integers, in elements."""
        found = [e for i in (self.turns, *self.tiles) if isinstance(e := extent_of(i, known), int)]
        if len(found) <= len(self.tiles):
            raise ValueError(f"{self} depends on more than the kernel's integers")
        turns, *tiles = found
        tile = -(-known[AHEAD_ELEMENTS] // max(prod(tiles), 1))
        return tile, -(-tile // max(turns, 1))


@dataclass(frozen=True)
class Behind:
    """A hint: a part of what another kernel reads once this one is done with its chunk of rows.
    `tile`: the number of the tile in the chunk.
    """

    tile: Index
    share: Share


Hint = Inputs | Weights | Line | Behind

AHEAD = "ahead"  # the argument of a kernel that points to what another reads next
AHEAD_ELEMENTS = "ahead_elements"  # how many elements of it, known when the table is made


@dataclass(frozen=True)
class Coming:
    """Finds the hints of a segment's sums. `innermost`: for every buffer the axis that runs fastest
    in memory; `number`: of the segment in its kernel.
    """

    nest: Nest
    schedule: Schedule
    innermost: Mapping[str, int]
    number: int = 0
    ahead: bool = False  # fetch what another kernel reads next, not more of these weights

    def of(self, loop: For, positions: int, place: Place) -> Iterator[Hint]:
        """The hints of a tile's innermost loop. Raises as `place`."""
        if self.ahead and positions > 1 and self._known(loop.extent):
            yield self._behind(loop, positions)
        for v in dict.fromkeys(v for v in values(loop.body) if isinstance(v, Load)):
            _, steps = place(v.buffer, v.index)
            try:
                if self._batched(v) and steps.spread == (True, False, False):
                    yield from self._inputs(v, loop, positions, place)
                elif self.ahead:
                    continue  # the weights stay, or are read for every strip
                elif not self._batched(v) and steps.position is None and steps.lane == Int(1):
                    yield from self._weights(v, loop, positions, place)
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
            or not self._known(loop.extent)
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

    def _weights(
        self, v: Load, loop: For, positions: int, place: Place
    ) -> Iterator[Weights | Line]:
        s, sizes = self.schedule, self.nest.sizes
        used = {part for i in v.index for part in subindices(i)}
        own = [r for r in s.rows if Var(r) in used]
        loops, _ = parallel_loops(self.nest)
        every = [loops[r] for r in (*s.rows, s.tile) if r not in own and r != "i_n"]
        count = prod(e if isinstance(e := extent_of(i, sizes), int) else inf for i in every)
        start, _ = place(v.buffer, v.index)
        turn, start = spaced(start, Var(loop.var))
        if count > FEW or turn is None or not self._known(loop.extent):
            return
        if s.tile == "i_n" and not own:  # a layer without positions: two blocks may be too much
            later = add(start, mul(add(Var(loop.var), LINES_AHEAD), turn))
            for line in range(0, s.block, ALIGN // self.nest.buffer(v.buffer).dtype.bytes):
                yield Line(v.buffer, add(later, line))
            return
        position: Index = Int(0)
        sharing: list[Index] = []
        if own:  # a row's weights lie behind those of the row before
            step = spaced(start, Var(own[-1]))[0] or Int(0)
            for r in (r for r in s.rows if r not in own):
                position = add(mul(position, loops[r]), Var(r))
                sharing.append(loops[r])
        elif BLOCK in used:
            step = mul(Size(f"{v.buffer}_panel"), s.block)
            position = add(Var("row"), mul(Var("first_row"), -1))
            sharing.append(Size(f"{ROWS_PER_TASK}{self.number}"))
        else:
            return
        position = add(mul(position, loops[s.tile]), Var(f"{s.tile}0"))
        following = Next(step, turn, loop.extent, positions, (*sharing, loops[s.tile]))
        yield Weights(v.buffer, start, position, following)

    def _behind(self, loop: For, positions: int) -> Behind:
        s, (loops, _) = self.schedule, parallel_loops(self.nest)
        rows, row = Size(f"{ROWS_PER_TASK}{self.number}"), Var("row") + mul(Var("first_row"), -1)
        along = floordiv(add(loops[s.tile], positions - 1), Int(positions))
        blocks = floordiv(add(loops[s.vector], s.block - 1), Int(s.block))
        block, across = floordiv(BLOCK, Int(s.block)), floordiv(Var(f"{s.tile}0"), Int(positions))
        tile = add(mul(add(mul(block, rows), row), along), across)
        return Behind(tile, Share(loop.extent, (blocks, rows, along)))

    def _known(self, extent: Index) -> bool:
        """Whether it is one of the nest's, not a number of turns that the text derives."""
        own = all(i.name in self.nest.sizes for i in subindices(extent) if isinstance(i, Size))
        return own and extent_of(extent, self.nest.sizes) is not None
