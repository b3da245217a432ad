"""Row N10 of the lecture table: priors that differ over the image, such as "eyes above, mouth
below". A layer on a region is a piece of the whole layer, and pays for its area only.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.compiler import front
from tests.mission.running import Run, integers, net
from tests.mission.test_convolution import toeplitz

LAYERS = {
    "valid": "conv(3, 3x2",
    "zeros": "conv(3, 3x3, pad = 1",
    "uneven": "conv(3, 3x3, pad = ((2, 0), (0, 2))",
    "stride": "conv(3, 3x3, pad = 1, stride = 2, fit = floor",
    "dilation": "conv(3, 3x2, pad = 2, dilation = 2",
    "mirror": "conv(3, 3x3, pad = reflect(1), stride = 2, fit = floor",
}
SHAPE = (2, 9, 8)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_N10_a_region_is_a_piece_of_the_whole_layer(layer: str) -> None:
    whole = Run(net(SHAPE, f"{layer})"))
    x = integers((2, *SHAPE), 1)
    expected, (_, rows, columns) = whole(x), whole.shape
    for r, c in (((0, 2), (0, columns)), ((1, rows), (2, columns)), ((rows - 1, rows), (0, 1))):
        part = Run(net(SHAPE, f"{layer}, region = ({r}, {c}))"))
        assert part.parameters.keys() == whole.parameters.keys()
        piece = np.s_[:, :, slice(*r), slice(*c)]
        assert np.array_equal(part(x), expected[piece])
        dy = integers(part(x).shape, 2)
        outside = np.zeros_like(expected)
        outside[piece] = dy
        left, right = part.backward(x, dy), whole.backward(x, outside)
        for name in left:
            assert np.array_equal(left[name], right[name]), name


@pytest.mark.parametrize("axis", [0, 1])
def test_N10_regions_that_share_a_kernel_join_to_the_whole(axis: int) -> None:
    word = ("rows", "columns")[axis]
    text = f"""
    net face {{
      input x: f32[2, 9, 8]
      weights U
      a = x -> conv(3, 3x3, pad = 1, weights = U, bias = none, region = {word}(0, 3))
      b = x -> conv(3, 3x3, pad = 1, weights = U, bias = none, region = {word}(3, 5))
      c = x -> conv(3, 3x3, pad = 1, weights = U, bias = none, region = {word}(5, {(9, 8)[axis]}))
      output y = join(a, b, c, axis = {axis})
    }}"""
    parts, whole = Run(text), Run(net(SHAPE, "conv(3, 3x3, pad = 1, bias = none)"))
    whole.parameters["y.weight"] = parts.parameters["U"]
    x, dy = integers((2, *SHAPE), 1), integers((2, 3, 9, 8), 2)
    assert np.array_equal(parts(x), whole(x))
    left, right = parts.backward(x, dy), whole.backward(x, dy)
    assert np.array_equal(left["x"], right["x"])
    assert np.array_equal(left["U"], right["y.weight"])


@pytest.mark.parametrize("share", ["full", "none", "tiled(2)"])
def test_N10_a_region_is_a_masked_dense_layer(share: str) -> None:
    layer = f"conv(1, 3x3, pad = 1, bias = none, share = {share}, region = rows(4, 6))"
    matrix = toeplitz(Run(net([1, 6, 4], layer)), (1, 6, 4))
    assert matrix.shape == (2 * 4, 24)
    assert not matrix[:, : 3 * 4].any()  # rows 0 to 2 of the image are out of sight
    x = integers((1, 1, 6, 4), 3)
    assert np.array_equal(Run(net([1, 6, 4], layer))(x).ravel(), matrix @ x.ravel())


def test_N10_a_region_costs_its_area() -> None:
    layer = "conv(4, 3x3, pad = 1, bias = none"
    front(net([3, 16, 16], f"{layer})\n  expect macs == {16 * 16 * 4 * 27}"))
    front(net([3, 16, 16], f"{layer}, region = rows(8, 16))\n  expect macs == {8 * 16 * 4 * 27}"))
    mouth = f"{layer}, share = none, region = ((8, 16), (4, 12)))"
    live = (8 * 3 - 1) * 8 * 3  # only the last row has a tap outside
    front(net([3, 16, 16], f"{mouth}\n  expect params == {live * 12}"))
