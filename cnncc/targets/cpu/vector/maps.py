"""Bringing what some tiles of a map are made of into the cache, in the order of memory.

A kernel that goes tile by tile reads a few positions of several rows at a time. The processor
fetches on its own what follows what is read, but it does not take such short pieces for a stream,
and then waits for every line. Read from end to end beforehand, row by row, the same lines arrive at
the speed of memory.
"""

from __future__ import annotations

from typing import Any

from cnncc.targets.cpu.compiled import inlined
from cnncc.targets.cpu.vector import prefetch, touch

__all__ = ["touch_tiles"]


@inlined
def touch_tiles(a: Any, table: Any, first: int) -> None:
    """Read an element of every line of the tiles `tile` to `end`, which are counted along the rows
    of tiles of all samples. The integers are those of `touched.py`.
    """
    tile, end = table[first], table[first + 1]
    across, down, rows = table[first + 2], table[first + 3], table[first + 4]
    start, line, elements = table[first + 5], table[first + 6], table[first + 7]
    sample, below, row, beside = (
        table[first + 8], table[first + 9], table[first + 10], table[first + 11]
    )  # fmt: skip
    while tile < end:
        left = tile % across
        above = tile // across
        run = min(across - left, end - tile)  # tiles that lie in one row
        place = start + above // down * sample + above % down * below + left * beside
        for _ in range(rows):
            for i in range(max(place, 0), min(place + run * beside, elements), line):
                touch(a, i)
                prefetch(a, i + row)  # the next row, before it is known for a stream
            place += row
        tile += run
