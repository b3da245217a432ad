"""Splitting by phases keeps every bit of a nest, and leaves no remainder that a loop's own variable
decides.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.loops.elementary import expand
from cnncc.loops.interp import interpret
from cnncc.loops.ir import For, Guard, Kind, Mod, Nest, Var
from cnncc.loops.split import split_phases
from cnncc.loops.transform import parallel_loops
from cnncc.loops.walk import indices, subindices
from cnncc.ops import Sample, all_samples
from cnncc.tensor import DType, evaluate
from tests.kernels.primitives import same_bits
from tests.ops.evaluate import NUMPY, floats


def nest_of(sample: Sample) -> Nest:
    return expand(sample.op.nest(sample.types, sample.op.infer(sample.types)), DType.F32)


def takes_remainders(nest: Nest) -> bool:
    loops, body = parallel_loops(nest)
    return any(
        isinstance(i, Mod) and any(Var(v) in set(subindices(i)) for v in loops)
        for i in indices(body)
    )


PHASED = [
    s for s in all_samples() if s.op.name in ("conv", "conv_dx") and takes_remainders(nest_of(s))
]


def whole(nest: Nest, keep: set[str]) -> Nest:
    """The nest after splitting, with its limits as guards."""
    split = split_phases(nest, keep)
    loops, body = parallel_loops(split.nest)
    for _, condition in split.limits.values():
        body = (Guard(condition, body),)
    for var, extent in reversed(loops.items()):
        body = (For(var, extent, Kind.PARALLEL, body),)
    return nest.with_body(body)


def run(nest: Nest, sample: Sample) -> np.ndarray:
    out = sample.op.infer(sample.types)
    sizes = {n: evaluate(e, {"*": sample.batch}) for n, e in nest.sizes.items()}
    result = np.full(out.dims(sample.batch), 99, NUMPY[out.dtype])
    names = [b.name for b in nest.buffers]
    arrays = dict(zip(names, [*floats(sample), result], strict=True))
    interpret(nest, arrays, sizes, np.float32)
    return result


def test_there_are_strided_gradients_and_tiled_kernels() -> None:
    assert {s.op.name for s in PHASED} == {"conv", "conv_dx"}
    assert len(PHASED) >= 8


@pytest.mark.parametrize("sample", PHASED, ids=lambda s: f"{s.op.name}-{s.types[0]}")
def test_splitting_keeps_the_bits(sample: Sample) -> None:
    nest = nest_of(sample)
    made = whole(nest, set())
    assert made != nest
    assert same_bits(run(nest, sample), run(made, sample))


@pytest.mark.parametrize("sample", PHASED, ids=lambda s: f"{s.op.name}-{s.types[0]}")
def test_what_is_left_of_a_loop_decides_no_remainder(sample: Sample) -> None:
    split = split_phases(nest_of(sample), set())
    loops, body = parallel_loops(split.nest)
    phased = [v for v in loops if f"{v}_phase" in loops]
    assert phased
    for i in indices(body):
        if isinstance(i, Mod):
            assert not {Var(v) for v in phased} & set(subindices(i))


@pytest.mark.parametrize("sample", PHASED, ids=lambda s: f"{s.op.name}-{s.types[0]}")
def test_loops_that_are_kept_are_kept(sample: Sample) -> None:
    nest = nest_of(sample)
    loops, _ = parallel_loops(nest)
    assert split_phases(nest, loops).nest == nest
