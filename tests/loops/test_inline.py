"""A fused nest gives the bits of the two nests run one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnncc.errors import CompilerBug
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.inline import CannotInline, inline
from cnncc.loops.ir import (
    Assign,
    Both,
    Choose,
    Condition,
    For,
    Guard,
    Kind,
    Let,
    Lit,
    Load,
    Nest,
    Ref,
    Size,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.merge import merged
from cnncc.loops.verify import verify
from cnncc.loops.walk import statements, subvalues
from cnncc.tensor import DType, TensorType
from tests.loops.nests import (
    C,
    N,
    P,
    Q,
    conv,
    guarded_average,
    maps,
    max_pool,
    pointwise,
    random_inputs,
    run,
)

BATCH = 2


def check(consumer: Nest, producer: Nest, *, keep: bool = False, seed: int = 0) -> Nest:
    """Compare the fused nest with the two in sequence, bit for bit; returns it."""
    fused = inline(consumer, producer, "x", keep=keep)
    verify(fused)
    names = merged(consumer, producer, "x", keep=keep).named(producer)
    data = random_inputs(producer, BATCH, seed)
    more = {k: v for k, v in random_inputs(consumer, BATCH, seed + 1).items() if k != "x"}
    between = run(producer, BATCH, **data)["y"]
    expected = run(consumer, BATCH, x=between, **more)["y"]
    results = run(fused, BATCH, **more, **{names[k]: v for k, v in data.items()})
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(results["y"], expected, strict=True)
    assert set(results) == ({"y", "x"} if keep else {"y"})
    if keep:
        np.testing.assert_array_equal(results["x"], between, strict=True)
    return fused


small = st.integers(1, 3)
extent = st.integers(3, 6)


@st.composite
def producers(draw: st.DrawFn, c: int, h: int, w: int) -> Nest:
    """A nest whose output is [c, h, w]."""
    kind = draw(st.sampled_from(["relu", "affine", "conv", "padded", "grouped", "average"]))
    match kind:
        case "conv":
            k = draw(st.integers(1, 3))
            return conv(draw(small), c, h + k - 1, w + k - 1, k)
        case "padded":
            return conv(draw(small), c, h, w, 3, pad=1)
        case "grouped":
            return conv(2 * c, c, h, w, 1, groups=c)
        case "average":
            return guarded_average(c, h, w)
        case _:
            return pointwise(kind, c, h, w, draw(st.sampled_from(["n c h w", "n c s0 s1"])))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Nest, Nest]:
    c, h, w = draw(small), draw(extent), draw(extent)
    consumer = draw(
        st.sampled_from(
            [
                pointwise("relu", c, h, w),
                pointwise("square", c, h, w),
                pointwise("affine", c, h, w),
                max_pool(c, h, w),
                max_pool(c, h, w, size=3, stride=2, pad=1),
                max_pool(c, h, w, size=3, stride=1),
                guarded_average(c, h, w),
                conv(c, 2, h, w, 3, pad=1),
                conv(c, 2 * c, h, w, 2, groups=c),
            ]
        )
    )
    return consumer, draw(producers(c, h, w))


@given(pairs(), st.integers(0, 1000))
@settings(max_examples=60)
def test_fused_equals_unfused(pair: tuple[Nest, Nest], seed: int) -> None:
    check(*pair, seed=seed)


@given(producers(2, 4, 6), st.integers(0, 1000))
@settings(max_examples=15)
def test_kept_elements_are_stored(producer: Nest, seed: int) -> None:
    for consumer in (pointwise("relu", 2, 4, 6), max_pool(2, 4, 6), pointwise("square", 2, 4, 6)):
        check(consumer, producer, keep=True, seed=seed)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("width", [1, 2])
def test_grouped_producer_is_inverted(groups: int, width: int) -> None:
    grouped = conv(groups, groups * width, 4, 4, 3, pad=1, groups=groups)
    check(pointwise("relu", groups * width, 4, 4), grouped)
    check(max_pool(groups * width, 4, 4), grouped, keep=True)


def test_chain_of_three() -> None:
    convolution = conv(3, 4, 7, 7, 3)
    norm = pointwise("affine", 4, 5, 5)
    relu = pointwise("relu", 4, 5, 5)
    pool = max_pool(4, 5, 5, size=3, stride=2, pad=1)
    late = inline(inline(inline(pool, relu, "x"), norm, "x"), convolution, "x")
    early = inline(pool, inline(relu, inline(norm, convolution, "x"), "x"), "x")
    data = random_inputs(convolution, BATCH, 0)
    scale = {k: v for k, v in random_inputs(norm, BATCH, 1).items() if k != "x"}
    y = run(convolution, BATCH, **data)["y"]
    for nest, more in ((norm, scale), (relu, {}), (pool, {})):
        y = run(nest, BATCH, x=y, **more)["y"]
    for fused in (late, early):
        verify(fused)
        names = [b.name for b in fused.buffers]
        assert names[-1] == "y"
        arrays = dict(zip(names, [*data.values(), *scale.values()], strict=False))
        np.testing.assert_array_equal(run(fused, BATCH, **arrays)["y"], y)


def loads(nest: Nest, buffer: str) -> list[Load]:
    return [
        v
        for s in statements(nest.body)
        if hasattr(s, "value")
        for v in subvalues(s.value)
        if isinstance(v, Load) and v.buffer == buffer
    ]


def test_equal_loads_share_one_computation() -> None:
    fused = inline(pointwise("square", 1, 3, 3), conv(1, 1, 5, 5, 3), "x")
    assert len(loads(fused, "x_w")) == 1


def test_shared_axes_keep_the_consumers_name() -> None:
    fused = check(pointwise("relu", 2, 3, 3), pointwise("affine", 2, 3, 3, "n c s0 s1"))
    assert list(fused.sizes) == ["n", "c", "h", "w"]
    assert not {"s0", "s1"} & {i.name for b in fused.buffers for i in b.extents}


def test_clashing_names_and_sizes() -> None:
    """Both convolutions have a w, and sizes of one name with other values."""
    consumer, producer = conv(3, 2, 4, 4, 3), conv(2, 3, 5, 5, 2)
    fused = check(consumer, producer)
    assert merged(consumer, producer, "x").named(producer) == {"x": "x", "w": "x_w"}
    assert [b.name for b in fused.buffers] == ["x", "x_w", "w", "y"]
    kept = merged(consumer, producer, "x", keep=True).named(producer)
    assert kept == {"x": "x_x", "w": "x_w", "y": "x"}
    assert (fused.sizes["kh"], fused.sizes["x_kh"]) == (3, 2)


def test_alias_shares_a_buffer() -> None:
    """x + relu(x): the producer's input is the consumer's other operand."""
    n = NestBuilder()
    r = n.input("r", maps(2, 3, 3), "n c h w")
    x = n.input("x", maps(2, 3, 3), "n c h w")
    y = n.output("y", maps(2, 3, 3), "n c h w")
    at = (N, C, P, Q)
    axes = [(v.name, Size(s)) for v, s in zip(at, "nchw", strict=True)]
    add = n.nest(parallel(axes, y.store(at, prim("add", r[at], x[at]))))
    relu = pointwise("relu", 2, 3, 3)
    fused = inline(add, relu, "r", alias={"x": "x"})
    assert [b.name for b in fused.buffers] == ["x", "y"]
    data = random_inputs(fused, BATCH, 3)
    result = run(fused, BATCH, **data)["y"]
    np.testing.assert_array_equal(result, data["x"] + np.maximum(data["x"], 0))
    other = pointwise("relu", 2, 3, 3)
    wrong = Nest(other.buffers, {**other.sizes, "h": 4}, other.body)
    with pytest.raises(CompilerBug, match="produced as"):
        inline(add, wrong, "r", alias={"x": "x"})


@pytest.mark.parametrize("op", ["<", "<=", "==", "!="])
@pytest.mark.parametrize("second", [None, "<", "=="])
def test_loads_in_choose_stay_in_bounds(op: str, second: str | None) -> None:
    """Either operand reads elements that do not exist on the other side."""
    n = NestBuilder()
    x = n.input("x", maps(2, 3, 4), "n c h w")
    y = n.output("y", maps(2, 3, 7), "n c h v")
    where: Condition = compare(op, Q, Size("w"))
    if second:
        where = Both(where, compare(second, P, Var("ic") + 1))
    near, far = x.padded((N, C, P, Q), 2.5), x.padded((N, C, P, Q + (-3)), -1.5)
    value = Choose(where, prim("neg", near), Choose(compare("<", C, 1), far, near))
    axes = [("in_", Size("n")), ("ic", Size("c")), ("ip", Size("h")), ("iq", Size("v"))]
    check(n.nest(parallel(axes, y.store((N, C, P, Q), value))), conv(2, 2, 3, 4, 3, pad=1))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("op", ["<", "<="])
def test_choose_protects_a_load_without_constant(op: str, swap: bool) -> None:
    """The halves of a concatenation: each Load is in range only where it is chosen."""
    n = NestBuilder()
    x = n.input("x", maps(2, 3, 3), "n c h w")
    z = n.input("z", maps(1, 3, 3), "n d h w")
    y = n.output("y", maps(3, 3, 3), "n o h w")
    o = Var("io")
    low, high = x[N, o, P, Q], z[N, o + (-2), P, Q]
    first = compare("<", o, 2) if op == "<" else compare("<=", o, 1)
    last = compare("<", 1, o) if op == "<" else compare("<=", 2, o)
    value = Choose(last, high, low) if swap else Choose(first, low, high)
    axes = [("in_", Size("n")), ("io", Size("o")), ("ip", Size("h")), ("iq", Size("w"))]
    concat = n.nest(parallel(axes, y.store((N, o, P, Q), value)))
    check(concat, conv(1, 2, 3, 3, 3, pad=1))
    with pytest.raises(CannotInline, match="condition"):
        inline(concat, conv(1, 2, 3, 3, 3, pad=1), "x", keep=True)


def two_outputs() -> Nest:
    n = NestBuilder()
    y = n.output("y", TensorType(DType.F32, (3,)), "n c")
    z = n.output("z", TensorType(DType.F32, (3,)), "n c")
    at = (N, C)
    axes = [("in_", Size("n")), ("ic", Size("c"))]
    return n.nest(parallel(axes, y.store(at, Lit(0.0)), z.store(at, Lit(1.0))))


def vector(*body: object, axis: str = "c", dtype: DType = DType.F32) -> Nest:
    """A producer of y[n, 3]."""
    n = NestBuilder()
    n.input("x", TensorType(DType.F32, (3,)), "n c")
    n.output("y", TensorType(dtype, (3,)), f"n {axis}")
    return n.nest(*body)


def relu_of_vector() -> Nest:
    n = NestBuilder()
    x = n.input("x", TensorType(DType.F32, (3,)), "n c")
    y = n.output("y", TensorType(DType.F32, (3,)), "n c")
    value = prim("max", x[N, C], 0.0)
    return n.nest(parallel([("in_", Size("n")), ("ic", Size("c"))], y.store((N, C), value)))


def softmax_like() -> Nest:
    n = NestBuilder()
    x = n.input("x", TensorType(DType.F32, (3,)), "n c")
    y = n.output("y", TensorType(DType.F32, (3,)), "n c")
    total = serial([("k", Size("c"))], Assign("s", prim("add", Ref("s"), x[N, Var("k")])))
    share = y.store((N, C), prim("div", x[N, C], Ref("s")))
    each = parallel([("ic", Size("c"))], share)
    return n.nest(parallel([("in_", Size("n"))], Let("s", Lit(0.0)), total, each))


def store_y(index: tuple[object, ...], extent: object = None) -> Nest:
    n = NestBuilder()
    y = n.output("y", TensorType(DType.F32, (3,)), "n c")
    c = Size("c") if extent is None else extent
    axes = [("in_", Size("n")), ("ic", c)]
    return n.nest(parallel(axes, y.store(index, Lit(1.0))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("producer", "reason"),
    [
        (two_outputs(), "2 outputs"),
        (softmax_like(), "share work"),
        (store_y((N, C), 2), "every element"),
        (store_y((N, 0)), "every element"),
        (store_y((N, C % 2)), "every element"),
        (store_y((N, C * 2)), "every element"),
        (vector(serial([("in_", Size("n"))], Let("a", Lit(0.0)))), "end in the Store"),
        (vector(parallel([("in_", Size("n")), ("ic", 3)], Let("a", Lit(0.0)))), "end in the Store"),
    ],
)
def test_refused_producers(producer: Nest, reason: str) -> None:
    with pytest.raises(CannotInline, match=reason):
        inline(relu_of_vector(), producer, "x")


def test_integer_outputs_are_refused() -> None:
    n = NestBuilder()
    y = n.output("y", TensorType(DType.U8, (3,)), "n c")
    axes = [("in_", Size("n")), ("ic", Size("c"))]
    with pytest.raises(CannotInline, match="u8"):
        inline(relu_of_vector(), n.nest(parallel(axes, y.store((N, C), Lit(1.5)))), "x")


@pytest.mark.parametrize(
    "consumer",
    [
        max_pool(2, 5, 6),  # the last row is dropped
        max_pool(2, 4, 4, size=3, stride=1),  # elements are read by several windows
        max_pool(2, 4, 4, size=2, stride=2, pad=1),
        guarded_average(2, 4, 4),
    ],
)
def test_keep_needs_every_element_once(consumer: Nest) -> None:
    buffer = consumer.buffer("x")
    h, w = (consumer.sizes[e.name] for e in buffer.extents[2:] if isinstance(e, Size))
    with pytest.raises(CannotInline):
        inline(consumer, pointwise("relu", 2, int(str(h)), int(str(w))), "x", keep=True)


def test_softmax_as_consumer_computes_for_each_reader() -> None:
    fused = check(softmax_like(), relu_with_offset())
    assert len(loads(fused, "b")) == 2
    with pytest.raises(CannotInline, match="2 places"):
        inline(softmax_like(), relu_with_offset(), "x", keep=True)


def relu_with_offset() -> Nest:
    n = NestBuilder()
    x = n.input("x", TensorType(DType.F32, (3,)), "n c")
    b = n.input("b", TensorType(DType.F32, (3,), batched=False), "c")
    y = n.output("y", TensorType(DType.F32, (3,)), "n c")
    value = prim("max", prim("add", x[N, C], b[C]), 0.125)
    return n.nest(parallel([("in_", Size("n")), ("ic", Size("c"))], y.store((N, C), value)))


def test_sibling_loops_compute_for_themselves() -> None:
    """Loops with a variable of one name: what the first computes is not visible in the second."""
    n = NestBuilder()
    x = n.input("x", TensorType(DType.F32, (3,)), "n c")
    y = n.output("y", TensorType(DType.F32, (1,)), "n 1")
    k = Var("k")
    add = serial([("k", Size("c"))], Assign("s", prim("add", Ref("s"), x[N, k])))
    times = serial([("k", Size("c"))], Assign("s", prim("mul", Ref("s"), x[N, k])))
    axes = [("in_", Size("n"))]
    consumer = n.nest(parallel(axes, Let("s", Lit(0.0)), add, times, y.store((N, 0), Ref("s"))))
    assert len(loads(check(consumer, relu_with_offset()), "b")) == 2


def test_guard_in_the_consumer_stays() -> None:
    fused = inline(guarded_average(1, 4, 4), conv(1, 1, 4, 4, 3, pad=1), "x")
    guards = [s for s in statements(fused.body) if isinstance(s, Guard)]
    assert len(guards) == 1
    assert any(isinstance(s, For) and s.kind is Kind.SERIAL for s in statements(guards[0].body))
