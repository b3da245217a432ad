"""Whether the calls of a small network are faster by the team or by their caller alone.

A team hands activations from core to core after every kernel. In a network of ten microseconds that
is a third of the time where the cores share a cache, and more than they gain where they do not; on
a rented machine this changes from minute to minute. So such calls are timed now and then, some by
the team and some alone, and the others go the way that took less time. Bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Protocol

from cnncc.targets.arrays import Array

TRIED = 15  # calls that are timed, of each way
WARM = 100  # calls of the team before: waking its threads takes half a millisecond
AGAIN = 5_000  # calls until both ways are timed once more
LONG = 50e-6  # seconds: calls that take the team longer take one thread longer still


class Ways(Protocol):
    """A team, of which `run` makes all threads work, and `alone` none but the caller's."""

    size: int

    def run(self, entry_address: int, job: Array, place: int = 0) -> None: ...

    def alone(self, entry_address: int, job: Array, place: int) -> None: ...


class Pace:
    """The calls of one kind. Several threads may run them at once; what they measure together is
    then worth less, and a later trial corrects it.
    """

    __slots__ = ("_alone", "_clock", "_left", "_team", "_times", "_tries", "_warm")

    def __init__(self, team: Ways, clock: Callable[[], float] = perf_counter) -> None:
        self._team, self._clock = team, clock
        self._alone = False
        self._tries = team.size > 1
        self._left = WARM
        self._warm = True  # the last calls were so many of the team
        self._times: list[float] = []  # of a trial: those of the team, then those of the caller

    def run(self, entry_address: int, job: Array, place: int) -> None:
        """Run an entry on a job at this place."""
        self._left -= 1
        if self._left < 0 and self._tries:
            self._try(entry_address, job, place)
        elif self._alone:
            self._team.alone(entry_address, job, place)
        else:
            self._team.run(entry_address, job, place)

    def _try(self, entry_address: int, job: Array, place: int) -> None:
        if not self._warm:
            self._warm, self._alone, self._left = True, False, WARM
            self._team.run(entry_address, job, place)
            return
        start = self._clock()
        if len(self._times) < TRIED:
            self._team.run(entry_address, job, place)
        else:
            self._team.alone(entry_address, job, place)
        self._times.append(self._clock() - start)
        together, alone = self._times[:TRIED], self._times[TRIED:]
        long = len(together) == TRIED and min(together) > LONG  # the fastest: others may use a core
        if long or len(alone) >= TRIED:
            self._alone = not long and median(alone) < median(together)
            self._warm, self._left, self._times = False, AGAIN, []
