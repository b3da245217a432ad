"""How much a step of a bound network has to do: bytes and multiply-accumulates, and whether that is
worth sharing among threads, and in how many pieces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cnncc.ops.base import Op
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.cpu.program import Program
from cnncc.targets.cpu.program_step import Step
from cnncc.tensor import evaluate

AGREEING = 2000.0
"""Nanoseconds of work, as estimated here, below which sharing costs more than it spares: two
threads need 0.4 us to claim and join a step, and lines move from one cache to the other."""
PIECE = 8000.0
"""Nanoseconds of work, so estimated, that a piece of a thread's share has at least. The more
pieces, the less is left to wait for at the end, where a core is slower than the others."""
MOST = 8  # pieces of a share: a power of two, as they divide control.WHOLE
MACS, BYTES = 32.0, 64.0  # in a nanosecond; small steps take about half of what these say


def macs_of(program: Program, step: Step, batch: int, symbols: Mapping[str, int]) -> int:
    """Multiply-accumulates of all samples, as the operators count them."""
    total = 0
    for node in step.nodes:
        assert isinstance(node.op, Op)
        of_sample = evaluate(node.op.cost(program.graph.types(node), node.type).macs, symbols)
        total += of_sample * batch
    return total


def traffic_of(
    program: Program, step: Step, placements: Mapping[str, Placement]
) -> tuple[int, int]:
    """Bytes that a step reads and writes, and how many of them are of parameters. Borders count
    where they are filled, not where they are read.
    """
    traffic = parameters = 0
    for name in dict.fromkeys(step.tensors):
        p = placements[name]
        if program.tensors[name].cut:
            continue  # it stays in the cache
        inside = math.prod(p.dims)
        numbers = inside if step.kernels else _bordered(p) - inside
        traffic += numbers * p.type.dtype.bytes
        parameters += 0 if p.type.batched else numbers * p.type.dtype.bytes
    return traffic, parameters


def _bordered(p: Placement) -> int:
    """Elements of an activation with its border."""
    spatial = zip(p.dims[2:], p.halo, strict=True)
    return math.prod(p.dims[:2]) * math.prod(n + lo + hi for n, (lo, hi) in spatial)


def pieces_of(macs: int, traffic: int, threads: int) -> int:
    """Into how many pieces the share of each thread is cut, 0 where one thread does so much sooner
    than several can agree on it.
    """
    work = macs / MACS + traffic / BYTES
    if work < AGREEING:
        return 0
    pieces = 1
    while 2 * pieces <= MOST and 2 * pieces * threads * PIECE <= work:
        pieces *= 2
    return pieces
