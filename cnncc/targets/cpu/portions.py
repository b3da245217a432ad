"""How many samples of a call run at a time.

On a large batch an activation has left the cache before a later layer reads it. The same samples
in portions stay there, but every portion reads the parameters again and does all steps once more.
The time of both is estimated, in multiply-accumulates, and decides; what must fit the memory that
is allowed decides before.

An activation comes from memory when what was touched since its last use does not fit the cache
(Mattson, Gecsei, Slutz, Traiger, "Evaluation techniques for storage hierarchies", 1970: the stack
distance). Parameters are read in order, so they come while others are used, and wait only where a
step has too little to do meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

WORTH = 0.98  # of the time of a whole batch: above that, there are no portions
UNEVEN = 1.05  # times the time where cores share a sample of several: three samples on two cores

STEP = 500_000  # multiply-accumulates in the time in which threads get and leave a step
LEAVING = 1.5  # times what a cache holds leaves it while as much again is touched


@dataclass(frozen=True)
class Costs:
    """Of a byte, in the multiply-accumulates for which there is as much time. parameter: one of
    parameters, where nothing else takes as long. hidden: where the step's own work takes longer.
    away: one of activations that has left the cache, which is written and read there.
    """

    parameter: float
    hidden: float
    away: float


NEAR = Costs(4.0, 1.0, 7.0)  # two Zen 4 cores: 117 in a nanosecond, 30 bytes from memory
WIDE = Costs(5.0, 3.0, 5.0)  # two of Zen 5: 266 and 52
FAR = Costs(6.0, 1.5, 7.0)  # two of Granite Rapids: 175 and 30, and 57 from the last cache


@dataclass(frozen=True)
class Work:
    """A step: multiply-accumulates of one sample, bytes of its activations, one sample's, and of
    its parameters, by tensor.
    """

    macs: int
    samples: Mapping[str, int]
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Use:
    """Bytes of one sample that a step uses again, and all that was touched since the step that used
    them last began: bytes of every sample, and of parameters.
    """

    bytes: int
    samples: int
    parameters: int

    def away(self, portion: int, cache: int) -> float:
        """The share that has left the cache. It begins to go when half of the cache is touched,
        since others use it too and its sets do not fill evenly.
        """
        between = portion * self.samples + self.parameters
        return min(max(LEAVING * (between / cache - 0.5), 0.0), 1.0)


@dataclass(frozen=True)
class Traffic:
    """The steps of inference, and what a byte costs on the machine. `cores`: of the machine, since
    a plan does not depend on how many threads run it.
    """

    steps: Sequence[Work]
    costs: Costs = NEAR
    cores: int = 1

    @cached_property
    def uses(self) -> Sequence[Sequence[Use]]:
        """Of every step what it uses again."""
        recent: dict[str, tuple[int, int]] = {}  # by tensor bytes; the latest last
        found = []
        for step in self.steps:
            own = {n: (b, 0) for n, b in step.samples.items()}
            own |= {n: (0, b) for n, b in step.parameters.items()}
            again = [n for n in step.samples if n in recent]
            found.append([Use(step.samples[n], *_between(n, recent, own)) for n in again])
            for name in own:
                recent.pop(name, None)
            recent |= own
        return found

    @cached_property
    def parameters(self) -> int:
        """Bytes of all of them."""
        return sum({n: b for s in self.steps for n, b in s.parameters.items()}.values())

    def time(self, portion: int, cache: int) -> float:
        """Of one portion of so many samples."""
        total, costs = 0.0, self.costs
        for step, uses in zip(self.steps, self.uses, strict=True):
            read = sum(step.parameters.values()) if self.parameters > cache else 0
            away = portion * sum(use.bytes * use.away(portion, cache) for use in uses)
            own = max(step.macs * portion + costs.hidden * read, costs.parameter * read)
            total += STEP + own + costs.away * away
        return total * (1 if self._even(portion) else UNEVEN)

    def _even(self, portion: int) -> bool:
        """Whether every sample is one core's, or as many cores have each: of three samples two
        cores have the half of one, which then passes from core to core.
        """
        return portion % self.cores == 0 or self.cores % portion == 0


def _between(
    name: str, recent: dict[str, tuple[int, int]], own: dict[str, tuple[int, int]]
) -> tuple[int, int]:
    """Bytes of samples and of parameters that are touched between two uses of a tensor: itself, all
    that came later, and half of what else the second step touches, which goes through all at once.
    """
    later = {n: recent[n] for n in takewhile(lambda n: n != name, reversed(recent))}
    beside = [bytes for n, bytes in own.items() if n != name and n not in later]
    touched = [own[name], *later.values()]
    samples, parameters = (
        sum(b[which] for b in touched) + sum(b[which] for b in beside) // 2 for which in (0, 1)
    )
    return samples, parameters


def samples_at_once(traffic: Traffic, batch: int, cache: int) -> int:
    """The portion that takes the least time, the largest of several; the batch where portions save
    next to nothing. `cache`: bytes of the last level that a network may count on.
    """

    def time(portion: int) -> float:
        whole, rest = divmod(batch, portion)
        return whole * traffic.time(portion, cache) + (traffic.time(rest, cache) if rest else 0)

    equal = _portions(batch)
    even = [p - p % traffic.cores for p in equal if p > traffic.cores]
    found = min((*equal, *even), key=lambda p: (time(p), -p))
    return found if time(found) <= WORTH * time(batch) else batch


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
