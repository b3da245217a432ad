"""A network as a torch.nn.Module made of PyTorch's own layers, for what takes modules:
torch.compile and tracing. What has no parameters and no layer of its own here is a call, as in
`tests.networks.twin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from cnncc.graph.ir import Graph, Node
from cnncc.window import Window
from tests.networks.twin import NORM_PARTS, function

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class NetworkModule(nn.Module):
    """The inference of a graph with one input and one output, in evaluation mode."""

    def __init__(self, graph: Graph, values: Mapping[str, Array]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[tuple[int, tuple[int, ...]]] = []  # layer, and where its inputs are
        (source,) = graph.of("input")
        ((_, result),) = graph.outputs
        places = {source.name: 0}
        for node in graph.nodes:
            if not node.inputs or node.op.name in NORM_PARTS:
                continue
            layer, inputs = _layer(graph, node, values)
            self.layers.append(layer)
            self.steps.append((len(self.layers) - 1, tuple(places[i] for i in inputs)))
            places[node.name] = len(self.layers)
        self.result = places[result]
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for layer, inputs in self.steps:
            found.append(self.layers[layer](*(found[i] for i in inputs)))
        return found[self.result]


class Call(nn.Module):
    """A function without parameters."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.function(*x)
        return result


def _layer(
    graph: Graph, node: Node, values: Mapping[str, Array]
) -> tuple[nn.Module, tuple[str, ...]]:
    """PyTorch's layer for a node and the tensors that it reads."""
    op: Any = node.op
    x = node.inputs[0]
    match op.name:
        case "conv" if len(op.window) == 2:
            return _conv(graph, node, values), (x,)
        case "affine":
            stack, weight, bias = graph[node.inputs[1]].inputs
            mean, variance = graph[stack].inputs
            fold: Any = graph[node.inputs[1]].op
            norm = nn.BatchNorm2d(node.type.channels, eps=fold.eps)
            names = {
                "weight": weight, "bias": bias, "running_mean": mean, "running_var": variance,
            }  # fmt: skip
            norm.load_state_dict({k: torch.from_numpy(values[n]) for k, n in names.items()}, False)
            return norm, (x,)
        case "dense":
            weight, *bias = (torch.from_numpy(values[n]) for n in node.inputs[1:])
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias))
            linear.load_state_dict({"weight": weight, **({"bias": bias[0]} if bias else {})})
            return linear, (x,)
        case "maxpool" if _plain(op.window):
            ends = zip(op.window, graph[x].type.spatial, node.type.spatial, strict=True)
            up = any((o - 1) * a.stride + a.span - n - a.lo > a.hi for a, n, o in ends)
            return nn.MaxPool2d(**_window(op.window), ceil_mode=up), (x,)
        case "globalavgpool":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (x,)
        case "reshape" if len(node.type.shape) == 1:
            return nn.Flatten(), (x,)
        case name if name in ACTIVATIONS:
            return ACTIVATIONS[name](), (x,)
    if any(name in values for name in node.inputs):
        raise NotImplementedError(f"{node.name}: no layer of PyTorch's for {op.name}")
    return Call(function(graph, node)), node.inputs


def _conv(graph: Graph, node: Node, values: Mapping[str, Array]) -> nn.Module:
    op: Any = node.op
    weight, *bias = (torch.from_numpy(values[n]) for n in node.inputs[1:])
    settings = _window(op.window)
    uneven = not _plain(op.window)
    if uneven:
        settings["padding"] = 0
    conv = nn.Conv2d(
        weight.shape[1] * op.groups, weight.shape[0], groups=op.groups, bias=bool(bias), **settings
    )
    conv.load_state_dict({"weight": weight, **({"bias": bias[0]} if bias else {})})
    high, wide = op.window
    pad = nn.ZeroPad2d((wide.lo, wide.hi, high.lo, high.hi))
    return nn.Sequential(pad, conv) if uneven else conv


def _plain(window: Window) -> bool:
    """Two axes with the same padding before and behind, which the layers can say."""
    return len(window) == 2 and all(a.lo == a.hi for a in window)


def _window(window: Window) -> dict[str, Any]:
    return {
        "kernel_size": tuple(a.size for a in window),
        "stride": tuple(a.stride for a in window),
        "padding": tuple(a.lo for a in window),
        "dilation": tuple(a.dilation for a in window),
    }
