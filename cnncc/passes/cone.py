"""The cones of a unit: everything that feeds it, and everything that it feeds, as sets of indices
per axis for every tensor of the network.

A set of elements is kept as a product of sets, one per axis, which all operators but a reshape map
to such products. Behind a reshape of more than one element the smallest product around them stands
for them, so a cone there can only be too large, never too small.

Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), figures 9.2 to 9.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cnncc.errors import Diagnostic, SpecError, did_you_mean
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.passes.reads import Reads, Relation, relation
from cnncc.tensor import TensorType, evaluate

MOST_POSITIONS = 1 << 16
"""The longest axis whose indices are listed, of tensors with positions."""

MOST_FEATURES = 1 << 22
"""The longest vector whose indices are listed."""

MOST_ELEMENTS = 1 << 20
"""The most elements that are followed one by one through a reshape."""

_UNIT = re.compile(r"\s*(?P<layer>[^\[\]]+?)\s*\[(?P<index>[0-9,\s]*)\]\s*")
_DIGITS = 12

Box = tuple[tuple[int, ...], ...]
"""Indices along each axis, channels first, in ascending order; no axis is empty."""


@dataclass(frozen=True)
class Cone:
    """The tensors that feed a unit (`backward`) and that it feeds (`forward`), with the unit's own
    among neither; by node name, in graph order.
    """

    node: Node
    index: tuple[int, ...]
    backward: Mapping[str, Box]
    forward: Mapping[str, Box]


def cone(graph: Graph, unit: str) -> Cone:
    """The cones of a unit such as `c3[4, 5, 7]`.

    Raises SpecError: E0810 for a name of no layer or an index outside of it, E0812 where extents
    are symbolic or too long to be listed.
    """
    node, index = find_unit(graph, unit)
    for other in graph.nodes:
        most = MOST_POSITIONS if other.type.rank else MOST_FEATURES
        if not other.type.batched:
            continue
        if other.type.symbols or any(evaluate(e, {}) > most for e in other.type.shape):
            raise SpecError(
                Diagnostic(
                    "E0812",
                    f"the units of `{other.name}` ({other.type}) cannot be listed: extents must be "
                    f"known, and at most {most}",
                    other.origin.span,
                    helps=("give the input fixed and smaller extents",),
                )
            )
    start: Box = tuple((i,) for i in index)
    return Cone(node, index, _backward(graph, node, start), _forward(graph, node, start))


def find_unit(graph: Graph, unit: str) -> tuple[Node, tuple[int, ...]]:
    """The node of a unit and its index, channels first. Raises SpecError (E0810)."""
    found = _UNIT.fullmatch(unit)
    layer = found["layer"] if found else unit.strip()
    node = _result(graph, layer)
    shape = ", ".join(map(str, node.type.shape))
    parts = [p.strip() for p in found["index"].split(",")] if found else []
    if len(parts) != len(node.type.shape) or not all(p and len(p) <= _DIGITS for p in parts):
        raise _no_unit(
            f"a unit of `{layer}` has {len(node.type.shape)} indices, channels first, but got "
            f"`{unit}`",
            f"its extents are [{shape}]: `{layer}[{', '.join('0' for _ in node.type.shape)}]`",
        )
    index = tuple(int(p) for p in parts)
    for i, extent in zip(index, node.type.shape, strict=True):
        if isinstance(extent, int) and i >= extent:
            raise _no_unit(
                f"`{unit}` is outside of `{layer}`: {i} is not less than {extent}",
                f"its extents are [{shape}]",
            )
    return node, index


def _result(graph: Graph, layer: str) -> Node:
    """The node with a layer's result, or an input."""
    nodes = [n for n in graph.nodes if n.type.batched and not isinstance(n.op, Constant)]
    own = [n for n in nodes if (n.origin.layer or n.name) == layer] or [
        n for n in nodes if n.name == layer
    ]
    if own:
        return own[-1]
    known = list(dict.fromkeys(n.origin.layer or n.name for n in nodes))
    near = [f"did you mean `{n}`?" for n in did_you_mean(layer, known)]
    raise _no_unit(
        f"`{graph.name}` has no layer `{layer}`",
        *(near or [f"its layers are {', '.join(known[:12])}{', ...' * (len(known) > 12)}"]),
    )


def _no_unit(message: str, *helps: str) -> SpecError:
    return SpecError(Diagnostic("E0810", message, helps=helps))


# --- walking --------------------------------------------------------------------------------------


