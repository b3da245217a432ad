"""Which loop of a nest goes into the lanes, which into registers, and in what order the rest runs.

Every kernel writes independent elements, so any of its parallel axes may be unrolled or put into
lanes. The lanes go along the axis that runs fastest in the memory of the output (channels, or a
weight's output channels). A kernel with a reduction also gets a register tile: `width` positions of
a second axis by `vectors` vectors, so that each weight vector is loaded once for all positions and
each input once for all vectors; how wide is the subject of `widths`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Body,
    Buffer,
    Div,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Let,
    Load,
    Mod,
    Nest,
    Ref,
    Size,
    Store,
    Var,
)
from cnncc.loops.key import This
from cnncc.loops.split import PHASE
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import indices, statements, subindices, values
from cnncc.targets.cpu.machine import hungry_cache
from cnncc.targets.cpu.runs import assigned
from cnncc.targets.cpu.widths import (
    MORE_POSITIONS,
    POSITIONS,
    Mixed,
    second_width,
    tile_cycles,
    tile_widths,
    with_rest,
)
from cnncc.tensor import DType, Extent, evaluate

LINE = 16  # float32 numbers: less than a line of the cache at a time is read and written twice;
# where vectors are half of one and registers are few, that costs less than what does not fit them
NARROWEST = 4
BATCHES = (8, 16, 32, 64)  # that a tile along the batch, which is not known, is chosen for


FEW, MANY = 16, 32  # vector registers


def registers(lanes: int, dtype: DType) -> int:
    """Vector registers of the instruction set that has so many lanes: those of 64 bytes are 32."""
    return MANY if lanes * dtype.bytes >= 64 else FEW


def near_weights(lanes: int, dtype: DType) -> int:
    """How many weights, of the type that is computed with, are near enough for a tile of few
    positions; 0 if all are.
    """
    return hungry_cache(8 * lanes * dtype.bytes) // dtype.bytes


@dataclass(frozen=True)
class Schedule:
    """lanes == 1 is the scalar schedule, which every nest has."""

    lanes: int
    vector: str  # the parallel variable in the lanes
    vectors: int  # vectors per block
    tile: str  # the parallel variable in registers, "" for none
    width: int  # positions per tile
    rest: int  # positions of the tiles behind those, 0 where all are equal
    rows: tuple[str, ...]  # the other parallel variables, outermost first
    blocked: bool  # blocks of lanes outermost (weights stay in cache) or innermost (streams)
    whole_blocks: bool  # the lane axis is a multiple of a block: no tail code
    whole_tiles: bool  # the tile axis is a multiple of the width: no remainder code
    overlapping: bool  # no remainder either: the last tile ends with the axis
    only_tail: bool  # the lane axis is shorter than a block
    wide_tail: bool  # what is left behind whole blocks takes all vectors of one

    @property
    def block(self) -> int:
        return self.lanes * self.vectors

    def group(self, loops: Mapping[str, Index]) -> Index | None:
        """The extent of the lane axis where that is whole blocks, so that channel `g * extent` is
        the first of a block.
        """
        return loops[self.vector] if self.vector and self.whole_blocks else None


def block_lanes(extent: Extent | None, lanes: int) -> int:
    """Lanes per block for an axis in the lanes; all tensors that share the axis must agree, so it
    depends on nothing else.
    """
    if not isinstance(extent, int):
        return 2 * lanes
    if extent <= lanes:
        return narrowed(extent, lanes)
    return 3 * lanes if extent % (3 * lanes) == 0 and extent % (2 * lanes) else 2 * lanes


def narrowed(extent: Extent | None, lanes: int) -> int:
    """Lanes for an axis: half or a quarter of those of the instruction set where that is enough.
    Some processors start twice as many narrow operations in a cycle, and none fewer.
    """
    while isinstance(extent, int) and lanes > NARROWEST and extent <= lanes // 2:
        lanes //= 2
    return lanes


def choose(
    nest: Nest,
    innermost: Mapping[str, int],
    lanes: int,
    *,
    held: int = 32,
    again: bool = True,
    wanted: int = 0,
    near: int = 0,
) -> Schedule:
    """The schedule of a nest. `innermost`: for every buffer the axis that runs fastest in memory;
    `held`: how many vector registers there are; `again`: whether an element may be computed twice,
    as it may not where the kernel changes what it reads; `wanted`: the width of the tile, where
    that is a possible one, instead of the model's; `near`: how many weights may be nearer than a
    tile with few positions needs them, 0 if all.
    """
    axes = tuple(innermost.items())
    return _chosen(This(nest), axes, lanes, held, again, wanted, near)


@lru_cache(maxsize=1024)  # of one nest it is asked where tensors are declared, and for bands
def _chosen(
    this: This, axes: tuple[tuple[str, int], ...], lanes: int, held: int, again: bool, wanted: int,
    near: int,
) -> Schedule:  # fmt: skip
    nest, innermost = this.nest, dict(axes)
    loops, body = parallel_loops(nest)
    inner = any(isinstance(s, For) and s.kind is not Kind.SERIAL for s in statements(body))
    vector = "" if inner else _lane_variable(nest, loops, innermost)
    reduces = _sums(body)
    if vector and not reduces:
        vector = _longer_variable(nest, loops, vector, innermost, lanes)
    lanes = lanes if vector else 1
    extent = _value(loops[vector], nest) if vector else 1
    lanes = narrowed(extent, lanes)
    block = block_lanes(extent, lanes) if lanes > 1 else 1
    if lanes > 1 and not reduces and block // lanes * _held_at_once(nest, body) > held:
        block = lanes if held == FEW else max(lanes, LINE)
    for group in _divisors(nest, vector):
        # blocks that do not cross groups see one group each
        if group % block:
            block = lanes if group % lanes == 0 else 1
    if block < lanes:
        lanes = 1
    others = [v for v in loops if v != vector]
    tile = _tile_variable(nest, loops, vector, others) if reduces and lanes > 1 else ""
    vectors = block // lanes
    tile_extent = _value(loops[tile], nest) if tile else 1
    usual = BATCHES if tile and loops[tile] == Size("n") else ()
    are_near = not near or _terms(nest, vector) * block <= near
    positions = POSITIONS if are_near else MORE_POSITIONS
    widths = tile_widths(tile_extent, vectors, held, usual, positions) if tile else []
    width = wanted if wanted in widths else next(iter(widths), 1)
    if width == 1:
        tile, tile_extent = "", 1
    whole_tiles = isinstance(tile_extent, int) and tile_extent % width == 0
    equal = held > FEW or not again or wanted or whole_tiles
    rest = 0
    if isinstance(tile_extent, int) and not equal and _multiplies(nest, vector, tile):
        rest = second_width(tile_extent, width, vectors, held)
    return Schedule(
        lanes, vector, vectors, tile, width, rest,
        rows=tuple(_row_order(nest, vector, [v for v in others if v != tile])),
        blocked=reduces,
        whole_blocks=isinstance(extent, int) and extent % block == 0,
        whole_tiles=whole_tiles,
        overlapping=again and not whole_tiles and isinstance(tile_extent, int),
        only_tail=isinstance(extent, int) and extent < block,
        wide_tail=reduces and vectors > 1 and isinstance(extent, int)
        and extent % block > block - lanes,
    )  # fmt: skip


def _multiplies(nest: Nest, vector: str, tile: str) -> bool:
    """Whether positions of a map take numbers of their own times weights that they share, with
    cycles to spare for nothing else.
    """
    summed = _summed_loads(nest)
    numbers = any(_uses(v, tile) and not _uses(v, vector) for v in summed)
    weights = any(_uses(v, vector) and not _uses(v, tile) for v in summed)
    return tile.startswith("i_s") and numbers and weights


def _sums(body: Body) -> bool:
    """Whether a value is made by a loop: other loops repeat what they do for other positions."""
    found = [s for s in statements(body) if isinstance(s, For) and s.kind is Kind.SERIAL]
    return any(isinstance(s, Assign | Accumulate) for loop in found for s in statements(loop.body))


def _held_at_once(nest: Nest, body: Body) -> int:
    """The most values that a body on activations holds at a time. A parameter is computed once, and
    in the blocks in which it is stored.
    """
    if not all(_batched(b) for b in nest.buffers if b.role == "out"):
        return 0
    steps = [s for s in statements(body) if not isinstance(s, (For, Guard))]
    used = [{v.name for v in values((s,)) if isinstance(v, Ref)} for s in steps]
    last = {name: step for step, names in enumerate(used) for name in names}
    held = most = 0
    for step, (s, names) in enumerate(zip(steps, used, strict=True)):
        held += isinstance(s, Let) and s.name in last
        most = max(most, held)
        held -= sum(last[name] == step for name in names)
    return most


def _batched(buffer: Buffer) -> bool:
    return bool(buffer.extents) and buffer.extents[0] == Size("n")


def strided_parameters(
    nest: Nest, innermost: Mapping[str, int], lanes: int
) -> list[tuple[int, int]]:
    """Unbatched inputs with several axes that a reduction reads along another axis than their own
    fastest: (number of the buffer, the axis of the lanes).
    """
    _, body = parallel_loops(nest)
    if not _sums(body):
        return []
    lane = Var(choose(nest, innermost, lanes).vector)
    found: dict[int, int] = {}
    for v in values(body):
        if not isinstance(v, Load):
            continue
        number = next(i for i, b in enumerate(nest.buffers) if b.name == v.buffer)
        buffer = nest.buffers[number]
        if _batched(buffer) or len(buffer.extents) < 2 or buffer.role != "in":
            continue
        axes = [a for a, i in enumerate(v.index) if lane in set(subindices(i))]
        if axes and axes[0] != innermost[v.buffer]:
            found[number] = axes[0]
    return sorted(found.items())


def _divisors(nest: Nest, vector: str) -> list[int]:
    """The sizes by which the lane variable is divided: channels per group."""
    found = [i.b for i in indices(nest.body) if isinstance(i, (Div, Mod)) and i.a == Var(vector)]
    values = [_value(b, nest) for b in found]
    return [v if isinstance(v, int) else 1 for v in values]  # 1: nothing is known


def _value(extent: Index, nest: Nest) -> Extent | None:
    """None where an index has no value before the kernel runs."""
    return extent_of(extent, nest.sizes)


def _outputs(nest: Nest) -> list[Store]:
    return [s for s in statements(nest.body) if isinstance(s, Store)]


def _lane_variable(nest: Nest, loops: Mapping[str, Index], innermost: Mapping[str, int]) -> str:
    """The variable that moves through the last store's fastest axis."""
    stores = _outputs(nest)
    if not stores:
        return ""
    index = stores[-1].index[innermost[stores[-1].buffer]]
    found = [i.name for i in subindices(index) if isinstance(i, Var) and i.name in loops]
    return found[-1] if found else ""


