"""What this machine can do at most: fused multiply-adds per second out of registers, and bytes per
second out of memory and out of each cache. They are measured, on the threads that a network would
use, and are the lines of a roofline (Williams, Waterman and Patterson, "Roofline: an insightful
visual performance model", 2009; with caches: Ilic, Pratas and Sousa, "Cache-aware roofline model",
2014): no kernel is faster than the lowest of them.
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

ROUNDS = 2 << 20
REPEATS = 25
"""Many short runs: one of them is not interrupted even where other programs run."""

LEAST_BYTES = 128 << 20
READ_BYTES = 128 << 20
"""How much every thread reads out of a cache: some milliseconds."""

VECTORS = 8
"""Loads and sums of one round of reading: enough to hide the latency of an addition."""


@dataclass(frozen=True)
class Cache:
    """A level of caches: bytes that it holds for all threads together, and bytes read per second
    while what is read stays in it."""

    name: str
    size: int
    bandwidth: float


@dataclass(frozen=True)
class Bound:
    """The least time of some work in seconds, and what it is spent on: `arithmetic`, the name of a
    cache, or `memory`."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Peaks:
    """Operations per second (a multiply-add counts two, float32), bytes read per second out of
    memory, and the caches, the nearest first."""

    flops: float
    bandwidth: float
    threads: int
    caches: tuple[Cache, ...] = ()

    def overflows(self, held: int) -> bool:
        """Whether so many bytes do not fit the last cache."""
        return held > max((c.size for c in self.caches), default=0)

    def bound(self, flops: float, traffic: int, fresh: int) -> Bound:
        """The roofline for one kernel.

        flops: operations. traffic: bytes that it reads and writes, each once; they come from the
        nearest cache that holds them all. fresh: those of them that must come from memory.
        """
        lines = [Bound(flops / self.flops, "arithmetic"), Bound(fresh / self.bandwidth, "memory")]
        level = next((c for c in self.caches if traffic <= c.size), None)
        name, bandwidth = (level.name, level.bandwidth) if level else ("memory", self.bandwidth)
        return max([*lines, Bound(traffic / bandwidth, name)], key=lambda b: b.seconds)


def measure_peaks(threads: int) -> Peaks:
    """Measure all; takes about two seconds. The best of a few runs counts, as it is a limit."""
    machine = detect()
    lanes = max(machine.lanes_f32, 2)
    adds = load_module(_adds_text(lanes), kind="kernel").kernel
    reads = load_module(_reads_text(lanes), kind="kernel").kernel
    sums = [aligned_f32((CHAINS + 2) * lanes) for _ in range(threads)]
    for values in sums:
        values[:] = 0.5
    seconds = _best(threads, lambda i: adds(sums[i], ROUNDS))
    flops = 2.0 * CHAINS * lanes * ROUNDS * threads / seconds

    def bandwidth(each: int) -> float:
        """Of arrays of so many bytes, one for each thread, read from beginning to end."""
        rounds = each // (4 * VECTORS * lanes)
        passes = max(READ_BYTES // each, 1)
        parts = [aligned_f32(rounds * VECTORS * lanes) for _ in range(threads)]
        for part in parts:
            part[:] = 1.0  # a page that was never written is not in memory
        seconds = _best(threads, lambda i: reads(parts[i], sums[i], rounds, passes))
        return passes * sum(part.nbytes for part in parts) / seconds

    sizes = (("L1", threads * machine.l1), ("L2", threads * machine.l2), ("L3", machine.l3))
    caches = tuple(Cache(n, size, bandwidth(size // threads // 2)) for n, size in sizes if size)
    memory = bandwidth(max(LEAST_BYTES, 4 * machine.l3) // threads)
    return Peaks(flops, memory, threads, caches)


def _best(threads: int, work: Callable[[int], object]) -> float:
    """Seconds of the slowest of work(0), work(1), ... at the same time, in the fastest of several
    runs. Each thread watches its own clock, so that what starting threads takes does not count.
    """
    times = np.zeros((REPEATS + 1, threads))  # one more: the first wakes the processor up
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        for repeat in range(REPEATS + 1):
            start.wait()
            begin = time.perf_counter()
            work(number)
            times[repeat, number] = time.perf_counter() - begin

    team = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return float(times[1:].max(axis=1).min())


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
    """A kernel that reads an array again and again, some vectors at a time."""
    vectors = range(VECTORS)
    return "\n".join(
        [
            f'"""Reading memory, {lanes} lanes."""',
            "",
            _IMPORTS,
            '@compiled("void(f32*, f32*, i64, i64)")',
            "def kernel(a, result, rounds, passes):",
            *(f"    sum_{i} = load{lanes}(result, {i * lanes})" for i in vectors),
            "    for _ in range(passes):",
            "        for r in range(rounds):",
            "            keep_rolled()",
            f"            at = r * {VECTORS * lanes}",
            *(f"            sum_{i} = sum_{i} + load{lanes}(a, at + {i * lanes})" for i in vectors),
            *(f"    store(result, {i * lanes}, sum_{i})" for i in vectors),
            "",
        ]
    )
