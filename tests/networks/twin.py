"""The same network in PyTorch, built from the graph: every node becomes a call of
torch.nn.functional on tensors in PyTorch's own order of axes (batch, channels, space).

The graph's shape rules are trusted here, its arithmetic is not: batch normalisation, which is four
operators in the graph, is one `batch_norm`, gradients come from autograd, and sums are PyTorch's.
A twin can compute in float64, which tells how far PyTorch's own float32 is from the truth. Only
dropout asks cnncc for something, its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.loops.random import uniform
from cnncc.ops.dropout import SEEDS, STEPS, STREAMS, Dropout
from cnncc.tensor import evaluate
from cnncc.window import Window

Array = np.ndarray[Any, np.dtype[Any]]
Tensor = torch.Tensor
Call = Callable[..., Tensor]

CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

# what stands in the graph for one batch_norm, besides the `affine` that ends it
NORM_PARTS = ("moments", "batch_moments", "stack", "norm_fold", "running_average")


@dataclass(frozen=True)
class Step:
    """One call: where it reads, where it writes, and what nobody reads afterwards."""

    name: str
    call: Call
    inputs: tuple[str, ...]
    last: tuple[str, ...]


class Twin:
    """A network with its values. `run` may be called again and again; training steps see the
    gradients in `.grad` of `parameters` and the new running statistics in `running`.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Array],
        dtype: torch.dtype = torch.float32,
        *,
        train: bool = False,
        channels_last: bool = False,
        decisions: Mapping[str, Array] | None = None,
    ) -> None:
        """`decisions`: what rectifiers let pass and where pools have their maxima, as
        `decisions.decisions` makes them; these nodes then decide nothing by themselves.
        """
        self.graph, self.dtype, self.train = graph, dtype, train
        self.decisions = decisions or {}
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.parameters: dict[str, Tensor] = {}
        self.trained: list[str] = []
        for node in graph.of("parameter"):
            value = self.tensor(values[node.name].copy())
            assert isinstance(node.op, Parameter)
            if train and node.op.trained:
                value.requires_grad_()
                self.trained.append(node.name)
            self.parameters[node.name] = value
        self.running: dict[str, Tensor] = {}  # filled by a run of a training graph
        self.steps = self._steps()

    def tensor(self, array: Array) -> Tensor:
        """An array as this twin's tensor: floats in its dtype, images in its memory format."""
        t = torch.from_numpy(array)
        if not t.is_floating_point():
            return t
        t = t.to(self.dtype)
        return t.contiguous(memory_format=self.format) if t.ndim == 4 else t

    def run(self, inputs: Mapping[str, Array | Tensor]) -> dict[str, Tensor]:
        """The outputs by public name. `inputs`: arrays or tensors by the names of input nodes."""
        known: dict[str, Tensor] = {
            name: x if isinstance(x, Tensor) else self.tensor(x) for name, x in inputs.items()
        }
        known |= self.parameters
        for step in self.steps:
            known[step.name] = step.call(*(known[name] for name in step.inputs))
            for name in step.last:
                del known[name]
        return {public: known[name] for public, name in self.graph.outputs}

    def _steps(self) -> list[Step]:
        calls = [
            (node, *self._call(node))
            for node in self.graph.nodes
            if node.inputs and node.op.name not in NORM_PARTS
        ]
        calls = [
            *((n, _filled(n, self.dtype), ()) for n in self.graph.of("constant")),
            *calls,
        ]
        live = {name for _, name in self.graph.outputs} | set(self.parameters)
        steps = []
        for node, call, inputs in reversed(calls):
            last = tuple(name for name in dict.fromkeys(inputs) if name not in live)
            live |= set(inputs)
            steps.append(Step(node.name, call, inputs, last))
        return steps[::-1]

    def _call(self, node: Node) -> tuple[Call, tuple[str, ...]]:
        """PyTorch's function for a node and the tensors that it reads."""
        if node.op.name == "affine":
            return self._batch_norm(node)
        if node.name in self.decisions:
            return _decided(node, torch.from_numpy(self.decisions[node.name])), node.inputs
        if node.op.name == "relu" and self._may_overwrite(node):
            return torch.relu_, node.inputs
        return function(self.graph, node), node.inputs

    def _may_overwrite(self, node: Node) -> bool:
        """Whether a pointwise function may work in place, as published models ask for it."""
        (x,) = node.inputs
        if self.train or len(self.graph.consumers()[x]) > 1 or self.graph[x].op.name == "input":
            return False
        return all(name != x for _, name in self.graph.outputs)

    def _batch_norm(self, node: Node) -> tuple[Call, tuple[str, ...]]:
        x, fold = node.inputs
        statistics, weight, bias = self.graph[fold].inputs
        op: Any = self.graph[fold].op
        of: Node = self.graph[statistics]
        if of.op.name == "stack":
            mean, variance = of.inputs

            def infer(x: Tensor, m: Tensor, v: Tensor, w: Tensor, b: Tensor) -> Tensor:
                return F.batch_norm(x, m, v, w, b, eps=op.eps)

            return infer, (x, mean, variance, weight, bias)
        averages: list[Any] = [
            n for n in self.graph.of("running_average") if statistics in n.inputs
        ]
        states = {n.op.row: n.inputs[0] for n in averages}
        momentum = averages[0].op.momentum

        def train(x: Tensor, m: Tensor, v: Tensor, w: Tensor, b: Tensor) -> Tensor:
            new = m.clone(), v.clone()
            y = F.batch_norm(x, *new, w, b, training=True, momentum=momentum, eps=op.eps)
            self.running |= {states[0]: new[0], states[2]: new[1]}
            return y

        return train, (x, states[0], states[2], weight, bias)


