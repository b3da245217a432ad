"""What a person wants to know beside the loss: the share of samples, or of positions, that are put
into the right class. Which output holds the scores of which target, the graph says: it is what the
loss compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.graph.ir import Graph
from cnncc.graph.sources import Input


@dataclass(frozen=True)
class Classification:
    """A target of class numbers, the node of its scores, and the output that shows them."""

    target: str
    scores: str

    @property
    def output(self) -> str:
        """The name under which an evaluation returns the scores; no layer is called so."""
        return f"scores:{self.target}"


def classifications(graph: Graph) -> tuple[Classification, ...]:
    """Every target that the loss compares with scores, once: by its first cross-entropy
    or likelihood."""
    found: dict[str, Classification] = {}
    for node in (*graph.of("cross_entropy"), *graph.of("nll")):
        scores, label = node.inputs
        if isinstance(graph[label].op, Input):
            found.setdefault(label, Classification(label, scores))
    return tuple(found.values())


def correct(scores: NDArray[Any], labels: NDArray[Any]) -> int:
    """How many of the highest scores are those of the label.

    `scores`: (samples, classes, *extents); `labels`: (samples, 1) or (samples, *extents). Of equal
    scores the first counts.
    """
    best = scores.argmax(axis=1)
    return int(np.count_nonzero(best == labels.reshape(best.shape)))
