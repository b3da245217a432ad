"""Pools across channels: the layers `maxout` and `channelpool`.

Groups of neighbouring channels are taken together at every position, so that a unit may learn to be
invariant to what its features differ in. The operators are the pools over positions, with windows
of one position (see `pool_window.whole`). Source: Goodfellow, Warde-Farley, Mirza, Courville and
Bengio, "Maxout Networks" (2013).
"""

from __future__ import annotations

from typing import Literal

from cnncc.graph.ir import Node
from cnncc.graph.layer import Count, LayerBuilder
from cnncc.ops.base import Op, layer
from cnncc.ops.pool_average import AvgPool
from cnncc.ops.pool_max import MaxPool
from cnncc.ops.pool_norm import LpPool
from cnncc.window import Axis

Kind = Literal["max", "avg", "l2"]


@layer("maxout", "pooling")
def maxout(b: LayerBuilder, x: Node, channels: Count) -> Node:
    """The largest of each group of `channels` neighbouring channels: [C, s...] -> [C / channels,
    s...].

    The gradient goes to the first maximum. Works on images and on vectors.

    Example: `x -> conv(96, 3x3) -> maxout(2)`
    """
    return channelpool(b, x, channels)


@layer("channelpool", "pooling")
def channelpool(b: LayerBuilder, x: Node, channels: Count, *, kind: Kind = "max") -> Node:
    """Pool each group of `channels` neighbouring channels: [C, s...] -> [C / channels, s...].

    `kind` is the largest (max, as `maxout`), the mean (avg) or the norm sqrt(sum x^2) (l2).

    Example: `x -> conv(64, 5x5) -> channelpool(4, kind = l2)`
    """
    if channels < 2:
        b.error(
            "E0213",
            f"a pool across channels takes at least 2 of them together, but got {channels}",
            argument="channels",
            fixes=["channels = 2"],
        )
    still = (Axis(1),) * max(x.type.rank, 0)
    ops: dict[Kind, Op] = {
        "max": MaxPool(still, channels),
        "avg": AvgPool(still, across=channels),
        "l2": LpPool(still, across=channels),
    }
    return b.add(ops[kind], x)
