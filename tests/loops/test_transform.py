"""Schedule transformations keep every bit of a nest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnncc.loops.elementary import expand
from cnncc.loops.interp import interpret
from cnncc.loops.ir import (
    Assign,
    Body,
    Choose,
    For,
    Int,
    Kind,
    Let,
    Lit,
    Load,
    Nest,
    Store,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.transform import accesses, lift, parallel_loops
from cnncc.loops.verify import verify
from cnncc.loops.walk import statements, subvalues
from cnncc.ops import Sample, all_samples
from cnncc.tensor import DType, evaluate
from tests.kernels.primitives import same_bits
from tests.loops.nests import conv, guarded_average, max_pool, pointwise, random_inputs, run
from tests.ops.evaluate import NUMPY, floats

NESTS = {
    "pointwise": pointwise("relu", 3, 4, 6),
    "affine": pointwise("affine", 3, 4, 6),
    "conv": conv(3, 6, 5, 6, 3),
    "padded": conv(3, 6, 5, 6, 3, pad=1, stride=1),
    "pool": max_pool(3, 6, 6),
    "guarded": guarded_average(3, 4, 6),
}
each = pytest.mark.parametrize("name", NESTS)


def same(a: Nest, b: Nest) -> bool:
    data = random_inputs(a, 2, seed=4)
    x, y = run(a, 2, **data), run(b, 2, **data)
    return x.keys() == y.keys() and all(same_bits(x[n], y[n]) for n in x)


def rebuilt(nest: Nest, inside: Body, loops: dict[str, object]) -> Nest:
    for var, extent in reversed(loops.items()):
        inside = (For(var, extent, Kind.PARALLEL, inside),)  # type: ignore[arg-type]
    return nest.with_body(inside)


@each
def test_parallel_loops_are_the_outer_ones(name: str) -> None:
    loops, inside = parallel_loops(NESTS[name])
    assert list(loops)[:1] == ["in_"]
    assert len(loops) == 4
    assert not any(isinstance(s, For) and s.kind is Kind.PARALLEL for s in statements(inside))
    assert rebuilt(NESTS[name], inside, dict(loops)) == NESTS[name]


@each
def test_lift_keeps_the_bits_and_names_every_load(name: str) -> None:
    lifted = lift(NESTS[name])
    verify(lifted)
    assert same(NESTS[name], lifted)
    for s in statements(lifted.body):
        match s:
            case Let(_, Load()):
                pass
            case Let(_, v) | Assign(_, v) | Store(_, _, v):
                assert not any(isinstance(p, Load) for p in subvalues(v))
            case _:
                pass


def test_lift_loads_once_what_a_statement_reads_twice() -> None:
    lifted = lift(pointwise("square", 2, 3, 3))
    assert sum(isinstance(s, Let) for s in statements(lifted.body)) == 1


def test_lift_leaves_loads_below_a_choice() -> None:
    """Only one side of a Choose may be inside its buffer."""
    choice = Choose(compare("<", Var("i"), 2), Load("x", (Var("i"),)), Lit(0.0))
    body = (For("i", Int(4), Kind.PARALLEL, (Store("y", (Var("i"),), prim("neg", choice)),)),)
    assert lift(Nest((), {}, body)).body == body


def test_accesses_lists_loads_stores_and_lookups() -> None:
    found = [*accesses(NESTS["conv"].body)]
    assert sorted(buffer for buffer, _ in found) == ["w", "x", "y"]


SOME = [s for i, s in enumerate(all_samples()) if i % 9 == 0]


@pytest.mark.parametrize("sample", SOME, ids=lambda s: s.op.name)
def test_lift_keeps_the_bits_of_operators(sample: Sample) -> None:
    out = sample.op.infer(sample.types)
    nest = expand(sample.op.nest(sample.types, out), DType.F32)
    lifted = lift(nest)
    verify(lifted)
    sizes = {n: evaluate(e, {"*": sample.batch}) for n, e in nest.sizes.items()}
    results = []
    for one in (nest, lifted):
        result = np.full(out.dims(sample.batch), 99, NUMPY[out.dtype])
        names = [b.name for b in one.buffers]
        interpret(one, dict(zip(names, [*floats(sample), result], strict=True)), sizes, np.float32)
        results.append(result)
    assert same_bits(*results)
    assert replace(lifted, body=nest.body) == nest
