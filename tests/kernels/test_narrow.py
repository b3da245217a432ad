"""Kernels for few registers: turns that are written out, tiles of two widths, two blocks of a lone
sample, and windows whose positions are a tile. All run with eight lanes where the processor can.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.loops.ir import Int, Size
from cnncc.passes.retype import retyped
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.targets.cpu.widths import Mixed, second_width, tile_cycles, tile_widths
from cnncc.tensor import DType
from tests.kernels.joined import Twice, both_targets
from tests.kernels.primitives import same_bits

LANES = min(8, vector_lanes())
MAPS = {
    "points": ("[12, 14, 14]", "conv(32, 1x1)", 14),
    "rest of channels": ("[13, 14, 14]", "conv(32, 1x1)", 14),
    "window": ("[8, 9, 28]", "conv(20, 3x3, pad = 1) -> relu -> maxpool(2x2, fit = floor)", 28),
    "strided": ("[16, 11, 27]", "conv(32, 3x3, stride = 2, pad = 1, fit = floor)", 14),
    "groups": ("[32, 6, 13]", "conv(32, 3x3, pad = 1, connect = groups(2))", 13),
    "one width": ("[16, 7, 7]", "conv(16, 1x1)", 7),
}


def twice(shape: str, layers: str, dtype: DType = DType.F32) -> Twice:
    text = (
        f"net n {{\n  default fit = floor\n  input x: f32{shape}\n  output y = x -> {layers}\n}}\n"
    )
    return both_targets(retyped(front(text).graph, dtype), dtype=dtype, lanes=LANES)


def numbers(found: Twice, batch: int, dtype: DType = DType.F32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    nodes = (*found.graph.of("input"), *found.graph.of("parameter"))
    return {n.name: rng.standard_normal(n.type.dims(batch)).astype(NUMPY[dtype]) for n in nodes}


def agree(found: Twice, given: dict[str, np.ndarray]) -> None:
    cpu, interp = found.run(given)
    assert [name for name in cpu if not same_bits(cpu[name], interp[name])] == []


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_bits_of_the_definition(name: str, dtype: DType) -> None:
    shape, layers, _ = MAPS[name]
    found = twice(shape, layers, dtype)
    agree(found, numbers(found, 2, dtype))


@pytest.mark.skipif(LANES != 8, reason="without eight lanes tiles have other widths")
@pytest.mark.parametrize("name", MAPS)
def test_what_the_text_of_a_map_has(name: str) -> None:
    shape, layers, width = MAPS[name]
    found = twice(shape, layers)
    text = "\n".join(t for t in found.cpu.kernel_texts if "fma(" in t)
    assert ("load_near(" in text) is (name != "rest of channels"), "13 channels are no four turns"
    assert ("mixed" in text) is (second_width(width, tile_widths(width, 2, 16)[0], 2, 16) > 0)


def test_the_phases_of_a_transposed_map_are_tiles_of_one_width() -> None:
    found = twice("[16, 13, 14]", "conv_transpose(16, 3x3, stride = 2, pad = 1)")
    segments = [
        s for step in found.cpu.program.steps if step.emitted for s in step.emitted.segments
    ]
    text = "\n".join(found.cpu.kernel_texts)
    assert ("mixed" in text) is any(s.schedule.rest > 0 for s in segments)
    agree(found, numbers(found, 2))


def test_a_map_whose_extents_are_not_known_has_one_width() -> None:
    found = twice("[16, H, W]", "conv(16, 1x1)")
    text = "\n".join(found.cpu.kernel_texts)
    assert "mixed" not in text
    agree(found, numbers(twice("[16, 9, 14]", "conv(16, 1x1)"), 2))


@pytest.mark.parametrize("extent", range(2, 70))
@pytest.mark.parametrize(("first", "second"), [(6, 5), (6, 4), (5, 4), (12, 7)])
def test_tiles_of_two_widths_cover_an_axis(extent: int, first: int, second: int) -> None:
    if extent < second:
        return
    mixed = Mixed(Size("e"), first, second, 2)
    (begin,) = mixed.integers({"e": extent})
    covered = [p for start in range(0, begin, first) for p in range(start, start + first)]
    for start in range(begin, extent, second):
        last = min(start, extent - second)
        covered += range(last, last + second)
    assert set(covered) == set(range(extent))
    assert mixed.cycles(extent) <= tile_cycles(extent, first, 2) + tile_cycles(1, second, 2)


@pytest.mark.parametrize("extent", [13, 14, 28, 56])
def test_a_second_width_is_taken_where_it_spares_enough(extent: int) -> None:
    width = tile_widths(extent, 2, 16)[0]
    other = second_width(extent, width, 2, 16)
    assert 0 < other < width
    assert Mixed(Int(extent), width, other, 2).cycles(extent) < 0.97 * tile_cycles(extent, width, 2)
    assert second_width(10 * width, width, 2, 16) == 0, "nothing is left"


@pytest.mark.parametrize("outputs", [5, 16, 32, 40, 56, 75])
@pytest.mark.parametrize("layers", ["dense({}) -> relu", "dense({}, bias = none) -> tanh"])
def test_samples_left_behind_tiles_take_two_blocks_at_once(outputs: int, layers: str) -> None:
    found = twice("[37]", layers.format(outputs))
    for batch in (1, 2, 3, 4, 7, 9):
        agree(found, numbers(found, batch))
    if LANES == 8:
        texts = "\n".join(found.cpu.kernel_texts)
        assert bool(re.search(r"range\(begin, end - 1, 2\)", texts)) is (outputs > LANES)


@pytest.mark.parametrize(
    "layers",
    [
        "maxpool(3x3, stride = 2, pad = 1)", "maxpool(2x3)", "avgpool(3x3, stride = 2)",
        "lppool(2x2, p = 2)", "maxpool(3x2, stride = 1, dilation = 2)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("wild", [False, True])
def test_positions_of_a_window_without_weights_are_a_tile(layers: str, wild: bool) -> None:
    """NaN, infinities and zeros of both signs included."""
    found = twice("[20, 13, 17]", layers)
    given = numbers(found, 2)
    if wild:
        flat = given["x"].reshape(-1)
        flat[::7], flat[3::11], flat[5::13], flat[1::5] = np.nan, np.inf, -np.inf, 0.0
        flat[2::5] = -0.0
    agree(found, given)
