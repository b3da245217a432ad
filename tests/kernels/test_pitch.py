"""Positions whose channels fill a multiple of 2 KiB lie a cache line further apart, in every kernel
that touches them: windows with a border, channels of a concat, a residual sum, and gradients.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.passes.retype import retyped
from cnncc.passes.training import seeded_graph
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.layout import ALIGN, WAYS, place
from cnncc.tensor import DType, TensorType
from tests.kernels.joined import both_targets
from tests.kernels.primitives import same_bits

WIDTH = WAYS + 1

NET = """
net n {{
  input x: f32[5, 2, {width}]
  a = x -> conv({half}, 1x1) -> relu
  b = x -> conv({half}, 1x1) -> tanh
  wide = concat(a, b)
  y = (wide -> conv({whole}, 3x3, pad = same, connect = groups({whole}))) + wide
  output z = y -> maxpool(2x1) -> conv(3, 1x3, pad = same)
}}
"""


@pytest.mark.parametrize(("dtype", "channels"), [(DType.F32, 512), (DType.F64, 256)])
def test_only_such_positions_are_apart(dtype: DType, channels: int) -> None:
    def pitch(*shape: int, border: tuple[int, int] = (0, 0)) -> int:
        halo = (border,) * (len(shape) - 1)
        return place(TensorType(dtype, shape), 2, 1, halo, 8, False).strides[-1]

    assert pitch(channels, 2, WIDTH) == channels + ALIGN // dtype.bytes
    assert pitch(channels, WIDTH) == channels + ALIGN // dtype.bytes
    assert pitch(channels, 2, WAYS) == channels
    assert pitch(channels, 2, WAYS - 1, border=(1, 1)) == channels + ALIGN // dtype.bytes
    assert pitch(channels, 2, WAYS - 2, border=(1, 1)) == channels
    assert pitch(channels - 1, 2, WIDTH) == channels - 1


@pytest.mark.parametrize("channels", [1, 16, 24, 64, 100, 512])
@pytest.mark.parametrize("count", [1, 4, 28, 49])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_places_of_a_tile_begin_in_sets_of_their_own(
    dtype: DType, count: int, channels: int
) -> None:
    plain = place(TensorType(dtype, (channels, 36, count)), 2, 1, (), 8, False)
    p = plain.with_planes()
    line = ALIGN // dtype.bytes
    plane = p.strides[2]
    assert plain.strides[2] <= plane < plain.strides[2] + WAYS * line
    assert plane % line == 0
    assert len({place * (plane // line) % 64 for place in range(36)}) == 36
    assert (p.strides[0], p.strides[3], p.elements) == (36 * plane, plain.strides[3], 72 * plane)


@pytest.mark.parametrize(("dtype", "channels"), [(DType.F32, 512), (DType.F64, 256)])
def test_kernels_agree_with_the_interpreter(dtype: DType, channels: int) -> None:
    text = NET.format(width=WIDTH, half=channels // 2, whole=channels)
    checked = front(text)
    step = seeded_graph(checked.graph, checked.module)
    graph = retyped(step.graph, dtype)
    rng = np.random.default_rng(0)
    given = {
        node.name: rng.standard_normal(node.type.dims(2)).astype(NUMPY[dtype])
        for node in (*graph.of("input"), *graph.of("parameter"))
    }
    cpu, interp = both_targets(graph, dtype=dtype).run(given)
    assert len(cpu) > 1
    assert [name for name in cpu if not same_bits(cpu[name], interp[name])] == []
