"""Which part of its input Winograd's transform reads for some tiles: it is read once in the order
of memory in front of each band (`vector/maps.py` says why).
"""

from __future__ import annotations

import numpy as np

from cnncc.ops.winograd import WinogradInput, tiles
from cnncc.targets.arrays import Array
from cnncc.targets.cpu.layout import ALIGN, Placement
from cnncc.tensor import evaluate

TOUCH_INTEGERS = 12


def touched(op: WinogradInput, x: Placement, starts: Array) -> list[Array | int]:
    """The integers of `touch_tiles`, each for all bands where it differs between them.

    starts: the first tile of every band, and the number of all tiles.
    """
    sample, _, row, column = x.strides
    down, across = (evaluate(tiles(e, op.m), {}) for e in op.extents(x.type))
    (upper, _), (left, _) = op.pads
    step = op.m * op.stride
    shared = op.stride * (op.taps - 1)  # the first columns of a tile are the last of its neighbour
    start = x.start - upper * row + (shared - left) * column
    begin, end = starts[:-1], starts[1:]
    if 2 * x.dims[1] < column:  # most of what lies there are channels of other tensors
        end = np.zeros_like(begin)
    return [
        begin, end, across, down, step + shared, start, ALIGN // x.type.dtype.bytes, x.elements,
        sample, step * row, row, step * column,
    ]  # fmt: skip
