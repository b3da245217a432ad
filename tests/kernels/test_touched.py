"""What is read in front of each band: every line of the input that its tiles take, and nothing
outside the memory of the tensor."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cnncc.ops.winograd import WinogradInput, tiles
from cnncc.targets.cpu.layout import ALIGN, Placement, activation, place
from cnncc.targets.cpu.touched import TOUCH_INTEGERS, touched
from cnncc.targets.cpu.vector import maps
from cnncc.tensor import DType, TensorType, evaluate

BATCH = 2
CASES = [  # F(m), window, stride, pads, border in memory, channels, extents
    (4, 3, 1, ((1, 1), (1, 1)), ((1, 1), (1, 1)), 32, (13, 21)),
    (4, 3, 1, ((1, 1), (1, 1)), ((0, 0), (0, 0)), 17, (8, 12)),
    (2, 3, 1, ((0, 0), (2, 0)), ((2, 2), (2, 2)), 64, (9, 7)),
    (4, 3, 2, ((1, 0), (1, 0)), ((1, 3), (1, 3)), 24, (16, 32)),
]


def lines_read(x: Placement, integers: list[Any], monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The lines in which `touch_tiles` reads something."""
    seen: list[int] = []
    monkeypatch.setattr(maps, "touch", lambda a, i: seen.append(i))
    monkeypatch.setattr(maps, "prefetch", lambda a, i: None)
    run = getattr(maps.touch_tiles, "py_func", maps.touch_tiles)
    run(None, [0, *integers], 1)
    assert not seen or (min(seen) >= 0 and max(seen) < x.elements)
    return {i * x.type.dtype.bytes // ALIGN for i in seen}


@pytest.mark.parametrize(("m", "size", "stride", "pads", "halo", "channels", "extents"), CASES)
def test_a_band_reads_the_lines_of_its_tiles(
    m: int, size: int, stride: int, pads: Any, halo: Any, channels: int,
    extents: tuple[int, int], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    op = WinogradInput(m, pads, size, stride)
    t = TensorType(DType.F32, (channels, *extents))
    x = place(t, BATCH, 1, halo, 16, False)
    down, across = (evaluate(tiles(e, m), {}) for e in op.extents(t))
    starts = np.array([0, across + 2, BATCH * down * across - 1, BATCH * down * across])
    columns = touched(op, x, starts)
    assert len(columns) == TOUCH_INTEGERS
    shared = stride * (op.taps - 1)
    for band, (begin, end) in enumerate(pairwise(starts)):
        integers = [int(np.broadcast_to(c, len(starts) - 1)[band]) for c in columns]
        read = lines_read(x, integers, monkeypatch)
        wanted = set()
        for tile in range(begin, end):
            n, (i0, i1) = tile // (down * across), divmod(tile % (down * across), across)
            for r in range(m * stride + shared):
                row = i0 * m * stride - pads[0][0] + r
                for c in range(m * stride):
                    column = i1 * m * stride - pads[1][0] + shared + c
                    if 0 <= row < extents[0] and 0 <= column < extents[1]:
                        at = x.start + n * x.strides[0] + row * x.strides[2] + column * x.strides[3]
                        wanted.add(at * 4 // ALIGN)
        assert wanted <= read


def test_few_channels_of_a_wide_tensor_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TensorType(DType.F32, (64, 8, 8))
    part = TensorType(DType.F32, (16, 8, 8))
    x = activation(whole, whole.dims(1), 1, ()).channels(part, part.dims(1), 32)
    op = WinogradInput(4, ((1, 1), (1, 1)))
    columns = touched(op, x, np.array([0, 4]))
    integers = [int(np.broadcast_to(c, 1)[0]) for c in columns]
    assert lines_read(x, integers, monkeypatch) == set()
