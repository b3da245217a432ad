"""What rounding does to a network: the same graph in float32 and in float64, layer by layer.

Errors compound: a layer rounds its own sums and passes on what came in. Both runs execute the same
kernels in the same order, so what differs is rounding and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Graph
from cnncc.graph.sources import Source
from cnncc.passes.fuse import fuse
from cnncc.targets.arrays import Array
from cnncc.targets.interp.program import run_interp


@dataclass(frozen=True)
class Rounding:
    """The error of one tensor: the largest one in units in the last place of float32 at the
    tensor's largest value, and the relative L2 error.
    """

    name: str
    operator: str
    ulps: float
    relative: float


def rounding(graph: Graph, given: Mapping[str, Array], batch: int) -> tuple[Rounding, ...]:
    """The errors of all float tensors of a graph, in its order.

    `given` holds inputs and parameters by node name, logical arrays that float32 holds exactly.
    Every node is run as a kernel of its own, so every tensor is seen; fused kernels give the same
    bits.
    """
    fused = fuse(graph, enabled=False)
    narrow = run_interp(fused, _floats(given, np.float32), batch, np.float32)
    wide = run_interp(fused, _floats(given, np.float64), batch, np.float64)
    found = []
    for node in graph.nodes:
        if isinstance(node.op, Source) or not node.type.dtype.is_float:
            continue
        exact = wide[node.name]
        error = np.abs(narrow[node.name].astype(np.float64) - exact)
        largest = np.float32(np.abs(exact).max(initial=0.0))
        norm = float(np.linalg.norm(exact))
        found.append(
            Rounding(
                node.name,
                node.op.name,
                float(error.max(initial=0.0) / np.spacing(largest)),
                float(np.linalg.norm(error)) / (norm or 1.0),
            )
        )
    return tuple(found)


def _floats(
    given: Mapping[str, Array], kind: type[np.float32] | type[np.float64]
) -> dict[str, Array]:
    """Float arrays in the given kind; whole numbers, such as class numbers, as they are."""
    return {k: v.astype(kind) if v.dtype.kind == "f" else v for k, v in given.items()}
