"""The table of run-time integers of a bound program: extents, steps between elements, where tensors
begin, how work is cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

import numpy as np

from cnncc.loops.affine import extent_of
from cnncc.loops.ir import For, Index, Load, Var
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import statements, subindices
from cnncc.loops.walk import values as of_body
from cnncc.ops.winograd import WinogradInput
from cnncc.targets.arrays import Array
from cnncc.targets.cpu.bands import Cut
from cnncc.targets.cpu.border import border_arguments
from cnncc.targets.cpu.coming import AHEAD, AHEAD_ELEMENTS
from cnncc.targets.cpu.emitted import ROWS_PER_TASK, Segment
from cnncc.targets.cpu.halo import product_of
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.cpu.machine import own_cache
from cnncc.targets.cpu.program import Program
from cnncc.targets.cpu.program_step import Step
from cnncc.targets.cpu.stretches import lengths_of
from cnncc.targets.cpu.strips import Strip, Strips, rows_read
from cnncc.targets.cpu.tasks import STAYING, rows_per_task, rows_that_stay
from cnncc.targets.cpu.touched import touched
from cnncc.targets.cpu.work import macs_of, pieces_of, traffic_of
from cnncc.tensor import evaluate


def table_of(
    program: Program, placements: Mapping[str, Placement], values: Mapping[str, int], threads: int
) -> Array:
    """Of every step the pieces of a thread's share, and its integers; behind all those of bands and
    strips. A border runs in the pieces of the kernel behind it, unless it is timed alone.
    """
    integers: list[int] = []
    parts: list[Array] = []
    beside = 0  # bytes of the borders in front
    begin = sum(step.places for step in program.steps)
    for step in program.steps:
        macs = macs_of(program, step, values["*"], values)
        traffic = traffic_of(program, step, placements)[0]
        integers.append(pieces_of(macs, traffic + beside, threads))
        beside = 0 if step.kernels else beside + traffic
        if step.parts:
            known = (step, placements, values, threads)
            counts, own = _banded(*known) if isinstance(step.cut, Cut) else _in_strips(*known)
            integers += [*counts, begin - len(integers)]  # from its own on
            parts.append(own)
            begin += len(own)
        elif step.emitted is None:
            integers += border_arguments(placements[step.tensors[0]])
        else:
            integers += _integers(step, placements, values, threads)
    return np.concatenate([np.array(integers or [0], np.int64), *parts])


def _integers(
    step: Step,
    placements: Mapping[str, Placement],
    values: Mapping[str, int],
    threads: int,
    own: Mapping[str, int] | None = None,
) -> list[int]:
    """The run-time integers of a kernel, some sizes its `own`."""
    assert step.nest is not None
    assert step.emitted is not None
    sizes = {name: evaluate(e, values) for name, e in step.nest.sizes.items()} | dict(own or {})
    for number, segment in enumerate(step.emitted.segments):
        sizes |= _cuts(step, segment, number, sizes, placements, threads) | dict(own or {})
    known = _Known(step, sizes, placements)
    integers = []
    for name in step.emitted.arguments:
        if name in step.emitted.derived:
            derived, which = step.emitted.derived[name]
            integers.append(derived.integers(known)[which])
        else:
            integers.append(known[name])
    return integers


class _Known(dict[str, int]):
    """The sizes of a kernel's nest, and where the elements of its buffers lie."""

    def __init__(
        self, step: Step, sizes: Mapping[str, int], placements: Mapping[str, Placement]
    ) -> None:
        super().__init__(sizes)
        assert step.nest is not None
        names = (b.name for b in step.nest.buffers)
        self._placed = {b: placements[t] for b, t in zip(names, step.tensors, strict=True)}

    def __missing__(self, name: str) -> int:
        buffer = max((b for b in self._placed if name.startswith(b + "_")), key=len)
        self[name] = found = self._placed[buffer].argument(name, buffer)
        return found


Counts = tuple[int, int, int]
"""Of a step that runs several kernels: shares of its units, bands or strips, and lots."""