def _backward(graph: Graph, node: Node, start: Box) -> dict[str, Box]:
    boxes = {node.name: start}
    for reader in reversed(graph.nodes):
        if reader.name not in boxes:
            continue
        for k, name in enumerate(reader.inputs):
            source = graph[name]
            if not source.type.batched or isinstance(source.op, Parameter | Constant):
                continue
            box = _read(graph, reader, k, boxes[reader.name])
            if box is not None:
                boxes[name] = _union(boxes.get(name), box)
    return {n.name: boxes[n.name] for n in graph.nodes if n.name in boxes and n is not node}


def _forward(graph: Graph, node: Node, start: Box) -> dict[str, Box]:
    boxes = {node.name: start}
    for reader in graph.nodes:
        for k, name in enumerate(reader.inputs):
            if name in boxes:
                box = _readers(graph, reader, k, boxes[name])
                if box is not None:
                    boxes[reader.name] = _union(boxes.get(reader.name), box)
    return {n.name: boxes[n.name] for n in graph.nodes if n.name in boxes and n is not node}


def _read(graph: Graph, reader: Node, k: int, box: Box) -> Box | None:
    """What some elements of a result read of operand k; None for nothing."""
    operand = graph[reader.inputs[k]].type
    if reader.op.name == "reshape":
        return _reshaped(reader.type, operand, box)
    found: list[tuple[int, ...]] = []
    for a, reads in enumerate(relation(graph, reader, k).axes):
        if reads is None:
            found.append(_all(operand)[a])
        else:
            axis, at = reads
            found.append(_sorted(i for o in box[axis] for i in at(o)))
    return tuple(found) if all(found) else None


def _readers(graph: Graph, reader: Node, k: int, box: Box) -> Box | None:
    """Elements of a result that read some of operand k; None for none."""
    if reader.op.name == "reshape":
        return _reshaped(graph[reader.inputs[k]].type, reader.type, box)
    known: Relation = relation(graph, reader, k)
    found = list(_all(reader.type))
    for own, reads in zip(box, known.axes, strict=True):
        if reads is not None:
            axis, at = reads
            found[axis] = _meeting(found[axis], at, set(own))
    return tuple(found) if all(found) else None


def _meeting(results: tuple[int, ...], at: Reads, wanted: set[int]) -> tuple[int, ...]:
    """The results that read some of the wanted indices; those of a group read the same range."""
    known: dict[range, bool] = {}
    found = []
    for o in results:
        reads = at(o)
        if isinstance(reads, range):
            if reads not in known:
                known[reads] = not wanted.isdisjoint(reads)
            meets = known[reads]
        else:
            meets = not wanted.isdisjoint(reads)
        if meets:
            found.append(o)
    return tuple(found)


def _reshaped(source: TensorType, target: TensorType, box: Box) -> Box:
    """Where elements are after a reshape: the smallest product that has them all."""
    number = math.prod(len(axis) for axis in box)
    extents = [evaluate(e, {}) for e in source.shape]
    if number > MOST_ELEMENTS or number == math.prod(extents):
        return _all(target)
    flat = np.ravel_multi_index([axis.ravel() for axis in np.meshgrid(*box)], extents)
    places = np.unravel_index(flat, [evaluate(e, {}) for e in target.shape])
    return tuple(_sorted(axis.tolist()) for axis in places)


def _all(t: TensorType) -> Box:
    return tuple(tuple(range(evaluate(e, {}))) for e in t.shape)


def _union(a: Box | None, b: Box) -> Box:
    if a is None or a == b:
        return b
    return tuple(_sorted((*x, *y)) for x, y in zip(a, b, strict=True))


def _sorted(indices: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(indices)))


# --- text -----------------------------------------------------------------------------------------


def ranges_text(box: Box) -> str:
    """`[0..5, 10..23, 4]`: indices per axis, with `step` where they are evenly apart."""
    return f"[{', '.join(_axis_text(axis) for axis in box)}]"


def _axis_text(axis: tuple[int, ...]) -> str:
    first, last = axis[0], axis[-1]
    if len(axis) == 1:
        return str(first)
    step = axis[1] - first
    if axis == tuple(range(first, last + 1, step)) and len(axis) > 2:
        return f"{first}..{last}" + (f" step {step}" if step > 1 else "")
    return "{" + _runs(axis) + "}" if len(axis) > 2 or step > 1 else f"{first}..{last}"


def _runs(axis: tuple[int, ...]) -> str:
    """Consecutive indices as ranges: `1..3, 7, 9..12`."""
    runs: list[list[int]] = []
    for i in axis:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
