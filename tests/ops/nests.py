"""Running the nest of one operator, and the types and data of small cases."""

from __future__ import annotations

import numpy as np

from cnncc.graph.layer import Size
from cnncc.loops.interp import interpret
from cnncc.ops.base import Array, Op
from cnncc.tensor import DType, Extent, TensorType, evaluate
from tests.ops.evaluate import NUMPY


def f32(*shape: Extent) -> TensorType:
    return TensorType(DType.F32, shape)


def square(*taps: int) -> Size:
    return Size(taps)


def run(op: Op, types: tuple[TensorType, ...], arrays: list[Array], **sizes: int) -> Array:
    """The operator's nest in float32; `sizes` gives values to symbols."""
    batch = len(arrays[0])
    values = {"*": batch, **sizes}
    out = op.infer(types)
    nest = op.nest(types, out)
    shape = (*([batch] if out.batched else []), *(evaluate(e, values) for e in out.shape))
    result = np.full(shape, 99, NUMPY[out.dtype])
    buffers = dict(zip((b.name for b in nest.buffers), [*arrays, result], strict=True))
    known = {name: evaluate(e, values) for name, e in nest.sizes.items()}
    interpret(nest, buffers, known, np.float32, check=True)
    return result