def _banded(
    step: Step, placements: Mapping[str, Placement], values: Mapping[str, int], threads: int
) -> tuple[Counts, Array]:
    """How a step's tiles are cut, and the integers of its kernels for one band after the other.

    The two tensors between the kernels begin where the first tile of the band would lie at the
    beginning of its lot's memory; the kernels that go through tiles by number see them there.
    """
    spread, product, _ = step.parts
    v, z = product.tensors[0], product.tensors[-1]
    assert isinstance(step.cut, Cut)
    tiles = evaluate(product.nodes[-1].type.shape[-1], values)
    bands = step.cut.bands(values["*"] * tiles)
    starts = np.array([bands.start(b) for b in range(bands.bands + 1)], np.int64)
    lots = np.array([bands.lot(b) for b in range(bands.bands)], np.int64)
    columns: list[Array] = []
    for part in step.parts:
        # the product takes the tiles of all samples as one axis
        band = {"n": 1, "t": bands.most} if part is product else None
        own: dict[str, Array | int] = {}
        for buffer, p in _within(part, (v, z), placements):
            lot = p.start + lots * p.strides[0]
            own[f"{buffer}_at"] = lot if part is product else lot - starts[:-1] * p.strides[3]
            own[f"{buffer}_step0"] = tiles * p.strides[3]
        if part is product:  # weights serve a place at once
            own |= {"t": np.diff(starts), f"{ROWS_PER_TASK}0": 1}
        columns += _columns(part, placements, values, threads, own, bands.bands, band)
    op, x = spread.nodes[-1].op, placements[spread.tensors[0]]
    assert isinstance(op, WinogradInput)
    columns += [np.broadcast_to(value, bands.bands) for value in touched(op, x, starts)]
    shares = np.array([bands.share(b) for b in range(bands.bands + 1)], np.int64)
    columns += [shares[:-1], shares[1:]]
    return (bands.shares, bands.bands, bands.lots), np.stack(columns, axis=1).ravel()


def _in_strips(
    step: Step, placements: Mapping[str, Placement], values: Mapping[str, int], threads: int
) -> tuple[Counts, Array]:
    """How a step's rows are cut, and the integers of its kernels for one strip after the other.

    A strip is a chunk of every kernel's rows. A tensor that exists between the kernels alone begins
    where its first row would lie if those of the strip lay at the beginning of its lot's memory.
    """
    assert isinstance(step.cut, Strip)
    strips = step.cut.strips(values["*"])
    numbers = np.arange(strips.count, dtype=np.int64)
    lots = np.array([strips.lot(s) for s in range(strips.count)], np.int64)
    columns: list[Array] = []
    chunk = {f"{ROWS_PER_TASK}0": strips.size}
    for part in step.parts:
        own: dict[str, Array | int] = dict(chunk)
        sizes = dict(chunk)
        if part.ahead:
            at, sizes[AHEAD_ELEMENTS] = _behind(step, strips, placements[part.ahead])
            own[f"{AHEAD}_at"] = at
            sizes[f"{AHEAD}_at"] = 0  # differs from strip to strip
        for buffer, p in _within(part, step.within, placements):
            first = numbers * strips.size * p.strides[2]
            own[f"{buffer}_at"] = p.start + lots * p.strides[0] - first
            own[f"{buffer}_step0"] = step.cut.height * p.strides[2]
        columns += _columns(part, placements, values, threads, own, strips.count, sizes)
    return (strips.count, strips.count, strips.lots), np.stack(columns, axis=1).ravel()


def _behind(step: Step, strips: Strips, x: Placement) -> tuple[Array, int]:
    """Where the rows begin that the first kernel of a step reads for the strip behind each strip,
    those left out that it has read already for the same sample, and how many elements they are.
    """
    first = step.parts[0].kernel
    assert first is not None
    assert isinstance(step.cut, Strip)
    window, behind = rows_read(first)
    row = np.arange(1, strips.count + 1) * strips.size
    sample, own = np.divmod(row, step.cut.height)
    seen = np.where(own == 0, 0, own * window + behind - window)
    at = x.start + sample * x.strides[0] + seen * x.strides[2]
    one = not x.gap or strips.size <= step.cut.height  # several samples lie far from each other
    return at, strips.size * window * x.strides[2] if one else 0


