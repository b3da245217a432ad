"""A consumer pushed into a producer of several elements at a time gives the bits of the two nests
run one after the other.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import Accumulate, Assign, Guard, Let, Lit, Nest, Ref, Var, prim
from cnncc.loops.ir import test as compare
from cnncc.loops.merge import merged
from cnncc.loops.producer import CannotInline
from cnncc.loops.push import push
from cnncc.loops.verify import verify
from cnncc.tensor import DType, TensorType
from tests.loops.nests import random_inputs, run

BATCH = 2


def row(extent: int) -> TensorType:
    return TensorType(DType.F32, (3, extent), batched=True)


def pairs(extent: int, *, adding: bool = False) -> Nest:
    """Sum and difference of neighbours, two elements per iteration, the last maybe alone."""
    n = NestBuilder()
    x, y = n.input("x", row(extent), "n c s"), n.output("y", row(extent), "n c s")
    i = (Var("i_n"), Var("i_c"))
    first, second = Var("i_p") * 2, Var("i_p") * 2 + 1
    last = Accumulate("y", (*i, first), Ref("b")) if adding else y.store(
        (*i, second), prim("sub", Ref("a"), Ref("b")))  # fmt: skip
    axes = [(v, n.size(v[2:], n.sizes[v[2:]])) for v in ("i_n", "i_c")]
    half = ("i_p", n.size("half", (extent + 1) // 2))
    return n.nest(
        parallel(
            [*axes, half],
            Let("a", x[(*i, first)]),
            Let("b", x.padded((*i, second), 0.5)),
            y.store((*i, first), prim("add", Ref("a"), Ref("b"))),
            Guard(compare("<", second, n.size("s", extent)), (last,)),
        )
    )


def scaled(extent: int) -> Nest:
    """y = max(w[c] * x, r) for every element, through a local."""
    n = NestBuilder()
    x, w = (
        n.input("x", row(extent), "n c s"),
        n.input("w", TensorType(DType.F32, (3,), batched=False), "c"),
    )
    r, y = n.input("r", row(extent), "n c s"), n.output("y", row(extent), "n c s")
    i = (Var("i_n"), Var("i_c"), Var("i_s"))
    axes = [(v.name, n.size(v.name[2:], n.sizes[v.name[2:]])) for v in i]
    return n.nest(
        parallel(
            axes,
            Let("t", prim("mul", w[Var("i_c")], x[i])),
            y.store(i, prim("max", Ref("t"), r[i])),
        )
    )


def shifted(extent: int, *, by: int = 1, summed: bool = False) -> Nest:
    """y = x at the next position, or a sum of several."""
    n = NestBuilder()
    x, y = n.input("x", row(extent), "n c s"), n.output("y", row(extent), "n c s")
    i = (Var("i_n"), Var("i_c"), Var("i_s"))
    axes = [(v.name, n.size(v.name[2:], n.sizes[v.name[2:]])) for v in i]
    if not summed:
        return n.nest(parallel(axes, y.store(i, x.padded((*i[:2], i[2] + by), 0.0))))
    add = Assign("acc", prim("add", Ref("acc"), x[i]))
    loop = serial([("t", 2)], add)
    return n.nest(parallel(axes, Let("acc", Lit(0.0)), loop, y.store(i, Ref("acc"))))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("extent", [1, 4, 7])
def test_pushed_equals_one_after_the_other(extent: int, keep: bool) -> None:
    producer, consumer = pairs(extent), scaled(extent)
    pushed = push(consumer, producer, "x", keep=keep)
    verify(pushed)
    names = merged(consumer, producer, "x", keep=keep).named(producer)
    data = random_inputs(producer, BATCH, 0)
    more = {k: v for k, v in random_inputs(consumer, BATCH, 1).items() if k != "x"}
    between = run(producer, BATCH, **data)["y"]
    expected = run(consumer, BATCH, x=between, **more)["y"]
    results = run(pushed, BATCH, **more, **{names[k]: v for k, v in data.items()})
    assert np.array_equal(results["y"], expected)
    if keep:
        assert np.array_equal(results["x"], between)


def pooled(extent: int, *, by: int = 2, wide: int | None = None) -> Nest:
    """y = the sum of the weighted elements of every window, in order, the window's axis last."""
    n = NestBuilder()
    x, y = n.input("x", row(extent), "n c s"), n.output("y", row(extent // by), "n c o")
    w = n.input("w", TensorType(DType.F32, (wide or by,), batched=False), "k")
    i = (Var("i_n"), Var("i_c"), Var("i_o"))
    axes = [(v.name, n.size(v.name[2:], n.sizes[v.name[2:]])) for v in i]
    at = i[2] * n.size("stride", by) + Var("t")
    term = prim("mul", Ref("v"), w[Var("t")])
    loop = serial(
        [("t", wide or by)], Let("v", x[(*i[:2], at)]), Assign("acc", prim("add", term, Ref("acc")))
    )
    return n.nest(parallel(axes, Let("acc", Lit(0.5)), loop, y.store(i, Ref("acc"))))


def quads(extent: int) -> Nest:
    """Four elements per iteration: running sums."""
    n = NestBuilder()
    x, y = n.input("x", row(extent), "n c s"), n.output("y", row(extent), "n c s")
    i = (Var("i_n"), Var("i_c"))
    axes = [(v, n.size(v[2:], n.sizes[v[2:]])) for v in ("i_n", "i_c")]
    places = [Var("i_p") * 4 + k for k in range(4)]
    stores = []
    for k, place in enumerate(places):
        last = x[(*i, place)] if k == 0 else prim("add", Ref(f"a{k - 1}"), x[(*i, place)])
        stores += [Let(f"a{k}", last), y.store((*i, place), Ref(f"a{k}"))]
    return n.nest(parallel([*axes, ("i_p", n.size("quarter", extent // 4))], *stores))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("by", [2, 4])
def test_windows_that_lie_in_one_iteration_are_pushed(by: int, keep: bool) -> None:
    producer, consumer = quads(12), pooled(12, by=by)
    pushed = push(consumer, producer, "x", keep=keep)
    verify(pushed)
    names = merged(consumer, producer, "x", keep=keep).named(producer)
    data = random_inputs(producer, BATCH, 0)
    w = random_inputs(consumer, BATCH, 1)["w"]
    between = run(producer, BATCH, **data)["y"]
    expected = run(consumer, BATCH, x=between, w=w)["y"]
    results = run(pushed, BATCH, w=w, **{names[k]: v for k, v in data.items()})
    assert np.array_equal(results["y"], expected)
    if keep:
        assert np.array_equal(results["x"], between)


@pytest.mark.parametrize(
    ("consumer", "producer", "reason"),
    [
        (pooled(12, by=3), quads(12), "not in one iteration"),
        (pooled(8), pairs(8), "not complete in one iteration"),  # an element of it is guarded
        (pooled(13), pairs(13), "all of the tensor"),
        (pooled(12, wide=1), quads(12), "all of the tensor"),
        (pooled(12, wide=3), quads(12), "element by element"),
    ],
)
def test_other_windows_are_refused(consumer: Nest, producer: Nest, reason: str) -> None:
    with pytest.raises(CannotInline) as caught:
        push(consumer, producer, "x")
    assert reason in caught.value.reason


def test_two_consumers_are_pushed_one_after_the_other() -> None:
    extent = 5
    once = push(scaled(extent), pairs(extent), "x")
    twice = push(scaled(extent), once, "x")
    verify(twice)
    assert len([b for b in twice.buffers if b.role == "in"]) == 5


@pytest.mark.parametrize(
    ("consumer", "reason"),
    [
        (shifted(4), "element by element"),
        (shifted(4, summed=True), "loops of its own"),
    ],
)
def test_other_consumers_are_refused(consumer: Nest, reason: str) -> None:
    with pytest.raises(CannotInline) as caught:
        push(consumer, pairs(4), "x")
    assert reason in caught.value.reason


def test_a_producer_that_changes_what_it_stored_is_refused() -> None:
    with pytest.raises(CannotInline) as caught:
        push(scaled(4), pairs(4, adding=True), "x")
    assert "after it has stored" in caught.value.reason
