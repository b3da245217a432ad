"""Timing several contestants against each other: in turns A B C A B C, so that what else the
machine does meets all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[], Any]

PAUSE = 0.05  # before a turn: until the threads of the contestant before have stopped to spin
WARM_SECONDS = 0.02  # of calls before those that are timed: its own threads and the core wake up
LEAST_SECONDS = 0.01  # of calls that are timed in a turn
LONG = 0.2  # a call of that many seconds is not warmed up: waking threads is nothing beside it


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call over the turns of one contestant."""

    contestant: str
    median: float
    fastest: float
    low: float  # quartiles
    high: float
    turns: int


def interleave(contestants: Mapping[str, Run], turns: int) -> list[Timing]:
    """So many turns of each. All have run once before."""
    times: dict[str, list[float]] = {c: [] for c in contestants}
    for _ in range(turns):
        for contestant, run in contestants.items():
            last = times[contestant][-1] if times[contestant] else 0.0
            times[contestant].append(turn(run, last))
    return [_timing(c, t) for c, t in times.items()]


def turn(run: Run, last: float = 0.0) -> float:
    """Seconds per call: pause, wake up its threads, then time."""
    time.sleep(PAUSE)
    if last < LONG:
        end = time.perf_counter() + WARM_SECONDS
        run()
        while time.perf_counter() < end:
            run()
    samples: list[float] = []
    begin = time.perf_counter()
    while not samples or time.perf_counter() - begin < LEAST_SECONDS:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def _timing(contestant: str, seconds: list[float]) -> Timing:
    times = [1e3 * s for s in seconds]
    low, median, high = np.percentile(times, [25, 50, 75])
    return Timing(contestant, float(median), min(times), float(low), float(high), len(times))
