"""Another float type for a whole graph: float64 runs the same operators, passes and kernels with
enough digits to compare a derivative with a difference quotient.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from cnncc.graph.ir import Graph, Node, Operator
from cnncc.tensor import DType, TensorType


def retyped(graph: Graph, dtype: DType) -> Graph:
    """The graph with every float tensor of `dtype` (f32 or f64); integers stay as they are.

    Types that operators hold as attributes change too. Ensures: names, order, outputs, conditions
    and updates are the same, and every type is what its operator infers. Raises ValueError for a
    dtype that is not a float.
    """
    if not dtype.is_float:
        raise ValueError(f"a graph computes in f32 or f64, but got {dtype}")
    return graph.with_nodes(_retyped_node(node, dtype) for node in graph.nodes)


def _retyped_node(node: Node, dtype: DType) -> Node:
    return replace(node, op=retyped_operator(node.op, dtype), type=retyped_type(node.type, dtype))


def retyped_operator(op: Operator, dtype: DType) -> Operator:
    """The operator with the float types among its attributes replaced."""
    old = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    new = {name: _retyped_value(value, dtype) for name, value in old.items()}
    return op if new == old else replace(op, **new)  # type: ignore[type-var]


def retyped_type(t: TensorType, dtype: DType) -> TensorType:
    """The tensor type, of `dtype` if it is a float type."""
    return t.with_dtype(dtype) if t.dtype.is_float else t


def _retyped_value(value: Any, dtype: DType) -> Any:
    match value:
        case TensorType():
            return retyped_type(value, dtype)
        case DType.F32 | DType.F64:  # equal to their names, which some operators hold instead
            return dtype if isinstance(value, DType) else dtype.value
        case tuple():
            return tuple(_retyped_value(v, dtype) for v in value)
        case _:
            return value
