"""The verifier accepts what operators write, rejects seeded faults, and its proofs hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnncc.errors import CompilerBug
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    Buffer,
    Choose,
    Fetch,
    For,
    Guard,
    Index,
    Int,
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
from cnncc.loops.ranges import Scope, nonnegative
from cnncc.loops.text import parse
from cnncc.loops.verify import bounds, verify
from cnncc.loops.walk import statements
from cnncc.tensor import DType, TensorType, evaluate, symbol
from tests.loops.nests import conv, guarded_average, max_pool, pointwise
from tests.loops.random_nests import nests
from tests.loops.sequential import Sequential

H, W = symbol("H"), symbol("W")


@pytest.mark.parametrize(
    "nest",
    [
        conv(3, 4, 8, 9, 3),
        conv(3, 4, 8, 9, 3, pad=1, stride=2),
        conv(4, 6, 5, 5, 3, pad=1, groups=2),
        conv(4, 6, 7, 7, 3, stride=2, groups=2),
        max_pool(2, 7, 8, size=3, stride=2),
        guarded_average(2, 4, 5),
        pointwise("affine", 2, 3, 4),
    ],
)
def test_operators_nests_are_proved(nest: Nest) -> None:
    verify(nest)
    assert all(p.holds for p in bounds(nest))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_are_proved_for_all_extents(stride: int) -> None:
    """The floor in the output extent makes the last window fit, whatever H and W are."""
    n = NestBuilder()
    x = n.input("x", TensorType(DType.F32, (2, H + 4, W + 9)), "n c h w")
    out = ((H + 4 - 3) // stride + 1, (W + 9 - 5) // stride + 1)
    y = n.output("y", TensorType(DType.F32, (2, *out)), "n c p q")
    v = {k: Var(k) for k in "ncpqij"}
    tap = x[v["n"], v["c"], v["p"] * stride + v["i"], v["q"] * stride + v["j"]]
    nest = n.nest(
        parallel(
            [(k, Size(k)) for k in "ncpq"],
            Let("m", Lit(0.0)),
            serial([("i", 3), ("j", 5)], Assign("m", prim("max", Ref("m"), tap))),
            y.store(tuple(v[k] for k in "ncpq"), Ref("m")),
        )
    )
    verify(nest)
    assert all(p.holds for p in bounds(nest))
    too_far = Nest(nest.buffers, {**nest.sizes, "p": out[0] + 1}, nest.body)
    assert [p.holds for p in bounds(too_far)] == [False, True]
    verify(too_far)  # undecided while H is a symbol
    with pytest.raises(CompilerBug, match="index 2 is in"):
        verify(
            too_far, {k: evaluate(e, {"*": 2, "H": 6, "W": 6}) for k, e in too_far.sizes.items()}
        )


def at_six(nest: Nest) -> dict[str, int]:
    return {name: evaluate(e, {"*": 2, "H": 6, "W": 6}) for name, e in nest.sizes.items()}


@given(nests())
@settings(max_examples=60)
def test_valid_nests_are_accepted(nest: Nest) -> None:
    """Random nests are in range through `%`, or by a constant outside, or by a condition."""
    verify(nest)
    assert all(p.holds for p in bounds(nest))


class Recording(Sequential):
    """Notes every index that is accessed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.seen: dict[str, list[tuple[int, ...]]] = {}

    def place(self, buffer: str, index: tuple[Index, ...]) -> tuple[int, ...]:
        at = super().place(buffer, index)
        self.seen.setdefault(buffer, []).append(at)
        return at


@given(st.integers(1, 2), st.integers(3, 6), st.integers(0, 1), st.integers(1, 3))
@settings(max_examples=25)
def test_ranges_contain_every_index(c: int, h: int, pad: int, stride: int) -> None:
    """What is accessed in a run lies in the proved ranges, and the ranges are attained."""
    nest = conv(c, 2, h, h + 1, 2, pad=0, stride=stride)
    sizes = {k: evaluate(e, {"*": 2}) for k, e in nest.sizes.items()}
    arrays = {
        "x": np.zeros((2, c, h, h + 1), np.float32),
        "w": np.zeros((2, c, 2, 2), np.float32),
        "y": np.zeros((2, 2, sizes["p"], sizes["q"]), np.float32),
    }
    run = Recording(arrays, sizes, np.float32)
    run.body(nest.body)
    for proof in bounds(nest, sizes):
        seen = np.array(run.seen[proof.access.split("[")[0]])
        assert [r.lo for r in proof.ranges] == seen.min(0).tolist()
        assert [r.hi for r in proof.ranges] == seen.max(0).tolist()


# --- narrowing ------------------------------------------------------------------------------------

X = Buffer("x", DType.F32, (Int(8),), "in")
Y = Buffer("y", DType.F32, (Int(8),), "out")
IDS = Buffer("ids", DType.I32, (Int(8),), "in")
AT, K = Var("i"), Var("k")
LATER = AT * 3 + (-5)
ONE = Lit(1.0)


