"""What this machine can do at most: fused multiply-adds per second out of registers, and bytes per
second out of memory. Both are measured, on the threads that a network would use, and are the two
lines of a roofline (Williams, Waterman and Patterson, "Roofline: an insightful visual performance
model", 2009): no kernel is faster than the lower of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnncc.targets.cpu.arena import aligned_f32
from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import load_module

CHAINS = 12
"""Independent sums: enough to hide the latency of a multiply-add, few enough for the registers."""

ROUNDS = 10 << 20
REPEATS = 5
LEAST_BYTES = 128 << 20


@dataclass(frozen=True)
class Peaks:
    """Operations per second (a multiply-add counts two, float32) and bytes read per second."""

    flops: float
    bandwidth: float
    threads: int


def measure_peaks(threads: int) -> Peaks:
    """Measure both; takes about a second. The best of a few runs counts, as it is a limit."""
    machine = detect()
    lanes = max(machine.lanes_f32, 2)
    adds = load_module(_adds_text(lanes), kind="kernel").kernel
    reads = load_module(_reads_text(lanes), kind="kernel").kernel
    sums = [aligned_f32((CHAINS + 2) * lanes) for _ in range(threads)]
    for values in sums:
        values[:] = 0.5
    seconds = _best(threads, lambda i: adds(sums[i], ROUNDS))
    flops = 2.0 * CHAINS * lanes * ROUNDS * threads / seconds

    count = max(LEAST_BYTES, 4 * machine.l3) // 4 // threads
    parts = [aligned_f32(count) for _ in range(threads)]
    for part in parts:
        part[:] = 1.0  # a page that was never written is not in memory
    vectors = count // (4 * lanes)
    seconds = _best(threads, lambda i: reads(parts[i], sums[i], vectors))
    return Peaks(flops, vectors * 4 * lanes * 4.0 * threads / seconds, threads)


def _best(threads: int, work: Callable[[int], object]) -> float:
    """Seconds of the fastest of several runs of work(0), work(1), ... at the same time."""
    times = []
    for _ in range(REPEATS + 1):  # one more: the first wakes the processor up
        start = threading.Barrier(threads + 1)

        def run(number: int, start: threading.Barrier = start) -> None:
            start.wait()
            work(number)

        team = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
        for thread in team:
            thread.start()
        start.wait()
        begin = time.perf_counter()
        for thread in team:
            thread.join()
        times.append(time.perf_counter() - begin)
    return float(np.min(times[1:]))


_IMPORTS = """\
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *

"""


def _adds_text(lanes: int) -> str:
    """A kernel of independent chains of multiply-adds that never leave the registers."""
    chains = range(CHAINS)
    return "\n".join(
        [
            f'"""Multiply-adds in registers, {lanes} lanes."""',
            "",
            _IMPORTS,
            '@compiled("void(f32*, i64)")',
            "def kernel(a, rounds):",
            f"    x = load{lanes}(a, {CHAINS * lanes})",
            f"    y = load{lanes}(a, {(CHAINS + 1) * lanes})",
            *(f"    sum_{i} = load{lanes}(a, {i * lanes})" for i in chains),
            "    for _ in range(rounds):",
            "        keep_rolled()",
            *(f"        sum_{i} = fma(x, y, sum_{i})" for i in chains),
            *(f"    store(a, {i * lanes}, sum_{i})" for i in chains),
            "",
        ]
    )


def _reads_text(lanes: int) -> str:
    """A kernel that reads an array once, four vectors at a time."""
    return "\n".join(
        [
            f'"""Reading memory, {lanes} lanes."""',
            "",
            _IMPORTS,
            '@compiled("void(f32*, f32*, i64)")',
            "def kernel(a, result, rounds):",
            *(f"    sum_{i} = load{lanes}(result, {i * lanes})" for i in range(4)),
            "    for r in range(rounds):",
            "        keep_rolled()",
            *(
                f"        sum_{i} = sum_{i} + load{lanes}(a, r * {4 * lanes} + {i * lanes})"
                for i in range(4)
            ),
            *(f"    store(result, {i * lanes}, sum_{i})" for i in range(4)),
            "",
        ]
    )