def _longer_variable(
    nest: Nest, loops: Mapping[str, Index], vector: str, innermost: Mapping[str, int], lanes: int
) -> str:
    """Few channels leave most lanes empty: then the lanes follow an input that has another fastest
    axis (an image on its way into channels-last memory), and the stores take strides.
    """
    few = _value(loops[vector], nest)
    if not isinstance(few, int) or few > lanes // 4:
        return vector
    for v in values(nest.body):
        if isinstance(v, Load) and v.index:
            other = v.index[innermost[v.buffer]]
            if isinstance(other, Var) and other.name in loops and other.name != vector:
                extent = _value(loops[other.name], nest)
                if isinstance(extent, int) and extent >= lanes:
                    return other.name
    return vector


def _row_order(nest: Nest, vector: str, variables: Iterable[str]) -> list[str]:
    """What decides the weights of a sum and shares no input, then samples, then space, then the
    rest: neighbouring rows share weights and input.
    """
    summed = _summed_loads(nest)
    weights = [v for v in summed if _uses(v, vector)] if vector else []
    inputs = [v for v in summed if v not in weights]

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        decides = any(_uses(v, name) and not _uses(v, "i_n") for v in weights)
        apart = all(Var(name) in v.index for v in inputs)  # unlike groups, or kernels of a mosaic
        return not (decides and apart), name != "i_n", not name.startswith("i_s"), name

    return sorted(variables, key=rank)


