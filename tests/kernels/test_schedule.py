"""Schedules: how many lanes an axis takes, and how many vectors."""

from __future__ import annotations

import pytest

from cnncc.ops.conv import Conv
from cnncc.ops.winograd import WinogradInput
from cnncc.targets.cpu import machine
from cnncc.targets.cpu.schedule import block_lanes, choose, narrowed, near_weights
from cnncc.tensor import DType, TensorType, symbol
from cnncc.window import Axis


@pytest.mark.parametrize(
    ("extent", "lanes", "taken"),
    [
        (1, 16, 4),
        (4, 16, 4),
        (5, 16, 8),
        (8, 16, 8),
        (9, 16, 16),
        (40, 16, 16),
        (3, 8, 4),
        (3, 1, 1),
    ],
)
def test_few_channels_take_few_lanes(extent: int, lanes: int, taken: int) -> None:
    assert narrowed(extent, lanes) == taken
    assert block_lanes(extent, lanes) % taken == 0


def test_an_extent_that_is_not_known_takes_all() -> None:
    assert narrowed(symbol("H"), 16) == 16


@pytest.mark.parametrize(("m", "held", "vectors"), [(4, 32, 1), (4, 64, 2), (2, 64, 2)])
def test_values_of_all_vectors_are_held_in_registers(m: int, held: int, vectors: int) -> None:
    op = WinogradInput(m, ((1, 1), (1, 1)))
    x = TensorType(DType.F32, (64, 8, 8))
    nest = op.nest((x,), op.infer((x,)))
    assert choose(nest, {"x": 1, "v": 1}, 16, held=held).vectors == vectors


@pytest.mark.parametrize(
    ("channels", "taps", "extent", "near", "width"),
    [
        (384, 1, 14, 12288, 7),  # 384 x 32 weights: all near
        (385, 1, 14, 12288, 14),
        (385, 1, 14, 0, 7),
        (128, 3, 28, 12288, 14),
        (128, 3, 26, 12288, 13),
        (512, 1, 7, 12288, 7),  # no more positions than there are
    ],
)
def test_far_weights_are_read_for_more_positions_at_a_time(
    channels: int, taps: int, extent: int, near: int, width: int
) -> None:
    op = Conv((Axis(taps, 1, 1, taps // 2, taps // 2),) * 2)
    x = TensorType(DType.F32, (channels, extent, extent))
    w = TensorType(DType.F32, (64, channels, taps, taps), batched=False)
    nest = op.nest((x, w), op.infer((x, w)))
    schedule = choose(nest, {"x": 1, "w": 0, "y": 1}, 16, near=near)
    assert (schedule.width, schedule.vectors) == (width, 2)


def test_where_weights_are_near_is_counted_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_caches", lambda: (48 << 10, 2 << 20, 0))
    monkeypatch.setattr(machine.llvm, "get_host_cpu_name", lambda: "sapphirerapids")
    machine.hungry_cache.cache_clear()
    try:
        assert near_weights(16, DType.F32) == 12288
        assert near_weights(8, DType.F64) == 6144
    finally:
        machine.hungry_cache.cache_clear()
