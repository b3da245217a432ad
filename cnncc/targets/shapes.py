"""What the arrays of a call say about batch and symbolic extents, and whether a graph allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnncc.errors import Diagnostic, Note, SpecError
from cnncc.graph.ir import Graph
from cnncc.targets.arrays import Array
from cnncc.tensor import Poly, Symbol, evaluate


@dataclass(frozen=True)
class Shape:
    """The batch size and symbolic extents of a call."""

    batch: int
    symbols: tuple[tuple[str, int], ...]


def shape_of(graph: Graph, inputs: Mapping[str, Array]) -> Shape:
    """What the arrays say about batch and extents.

    `inputs`: logical arrays by the names of input nodes. Raises ValueError when an array does not
    fit its node's type, or when two arrays disagree.
    """
    batch: int | None = None
    symbols: dict[str, int] = {}
    for node in graph.of("input"):
        if node.name not in inputs:
            continue
        shape = inputs[node.name].shape
        if len(shape) != node.type.axes:
            raise ValueError(f"{node.name}: expected {node.type}, got an array of shape {shape}")
        if node.type.batched:
            if batch is not None and batch != shape[0]:
                raise ValueError(
                    f"{node.name}: a batch of {shape[0]}, but another input has {batch}"
                )
            batch = shape[0]
            shape = shape[1:]
        for extent, n in zip(node.type.shape, shape, strict=True):
            name = _lone_symbol(extent)
            if name is None:
                continue
            if symbols.setdefault(name, n) != n:
                raise ValueError(f"{node.name}: {name} is {n} here, but {symbols[name]} elsewhere")
        expected = node.type.concrete(symbols).dims(batch or 0)
        if expected != inputs[node.name].shape:
            got = inputs[node.name].shape
            raise ValueError(f"{node.name}: expected {node.type}, got an array of shape {got}")
    return Shape(1 if batch is None else batch, tuple(sorted(symbols.items())))


def _lone_symbol(extent: int | Poly) -> str | None:
    if isinstance(extent, Poly) and len(extent.terms) == 1:
        monomial, coefficient = extent.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0].name
    return None


def check_extents(graph: Graph, shape: Shape) -> None:
    """Rerun what was promised for symbolic extents. Raises SpecError (E0804)."""
    values = dict(shape.symbols)
    if not values:
        return
    found = []
    for condition in graph.conditions:
        n = evaluate(condition.extent, values)
        if n % condition.divisor:
            text = f"{condition.text}: {condition.divisor} does not divide {condition.extent} = {n}"
            found.append(_extent_error(text, condition.origin.span, values))
    for node in graph.nodes:
        if any(not isinstance(e, int) or e < 1 for e in node.type.concrete(values).shape):
            text = f"{node.name} would be {node.type.concrete(values)}"
            found.append(_extent_error(text, node.origin.span, values))
    if found:
        raise SpecError(found)


def _extent_error(text: str, span: Any, values: Mapping[str, int]) -> Diagnostic:
    given = ", ".join(f"{k} = {v}" for k, v in values.items())
    return Diagnostic(
        "E0804",
        text,
        span,
        notes=(Note(f"the data have {given}"),),
        helps=("pad or crop the data",),
    )