def _summed_loads(nest: Nest) -> list[Load]:
    _, body = parallel_loops(nest)
    sums = tuple(s for s in statements(body) if isinstance(s, For))
    return [v for v in values(sums) if isinstance(v, Load)]


def _terms(nest: Nest, vector: str) -> int:
    """Weights that a lane takes for the whole sum of a position; 0 where that is not known."""
    _, body = parallel_loops(nest)
    sums = [s for s in statements(body) if isinstance(s, For)]
    most = 0
    for v in (v for v in _summed_loads(nest) if _uses(v, vector)):
        extents = [_value(s.extent, nest) for s in sums if _uses(v, s.var)]
        most = max(most, prod(e if isinstance(e, int) else 0 for e in extents))
    return most


def _tile_variable(nest: Nest, loops: Mapping[str, Index], vector: str, others: list[str]) -> str:
    """The axis whose positions share the loads that run along the lanes: the widest last one of
    those that do. Where a window has no weights, its positions share what a row costs, and do not
    wait for each other.
    """
    _, body = parallel_loops(nest)
    summed = _summed_loads(nest)
    shared = [v for v in summed if _uses(v, vector)]
    pools = len(shared) == len(summed) and len(assigned(body)) == 1
    fit = [
        o
        for o in others
        if not o.endswith(PHASE)
        and (any(not _uses(v, o) for v in shared) or (pools and o.startswith("i_s")))
        and any(_uses(v, o) for v in values(body))
    ]
    if not fit:
        return ""

    def rank(name: str) -> tuple[bool, int, int]:
        extent = _value(loops[name], nest)
        wide = not isinstance(extent, int) or extent >= 4
        return wide, name.startswith("i_s"), others.index(name)

    return max(fit, key=rank)


def _uses(v: object, var: str) -> bool:
    if not isinstance(v, Load):
        return False
    return any(Var(var) in set(subindices(i)) for i in v.index)


def other_widths(nest: Nest, s: Schedule, held: int, values: Mapping[str, int]) -> dict[int, float]:
    """The widths that the tile of a scheduled nest may have instead of its own, with the cycles
    that the model gives them, by its own; the fewest first. `values`: the symbols of extents.
    """
    if not s.tile:
        return {}
    known = _value(parallel_loops(nest)[0][s.tile], nest)
    if known is None:
        return {}
    extent = evaluate(known, values)

    def cycles(width: int) -> float:
        if isinstance(known, int):
            return tile_cycles(extent, width, s.vectors)
        return with_rest(extent, width, s.vectors)

    own = cycles(s.width)
    if s.rest:
        own = Mixed(Int(extent), s.width, s.rest, s.vectors).cycles(extent)
    possible = [w for w in tile_widths(known, s.vectors, held) if 1 < w <= extent and w != s.width]
    found = {w: cycles(w) / own for w in possible}  # a tile wider than the axis is never taken
    return dict(sorted(found.items(), key=lambda item: item[1]))
