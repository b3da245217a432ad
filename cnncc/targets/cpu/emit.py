"""A scheduled nest as the text of one kernel module.

A kernel is a C function over pointers: its buffers, the table of run-time integers with the place
where its own begin, and its share of the work. Nothing of a network's names is in it; kernels are
shared by all layers and networks whose nests print alike.
"""

from __future__ import annotations

from functools import lru_cache

from cnncc.errors import CompilerBug
from cnncc.loops.elementary import expand
from cnncc.loops.ir import For, Kind, Nest
from cnncc.loops.key import NestKey, nest_key
from cnncc.loops.split import Split, split_phases
from cnncc.loops.transform import in_order, lift, parallel_loops
from cnncc.loops.unroll import with_numbers
from cnncc.loops.walk import statements
from cnncc.targets.cpu.coming import AHEAD
from cnncc.targets.cpu.emitted import Emitted, Memory, Segment
from cnncc.targets.cpu.inside import explicit
from cnncc.targets.cpu.lane import NotInLanes
from cnncc.targets.cpu.schedule import Schedule, choose, near_weights, registers
from cnncc.targets.cpu.segment import SegmentText, by_rows
from cnncc.tensor import DType

_GENERATOR = {
    t: [f"from cnncc.targets.cpu.vector.random import mixed_key, uniform_{t.value}"]
    for t in (DType.F32, DType.F64)
}


def emit(nest: Nest, memory: Memory, dtype: DType, lanes: int, width: int = 0) -> Emitted:
    """The kernel for a nest, with register tiles of `width` positions where that is possible and
    not 0. Ensures: the text computes the nest's bits, for any width and any number of shares.

    A nest is a sequence of parallel loops that do not depend on each other; each becomes a segment
    of the kernel.
    """
    return _emitted(nest_key(nest), memory, dtype, lanes, width)


@lru_cache(maxsize=1024)  # a deep network has many kernels, but few different ones
def _emitted(key: NestKey, memory: Memory, dtype: DType, lanes: int, width: int) -> Emitted:
    nest = lift(explicit(expand(key.nest, dtype), memory.haloed))
    segments: list[SegmentText] = []
    for number, loop in enumerate(nest.body):
        if not isinstance(loop, For) or loop.kind is not Kind.PARALLEL:
            raise CompilerBug(
                "emit", type(loop).__name__, "a kernel's outermost loops are parallel"
            )
        part = nest.with_body((loop,))
        segments.append(_segment(part, memory, dtype, lanes, width, number))
    arguments = list(dict.fromkeys(a for s in segments for a in s.printer.arguments))
    tasks = [line for s in segments for line in s.lines]
    words = sorted({w for s in segments for w in s.printer.names})
    shapes = sorted({t for s in segments for t in s.printer.shapes}, key=str)
    if shapes:
        words = sorted([*words, "shape"])
    pointers = {b.name: b.dtype for b in nest.buffers}
    if memory.ahead:
        pointers[AHEAD] = memory.ahead
    buffers = [f"{t.value}*" for t in pointers.values()]
    signature = f"void({', '.join([*buffers, 'i64*', 'i64', 'i64', 'i64'])})"
    title = " Then: ".join(_title(nest, s.schedule) for s in segments)
    lines = [
        f'"""{title}"""',
        "",
        *(
            ["from math import inf, nan", ""]
            if any("inf" in t or "nan" in t for t in tasks)
            else []
        ),
        "from cnncc.targets.cpu.compiled import compiled",
        f"from cnncc.targets.cpu.vector import {', '.join(words)}",
        *(_GENERATOR[dtype] if any(s.printer.generator for s in segments) else []),
        *(
            ["", *(f"{t} = shape({t.positions}, {t.vectors}, {t.lanes})" for t in shapes)]
            * bool(shapes)
        ),
        "",
        "",
        f'@compiled("{signature}")',
        f"def kernel({', '.join(pointers)}, table, first, share, shares):",
        *(f"    {name} = table[first + {i}]" for i, name in enumerate(arguments)),
        *tasks,
        "",
    ]
    derived = {name: d for s in segments for name, d in s.printer.derived.items()}
    return Emitted(
        "\n".join(lines),
        tuple(arguments),
        tuple(Segment(s.nest, s.schedule, s.printer.group, s.stretches) for s in segments),
        derived,
    )


def _segment(
    nest: Nest, memory: Memory, dtype: DType, lanes: int, width: int, number: int
) -> SegmentText:
    """One loop nest of a kernel: in lanes if it has a vector form, else element by element."""
    _, body = parallel_loops(nest)
    if not any(isinstance(s, For) and s.kind is Kind.PARALLEL for s in statements(body)):
        if by_rows(nest, memory):
            nest = with_numbers(nest)  # nobody else schedules it: no group has such kernels
        held, again, near = registers(lanes, dtype), not memory.in_place, near_weights(lanes, dtype)

        def scheduled(nest: Nest) -> Schedule:
            of = memory.innermost
            return choose(nest, of, lanes, held=held, again=again, wanted=width, near=near)

        schedule = scheduled(nest)
        split = Split(nest, {})
        if schedule.blocked and schedule.lanes > 1:
            split = split_phases(nest, keep={schedule.vector})
            schedule = scheduled(split.nest)
        try:
            return SegmentText(split, memory, dtype, schedule, number, held)
        except NotInLanes:
            lanes = 1
    nest = nest.with_body(tuple(map(in_order, nest.body)))
    return SegmentText(Split(nest, {}), memory, dtype, choose(nest, memory.innermost, 1), number)


def _title(nest: Nest, s: Schedule) -> str:
    reads = ", ".join(b.name for b in nest.buffers if b.role == "in")
    writes = ", ".join(b.name for b in nest.buffers if b.role == "out")
    if s.lanes == 1:
        return f"{reads} -> {writes}, one element at a time."
    tile = f"{s.width} positions of {s.tile} by " if s.tile else ""
    return f"{reads} -> {writes}, {tile}{s.vectors} x {s.lanes} lanes of {s.vector}."
