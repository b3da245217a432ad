"""The memory plan: where each tensor lives while the kernels run.

Tensors of the caller (inputs), of the network (parameters, constants, prepared values) and of one
run (everything else) are told apart; those of a run share one arena, in which a tensor's bytes are
free again after the last kernel that reads it.
Offsets: largest tensor first, each at the lowest place where it meets no tensor that lives at the
same time (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020,
greedy by size).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Life:
    """The kernels, by number, from the one that writes a tensor to the last that touches it."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """Arena offsets in bytes, and the arena's size: the peak, known before anything is
    allocated.
    """

    offsets: Mapping[str, int]
    size: int
    lives: Mapping[str, Life]


def lives(
    kernels: Sequence[Sequence[str]], persistent: Collection[str], to_the_end: Collection[str]
) -> dict[str, Life]:
    """The lives of all tensors of a run.

    `kernels`: the tensors of each kernel. `to_the_end`: results, which are read after the last.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, tensors in enumerate(kernels):
        for tensor in tensors:
            if tensor in persistent:
                continue
            first.setdefault(tensor, number)
            last[tensor] = number
    end = len(kernels)
    return {t: Life(first[t], end if t in to_the_end else last[t]) for t in first}


def plan(lives: Mapping[str, Life], sizes: Mapping[str, int]) -> Plan:
    """Place tensors of the given sizes (bytes, already rounded up to the alignment)."""
    placed: list[tuple[int, int, Life]] = []  # offset, end, life
    offsets: dict[str, int] = {}
    for name in sorted(lives, key=lambda n: (-sizes[n], lives[n].first, n)):
        life, size = lives[name], sizes[name]
        offset = 0
        for start, end, _ in sorted((p for p in placed if p[2].meets(life)), key=lambda p: p[:2]):
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[name] = offset
        placed.append((offset, offset + size, life))
    return Plan(offsets, max((end for _, end, _ in placed), default=0), lives)
