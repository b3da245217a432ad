"""What rectifiers and max pools decide: which elements pass, and which element of each window is
the largest.

A gradient depends on these decisions, and they jump: where the input of a rectifier is about zero,
or the two largest of a window are about equal, two float32 computations of the same network may
decide differently without either being wrong. With the decisions given, the rest of the gradient is
a smooth function, and can be compared to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cnncc.graph.ir import Graph, Node

Array = np.ndarray[Any, np.dtype[Any]]
DECIDING = ("relu", "maxpool")


def deciding(graph: Graph) -> list[Node]:
    """The nodes of a graph whose gradient jumps."""
    return [n for n in graph.nodes if n.op.name in DECIDING]


def observed(graph: Graph) -> Graph:
    """The forward graph with what every decision is read from as its outputs."""
    names = dict.fromkeys(n.inputs[0] for n in deciding(graph))
    return replace(graph, outputs=tuple((name, name) for name in names))


def decisions(graph: Graph, seen: Mapping[str, Array]) -> dict[str, Array]:
    """By the names of the deciding nodes: for a rectifier what passes (bool, the shape of its
    input), for a pool the place in the map of each window's first maximum (i64, the shape of its
    output).

    `seen`: the outputs of `observed(graph)`.
    """
    found = {}
    for node in deciding(graph):
        x = seen[node.inputs[0]]
        found[node.name] = x > 0 if node.op.name == "relu" else _maxima(node, x)
    return found


def _maxima(node: Node, x: Array) -> Array:
    window: Any = node.op.window  # type: ignore[attr-defined]
    if len(window) != 2 or any(a.lo != a.hi or a.dilation > 1 for a in window):
        raise NotImplementedError(f"{node.name}: only what PyTorch's max_pool2d does by itself")
    _, places = F.max_pool2d(
        torch.from_numpy(x),
        tuple(a.size for a in window),
        tuple(a.stride for a in window),
        tuple(a.lo for a in window),
        ceil_mode=any(a.fit == "partial" for a in window),
        return_indices=True,
    )
    return places.numpy()


def flips(one: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[int, int]:
    """How many decisions differ, and how many there are."""
    assert one.keys() == other.keys()
    different = sum(int((one[name] != other[name]).sum()) for name in one)
    return different, sum(d.size for d in one.values())
