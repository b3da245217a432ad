"""By which shifts of the input a network is equivariant: statements that a test can check.

A layer is equivariant along an axis when the input's move by `shift` positions moves its results by
`step` positions, bit for bit, wherever neither place sees a border: f(g(x)) = g'(f(x)) with shifts
g and g' (Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 9.2). A stride s allows
multiples of s only, a tiled convolution of period t multiples of t; local layers, untied biases,
dense layers and whatever reads all positions allow none.

Maximum pooling is besides invariant to small moves: a maximum that stays in its window stays the
result (section 9.3). `tolerance` is how far it may move from the middle of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cnncc.errors import printable
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant
from cnncc.tensor import Extent, TensorType
from cnncc.window import Axis

FREE = ("softmax", "lrn_scale", "concat", "crop", "pad")
"""Operators beside the pointwise ones whose results move as their operands do."""


@dataclass(frozen=True)
class Shift:
    """Along one axis: moving the input by `shift` moves results by `step`; both hold for multiples.

    first..last are the results that see nothing but the input, last is None where that depends on
    a symbolic extent. There is none of them when last < first.
    """

    shift: int
    step: int
    first: int
    last: int | None


Shifts = tuple[Shift, ...]


@dataclass(frozen=True)
class Tolerance:
    """A pool in which a maximum may move by `positions` of its operand from the middle of the
    window, `inputs` positions of the input, per axis, without changing the result.
    """

    layer: str
    positions: tuple[int, ...]
    inputs: tuple[Fraction, ...]


def shifts(graph: Graph) -> dict[str, Shifts | None]:
    """For every node its shifts along the axes of the first input that is data; None for a node
    that has none along some axis, or does not depend on that input.
    """
    found: dict[str, Shifts | None] = {}
    source = next((n for n in graph.of("input") if getattr(n.op, "role", "") == "data"), None)
    for node in graph.nodes:
        if node is source:
            found[node.name] = _start(node.type)
        elif node.type.batched and node.type.rank > 0:
            found[node.name] = _through(graph, node, found)
        else:
            found[node.name] = None
    return found


def tolerances(graph: Graph, found: Mapping[str, Shifts | None]) -> list[Tolerance]:
    """What maximum pools tolerate, in the order of the graph."""
    tolerated = []
    for node in graph.of("maxpool"):
        window, before = getattr(node.op, "window"), found[node.inputs[0]]  # noqa: B009
        if before is None:
            continue
        moves = tuple((axis.size - 1) // 2 * axis.dilation for axis in window)
        inputs = tuple(
            move * Fraction(s.shift, s.step) for move, s in zip(moves, before, strict=True)
        )
        tolerated.append(Tolerance(node.origin.layer or node.name, moves, inputs))
    return tolerated


def last_equivariant(graph: Graph, found: Mapping[str, Shifts | None]) -> list[Node]:
    """The results of layers that move with the input and on which no further such result depends,
    in graph order.
    """
    results = {n.origin.layer or n.name: n.name for n in graph.nodes if n.op.name != "parameter"}
    ends, behind = [], set[str]()  # behind: nodes on which a result that moves depends
    for node in reversed(graph.nodes):
        is_result = results.get(node.origin.layer or node.name) == node.name
        moves = is_result and node.op.name != "input" and found[node.name] is not None
        if moves and node.name not in behind:
            ends.append(node)
        if moves or node.name in behind:
            behind.update(node.inputs)
    return ends[::-1]


def _start(t: TensorType) -> Shifts | None:
    whole = tuple(Shift(1, 1, 0, n - 1 if isinstance(n, int) else None) for n in t.spatial)
    return whole or None


def _through(graph: Graph, node: Node, found: Mapping[str, Shifts | None]) -> Shifts | None:
    moved: list[Shifts] = []
    for k, name in enumerate(node.inputs):
        operand = graph[name]
        if not operand.type.batched or isinstance(operand.op, Constant):
            if _varies(node, k, operand.type):
                return None
            continue
        before = found[name]
        after = None if before is None else _moved(node, k, before)
        if after is None:
            return None
        moved.append(after)
    return _joined(moved)


def _varies(node: Node, k: int, t: TensorType) -> bool:
    """Whether operand k, which all samples share, differs from position to position: an untied
    bias, or a sum with a parameter of the result's shape.
    """
    along = len(t.shape) > 1 and t.shape[1:] == node.type.spatial and set(t.spatial) != {1}
    if getattr(node.op, "window", None) is not None:
        return k == 2 and along  # operand 1 is a kernel
    return along


def _moved(node: Node, k: int, before: Shifts) -> Shifts | None:
    """The shifts of a node's result through its operand k; None where they end."""
    op: Any = node.op
    window: tuple[Axis, ...] | None = getattr(op, "window", None)
    tiles = getattr(op, "tiles", ()) or (1,) * len(before)
    if _is_local(node, tiles):
        return None
    if op.name == "conv_dx":
        parts = zip(before, op.window, tiles, op.extents, strict=True)
        return _checked(_back(s, axis, t, n) for s, axis, t, n in parts)
    if window is not None and k == 0 and len(window) == len(before):
        parts_ = zip(before, window, tiles, strict=True)
        return _checked(_forth(s, axis, t) for s, axis, t in parts_)
    if op.name in ("upsample_nearest", "upsample_linear"):
        border = op.name == "upsample_linear"
        pairs = zip(before, op.factors, strict=True)
        return tuple(_enlarged(s, f, border=border) for s, f in pairs)
    if op.name in ("crop", "pad"):
        sign = -1 if op.name == "crop" else 1
        triples = zip(before, op.amounts, node.type.spatial, strict=True)
        return _checked(_offset(s, sign * lo, n) for s, (lo, _), n in triples)
    if getattr(op, "pointwise", False) or op.name in FREE:
        return before
    return None


