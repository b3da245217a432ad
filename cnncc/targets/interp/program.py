"""Running a fused graph through the interpreter of the loop IR: slow, obvious, the definition of
the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnncc.graph.sources import Constant
from cnncc.loops.elementary import expand
from cnncc.loops.interp import interpret
from cnncc.passes.fuse import Fused
from cnncc.targets.arrays import Array
from cnncc.tensor import DType, evaluate

_NUMPY = {"u8": np.uint8, "u16": np.uint16, "i32": np.int32, "i64": np.int64}


def run_interp(
    fused: Fused,
    given: Mapping[str, Array],
    batch: int,
    dtype: type[np.float32] | type[np.float64],
    symbols: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """All tensors of a run by node name, as logical arrays. `given` holds inputs and parameters."""
    values = {**(symbols or {}), "*": batch}
    element = DType.F32 if dtype is np.float32 else DType.F64
    arrays = dict(given)
    for node in fused.graph.of("constant"):
        assert isinstance(node.op, Constant)
        own = _NUMPY.get(node.type.dtype.value, dtype)
        arrays[node.name] = np.full(node.type.concrete(values).dims(batch), node.op.value, own)
    for whole in {part.whole for part in fused.slices.values()}:
        t = fused.graph[whole].type.concrete(values)
        arrays.setdefault(whole, np.zeros(t.dims(batch), dtype))
    for kernel in fused.kernels:
        for name in kernel.writes:
            if name in fused.slices:
                part = fused.slices[name]
                channels = evaluate(fused.graph[name].type.shape[0], values)
                arrays[name] = arrays[part.whole][:, part.start : part.start + channels]
                continue
            t = fused.graph[name].type.concrete(values)
            arrays[name] = np.zeros(t.dims(batch), _NUMPY.get(t.dtype.value, dtype))
        nest = expand(kernel.nest, element)
        sizes = {name: evaluate(e, values) for name, e in nest.sizes.items()}
        buffers = {b.name: arrays[t] for b, t in zip(nest.buffers, kernel.tensors, strict=True)}
        interpret(nest, buffers, sizes, dtype)
    return arrays
