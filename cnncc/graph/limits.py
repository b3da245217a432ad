"""The limits of what a text may ask the compiler to build, each with its own code: whatever the
text says, building stops with a diagnostic after a moment and before anything large exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.graph.ir import Builder, Node, Operator, Origin, ShapeError
from cnncc.tensor import TensorType, product

LAYERS = 10_000
"""Layers of a network after blocks and repeats are expanded."""

NODES = 16 * LAYERS
"""Nodes of a graph: no layer has more than a few."""

REPEAT = LAYERS
"""Times that a `repeat` may run its body."""

STEPS = 400_000
"""Expressions that are evaluated while a network is built."""

DEPTH = 150
"""Expressions inside expressions; a block that uses a block counts as ten."""

INTEGER = 1 << 63
"""Bound on the absolute value of every compile-time integer."""

EXTENT = (1 << 31) - 1
"""The largest extent of one axis."""

ELEMENTS = 1 << 39
"""The most elements of one tensor, without the batch axis."""

FILE_DEPTH = 8
"""Imports inside imports."""

FILES = 100
"""Files of one program."""


def check_type(type: TensorType, what: str) -> None:
    """Raise ShapeError unless known extents are in 1..EXTENT and elements at most ELEMENTS."""
    for extent in type.shape:
        if isinstance(extent, int) and not 1 <= extent <= EXTENT:
            raise ShapeError(
                "E0126",
                f"{what} would have the shape {type}, but an extent lies between 1 and {EXTENT}",
            )
    elements = product(e for e in type.shape if isinstance(e, int))
    assert isinstance(elements, int)
    if elements > ELEMENTS:
        raise ShapeError(
            "E0127",
            f"{what} would have the shape {type}, but a tensor has at most 2^39 elements",
            arithmetic=[" * ".join(str(e) for e in type.shape) + f" = {elements}"],
        )


@dataclass
class BoundedBuilder(Builder):
    """A builder that refuses types beyond the limits as soon as they come up."""

    def add(
        self, op: Operator, *inputs: Node, name: str = "", origin: Origin | None = None
    ) -> Node:
        node = super().add(op, *inputs, name=name, origin=origin)
        check_type(node.type, op.name)
        if len(self.nodes) > NODES:
            raise ShapeError("E0120", f"a network has at most {NODES} nodes")
        return node
