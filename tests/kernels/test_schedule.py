"""Schedules: how many lanes an axis takes, and how many vectors."""

from __future__ import annotations

import pytest

from cnncc.ops.winograd import WinogradInput
from cnncc.targets.cpu.schedule import block_lanes, choose, narrowed
from cnncc.tensor import DType, TensorType, symbol


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
