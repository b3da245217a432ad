"""A graph evaluator made of the operators' oracles, and the sample data that the operator tests
share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.graph.ir import Builder, Graph, Node
from cnncc.graph.sources import Input
from cnncc.loops.elementary import expand
from cnncc.loops.interp import interpret
from cnncc.ops.base import Array, Op, Sample
from cnncc.tensor import DType, TensorType
from cnncc.tensor import evaluate as extent


def evaluate(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The value of every node, by its name, from the values of the inputs."""
    values: dict[str, Array] = dict(arrays)
    for node in graph.nodes:
        if node.name in values:
            continue
        assert isinstance(node.op, Op), f"no value for {node.name}"
        values[node.name] = node.op.oracle(graph.types(node), [values[i] for i in node.inputs])
    return values


@dataclass(frozen=True)
class Derived:
    """A graph with one operator, an upstream gradient, and what the operator's rule adds."""

    graph: Graph
    inputs: tuple[str, ...]
    gradients: tuple[str | None, ...]

    def __call__(self, arrays: Sequence[Array], dy: Array) -> list[Array | None]:
        """The gradients for all inputs; None where nothing flows."""
        values = evaluate(self.graph, {**dict(zip(self.inputs, arrays, strict=True)), "dy": dy})
        return [None if g is None else values[g] for g in self.gradients]


def derive(op: Op, types: Sequence[TensorType]) -> Derived:
    """Differentiate one operator."""
    b = Builder("derived")
    inputs = [b.add(Input(t), name=f"x{i}") for i, t in enumerate(types)]
    node = b.add(op, *inputs, name="y")
    dy = b.add(Input(node.type), name="dy")
    gradients: tuple[Node | None, ...] = op.gradient(b, node, dy)
    assert len(gradients) == len(inputs), "one gradient per input"
    for x, g in zip(inputs, gradients, strict=True):
        assert g is None or (g.type.shape, g.type.batched) == (x.type.shape, x.type.batched)
    names = tuple(None if g is None else g.name for g in gradients)
    return Derived(b.graph([]), tuple(x.name for x in inputs), names)


NUMPY = {
    DType.F32: np.float32, DType.F64: np.float64, DType.U8: np.uint8, DType.U16: np.uint16,
    DType.I32: np.int32, DType.I64: np.int64,
    DType.BF16: np.float32,  # the interpreter keeps the values
}  # fmt: skip


FLOATS = {np.float32: DType.F32, np.float64: DType.F64}


def run_nest(
    op: Op,
    types: Sequence[TensorType],
    arrays: Sequence[Array],
    dtype: type = np.float32,
    *,
    batch: int = 2,
) -> Array:
    """What the operator's nest computes, interpreted with all values in `dtype`."""
    out = op.infer(tuple(types))
    nest = expand(op.nest(tuple(types), out), FLOATS[dtype])
    assert [b.role for b in nest.buffers] == ["in"] * len(arrays) + ["out"]
    kind = dtype if out.dtype.is_float else NUMPY[out.dtype]
    result = np.full(out.dims(batch), 99, kind)  # what is not stored shows
    sizes = {name: extent(value, {"*": batch}) for name, value in nest.sizes.items()}
    named = dict(zip([b.name for b in nest.buffers], [*arrays, result], strict=True))
    interpret(nest, named, sizes, dtype, check=True)
    return result


def integers(sample: Sample, *, dtype: type = np.float32, seed: int = 1) -> list[Array]:
    """Small whole numbers in every input, as floats of `dtype` or as the integers that the input
    wants.
    """
    rng = np.random.default_rng(seed)
    return [
        rng.integers(
            1 if i in sample.positive else sample.low,
            sample.high,
            t.dims(sample.batch),
            endpoint=True,
        ).astype(dtype if t.dtype.is_float else NUMPY[t.dtype])
        for i, t in enumerate(sample.types)
    ]


def floats(sample: Sample, *, dtype: type = np.float32, seed: int = 2) -> list[Array]:
    """Normally distributed floats that float32 can hold; integer inputs as from `integers`."""
    rng = np.random.default_rng(seed)
    whole = integers(sample, seed=seed)
    arrays = []
    for i, (w, t) in enumerate(zip(whole, sample.types, strict=True)):
        x = rng.standard_normal(w.shape).astype(np.float32)
        x = np.abs(x) + np.float32(0.5) if i in sample.positive else x
        arrays.append(x.astype(dtype) if t.dtype.is_float else w)
    return arrays
