"""An ONNX model of an inference graph with its values, so that ONNX Runtime can run the same
network from the same numbers. PyTorch's exporter is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Parameter
from cnncc.tensor import DType
from cnncc.window import Window

Array = np.ndarray[Any, np.dtype[Any]]

OPSET, IR_VERSION = 17, 8
ELEMENTS = {DType.F32: onnx.TensorProto.FLOAT, DType.I64: onnx.TensorProto.INT64}
SAME_NAME = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "add": "Add", "mul": "Mul"}
NORM_PARTS = ("stack", "norm_fold")  # parts of the BatchNormalization that `affine` ends


def onnx_model(graph: Graph, values: Mapping[str, Array]) -> onnx.ModelProto:
    """The graph as a checked ONNX model with a free batch axis.

    `values`: parameters by node name. Raises NotImplementedError for an operator not in the table.
    """
    nodes = [
        _onnx_node(graph, node)
        for node in graph.nodes
        if node.inputs and node.op.name not in NORM_PARTS
    ]
    names = {public: name for public, name in graph.outputs}
    nodes += [helper.make_node("Identity", [name], [f"out:{p}"]) for p, name in names.items()]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            graph.name,
            [_declared(n, n.name) for n in graph.of("input")],
            [_declared(graph[name], f"out:{public}") for public, name in names.items()],
            [_initializer(n, values[n.name]) for n in graph.of("parameter")],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model


def _declared(node: Node, name: str) -> onnx.ValueInfoProto:
    shape: list[str | int] = list(node.type.dims(1))
    if node.type.batched:
        shape[0] = "batch"
    return helper.make_tensor_value_info(name, ELEMENTS[node.type.dtype], shape)


def _initializer(node: Node, value: Array) -> onnx.TensorProto:
    assert isinstance(node.op, Parameter)
    return numpy_helper.from_array(np.ascontiguousarray(value), node.name)


def _onnx_node(graph: Graph, node: Node) -> onnx.NodeProto:
    op: Any = node.op
    x = graph[node.inputs[0]].type
    rank = x.rank

    def make(kind: str, inputs: Sequence[str] = node.inputs, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [node.name], name=node.name, **attributes)

    if op.name in SAME_NAME and all(t.shape == node.type.shape for t in graph.types(node)):
        return make(SAME_NAME[op.name])
    match op.name:
        case "conv":
            return make("Conv", group=op.groups, **_window(op.window))
        case "affine":
            stack, weight, bias = graph[graph[node.inputs[1]].name].inputs
            mean, variance = graph[stack].inputs
            fold: Any = graph[node.inputs[1]].op
            inputs = [node.inputs[0], weight, bias, mean, variance]
            return make("BatchNormalization", inputs, epsilon=fold.eps)
        case "dense":
            return make("Gemm", transB=1)
        case "maxpool":
            return make("MaxPool", **_window(op.window, x.dims(1)[2:], node.type.dims(1)[2:]))
        case "avgpool" if all(a.dilation == 1 and a.fit != "partial" for a in op.window):
            window = _window(op.window)
            del window["dilations"]  # not before opset 19
            return make("AveragePool", count_include_pad=int(op.include_pad), **window)
        case "globalavgpool":
            return make("ReduceMean", axes=list(range(2, rank + 2)), keepdims=0)
        case "globalmaxpool":
            return make("ReduceMax", axes=list(range(2, rank + 2)), keepdims=0)
        case "concat":
            return make("Concat", axis=1)
        case "reshape" if len(node.type.shape) == 1:
            return make("Flatten", axis=1)
    raise NotImplementedError(f"{node.name}: {op.name} is not in the table")


def _window(window: Window, extents: Sequence[int] = (), out: Sequence[int] = ()) -> dict[str, Any]:
    """Attributes of a windowed operator; the upper padding grows to what the output extents need,
    which is how partial windows are written without `ceil_mode`.
    """
    hi = [axis.hi for axis in window]
    if extents:
        ends = zip(window, extents, out, strict=True)
        hi = [max((o - 1) * a.stride + a.span - n - a.lo, a.hi) for a, n, o in ends]
    return {
        "kernel_shape": [a.size for a in window],
        "strides": [a.stride for a in window],
        "dilations": [a.dilation for a in window],
        "pads": [a.lo for a in window] + hi,
    }
