"""Schedules: how many lanes an axis takes."""

from __future__ import annotations

import pytest

from cnncc.targets.cpu.schedule import block_lanes, narrowed
from cnncc.tensor import symbol


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