def _filled(node: Node, dtype: torch.dtype) -> Call:
    assert isinstance(node.op, Constant)
    value = torch.full(node.type.dims(1), node.op.value, dtype=dtype)
    return lambda: value


def _decided(node: Node, decision: Tensor) -> Call:
    """A rectifier as a product with its mask, a pool as a choice of places."""
    if node.op.name == "relu":
        return lambda x: x * decision
    return lambda x: x.flatten(2).gather(2, decision.flatten(2)).view(decision.shape)


def function(graph: Graph, node: Node) -> Call:
    """PyTorch's function for a node that stands for itself. NotImplementedError for others."""
    op: Any = node.op
    x = graph[node.inputs[0]].type
    match op.name:
        case "conv":
            return _conv(op.window, op.groups, x.dims(1)[2:])
        case "conv_dx":
            return _transposed(op.window, op.groups, node.type.dims(1)[2:])
        case "dense":
            return F.linear
        case "maxpool":
            return _max_pool(op.window, x.dims(1)[2:], node.type.dims(1)[2:])
        case "avgpool":
            return _average_pool(op.window, op.include_pad, x.dims(1)[2:])
        case "globalavgpool":
            return lambda x: x.mean(dim=tuple(range(2, x.ndim)))
        case "globalmaxpool":
            return lambda x: x.amax(dim=tuple(range(2, x.ndim)))
        case "relu":
            return F.relu
        case "elu":
            return lambda x: F.elu(x, op.alpha)
        case "tanh":
            return torch.tanh
        case "sigmoid":
            return torch.sigmoid
        case "softplus":
            return F.softplus
        case "add" | "mul":
            return _broadcast(torch.add if op.name == "add" else torch.mul, graph, node)
        case "concat":
            return lambda *xs: torch.cat(xs, dim=1)
        case "reshape":
            shape = node.type.dims(1)[1:]
            return lambda x: x.reshape(len(x), *shape)
        case "softmax":
            return lambda x: torch.softmax(x, dim=1)
        case "embed":
            return lambda i, table: F.embedding(i, table).movedim(-1, 1)
        case "dropout":
            return lambda x, key: x * mask(op, x, key)
        case "cross_entropy":
            return _cross_entropy
        case "sum" if op.keep == ("sample", "channel"):
            return lambda x: x.sum(dim=tuple(range(2, x.ndim)))
        case "mean":
            return lambda x: (x.sum() / (x.numel() * op.positions)).reshape(1)
    raise NotImplementedError(f"{node.name}: no twin of {op.name}")


