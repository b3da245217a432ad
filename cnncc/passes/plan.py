"""The memory plan: where each tensor lives while the kernels run.

Tensors of the caller (inputs), of the network (parameters, constants, prepared values) and of one
run (everything else) are told apart; those of a run share one arena, in which a tensor's bytes are
free again after the last kernel that reads it.
Offsets: largest tensor first, each at the lowest place where it meets no tensor that lives at the
same time (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020,
greedy by size).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant, Parameter


def prepared(graph: Graph) -> frozenset[str]:
    """The nodes that depend on parameters and constants only: computed again when the parameters
    change, not in a run.

    A graph with updates changes its parameters in every run, and prepares nothing.
    """
    if graph.updates:
        return frozenset()
    fixed = {n.name for n in graph.nodes if isinstance(n.op, Parameter | Constant)}
    found = set()
    for node in graph.nodes:
        if node.inputs and fixed.issuperset(node.inputs) and not node.type.batched:
            fixed.add(node.name)
            found.add(node.name)
    return frozenset(found)


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
    placed: list[tuple[int, int, int, int]] = []  # start, end, first, last; by start
    offsets: dict[str, int] = {}
    for name in sorted(lives, key=lambda n: (-sizes[n], lives[n].first, n)):
        own_first, own_last, size = lives[name].first, lives[name].last, sizes[name]
        offset = 0
        for start, end, first, last in placed:
            if first > own_last or own_first > last:
                continue
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[name] = offset
        insort(placed, (offset, offset + size, own_first, own_last))
    return Plan(offsets, max((end for _, end, _, _ in placed), default=0), lives)
