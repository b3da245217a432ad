"""Fewer channels for the same machine code.

A kernel goes through channels in blocks of vectors, and its code depends on how many vectors a
block has and on whether channels are left over. So a count loses whole blocks and keeps its rest.
The largest of the counts that become equal keeps two blocks, so that steps from block to block are
seen too: such layers usually have the smallest extents.
"""

from __future__ import annotations

from collections.abc import Mapping

from cnncc.graph.ir import Graph
from cnncc.targets.cpu.schedule import block_lanes
from cnncc.tensor import evaluate

FEWEST = 16
SHARED_GROUPS = 8
"""Up to so many groups each keep their blocks; more groups become fewer."""


class Narrowing:
    """`narrowing(c)` is the count that takes the place of c.

    `lanes`: of a vector of float32, 0 for counts that all stay; `kept`: those that stay.
    """

    def __init__(
        self, graph: Graph, symbols: Mapping[str, int], lanes: int, kept: frozenset[int]
    ) -> None:
        self.lanes, self.kept = lanes, kept
        groups = [int(getattr(n.op, "groups", 1)) for n in graph.nodes]
        self.groups = max((g for g in groups if g <= SHARED_GROUPS), default=1)
        weights = [n.type.shape for n in graph.of("parameter") if len(n.type.shape) > 1]
        self.largest: dict[tuple[int, int, int], int] = {}
        if lanes:
            for c in sorted({evaluate(shape[0], symbols) for shape in weights} - kept):
                self.largest[self._code(c)] = c

    def __call__(self, channels: int) -> int:
        if not self.lanes or channels in self.kept:
            return channels
        shares, block, rest = self._code(channels)
        each = channels // shares
        blocks = 2 if self.largest.get((shares, block, rest)) == channels else 1
        least = max(blocks * block, FEWEST)
        fewer = (c for c in range(least, each) if self._block(c) == (block, rest))
        return shares * next(fewer, each)

    def _code(self, channels: int) -> tuple[int, int, int]:
        """What the code of a kernel depends on: groups, the channels of a block, and the rest."""
        shares = self.groups if channels % self.groups == 0 else 1
        return shares, *self._block(channels // shares)

    def _block(self, channels: int) -> tuple[int, int]:
        block = block_lanes(channels, self.lanes)
        return block, channels % block