def _broadcast(call: Call, graph: Graph, node: Node) -> Call:
    """Operands of one value per channel are repeated over batch and space, as in the graph."""
    shapes: list[tuple[int, ...] | None] = []
    for t in graph.types(node):
        per_channel = t.shape != node.type.shape and len(t.shape) == 1 and t.shape != (1,)
        shapes.append((-1, *t.dims(1)[-1:], *[1] * node.type.rank) if per_channel else None)
    if not any(shapes):
        return call
    return lambda *xs: call(*(x.view(s) if s else x for x, s in zip(xs, shapes, strict=True)))


def _symmetric(window: Window) -> bool:
    return all(axis.lo == axis.hi for axis in window)


def _pads(amounts: Sequence[tuple[int, int]]) -> list[int]:
    """In the order of F.pad: the last axis first."""
    return [amount for pair in reversed(amounts) for amount in pair]


def _steps_of(window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(a.stride for a in window), tuple(a.dilation for a in window)


def _conv(window: Window, groups: int, extents: tuple[int, ...]) -> Call:
    conv, (stride, dilation) = CONVS[len(window)], _steps_of(window)
    if _symmetric(window):
        pad = tuple(axis.lo for axis in window)
        return lambda x, w, b=None: conv(x, w, b, stride, pad, dilation, groups)
    pads = _pads([(axis.lo, axis.hi) for axis in window])
    return lambda x, w, b=None: conv(F.pad(x, pads), w, b, stride, 0, dilation, groups)


def _transposed(window: Window, groups: int, extents: tuple[int, ...]) -> Call:
    """Without padding, then cropped or grown to the extents."""
    conv, (stride, dilation) = TRANSPOSED[len(window)], _steps_of(window)

    def call(x: Tensor, w: Tensor) -> Tensor:
        y = conv(x, w, None, stride, 0, 0, groups, dilation)
        own = y.shape[2:]
        amounts = [(-a.lo, e + a.lo - n) for a, e, n in zip(window, extents, own, strict=True)]
        return F.pad(y, _pads(amounts)) if any(any(pair) for pair in amounts) else y

    return call


def _max_pool(window: Window, extents: tuple[int, ...], out: tuple[int, ...]) -> Call:
    pool, (stride, dilation) = MAX_POOLS[len(window)], _steps_of(window)
    size = tuple(axis.size for axis in window)
    hi = [
        (o - 1) * axis.stride + axis.span - n - axis.lo
        for axis, n, o in zip(window, extents, out, strict=True)
    ]
    if _symmetric(window):
        pad = tuple(axis.lo for axis in window)
        up = any(h > axis.hi for axis, h in zip(window, hi, strict=True))
        return lambda x: pool(x, size, stride, pad, dilation, ceil_mode=up)
    pads = _pads([(axis.lo, h) for axis, h in zip(window, hi, strict=True)])
    return lambda x: pool(F.pad(x, pads, value=-torch.inf), size, stride, 0, dilation)


def _average_pool(window: Window, include_pad: bool, extents: tuple[int, ...]) -> Call:
    if not _symmetric(window) or any(axis.dilation > 1 for axis in window):
        raise NotImplementedError("PyTorch has no such average pool")
    ends = zip(window, extents, strict=True)
    up = any(
        axis.fit == "partial" and evaluate(axis.slack(n), {}) % axis.stride for axis, n in ends
    )
    pool, size = AVERAGE_POOLS[len(window)], tuple(axis.size for axis in window)
    stride, pad = tuple(axis.stride for axis in window), tuple(axis.lo for axis in window)
    return lambda x: pool(x, size, stride, pad, ceil_mode=up, count_include_pad=include_pad)


def _cross_entropy(scores: Tensor, label: Tensor) -> Tensor:
    each = F.cross_entropy(scores, label.reshape(len(label), *scores.shape[2:]), reduction="none")
    return each.unsqueeze(1)


def mask(op: Dropout, x: Tensor, key: Tensor) -> Tensor:
    """cnncc's mask: a function of seed, step, layer and element, not of PyTorch's generator."""
    seed, step = (int(v) for v in key)
    number = (seed % SEEDS * STEPS + step % STEPS) * STREAMS + op.stream
    u = uniform(number, np.arange(x.numel()).reshape(tuple(x.shape)), np.float64)
    return torch.from_numpy(np.where(u < op.threshold, 0, op.growth)).to(x.dtype)
