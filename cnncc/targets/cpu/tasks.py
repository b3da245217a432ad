"""How the work of a kernel is cut into tasks: chunks of rows by blocks of lanes.

A kernel's shares are equal counts of tasks in a row, so chunks should be of equal size and as many
as the threads can share evenly: of 28 rows in chunks of 9, one of two threads would get 18.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import gcd

EVEN = 1.02  # what the busiest thread may have, of an equal part; smaller chunks read more weights
SIZES = 16  # tried at most: each is compared in as many operations as there are threads

STAYING = 4  # a chunk's input has one part in so many of a core's cache
STAYING_LONG = 2  # where the weights are more than that cache holds: most are read for every chunk


def rows_that_stay(rows: int, read: int, weights: int, cache: int) -> int:
    """The most rows of a chunk, whose input stays in the cache of a core while all blocks of
    weights go over it. `read`: bytes of the input of all rows; `weights`: bytes of all of them.
    """
    part = cache // (STAYING if weights <= cache else STAYING_LONG)
    return max(1, min(rows, part * rows // max(read, 1)))


@lru_cache(maxsize=4096)
def rows_per_task(rows: int, blocks: int, most: int, threads: int) -> int:
    """Rows of a chunk: at most `most`, and the busiest of the threads has as little as possible."""
    sizes = dict.fromkeys(-(-rows // n) for n in _counts(rows, blocks, -(-rows // most), threads))
    best, least = 1, float("inf")
    for size in sizes:
        load = busiest(rows, blocks, size, threads)
        if load * threads <= EVEN * rows * blocks:
            return size
        if load < least:
            best, least = size, load
    return best


def _counts(rows: int, blocks: int, fewest: int, threads: int) -> list[int]:
    """How many chunks to try, ascending: all up to some more than the fewest, or, for many threads,
    half as many and those whose tasks the threads share with none left.
    """
    counts = range(fewest, min(rows, fewest + 4 * threads) + 1)
    if len(counts) <= SIZES:
        return list(counts)
    even = threads // gcd(threads, blocks)
    first = -(-fewest // even) * even
    shared = [n for n in range(first, first + even * (SIZES // 2), even) if n <= rows]
    return sorted({*counts[: SIZES - len(shared)], *shared})


def busiest(rows: int, blocks: int, size: int, threads: int) -> int:
    """Rows of blocks that the thread with the most work has, in chunks of `size` rows."""
    tasks = -(-rows // size) * blocks

    def before(task: int) -> int:
        chunk, block = divmod(task, blocks)
        return chunk * size * blocks + min(size, rows - chunk * size) * block

    ends = [before(tasks * t // threads) for t in range(threads)] + [rows * blocks]
    return max(b - a for a, b in pairwise(ends))


def lot_of(part: int, parts: int, lots: int) -> int:
    """The lot of a part, of parts * lot // lots up to those of the next lot."""
    return (lots * (part + 1) - 1) // parts
