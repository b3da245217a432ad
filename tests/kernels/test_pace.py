"""A small network's calls go the way that takes less time, found by trying both."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.targets.cpu.pace import AGAIN, LONG, TRIED, WARM, Pace
from tests.kernels.primitives import same_bits

JOB = np.zeros(4, np.int64)
ONCE_MORE = AGAIN + 1 + WARM + 2 * TRIED  # calls from one trial's end to that of the next


class Fake:
    """A team on a clock of its own, on which every call takes so many seconds."""

    def __init__(self, together: float, alone: float, size: int = 2) -> None:
        self.size, self.times, self.now = size, {"run": together, "alone": alone}, 0.0
        self.made: list[str] = []

    def run(self, entry_address: int, job: np.ndarray, place: int = 0) -> None:
        self._call("run")

    def alone(self, entry_address: int, job: np.ndarray, place: int) -> None:
        self._call("alone")

    def _call(self, way: str) -> None:
        self.now += self.times[way]
        self.made.append(way)


def pace_of(team: Fake) -> Pace:
    return Pace(team, lambda: team.now)


def calls(pace: Pace, team: Fake, count: int) -> dict[str, int]:
    before = len(team.made)
    for _ in range(count):
        pace.run(0, JOB, 0)
    made = team.made[before:]
    assert len(made) == count
    return {way: made.count(way) for way in ("run", "alone")}


@pytest.mark.parametrize(("together", "alone", "way"), [(8e-6, 9e-6, "run"), (9e-6, 8e-6, "alone")])
def test_calls_go_the_faster_way(together: float, alone: float, way: str) -> None:
    team = Fake(together, alone)
    pace = pace_of(team)
    assert calls(pace, team, WARM + TRIED) == {"run": WARM + TRIED, "alone": 0}
    assert calls(pace, team, TRIED) == {"run": 0, "alone": TRIED}
    assert calls(pace, team, AGAIN)[way] == AGAIN


def test_what_has_changed_is_found_out() -> None:
    team = Fake(9e-6, 8e-6)
    pace = pace_of(team)
    calls(pace, team, WARM + 2 * TRIED)
    team.times["run"] = 4e-6
    calls(pace, team, ONCE_MORE)
    assert calls(pace, team, 100) == {"run": 100, "alone": 0}
    team.times["run"] = 9e-6
    calls(pace, team, ONCE_MORE)
    assert calls(pace, team, 100) == {"run": 0, "alone": 100}


def test_one_slow_call_decides_nothing() -> None:
    team = Fake(8e-6, 9e-6)
    pace = pace_of(team)
    calls(pace, team, WARM)
    team.times["run"] = 1e-3
    calls(pace, team, 1)
    team.times["run"] = 8e-6
    calls(pace, team, 2 * TRIED)
    assert calls(pace, team, 100)["run"] == 100


@pytest.mark.parametrize(("together", "size"), [(2 * LONG, 2), (1e-6, 1)])
def test_long_calls_and_single_threads_are_never_tried(together: float, size: int) -> None:
    team = Fake(together, 1e-9, size)
    assert calls(pace_of(team), team, 3 * AGAIN)["alone"] == 0


def test_a_core_that_was_busy_during_a_trial_is_tried_again() -> None:
    team = Fake(9e-6, 8e-6)
    pace = pace_of(team)
    calls(pace, team, WARM)
    team.times["run"] = 2 * LONG
    assert calls(pace, team, TRIED)["run"] == TRIED
    team.times["run"] = 9e-6
    calls(pace, team, ONCE_MORE)
    assert calls(pace, team, 100) == {"run": 0, "alone": 100}


def test_threads_that_slept_are_woken_before_they_are_timed() -> None:
    team = Fake(8e-6, 9e-6)
    pace = pace_of(team)
    calls(pace, team, WARM + 2 * TRIED + AGAIN)
    team.times["run"] = 16e-6  # the caller does their part
    calls(pace, team, WARM // 2)
    team.times["run"] = 8e-6
    calls(pace, team, WARM + 2 * TRIED)
    assert calls(pace, team, 100)["run"] == 100


def test_both_ways_leave_the_same_bits() -> None:
    model = cnncc.compile("lenet5_modern", num_threads=2)
    x = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
    expected = model(x)
    assert same_bits(model(x), expected)  # by what has been made ready
    ready = model._ready
    assert ready is not None
    for alone in (False, True, False):
        ready._pace._alone, ready._pace._left = alone, 10
        assert all(same_bits(model(x), expected) for _ in range(5))
        assert ready._pace._alone is alone
