"""How many samples of a call run at a time.

On a large batch the activations of a layer leave the cache before the next layer reads them. The
same samples in portions stay there, but every portion reads the parameters again. What moves to and
from memory decides: the activations of the steps that do not fit, once, and the parameters, where
they do not fit, once per portion. What must fit the memory that is allowed decides before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WORTH = 0.9  # of the bytes that a whole batch moves: below that, portions are taken


@dataclass(frozen=True)
class Traffic:
    """Bytes that steps touch: of one sample's activations, step by step, and of all parameters."""

    steps: tuple[int, ...]
    parameters: int

    def moved(self, batch: int, portion: int, cache: int) -> int:
        """Bytes to and from memory for a batch in portions of so many samples."""
        times = -(-batch // portion) if self.parameters > cache else 1
        leaving = sum(b for b in self.steps if b * portion > cache)
        return leaving * batch + times * self.parameters


def samples_at_once(traffic: Traffic, batch: int, cache: int) -> int:
    """The portion that moves the least, in as few portions as that allows; the batch where it makes
    no difference. `cache`: bytes of the last level that a network may count on.
    """
    whole = traffic.moved(batch, batch, cache)
    found = min(_portions(batch), key=lambda p: (traffic.moved(batch, p, cache), -p))
    return found if traffic.moved(batch, found, cache) <= WORTH * whole else batch


def largest_that_fits(batch: int, most: int, fits: Callable[[int], bool]) -> int:
    """The largest portion of a batch, at most `most`, that fits; 1 where none does. Where some
    portion fits, smaller ones are taken to fit as well.
    """
    if fits(most):
        return most
    sizes = sorted(p for p in _portions(batch) if p < most)
    return sizes[max(bisect_left(sizes, True, key=lambda p: not fits(p)) - 1, 0)] if sizes else most


def at_a_time(portion: int, batch: int) -> str:
    """What to add to `batch 16` in a report, where it runs in portions."""
    if portion >= batch:
        return ""
    return f", {portion} {'sample' if portion == 1 else 'samples'} at a time"


def _portions(batch: int) -> Iterable[int]:
    """Every size of portions of about the same size."""
    return dict.fromkeys(-(-batch // n) for n in range(1, batch + 1))
