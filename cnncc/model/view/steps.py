"""A network as the steps that the page in the browser knows how to compute.

A step is a JSON-ready dict: `name`, `op`, `inputs` (numbers of earlier steps; 0 is the input of the
network), `shape` [C, H, W] or [F], `about` (a sentence), and what the operator needs; an array is
given by its number in `Drawn.arrays`. Whatever does not depend on the input, such as the kernel of
a symmetric layer or the folded statistics of a normalisation, is computed here and is an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, SpecError, printable
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.ops.affine import Affine
from cnncc.ops.base import Array, Op
from cnncc.ops.concat import Concat
from cnncc.ops.conv import Conv
from cnncc.ops.dense import Dense
from cnncc.ops.elementwise import Add, Mul, Sub
from cnncc.ops.pool_average import AvgPool, divisors
from cnncc.ops.pool_global import GlobalAverage, GlobalMax
from cnncc.ops.pool_max import MaxPool
from cnncc.ops.rectifier import Elu, LeakyRelu, Relu
from cnncc.ops.shape import Reshape
from cnncc.ops.sigmoidal import Sigmoid, Softplus, Stanh, Tanh
from cnncc.ops.softmax import LogSoftmax, Softmax
from cnncc.passes.linear import constant_array
from cnncc.tensor import DType, TensorType, evaluate
from cnncc.window import Window

CODE = "E0820"
MOST_WEIGHTS = 1 << 22
MOST_UNITS = 1 << 18
"""The largest network that a page shows: beyond it a browser would be slow to answer a stroke."""

Step = dict[str, Any]
Floats = NDArray[np.float32]

_PLAIN = (Relu, Sigmoid, Tanh, Stanh, Softplus, Softmax, LogSoftmax, GlobalAverage, GlobalMax)
"""Operators of one tensor without attributes; their name says all."""

KNOWN = (
    "conv, maxpool, avgpool, globalavgpool, globalmaxpool, dense, batchnorm, relu, leaky_relu, "
    "elu, sigmoid, tanh, stanh, softplus, softmax, log_softmax, flatten, concat and sums"
)


@dataclass(frozen=True)
class Drawn:
    """A network for the page: its input, its steps (number 0 is the input) and their arrays."""

    name: str
    input: str
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    arrays: tuple[Floats, ...]


@dataclass
class _Writer:
    """Collects steps and arrays. `values` are the tensors that do not depend on the input."""

    graph: Graph
    values: Mapping[str, Array]
    steps: list[Step] = field(default_factory=list)
    arrays: list[Floats] = field(default_factory=list)
    number: dict[str, int] = field(default_factory=dict)

    def add(self, node: Node, op: str, about: str, **facts: Any) -> None:
        """The next step."""
        inputs = [self.number[name] for name in node.inputs if name in self.number]
        self.number[node.name] = len(self.steps)
        shape = [evaluate(e, {}) for e in node.type.shape]
        self.steps.append(
            {
                "name": printable(node.name),
                "op": op,
                "about": about,
                "inputs": inputs,
                "shape": shape,
                **facts,
            }
        )

    def array(self, name: str, like: tuple[int, ...] | None = None) -> int:
        """The number of a computed tensor, repeated over the axes behind its own to shape `like`.

        A tensor per channel [C] is repeated over positions, a number [] over everything.
        """
        values = self.values[name]
        if like is not None and values.shape != like:
            values = values.reshape(*values.shape, *[1] * (len(like) - values.ndim))
            values = np.broadcast_to(values, like)
        return self.constant(values)

    def constant(self, values: Array) -> int:
        """The number of an array."""
        self.arrays.append(np.ascontiguousarray(values, np.float32))
        return len(self.arrays) - 1


def drawn(graph: Graph, state: Mapping[str, Array]) -> Drawn:
    """The steps of a network with its parameters `state`, as `Model.state_dict` gives them.

    Raises SpecError (E0820) for a network that the page does not know.
    """
    source = _source(graph)
    _limits(graph)
    writer = _Writer(graph, _values(graph, state))
    for node in graph.nodes:
        if node.type.batched:
            if node is source:
                writer.add(node, "input", "the input")
            else:
                _write(writer, node)
    outputs = tuple(writer.number[name] for _, name in graph.outputs)
    return Drawn(
        printable(graph.name),
        printable(source.name),
        tuple(writer.steps),
        outputs,
        tuple(writer.arrays),
    )


def _source(graph: Graph) -> Node:
    """The only input. Raises SpecError unless it is an image of floats of known extents."""
    sources = list(graph.of("input"))
    if len(sources) != 1:
        names = ", ".join(n.name for n in sources) or "none"
        raise _refused(f"a page has one input, but {graph.name} has {len(sources)}: {names}")
    (source,) = sources
    if source.type.dtype is not DType.F32 or source.type.rank != 2 or source.type.symbols:
        raise _refused(
            f"a page draws an f32 image of known extents, but the input is {source.type}",
            source,
            "input image: f32[1, 8, 8]",
        )
    return source


def _limits(graph: Graph) -> None:
    """Raises SpecError for a network that is too large for a page."""
    weights = sum(_elements(n.type) for n in graph.of("parameter"))
    units = sum(_elements(n.type) for n in graph.nodes if n.type.batched)
    for what, number, most in (("weights", weights, MOST_WEIGHTS), ("units", units, MOST_UNITS)):
        if number > most:
            raise _refused(f"a page shows at most {most} {what}, but {graph.name} has {number}")


def _elements(t: TensorType) -> int:
    return evaluate(t.elements, {name: 1 for name in t.symbols})


def _values(graph: Graph, state: Mapping[str, Array]) -> dict[str, Array]:
    """All tensors that do not depend on the input, by name, from the operators' oracles."""
    values: dict[str, Array] = {}
    for node in graph.nodes:
        if node.type.batched:
            continue
        match node.op:
            case Parameter():
                values[node.name] = np.asarray(state[node.name])
            case Constant():
                values[node.name] = constant_array(node, 1)
            case Op():
                operands = [values[name] for name in node.inputs]
                values[node.name] = node.op.oracle(graph.types(node), operands)
    return values