def _within(
    part: Step, names: Collection[str], placements: Mapping[str, Placement]
) -> list[tuple[str, Placement]]:
    """The buffers of a kernel that are some of these tensors, and where those lie."""
    assert part.nest is not None
    pairs = zip(part.nest.buffers, part.tensors, strict=True)
    return [(b.name, placements[t]) for b, t in pairs if t in names]


def _columns(
    part: Step,
    placements: Mapping[str, Placement],
    values: Mapping[str, int],
    threads: int,
    own: Mapping[str, Array | int],
    count: int,
    sizes: Mapping[str, int] | None = None,
) -> list[Array]:
    """The integers of a kernel, each for every band or strip, some their `own`. `sizes`: with which
    the others are computed.
    """
    assert part.emitted is not None
    usual = _integers(part, placements, values, threads, sizes)
    pairs = zip(part.emitted.arguments, usual, strict=True)
    return [np.broadcast_to(own.get(name, value), count) for name, value in pairs]


def _cuts(
    step: Step,
    segment: Segment,
    number: int,
    sizes: Mapping[str, int],
    placements: Mapping[str, Placement],
    threads: int,
) -> dict[str, int]:
    """Into what the work of a segment is cut: rows whose input stays in cache while a block of
    weights goes over them, in tasks that all threads share evenly, or stretches of a long sum whose
    input stays there while all rows go over it.
    """
    nest, s = segment.nest, segment.schedule
    loops, _ = parallel_loops(nest)
    rows = max(1, product_of([loops[v] for v in s.rows], sizes))
    lanes = product_of([loops[s.vector]], sizes) if s.vector else 1
    blocks = -(-lanes // s.block)
    names = (b.name for b in nest.buffers)
    placed = {n: placements[t] for n, t in zip(names, step.tensors, strict=True)}
    inputs = [placed[b.name] for b in nest.buffers if b.role == "in"]
    cuts: dict[str, int] = {}
    if segment.stretches:
        fitting = rows
        read = sum(p.bytes for p in inputs if p.type.batched)
        extents = [product_of([extent], sizes) for _, extent, _ in segment.stretches.axes]
        lengths = lengths_of(extents, read, own_cache() // STAYING)
        cuts |= dict(zip((name for _, _, name in segment.stretches.axes), lengths, strict=True))
    else:
        weights = sum(p.bytes for p in inputs if not p.type.batched)
        fitting = rows_that_stay(rows, _summed_bytes(segment, sizes, placed), weights, own_cache())
    return cuts | {f"{ROWS_PER_TASK}{number}": rows_per_task(rows, blocks, fitting, threads)}


def _summed_bytes(
    segment: Segment, sizes: Mapping[str, int], placed: Mapping[str, Placement]
) -> int:
    """Bytes of activations that the sums of a segment take, every element once: a window with a
    stride may leave some out, and what is added behind the sums is not taken again.
    """
    loops, body = parallel_loops(segment.nest)
    sums = tuple(s for s in statements(body) if isinstance(s, For))
    extents = {**loops, **{s.var: s.extent for s in sums}}
    taken: dict[str, int] = {}
    for v in of_body(sums):
        if not isinstance(v, Load) or not (p := placed[v.buffer]).type.batched:
            continue
        total = p.type.dtype.bytes
        for most, i in zip(p.dims, v.index, strict=True):
            moving = (extent_of(extents[name], sizes) for name in _variables(i) if name in extents)
            total *= min(most, prod(most if n is None else evaluate(n, sizes) for n in moving))
        taken[v.buffer] = max(taken.get(v.buffer, 0), total)
    return sum(taken.values())


def _variables(i: Index) -> set[str]:
    return {part.name for part in subindices(i) if isinstance(part, Var)}
