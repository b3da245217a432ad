"""Elementary functions: accuracy over all floats, limits, smoothness, and where they may stand."""

import math

import numpy as np
import pytest

from cnncc.loops import coefficients
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.elementary import expand
from cnncc.loops.interp import interpret
from cnncc.loops.ir import (
    ELEMENTARY,
    PRIMITIVES,
    Assign,
    Choose,
    Guard,
    Let,
    Lit,
    Nest,
    Prim,
    Ref,
    Size,
    Value,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.loops.verify import verify
from cnncc.loops.walk import statements, values
from cnncc.tensor import DType, TensorType
from tests.loops import minimax

DTYPES = {np.float32: DType.F32, np.float64: DType.F64}
LEAST_NORMAL = {np.float32: 2.0**-126, np.float64: 2.0**-1022}

INF = math.inf

# Units in the last place, over all results that are normal.
ULPS = {"exp": 2, "log": 2, "expm1": 4, "log1p": 4, "tanh": 4, "sigmoid": 4, "erf": 4}


def nest_of(value: Value, dtype: DType, count: int) -> Nest:
    n = NestBuilder()
    shape = TensorType(dtype, (count,), batched=False)
    n.input("x", shape, "n")
    y = n.output("y", shape, "n")
    return n.nest(parallel([("i", Size("n"))], y.store((Var("i"),), value)))


def apply(fn: str, x: np.ndarray) -> np.ndarray:
    dtype = x.dtype.type
    n = NestBuilder()
    load = n.input("x", TensorType(DTYPES[dtype], (len(x),), batched=False), "n")[Var("i")]
    nest = expand(nest_of(prim(fn, load), DTYPES[dtype], len(x)), DTYPES[dtype])
    verify(nest)
    y = np.empty_like(x)
    interpret(nest, {"x": x, "y": y}, {"n": len(x)}, dtype)
    return y


def reference(fn: str, x: np.ndarray) -> np.ndarray:
    """In float64 for f32 and in long double for f64; erf one by one, by the C library."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(all="ignore"):
        match fn:
            case "erf":
                return np.array([math.erf(v) for v in wide.tolist()]).astype(wide.dtype)
            case "sigmoid":
                return 1 / (1 + np.exp(-wide))
            case _:
                return getattr(np, fn)(wide)


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error in units in the last place, where the exact result is normal and finite."""
    with np.errstate(all="ignore"):
        rounded = np.abs(exact).astype(y.dtype)
        there = np.isfinite(rounded) & (rounded >= LEAST_NORMAL[y.dtype.type])
        assert (np.isfinite(y) | ~there | (rounded > np.finfo(y.dtype).max * 0.999999)).all()
        unit = np.spacing(rounded).astype(exact.dtype)
        error = np.abs(y.astype(exact.dtype) - exact) / unit
    return np.where(there & np.isfinite(y), error, 0)


def inputs(dtype: type[np.floating]) -> np.ndarray:
    """Floats evenly spread over all bit patterns, and dense where the functions change."""
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        bits = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
    else:
        exponents = rng.uniform(-1022, 1023, 20_000)
        x = np.exp2(exponents) * rng.choice([-1, 1], 20_000)
    dense = [
        rng.uniform(-10, 10, 20_000),
        rng.uniform(-1, 1, 20_000) ** 3,
        rng.uniform(0.4, 2.5, 20_000),
        rng.uniform(-740, 710, 10_000) if dtype == np.float64 else rng.uniform(-103, 89, 10_000),
    ]
    x = np.concatenate([x, *(d.astype(dtype) for d in dense)])
    return x[np.isfinite(x)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fn", sorted(ELEMENTARY))
def test_accuracy(fn: str, dtype: type[np.floating]) -> None:
    x = inputs(dtype)
    if fn == "erf" and dtype == np.float64:  # the reference is only good to about an ulp itself
        x = x[::3]
    y, exact = apply(fn, x), reference(fn, x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    assert ulps(y, exact).max() <= ULPS[fn]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("fn", "at"),
    [
        ("exp", [(0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (1000, INF), (-1000, 0)]),
        ("expm1", [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -1), (1000, INF), (-1000, -1)]),
        ("log", [(0, -INF), (-0.0, -INF), (1, 0), (INF, INF), (-1, np.nan), (-INF, np.nan)]),
        ("log1p", [(0, 0), (-0.0, -0.0), (-1, -INF), (INF, INF), (-2, np.nan), (-INF, np.nan)]),
        ("tanh", [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (30, 1), (-30, -1)]),
        ("sigmoid", [(0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (40, 1), (-1000, 0)]),
        ("erf", [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (7, 1), (-7, -1)]),
    ],
)
def test_limits(fn: str, at: list[tuple[float, float]], dtype: type[np.floating]) -> None:
    x, expected = (np.array([*side, np.nan], dtype) for side in zip(*at, strict=True))
    y = apply(fn, x)
    np.testing.assert_array_equal(y, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overflow_and_denormals(dtype: type[np.floating]) -> None:
    info = np.finfo(dtype)
    top = np.log(np.longdouble(info.max))
    inside, outside = dtype(top * (1 - 4 * info.eps)), dtype(top * (1 + 4 * info.eps))
    assert np.isfinite(apply("exp", np.array([inside]))).all()
    assert np.isfinite(apply("expm1", np.array([inside]))).all()
    assert np.isinf(apply("exp", np.array([outside]))).all()
    small = info.smallest_subnormal
    tiny = np.array([small, -small, 3 * small, info.tiny / 8, -info.tiny / 2], dtype)
    for fn in ("expm1", "log1p", "tanh"):
        assert (np.abs(apply(fn, tiny) - tiny) <= small).all(), fn
    low = np.log(np.longdouble(info.tiny)).astype(dtype) - dtype(3.5)
    got = apply("exp", np.array([low]))[0]
    assert abs(np.longdouble(got) - np.exp(np.longdouble(low))) <= 2 * small
    assert ulps(apply("log", tiny[2:4]), np.log(tiny[2:4].astype(np.longdouble))).max() <= 2


@pytest.mark.parametrize("fn", sorted(ELEMENTARY))
def test_finite_differences(fn: str) -> None:
    """Smooth at the scale of a gradient check, at the seams of the formulas in particular."""
    x = np.concatenate(
        [np.linspace(-6, 6, 6001), [0.0, 1.0, -1.0], np.log(2) / 2 * np.arange(-9, 9)]
    )
    x = x[x > 0.01] if fn == "log" else x[x > -0.99] if fn == "log1p" else x
    eps = 1e-6
    slope = (apply(fn, x + eps) - apply(fn, x - eps)) / (2 * eps)
    s = 1 / (1 + np.exp(-x))
    exact = {
        "exp": np.exp(x), "expm1": np.exp(x), "log": 1 / np.where(x > 0, x, 1),
        "log1p": 1 / np.where(x > -1, 1 + x, 1), "tanh": 1 - np.tanh(x) ** 2,
        "sigmoid": s * (1 - s), "erf": 2 / math.sqrt(math.pi) * np.exp(-x * x),
    }[fn]  # fmt: skip
    np.testing.assert_allclose(slope, exact, atol=1e-5, rtol=1e-8)


def test_coefficients_are_the_minimax_polynomials() -> None:
    for name, (expected, error) in minimax.table().items():
        digits = 1e-6 if name.endswith("F32") else 1e-9
        got = getattr(coefficients, name)
        np.testing.assert_allclose(got, expected, rtol=digits, err_msg=name)
        assert error < (4e-8 if name.endswith("F32") else 4e-16)
    for dtype, (hi, lo) in zip(DTYPES, (coefficients.LN2_F32, coefficients.LN2_F64), strict=True):
        total = np.longdouble(dtype(hi)) + np.longdouble(dtype(lo))
        assert abs(total - np.log(np.longdouble(2))) < np.finfo(dtype).eps ** 2
    for name in minimax.table():
        if name.endswith("F32"):
            rounded = [float(str(np.float32(c))) for c in getattr(coefficients, name)]
            assert rounded == list(getattr(coefficients, name))


# --- placement ------------------------------------------------------------------------------------


def vectors(*body: object) -> Nest:
    n = NestBuilder()
    shape = TensorType(DType.F64, (5,), batched=False)
    n.input("x", shape, "n")
    n.output("y", shape, "n")
    return n.nest(*body)


def run(nest: Nest) -> tuple[np.ndarray, np.ndarray, Nest]:
    """x, y and the expanded nest, which has primitives only."""
    expanded = expand(nest, DType.F64)
    verify(expanded)
    assert all(v.fn in PRIMITIVES for v in values(expanded.body) if isinstance(v, Prim))
    x, y = np.linspace(-1.5, 2, 5), np.full(5, np.nan)
    interpret(expanded, {"x": x, "y": y}, {"n": 5}, np.float64, check=True)
    return x, y, expanded


AT = Var("i")


def each(*body: object) -> object:
    return parallel([("i", Size("n"))], *body)


def x_at(offset: int = 0) -> Value:
    return NestBuilder().input("x", TensorType(DType.F64, (5,), batched=False), "n")[AT + offset]


def store(value: Value) -> object:
    return (
        NestBuilder()
        .output("y", TensorType(DType.F64, (5,), batched=False), "n")
        .store((AT,), value)
    )


def test_nested_calls() -> None:
    value = prim("add", prim("exp", prim("tanh", x_at())), prim("erf", prim("sigmoid", x_at())))
    x, y, _ = run(vectors(each(store(value))))
    expected = np.exp(np.tanh(x)) + [math.erf(v) for v in 1 / (1 + np.exp(-x))]
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_equal_calls_are_computed_once() -> None:
    value = prim("mul", prim("exp", x_at()), prim("add", prim("exp", x_at()), 1.0))
    x, y, nest = run(vectors(each(store(value))))
    np.testing.assert_allclose(y, np.exp(x) * (np.exp(x) + 1), rtol=1e-14)
    assert sum(isinstance(v, Prim) and v.fn == "scale2" for v in values(nest.body)) == 1


def test_in_serial_loops_guards_and_assignments() -> None:
    step = Assign("a", prim("tanh", prim("add", Ref("a"), prim("exp", x_at()))))
    loop = serial([("k", 3)], Guard(compare("<", Var("k"), 2), (step,)))
    x, y, _ = run(vectors(each(Let("a", Lit(0.5)), loop, store(prim("log1p", Ref("a"))))))
    a = np.full(5, 0.5)
    for _ in range(2):
        a = np.tanh(a + np.exp(x))
    np.testing.assert_allclose(y, np.log1p(a), rtol=1e-14)


def test_in_the_operands_of_choose_and_select() -> None:
    """Loads of the argument stay in range though both functions are computed everywhere."""
    left, right = prim("exp", x_at(1)), prim("log", prim("abs", x_at(-3)))
    inner = prim("select", prim("lt", x_at(), 0.0), prim("expm1", x_at()), x_at())
    value = Choose(compare("<", AT, 3), prim("add", left, inner), right)
    x, y, _ = run(vectors(each(store(value))))
    expected = [
        np.exp(x[i + 1]) + (np.expm1(x[i]) if x[i] < 0 else x[i])
        if i < 3
        else np.log(abs(x[i - 3]))
        for i in range(5)
    ]
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_nests_without_calls_are_left_alone() -> None:
    nest = vectors(each(store(prim("sqrt", x_at()))))
    assert expand(nest, DType.F32) is nest


def test_names_do_not_clash() -> None:
    """The nest already uses the names that the expansion would like."""
    lets = [Let(f"{stem}_{k}", x_at()) for stem in ("x", "n", "r", "exp") for k in (1, 2)]
    x, y, nest = run(vectors(each(*lets, store(prim("exp", Ref("x_2"))))))
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-14)
    names = [s.name for s in statements(nest.body) if isinstance(s, Let)]
    assert len(names) == len(set(names))