# --- operators ------------------------------------------------------------------------------------


def _write(writer: _Writer, node: Node) -> None:
    """The step of a node. Raises SpecError for an operator that the page does not know."""
    op, graph = node.op, writer.graph
    if node.type.rank not in (0, 2) or not isinstance(op, Op):
        raise _unknown(node)
    first = graph[node.inputs[0]].type if node.inputs else node.type
    match op:
        case Conv() if len(op.window) == 2 and node.inputs[1] in writer.values:
            kernel = writer.array(node.inputs[1])
            shape = tuple(evaluate(e, {}) for e in node.type.shape)
            bias = writer.array(node.inputs[2], shape) if len(node.inputs) > 2 else None
            writer.add(
                node,
                "conv",
                _conv_text(op, node),
                window=_window(op.window),
                tiles=list(op.tiles or (1, 1)),
                groups=op.groups,
                weight=kernel,
                weight_shape=list(writer.values[node.inputs[1]].shape),
                bias=bias,
            )
        case Dense() if node.inputs[1] in writer.values:
            bias = writer.array(node.inputs[2]) if len(node.inputs) > 2 else None
            text = f"dense: each unit sums all {first.elements} inputs"
            writer.add(node, "dense", text, weight=writer.array(node.inputs[1]), bias=bias)
        case MaxPool() if len(op.window) == 2:
            text = _pool_text("the largest", op.window, op.across)
            writer.add(node, "maxpool", text, window=_window(op.window), across=op.across)
        case AvgPool() if len(op.window) == 2:
            extents = (evaluate(first.spatial[0], {}), evaluate(first.spatial[1], {}))
            counts = divisors(op.window, extents, op.include_pad) * op.across
            writer.add(
                node,
                "avgpool",
                _pool_text("the mean", op.window, op.across),
                window=_window(op.window),
                across=op.across,
                counts=writer.constant(counts),
            )
        case Affine() if node.inputs[1] in writer.values:
            text = "a slope and an offset per channel"
            writer.add(node, "affine", text, fold=writer.array(node.inputs[1]))
        case Add() | Sub() | Mul():
            _write_binary(writer, node, op)
        case LeakyRelu():
            text = f"x if x > 0, else {op.slope:g} x"
            writer.add(node, "leaky_relu", text, slope=op.slope)
        case Elu():
            writer.add(node, "elu", "x if x > 0, else alpha (exp(x) - 1)", alpha=op.alpha)
        case Reshape():
            writer.add(node, "reshape", "the same units in another shape")
        case Concat():
            writer.add(node, "concat", "the channels of all inputs")
        case _ if isinstance(op, _PLAIN):
            writer.add(node, op.name, _PLAIN_TEXTS.get(op.name, op.name))
        case _:
            raise _unknown(node)


