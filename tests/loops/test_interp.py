"""The interpreter computes what the words above the loop IR say, in every schedule of lanes."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnncc.errors import CompilerBug
from cnncc.loops import interp
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.interp import interpret
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Choose,
    Fetch,
    For,
    Guard,
    Int,
    Kind,
    Least,
    Let,
    Lit,
    Load,
    Nest,
    Ref,
    Size,
    Store,
    Var,
    all_of,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.primitives import PRIMITIVES
from cnncc.tensor import DType, TensorType
from tests.loops.nests import conv, random_inputs, run, sizes_of
from tests.loops.random_nests import data_for, nests
from tests.loops.sequential import run_sequentially


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal, with the signs of zeros; all NaN are one."""
    zeros = (a == 0) & (b == 0)
    signs = np.signbit(a) == np.signbit(b)
    return bool((((a == b) & (~zeros | signs)) | (np.isnan(a) & np.isnan(b))).all())


@given(nests(), st.integers(0, 99), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150)
def test_lanes_equal_one_iteration_after_the_other(
    nest: Nest, seed: int, dtype: type[np.floating]
) -> None:
    one, all_ = (data_for(nest, seed, dtype) for _ in range(2))
    sizes = sizes_of(nest, 1)
    run_sequentially(nest, one, sizes, dtype)
    interpret(nest, all_, sizes, dtype, check=True)
    for name in one:
        assert same_bits(one[name], all_[name]), name


@given(nests(), st.integers(0, 99), st.integers(1, 7))
@settings(max_examples=30)
def test_pieces_do_not_change_the_result(nest: Nest, seed: int, lanes: int) -> None:
    whole, pieces = (data_for(nest, seed, np.float32) for _ in range(2))
    interpret(nest, whole, sizes_of(nest, 1), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp, "LANES_AT_ONCE", lanes)
        interpret(nest, pieces, sizes_of(nest, 1), np.float32)
    for name in whole:
        assert same_bits(whole[name], pieces[name]), name