def _is_local(node: Node, tiles: tuple[int, ...]) -> bool:
    """Whether some axis has a kernel for every position, which no shift maps to each other."""
    return any(t > 1 and t == n for t, n in zip(tiles, node.type.spatial, strict=False))


def _checked(parts: Iterable[Shift | None]) -> Shifts | None:
    known = list(parts)
    return None if any(p is None for p in known) else tuple(p for p in known if p is not None)


def _forth(s: Shift, axis: Axis, period: int) -> Shift:
    """Through a window: a move of the operand by whole strides, and whole periods of the result."""
    times = math.lcm(s.step, axis.stride * period) // s.step
    reach = axis.input(0, axis.size - 1)
    first = -((axis.input(0, 0) - s.first) // axis.stride)
    last = None if s.last is None else (s.last - reach) // axis.stride
    return Shift(s.shift * times, s.step * times // axis.stride, max(first, 0), last)


def _back(s: Shift, axis: Axis, period: int, extent: Extent) -> Shift | None:
    """Through a transposed window: every result whose readers are all good."""
    times = math.lcm(s.step, period) // s.step
    step = s.step * times * axis.stride
    if not isinstance(extent, int) or s.last is None:
        return Shift(s.shift * times, step, 0, None)
    # results that some bad position contributes to lie at or beyond the windows of bad positions
    first = axis.input(s.first - 1, axis.size - 1) + 1
    last = min(axis.input(s.last + 1, 0) - 1, extent - 1)
    return Shift(s.shift * times, step, max(first, 0), last)


def _enlarged(s: Shift, factor: int, *, border: bool) -> Shift:
    """Through an upsampling; with interpolation a position also reads its neighbour."""
    first, last = s.first * factor, None if s.last is None else (s.last + 1) * factor - 1
    if border:
        first, last = first + factor, None if last is None else last - factor
    return Shift(s.shift, s.step * factor, first, last)


def _offset(s: Shift, by: int, extent: Extent) -> Shift:
    """Positions renumbered by a crop or a pad; what is added is no good."""
    last = None if s.last is None else s.last + by
    if last is not None and isinstance(extent, int):
        last = min(last, extent - 1)
    return Shift(s.shift, s.step, max(s.first + by, 0), last)


def _joined(several: list[Shifts]) -> Shifts | None:
    """The shifts that all operands allow; None when they move differently."""
    if not several:
        return None
    joined = []
    for axis in zip(*several, strict=True):
        if len({Fraction(s.shift, s.step) for s in axis}) > 1:
            return None
        shift = math.lcm(*(s.shift for s in axis))
        known = [s.last for s in axis if s.last is not None]
        last = min(known) if len(known) == len(axis) else None
        step = shift * axis[0].step // axis[0].shift
        joined.append(Shift(shift, step, max(s.first for s in axis), last))
    return tuple(joined)


# --- text -----------------------------------------------------------------------------------------


def statement(node: Node, found: Shifts) -> str:
    """One sentence about a node that is equivariant."""
    moves = _per_axis(s.shift for s in found)
    results = _per_axis(s.step for s in found)
    return f"{_positions(moves)} of the input move{_s(moves)} `{_layer(node)}` by {results}"


def interior(found: Shifts) -> str:
    """The results that see nothing but the input: `2..5` along each axis, or `none`."""
    if any(s.last is not None and s.last < s.first for s in found):
        return "none"
    return ", ".join(f"{s.first}..{'' if s.last is None else s.last}" for s in found)


def _layer(node: Node) -> str:
    return printable(node.origin.layer or node.name)


def _positions(number: str) -> str:
    return f"{number} position{'' if number == '1' else 's'}"


def _s(number: str) -> str:
    return "s" if number == "1" else ""


def _per_axis(numbers: Iterable[int]) -> str:
    found = [str(n) for n in numbers]
    return found[0] if len(set(found)) == 1 else "x".join(found)