_PLAIN_TEXTS = {
    "relu": "max(x, 0)",
    "globalavgpool": "the mean of each map",
    "globalmaxpool": "the largest unit of each map",
    "stanh": "1.7159 tanh(2x / 3)",
}


def _write_binary(writer: _Writer, node: Node, op: Add | Sub | Mul) -> None:
    """Between two tensors of one shape, or a tensor and an array that does not depend on x."""
    shape = tuple(evaluate(e, {}) for e in node.type.shape)
    operands: list[int | None] = []
    for name in node.inputs:
        if name in writer.values:
            if writer.values[name].ndim > len(shape):
                raise _unknown(node)
            operands.append(writer.array(name, shape))
        elif writer.graph[name].type.shape == node.type.shape:
            operands.append(None)
        else:
            raise _unknown(node)
    sign = {"add": "sum", "sub": "difference", "mul": "product"}[op.name]
    writer.add(node, op.name, f"the {sign}, unit by unit", arrays=operands)


def _window(window: Window) -> list[dict[str, int]]:
    """Size, stride, dilation and the padding before the first position, per axis."""
    return [
        {"size": a.size, "stride": a.stride, "dilation": a.dilation, "lo": a.lo} for a in window
    ]


def _size(window: Window) -> str:
    return "×".join(str(axis.size) for axis in window)


def _conv_text(op: Conv, node: Node) -> str:
    kernels = "a kernel" if not op.tiles else f"{'×'.join(map(str, op.tiles))} kernels"
    words = [f"convolution: {kernels} of {_size(op.window)} per map"]
    strides, pads = {a.stride for a in op.window}, {(a.lo, a.hi) for a in op.window}
    dilations = {a.dilation for a in op.window}
    if strides != {1}:
        words.append(f"stride {'×'.join(str(a.stride) for a in op.window)}")
    if dilations != {1}:
        words.append(f"dilation {'×'.join(str(a.dilation) for a in op.window)}")
    if pads != {(0, 0)}:
        words.append("zeros at the border")
    if op.groups > 1:
        words.append(f"{op.groups} groups")
    return ", ".join(words)


def _pool_text(what: str, window: Window, across: int) -> str:
    over = f" and {across} maps" if across > 1 else ""
    return f"{what} of {_size(window)}{over}"


# --- refusals -------------------------------------------------------------------------------------


def _unknown(node: Node) -> SpecError:
    layer = node.origin.layer or node.name
    return _refused(
        f"the page does not know the operator {node.op.name} of `{layer}` ({node.type})",
        node,
        f"it knows {KNOWN}",
    )


def _refused(message: str, node: Node | None = None, *helps: str) -> SpecError:
    return SpecError(
        Diagnostic(CODE, message, node.origin.span if node is not None else None, helps=helps)
    )