@pytest.mark.parametrize(("pad", "stride"), [(0, 1), (1, 1), (1, 2), (2, 3)])
def test_convolution_against_its_definition(pad: int, stride: int) -> None:
    """On small integers, so every order of summation gives the same."""
    nest = conv(3, 2, 7, 6, 3, pad=pad, stride=stride)
    data = {k: np.rint(v * 2) for k, v in random_inputs(nest, 2, 0).items()}
    x = np.pad(data["x"], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    expected = np.einsum("ncpqij,ocij->nopq", windows, data["w"])
    np.testing.assert_array_equal(run(nest, 2, **data)["y"], expected)


def test_a_layer_takes_less_than_a_second() -> None:
    nest = conv(16, 16, 28, 28, 3, pad=1)
    data = random_inputs(nest, 1, 0)
    data["y"] = np.empty((1, 16, 28, 28), np.float32)
    start = time.process_time()
    interpret(nest, data, sizes_of(nest, 1), np.float32)
    assert time.process_time() - start < 2  # 0.1 s on an idle core


# --- single statements ----------------------------------------------------------------------------


def one_axis(*body: object, **arrays: np.ndarray) -> np.ndarray:
    """Run a body with x, y[n] and ids i[m] once, with every check; returns y."""
    n = NestBuilder()
    for name, a in arrays.items():
        dtype = DType.I64 if a.dtype.kind == "i" else DType.F32
        n.input(name, TensorType(dtype, a.shape, batched=False), f"n_{name}")
    y = np.full(4, -1, np.float32)
    n.output("y", TensorType(DType.F32, (4,), batched=False), "n")
    nest = n.nest(*body)
    sizes = {name: int(str(e)) for name, e in nest.sizes.items()}
    interpret(nest, {**arrays, "y": y}, sizes, np.float32, check=True)
    return y


AT = Var("i")
ONE = Lit(1.0)
TEN = np.arange(10, 20, dtype=np.float32)


def test_accumulate_adds_in_order() -> None:
    """Large, small, minus large: the order shows in the rounding."""
    values = np.array([1e8, 1, -1e8, 1, 3], np.float32)
    ids = np.array([2, 2, 2, 0, 2])
    zero = parallel([("i", Size("n"))], Store("y", (AT,), Lit(0.0)))
    add = Accumulate("y", (Fetch("ids", (Var("e"),)),), Load("x", (Var("e"),)))
    y = one_axis(zero, serial([("e", 5)], add), x=values, ids=ids)
    in_order = np.float32(0)
    for v in values[[0, 1, 2, 4]]:
        in_order += v
    np.testing.assert_array_equal(y, np.array([1, 0, in_order, 0], np.float32))
    assert in_order != values[[0, 1, 2, 4]].sum(dtype=np.float64)


def test_colliding_accumulation_is_a_bug() -> None:
    add = Accumulate("y", (Fetch("ids", (AT,)),), ONE)
    with pytest.raises(CompilerBug, match="one address"):
        one_axis(parallel([("i", 3)], add), ids=np.array([1, 2, 1]))


def test_masks() -> None:
    work = (
        Let("a", Lit(0.0)),
        Guard(compare("<", AT, 2), (Assign("a", Load("x", (AT + 8,))),)),  # in range where on
        Guard(all_of(compare("<=", 1, AT), compare("!=", AT, 3)), (Store("y", (AT,), Ref("a")),)),
    )
    np.testing.assert_array_equal(one_axis(parallel([("i", 4)], *work), x=TEN), [-1, 19, 0, -1])


def test_masks_inside_masks() -> None:
    """An inner condition, a loop whose extent varies, and Choose all stay under the outer guard."""
    inner = (
        Guard(compare("<", AT, 3), (Assign("a", prim("add", Ref("a"), 1.0)),)),
        For("k", AT, Kind.SERIAL, (Assign("a", prim("add", Ref("a"), 10.0)),)),
        parallel([("j", AT % 2)], Guard(compare("<", AT, 3), (Store("y", (AT,), Lit(5.0)),))),
        Assign("b", Choose(compare("<", AT, 3), Load("x", (AT + (-1),)), Load("x", (AT,)))),
    )
    work = (Let("a", Lit(0.0)), Let("b", Lit(0.0)), Guard(compare("<=", 1, AT), inner))
    total = prim("add", prim("mul", Ref("a"), 100.0), Ref("b"))
    end = Guard(compare("!=", AT, 1), (Store("y", (AT,), total),))
    y = one_axis(parallel([("i", 4)], *work, end), x=TEN)
    np.testing.assert_array_equal(y, [0, 5, 2111, 3013])


def test_choose_evaluates_the_chosen_operand_only() -> None:
    value = Choose(compare("<", AT, 2), Load("x", (AT + 8,)), Load("x", (AT + (-2),)))
    y = one_axis(parallel([("i", 4)], Store("y", (AT,), value)), x=TEN)
    np.testing.assert_array_equal(y, [18, 19, 10, 11])


def test_extents_that_differ_between_lanes() -> None:
    """y[i] = the sum of the first min(i, 2) elements."""
    add = Assign("a", prim("add", Ref("a"), Load("x", (Var("k"),))))
    loop = For("k", Least(AT, Int(2)), Kind.SERIAL, (add,))
    y = one_axis(parallel([("i", 4)], Let("a", Lit(0.0)), loop, Store("y", (AT,), Ref("a"))), x=TEN)
    np.testing.assert_array_equal(y, [0, 10, 21, 21])


def test_outside_is_a_constant_only_with_one() -> None:
    loop = parallel([("i", 4)], Store("y", (AT,), Load("x", (AT + 8,), -2.5)))
    np.testing.assert_array_equal(one_axis(loop, x=TEN), [18, 19, -2.5, -2.5])
    loop = parallel([("i", 4)], Store("y", (AT,), Load("x", (AT + 8,))))
    with pytest.raises(CompilerBug, match="out of the range"):
        one_axis(loop, x=TEN)
    with pytest.raises(CompilerBug, match="out of the range"):
        one_axis(parallel([("i", 5)], Store("y", (AT,), ONE)))


def test_loops_without_iterations() -> None:
    body = parallel([("i", Int(0)), ("j", Size("n"))], Store("y", (Var("j"),), ONE))
    np.testing.assert_array_equal(one_axis(body), [-1] * 4)


@pytest.mark.parametrize(
    "body",
    [
        parallel([("i", 4), ("j", 2)], Store("y", (AT,), ONE)),
        parallel([("i", 4)], Store("y", (AT // 2,), ONE)),
        parallel([("i", 4)], serial([("k", 2)], Store("y", ((AT + Var("k")) % 4,), ONE))),
        parallel([("i", 2)], Store("y", (AT,), ONE), Store("y", (AT + 1,), ONE)),
        parallel([("i", 3)], Store("y", (AT,), ONE), Store("y", (AT,), Load("y", (AT + 1,)))),
    ],
)
def test_dependent_iterations_are_found(body: object) -> None:
    with pytest.raises(CompilerBug, match=r"one address|another one wrote"):
        one_axis(body)


def test_sequential_reuse_of_an_address_is_allowed() -> None:
    """Each iteration may write its own address twice, and another loop may write it again."""
    twice = parallel([("i", 4)], serial([("k", 2)], Store("y", (AT,), ONE)))
    again = parallel([("i", 4)], Store("y", (3 + AT * (-1),), Load("y", (3 + AT * (-1),))))
    np.testing.assert_array_equal(one_axis(twice, again), [1] * 4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Assign("a", ONE), "not visible"),
        (Store("y", (Int(0),), Ref("a")), "not visible"),
        (Store("y", (Int(0), Int(0)), ONE), "2 indices"),
        (Store("y", (Int(3) // (Size("n") + (-4)),), ONE), "positive"),
        (Store("y", (Int(0),), prim("exp", 1.0)), "expanded"),
        (parallel([("i", 2), ("i", 2)], Store("y", (AT,), ONE)), "already visible"),
    ],
)
def test_invalid_nests(body: object, message: str) -> None:
    with pytest.raises(CompilerBug, match=message):
        one_axis(body)


def test_parallel_iterations_cannot_share_a_local() -> None:
    with pytest.raises(CompilerBug, match="one local"):
        one_axis(Let("a", ONE), parallel([("i", 2)], Assign("a", ONE)))


def test_integers_convert_both_ways() -> None:
    """Loading a number that f32 cannot hold rounds it; storing to u8 converts back."""
    big = np.array([16777217, 3], np.int64)
    y = one_axis(parallel([("i", 2)], Store("y", (AT,), Load("ids", (AT,)))), ids=big)
    np.testing.assert_array_equal(y[:2], [16777216, 3])
    n = NestBuilder()
    n.output("k", TensorType(DType.U8, (2,), batched=False), "n")
    nest = n.nest(parallel([("i", Size("n"))], Store("k", (AT,), Lit(200.0))))
    k = np.zeros(2, np.uint8)
    interpret(nest, {"k": k}, {"n": 2}, np.float32)
    np.testing.assert_array_equal(k, [200, 200])


def test_buffers_without_axes() -> None:
    n = NestBuilder()
    s = n.output("s", TensorType(DType.F32, (), batched=False), "")
    x = n.input("x", TensorType(DType.F32, (3,), batched=False), "n")
    add = serial([("k", 3)], Assign("a", prim("add", Ref("a"), x[Var("k")])))
    total = np.zeros((), np.float32)
    nest = n.nest(Let("a", Lit(0.0)), add, s.store((), Ref("a")))
    interpret(nest, {"s": total, "x": TEN[:3]}, {"n": 3}, np.float32)
    assert total == 33


@pytest.mark.parametrize(
    ("arrays", "sizes", "message"),
    [
        ({}, {"n": 4}, "no array"),
        ({"y": np.zeros(3, np.float32)}, {"n": 4}, "shape"),
        ({"y": np.zeros(4, np.int32)}, {"n": 4}, "f32 in the nest"),
        ({"y": np.zeros(4, np.float32)}, {}, "sizes n"),
    ],
)
def test_arguments_that_do_not_fit(
    arrays: dict[str, np.ndarray], sizes: dict[str, int], message: str
) -> None:
    n = NestBuilder()
    y = n.output("y", TensorType(DType.F32, (4,), batched=False), "n")
    nest = n.nest(parallel([("i", Size("n"))], y.store((AT,), ONE)))
    with pytest.raises(ValueError, match=message):
        interpret(nest, arrays, sizes, np.float32)


# --- primitives -----------------------------------------------------------------------------------

SPECIAL = np.array(
    [0, -0.0, 1e-45, -1e-40, 1, -1.5, 3e38, np.inf, -np.inf, np.nan, 2.5], np.float32
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mantissa_and_exponent_rebuild_the_number(dtype: type[np.floating]) -> None:
    x = np.random.default_rng(0).standard_cauchy(1000).astype(dtype)
    m, e = PRIMITIVES["mantissa"](x), PRIMITIVES["exponent"](x)
    assert m.dtype == e.dtype == dtype
    assert ((np.abs(m) >= 1) & (np.abs(m) < 2)).all()
    np.testing.assert_array_equal(np.ldexp(m, e.astype(int)), x)
    np.testing.assert_array_equal(PRIMITIVES["scale2"](m, e), x)


def test_max_and_min_propagate_nan_and_take_the_second_of_equals() -> None:
    x, y = np.meshgrid(SPECIAL, SPECIAL)
    for fn, reference in (("max", np.maximum), ("min", np.minimum)):
        np.testing.assert_array_equal(PRIMITIVES[fn](x, y), reference(x, y))
    zero = np.float32(0)
    assert np.signbit(PRIMITIVES["max"](zero, -zero))


def test_comparisons_and_select() -> None:
    x, y = np.meshgrid(SPECIAL, SPECIAL)
    for fn, reference in (("lt", x < y), ("le", x <= y), ("eq", x == y), ("ne", x != y)):
        result = PRIMITIVES[fn](x, y)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.where(reference, 1.0, 0.0))
    chosen = PRIMITIVES["select"](SPECIAL, np.float32(1), np.float32(2))
    np.testing.assert_array_equal(chosen, np.where(SPECIAL == 0, 2, 1))
