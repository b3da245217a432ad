"""The limits of what a text may ask the compiler to build, each with its own code: whatever the
text says, building stops with a diagnostic after a moment and before anything large exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.graph.ir import Builder, Node, Operator, Origin, ShapeError
from cnncc.tensor import Extent, Symbol, TensorType, product

LAYERS = 10_000
"""Layers of a network after blocks and repeats are expanded."""

NODES = 16 * LAYERS
"""Nodes of a graph: no layer has more than a few."""

REPEAT = LAYERS
"""Times that a `repeat` may run its body."""

STEPS = 200_000
"""Expressions that are evaluated while a network is built."""

DEPTH = 150
"""Expressions inside expressions; a block that uses a block counts as ten."""

VALUE_DEPTH = 16
"""Tuples, lists and words with arguments inside each other."""

INTEGER = 1 << 63
"""Bound on the absolute value of every compile-time integer."""

EXTENT_SIZE = 96
"""Symbols, numbers and divisions in an extent that is not known yet."""

EXTENT = (1 << 31) - 1
"""The largest extent of one axis."""

ELEMENTS = 1 << 39
"""The most elements of one tensor, without the batch axis."""

FILE_DEPTH = 8
"""Imports inside imports."""

FILES = 100
"""Files of one program."""


def extent_size(extent: Extent) -> int:
    """Symbols, numbers and divisions in an extent; what is made of extents within the limit is
    small enough to be counted."""
    if isinstance(extent, int):
        return 1
    size = 0
    for monomial, _ in extent.terms:
        size += 1
        for atom in monomial:
            size += 1 if isinstance(atom, Symbol) else 1 + extent_size(atom.numerator)
    return size


def check_type(type: TensorType, what: str) -> None:
    """Raise ShapeError unless known extents are in 1..EXTENT and elements at most ELEMENTS."""
    for extent in type.shape:
        if extent_size(extent) > EXTENT_SIZE:
            raise ShapeError(
                "E0125",
                f"the formula of an extent of {what} becomes too large",
                fixes=["give the input fixed extents"],
            )
        if isinstance(extent, int) and not 1 <= extent <= EXTENT:
            raise ShapeError(
                "E0126",
                f"an extent lies between 1 and {EXTENT:_}, but {what} would be {type}",
            )
    elements = product(e for e in type.shape if isinstance(e, int))
    assert isinstance(elements, int)
    if elements > ELEMENTS:
        raise ShapeError(
            "E0127",
            f"a tensor has at most 2^39 elements, but {what} would be {type}",
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
