"""Schedule transformations: `lift` and `jam` keep every bit of a nest, and say which statements
depend on what.
"""

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
    Guard,
    Int,
    Kind,
    Let,
    Lit,
    Load,
    Nest,
    Ref,
    Size,
    Statement,
    Store,
    Var,
    prim,
    statements,
    subvalues,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.transform import accesses, dependents, depends, jam, lift, parallel_loops
from cnncc.loops.verify import verify
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


def jammed(nest: Nest, var: str, width: int) -> Nest:
    """The nest with the parallel loop `var` unrolled by a width that divides its extent."""
    lifted = lift(nest)
    loops, inside = parallel_loops(lifted)
    extent = loops[var]
    count = nest.sizes[extent.name] if isinstance(extent, Size) else None
    assert isinstance(count, int)
    assert count % width == 0
    inside = jam(inside, var, [Var("block") * width + k for k in range(width)])
    kept = {
        ("block" if v == var else v): (Int(count // width) if v == var else e)
        for v, e in loops.items()
    }
    return rebuilt(lifted, inside, dict(kept))


@pytest.mark.parametrize(("var", "width"), [("iq", 2), ("ic", 3), ("ip", 2)])
@pytest.mark.parametrize("name", ["pointwise", "affine", "guarded"])
def test_jam_keeps_the_bits(name: str, var: str, width: int) -> None:
    made = jammed(NESTS[name], var, width)
    verify(made)
    assert same(NESTS[name], made)


@pytest.mark.parametrize(
    ("name", "var", "width"),
    [
        ("padded", "iq", 6),
        ("padded", "iq", 2),
        ("padded", "io", 3),
        ("conv", "iq", 4),
        ("conv", "io", 6),
        ("pool", "iq", 3),
    ],
)
def test_jam_interleaves_below_serial_loops(name: str, var: str, width: int) -> None:
    made = jammed(NESTS[name], var, width)
    verify(made)
    assert same(NESTS[name], made)
    serial = [s for s in statements(made.body) if isinstance(s, For) and s.kind is Kind.SERIAL]
    original = [
        s for s in statements(NESTS[name].body) if isinstance(s, For) and s.kind is Kind.SERIAL
    ]
    assert len(serial) == len(original)  # one loop over the reduction for all copies


def test_jam_in_two_directions_makes_a_register_tile() -> None:
    """2 x 3 accumulators: each weight is loaded once for all positions, each input once for all
    channels.
    """
    lifted = lift(NESTS["conv"])
    loops, inside = parallel_loops(lifted)
    inside = jam(inside, "io", [Var("o0") * 3 + k for k in range(3)])
    inside = jam(inside, "iq", [Var("q0") * 2 + k for k in range(2)])
    kept = {"in_": loops["in_"], "o0": Int(2), "ip": loops["ip"], "q0": Int(2)}
    made = rebuilt(lifted, inside, dict(kept))
    verify(made)
    assert same(NESTS["conv"], made)
    innermost = [s for s in statements(made.body) if isinstance(s, For)][-1]
    loads = [
        s.value.buffer for s in innermost.body if isinstance(s, Let) and isinstance(s.value, Load)
    ]
    assert sorted(loads) == ["w"] * 3 + ["x"] * 2
    assert sum(isinstance(s, Assign) for s in innermost.body) == 6


def test_jam_of_one_copy_is_a_substitution() -> None:
    _, inside = parallel_loops(NESTS["conv"])
    once = jam(inside, "iq", [Int(2)])
    assert len([*statements(once)]) == len([*statements(inside)])
    assert not depends_on(once, "iq")


def depends_on(body: Body, var: str) -> bool:
    return any(depends(s, var, dependents(body, var)) for s in body)


def test_dependence_goes_through_locals_and_guards() -> None:
    load = Load("x", (Var("i"),))
    body: Body = (
        Let("a", load),
        Let("b", prim("neg", Ref("a"))),
        Let("c", Lit(1.0)),
        Guard(compare("<", Var("i"), 3), (Assign("c", Lit(2.0)),)),
        Let("d", Ref("c")),
        Let("e", Lit(3.0)),
        For("j", Var("i"), Kind.SERIAL, (Assign("e", Lit(4.0)),)),
        Let("f", Lit(5.0)),
    )
    assert dependents(body, "i") == {"a", "b", "c", "d", "e"}
    assert dependents(body, "j") == set()
    wanted: list[Statement] = [*body[:7]]
    assert [s for s in body if depends(s, "i", dependents(body, "i"))] == wanted


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
