"""What emitting a nest takes and gives: what a kernel's text must know of memory, the text, and the
order in which it runs the loops, by which its run-time integers are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cnncc.loops.ir import Index, Nest
from cnncc.targets.cpu.schedule import Schedule
from cnncc.targets.cpu.stretches import Stretches
from cnncc.tensor import DType

ROWS_PER_TASK = "rows_per_task"


class Derived(Protocol):
    """What gives integers by the kernel's others, such as how often loops turn."""

    def integers(self, known: Mapping[str, int]) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Emitted:
    """A kernel's module text, and the names of its run-time integers in table order."""

    text: str
    arguments: tuple[str, ...]
    segments: tuple[Segment, ...]
    derived: Mapping[str, tuple[Derived, int]] = field(default_factory=dict)
    """Integers that follow from others, by name: from what, and which of its integers."""


@dataclass(frozen=True)
class Segment:
    """One loop nest of a kernel, and the order in which the kernel runs it."""

    nest: Nest
    schedule: Schedule
    group: Index | None  # the extent of the lane axis, where it is whole blocks
    stretches: Stretches | None


@dataclass(frozen=True)
class Memory:
    """What a kernel's text needs to know of its buffers: the axis that runs fastest, and where
    borders are real.
    """

    innermost: Mapping[str, int] = field(hash=False)
    haloed: frozenset[str] = frozenset()
    padded: frozenset[str] = frozenset()
    in_place: bool = False  # an output lies where an input does
    ahead: DType | None = None  # the type of what another kernel reads next, to which one more
    # argument points
