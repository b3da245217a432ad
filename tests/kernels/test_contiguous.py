"""Two loops run as one exactly where every access goes on as if they were."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import (
    AsFloat,
    Assign,
    For,
    Guard,
    Int,
    Kind,
    Load,
    Ref,
    Size,
    Statement,
    Var,
    prim,
)
from cnncc.loops.ir import test as compare
from cnncc.targets.cpu.contiguous import Pair, pair_of

X = Load("x", (Size("stride") * Var("t") + Var("c"),))


def place(buffer: str, index: tuple[object, ...]) -> object:
    return index[0]


def loops(*body: Statement, inner: object = Size("c")) -> For:
    return For("t", Int(5), Kind.SERIAL, (For("c", inner, Kind.SERIAL, body),))  # type: ignore[arg-type]


ADD = Assign("acc", prim("add", Ref("acc"), X))


@pytest.mark.parametrize(("stride", "turns"), [(6, (1, 30)), (7, (5, 6)), (12, (5, 6))])
def test_steps_decide(stride: int, turns: tuple[int, int]) -> None:
    pair = pair_of(loops(ADD), place)  # type: ignore[arg-type]
    assert pair == Pair(Int(5), Size("c"), ((Size("stride"), Int(1)),))
    assert pair.integers({"c": 6, "stride": stride}) == turns


def test_all_accesses_must_go_on() -> None:
    other = Assign("acc", prim("add", Ref("acc"), Load("w", (Var("c") * 2 + Var("t"),))))
    constant = Assign("acc", prim("add", Ref("acc"), Load("b", (Int(3),))))
    pair = pair_of(loops(ADD, constant), place)  # type: ignore[arg-type]
    assert pair is not None
    assert pair.integers({"c": 6, "stride": 6}) == (1, 30)
    pair = pair_of(loops(ADD, other), place)  # type: ignore[arg-type]
    assert pair is not None
    assert pair.integers({"c": 6, "stride": 6}) == (5, 6)


@pytest.mark.parametrize(
    "loop",
    [
        loops(ADD, ADD, inner=Var("t")),
        loops(Assign("acc", AsFloat(Var("c")))),
        loops(Guard(compare("<", Var("c"), Size("c")), (ADD,))),
        loops(Assign("acc", Load("x", (Var("c") // 2,)))),
        loops(For("k", Int(2), Kind.SERIAL, (ADD,))),
        For("t", Int(5), Kind.SERIAL, (ADD, ADD)),
    ],
)
def test_what_counts_its_turns_stays_two_loops(loop: For) -> None:
    assert pair_of(loop, place) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("dilation", "turns"), [(1, (1, 27)), (2, (3, 9))])
def test_the_taps_of_a_row_and_their_channels(dilation: int, turns: tuple[int, int]) -> None:
    text = (
        "net n {\n  input x: f32[9, 9, 9]\n"
        f"  output y = x -> conv(5, 3x3, pad = {dilation}, dilation = {dilation})\n}}\n"
    )
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 9)).astype(np.float32)
    model, definition = cnncc.compile(text), cnncc.compile(text, target="interp")
    assert np.array_equal(model(x), definition(x))
    runtime = model._programs.inference
    (step,) = (s for s in runtime.program.steps if s.emitted and s.emitted.derived)
    first = 0
    for s in runtime.program.steps:
        if s is step:
            break
        first += s.places
    table = runtime.bind(runtime._shape({"x": x})).table
    names = step.emitted.arguments
    found = [table[first + 1 + names.index(n)] for n in ("turns0_0", "length0_0")]
    assert tuple(found) == turns
