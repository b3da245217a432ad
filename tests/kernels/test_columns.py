"""Positions of a tile load what they share once, where the steps of taps and positions allow it and
the registers suffice; the bits are those of the definition.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import Assign, For, Int, Kind, Load, Ref, Size, Var, prim
from cnncc.targets.cpu.columns import columns_of
from cnncc.targets.cpu.lane import LANE, POSITION
from cnncc.targets.cpu.machine import vector_lanes
from tests.kernels.primitives import same_bits


def taps(count: int, position: object, tap: object) -> For:
    """A sum over taps of vectors, whose weights the positions share."""
    at = POSITION * position + Var("t") * tap + Size("lo") * -1  # type: ignore[operator]
    weights = Load("w", (LANE, Var("t")))
    total = prim("fma", Load("x", (LANE, at)), weights, Ref("acc"))
    return For("t", Int(count), Kind.SERIAL, (Assign("acc", total),))


@pytest.mark.parametrize(
    ("sizes", "count", "stride", "held"),
    [
        ({"s": 1, "d": 1}, 9, 1, 7),
        ({"s": 2, "d": 1}, 15, 2, 6),
        ({"s": 2, "d": 2}, 9, 1, 7),
    ],
)
def test_how_many_columns_there_are(
    sizes: dict[str, int], count: int, stride: int, held: int
) -> None:
    loop = taps(3, Size("s"), Size("d"))
    (found,) = columns_of(loop, {**sizes, "lo": 1}, 7, 2, 32)
    assert (found.count(7), found.stride, found.held(7)) == (count, stride, held)
    assert found.all.index[1] == Size("lo") * -1 + POSITION * Size("d")


@pytest.mark.parametrize("sizes", [{"s": 1, "d": 2}, {"s": 3, "d": 1}, {"s": 3, "d": 2}])
def test_positions_without_common_columns_load_their_own(sizes: dict[str, int]) -> None:
    assert columns_of(taps(3, Size("s"), Size("d")), {**sizes, "lo": 1}, 7, 2, 32) == ()


def test_columns_must_fit_the_registers() -> None:
    loop, sizes = taps(3, Size("s"), Size("s")), {"s": 1, "lo": 0}
    assert columns_of(loop, sizes, 7, 2, 30)
    assert columns_of(loop, sizes, 7, 2, 29) == ()
    assert columns_of(loop, sizes, 1, 2, 32) == ()


@pytest.mark.parametrize("size", ["3x3", "2x5"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 2), (1, 2), (4, 2)])
@pytest.mark.parametrize("channels", [16, 40])
def test_bits_are_those_of_the_definition(
    size: str, stride: int, dilation: int, channels: int
) -> None:
    text = (
        f"net n {{\n  default fit = floor\n  input x: f32[{channels}, 15, 29]\n  output y = x -> "
        f"conv({channels}, {size}, pad = same, stride = {stride}, dilation = {dilation}, "
        "connect = depthwise) -> relu\n}\n"
    )
    x = np.random.default_rng(0).standard_normal((2, channels, 15, 29)).astype(np.float32)
    model = cnncc.compile(text)
    assert same_bits(model(x), cnncc.compile(text, target="interp")(x))
    texts = [s.text for s in model._programs.inference.program.steps]
    if vector_lanes() == 16 and size == "3x3":
        shared = stride % dilation == 0 and stride // dilation < 3
        assert any("pick(" in t for t in texts) == shared