def nest_of(*body: object, sizes: dict[str, int] | None = None) -> Nest:
    return Nest((X, IDS, Y), dict(sizes or {}), body)  # type: ignore[arg-type]


def each(*body: object, extent: Index | int = 8) -> For:
    return parallel([("i", extent)], *body)


def x_at(offset: int) -> Load:
    return Load("x", (AT + offset,))


def reads(index: Index) -> Store:
    return Store("y", (AT,), Load("x", (index,)))


@pytest.mark.parametrize(
    "body",
    [
        each(Guard(compare("<", AT, 4), (reads(AT + 4),))),
        each(Guard(all_of(compare("<=", 3, AT), compare("!=", AT, 3)), (reads(AT + (-3)),))),
        each(Guard(compare("==", AT * 2, 6), (reads(AT * 2 + 1),))),
        each(Guard(all_of(compare("<=", 0, LATER), compare("<", LATER, 8)), (reads(LATER),))),
        each(Store("y", (AT,), Choose(compare("<", AT, 4), x_at(4), x_at(-4)))),
        each(reads(AT // 2 * 2 + AT % 2)),
        each(reads(AT % 3 + 5)),
        each(reads(AT * (-1) + 7)),
        each(reads(Least(AT + 3, Int(7)))),
        each(serial([("k", Least(Int(3), Int(8) + AT * (-1)))], reads(AT + K))),
        each(reads(Fetch("ids", (AT,)))),
    ],
)  # fmt: skip
def test_accesses_that_are_in_range(body: For) -> None:
    verify(nest_of(body))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (each(reads(AT + 1)), r"x\[i \+ 1\].*index 0 is in \[1, 8\], the axis is \[0, 7\]"),
        (each(reads(AT + (-1))), r"\[-1, 6\]"),
        (each(Guard(compare("<=", AT, 4), (reads(AT + 4),))), r"\[4, 8\]"),
        (each(Guard(compare("!=", AT, 7), (reads(AT + 1),))), "index 0"),
        (
            each(Store("y", (AT,), Choose(compare("<", AT, 4), ONE, Load("x", (AT + 4,))))),
            "index 0",
        ),
        (each(reads(AT * AT)), r"\[0, 49\]"),
        (each(reads(AT * (-1) + 6)), r"\[-1, 6\]"),
        (each(Store("y", (AT + 1,), ONE)), r"y\[i \+ 1\]"),
        (each(reads(AT), extent=9), "index 0"),
        (each(reads(Fetch("ids", (AT + 1,)))), r"ids\[i \+ 1\]"),
        (each(reads(Fetch("ids", (AT,)) + 1)), r"\[\?, \?\]"),
        (each(reads(AT // 2 * 3)), r"\[0, 9\]"),
        (each(serial([("k", Least(Int(3), Int(9) + AT * (-1)))], reads(AT + K))), r"\[0, 8\]"),
    ],
)
def test_accesses_that_may_be_outside(body: For, message: str) -> None:
    with pytest.raises(CompilerBug, match=message):
        verify(nest_of(body))


# --- structure ------------------------------------------------------------------------------------

ZERO = each(Store("y", (AT,), Lit(0.0)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((each(Store("y", (AT,), Ref("a"))),), "local a is not visible"),
        ((Let("a", ONE), Let("a", ONE)), "already visible"),
        ((each(Let("a", ONE)), each(Store("y", (AT,), Ref("a")))), "local a is not visible"),
        ((Assign("a", ONE),), "Assign to a local"),
        ((Let("a", ONE), each(Assign("a", ONE))), "assign to one local"),
        ((each(each(Let("a", ONE))),), "already visible"),
        ((Store("y", (AT,), ONE),), "loop variable i is not visible"),
        ((each(Store("q", (AT,), ONE)),), "no buffer q"),
        ((each(Store("x", (AT,), ONE)),), "x is an input"),
        ((each(Store("y", (AT, AT), ONE)),), "2 indices for the 1 axes"),
        ((each(Store("y", (AT,), Load("x", (), 0.0))),), "0 indices for the 1 axes"),
        ((each(Barrier()),), "top level"),
        ((each(Store("y", (Fetch("x", (AT,)),), ONE)),), "does not hold integers"),
        ((each(Store("y", (AT // (AT + (-1)),), ONE)),), "a divisor may be -1"),
        ((each(Store("y", (Size("q"),), ONE)),), "no size q"),
        ((each(Guard(compare("<", Size("q"), 1), ())),), "no size q"),
        ((each(Store("y", (Int(0),), ONE)),), "parallel loop i write one address"),
        ((parallel([("i", 8), ("k", 2)], Store("y", (AT,), ONE)),), "parallel loop k"),
        ((each(Accumulate("y", (AT,), ONE)),), "not stored before"),
        ((ZERO, each(Accumulate("y", (Fetch("ids", (AT,)),), ONE))), "parallel loop i"),
        ((ZERO, each(Accumulate("y", (AT // 2,), ONE))), "parallel loop i"),
        ((ZERO, each(Accumulate("y", (AT + AT // 2 * (-2),), ONE))), "parallel loop i"),
    ],
)  # fmt: skip
def test_seeded_faults(body: Body, message: str) -> None:
    with pytest.raises(CompilerBug, match=message):
        verify(nest_of(*body))


def test_one_iteration_may_store_alone() -> None:
    verify(nest_of(each(Guard(compare("==", AT, 3), (Store("y", (Int(0),), ONE),)))))


@pytest.mark.parametrize(
    "index",
    [
        Var("a") * 4 + Var("b") * 2 + Var("c"),
        Var("c") * 4 + Var("b") * 2 + Var("a"),
        Var("b") * 4 + 3 + Var("c") * (-1) + Var("a") * (-2),
    ],
)
def test_accumulation_under_parallel_loops_that_differ_in_address(index: Index) -> None:
    axes = [("a", 2), ("b", 2), ("c", 2)]
    verify(nest_of(ZERO, serial([("k", 5)], parallel(axes, Accumulate("y", (index,), ONE)))))


def test_buffers_are_checked() -> None:
    with pytest.raises(CompilerBug, match="two buffers"):
        verify(Nest((X, X), {}, ()))
    with pytest.raises(CompilerBug, match="more than sizes"):
        verify(Nest((Buffer("x", DType.F32, (AT,), "in"),), {}, ()))
    with pytest.raises(CompilerBug, match="no size h"):
        verify(Nest((Buffer("x", DType.F32, (Size("h"),), "in"),), {}, ()))
    with pytest.raises(CompilerBug, match="no value for h"):
        verify(Nest((), {"h": H}, ()), {})


def test_the_batch_is_proved_for_every_value() -> None:
    """An access that is wrong for every batch size is an error though the batch is a symbol."""
    text = "size n = *\nin x: f32[$n]\nout y: f32[$n]\n\nparallel i < $n:\n  y[i] = x[i + 1]\n"
    with pytest.raises(CompilerBug, match=r"x\[i \+ 1\]"):
        verify(parse(text))
    verify(parse(text.replace("x[i + 1]", "x[i + 1; 0.0]")))


def test_certificate_names_every_access() -> None:
    proofs = bounds(max_pool(2, 7, 8))
    assert [str(p) for p in proofs] == [
        "x[in_, ic, ip * 2 + ki, iq * 2 + kj]: "
        "[0, * - 1] in [0, * - 1], [0, 1] in [0, 1], [0, 5] in [0, 6], [0, 7] in [0, 7]",
        "y[in_, ic, ip, iq]: "
        "[0, * - 1] in [0, * - 1], [0, 1] in [0, 1], [0, 2] in [0, 2], [0, 3] in [0, 3]",
    ]
    embed = nest_of(each(reads(Fetch("ids", (AT,)))))
    assert any("a number below 8 in the data" in str(p) for p in bounds(embed))


# --- arithmetic -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_nonnegative_is_sound(c: list[int], d: int, e: int, h: int, w: int) -> None:
    """Whenever it claims e >= 0, every value that is tried is."""
    value = (
        c[0] * H + c[1] * ((H + c[4]) // d) + c[2] * H * W + c[3] * ((H * 2 + W) // e) * W + c[5]
    )
    if nonnegative(value):
        assert evaluate(value, {"H": h, "W": w}) >= 0


def test_nonnegative_proves_what_windows_need() -> None:
    for d in (1, 2, 3, 5):
        assert nonnegative(H - d * (H // d))
        assert nonnegative(d * (H // d) - H + d - 1)
        assert not nonnegative(d * (H // d) - H + d - 2)
    assert nonnegative(H * W - 1)
    assert not nonnegative(H - W)


@given(nests(), st.integers(0, 50))
@settings(max_examples=40)
def test_index_ranges_are_sound(nest: Nest, seed: int) -> None:
    """Every extent and condition index of a random nest lies in its computed range."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(str(e)) for name, e in nest.sizes.items()}
    i, j = Var("i"), Var("j")
    scope = Scope(sizes).inside("i", Size("a")).inside("j", Size("c"))
    run = Sequential({"t": rng.integers(0, 9, sizes["b"])}, sizes, np.float64)
    run.variables = {"i": int(rng.integers(sizes["a"])), "j": int(rng.integers(sizes["c"]))}
    for s in statements(nest.body):
        if not isinstance(s, Store):
            continue
        for index in (*s.index, i * 2 + j // 2, Least(i * j, i + (-2)) % 3, (i + (-5)) // 2):
            value, r = run.index(index), scope.range(index)
            assert r.lo is None or evaluate(r.lo, {}) <= value
            assert r.hi is None or value <= evaluate(r.hi, {})
