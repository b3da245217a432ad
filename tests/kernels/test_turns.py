"""When a difference of times counts as a gain."""

from __future__ import annotations

import pytest

from cnncc.model.turns import LEAST, Turns


def turns(*ratios: float) -> Turns:
    """After by before, turn by turn, while the machine gets slower and slower."""
    before = tuple(1.0 + i for i in range(len(ratios)))
    return Turns(before, tuple(b * r for b, r in zip(before, ratios, strict=True)))


def test_a_gain_is_the_median_of_the_turns() -> None:
    found = turns(0.9, 0.8, 0.7, 5.0, 0.8)
    assert found.gain == pytest.approx(0.2)
    assert found.is_faster
    assert not found.is_slower


@pytest.mark.parametrize(
    "ratios",
    [
        [1.0] * 8,
        [1 - LEAST / 2] * 8,  # too little to be worth anything
        [0.5, 0.5, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5],  # one of two turns says so, one the contrary
        [1.2] * 8,
    ],
)
def test_what_the_noise_could_be_is_no_gain(ratios: list[float]) -> None:
    assert not turns(*ratios).is_faster


def test_a_loss_must_be_beyond_the_noise_too() -> None:
    assert turns(*[1.1] * 8).is_slower
    assert not turns(1.1, 1.1, 1.1, 1.1, 1.1, 0.9, 0.9, 0.9).is_slower


def test_turns_that_something_disturbed_do_not_matter() -> None:
    assert turns(*[0.9] * 13, 30.0, 40.0).is_faster
    assert turns(*[0.9] * 13, 30.0, 40.0).spread == pytest.approx((0.1, 0.1))
