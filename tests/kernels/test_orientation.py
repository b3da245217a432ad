"""Activations of few channels lie row by row where that fills more lanes and no kernel has to
gather them; the bits are those of the definition.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.compiler import front
from cnncc.passes.fuse import fuse
from cnncc.passes.retype import retyped
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu import schedule
from cnncc.targets.cpu.declare import declare, with_prepared
from cnncc.targets.cpu.emit import _emitted
from cnncc.targets.cpu.layout import place
from cnncc.targets.cpu.machine import vector_lanes
from cnncc.targets.cpu.schedule import MANY, registers
from cnncc.tensor import DType, TensorType
from tests.kernels.joined import both_targets
from tests.kernels.primitives import same_bits

NETS = {
    "pool": """a = x -> conv(6, 5x5, pad = 2) -> tanh -> avgpool(2x2, fit = floor)
  output y = a -> conv(20, 3x3)""",
    "stride": """a = x -> conv(4, 3x3, stride = 2, pad = 1, fit = floor) -> relu
  output y = a -> conv(20, 3x3)""",
    "third": """a = x -> conv(4, 3x3, stride = 3, fit = floor)
  output y = a -> conv(20, 2x2)""",
    "chain": """a = x -> conv(3, 3x3, pad = 1) -> relu -> conv(5, 3x3, pad = same) -> sigmoid
  b = a -> conv(6, 3x2, dilation = 2) -> maxpool(3x3, stride = 2, pad = 1, fit = floor)
  output y = b""",
    "residual": """a = x -> conv(5, 3x3, pad = same)
  b = a -> conv(5, 3x3, pad = same) -> tanh
  output y = a + b""",
    "two": """a = x -> conv(4, 3x3, pad = same)
  output y = a -> relu
  output z = a -> conv(24, 1x1) -> avgpool(2x2, fit = floor)""",
    "depthwise": """a = x -> conv(6, 3x3, pad = same)
  b = a -> conv(6, 3x3, connect = groups(6), pad = same)
  output y = b -> maxpool(2x2, fit = floor)""",
    "concat": """a = x -> conv(3, 3x3, pad = same)
  b = x -> conv(2, 1x1)
  output y = concat(a, b) -> conv(4, 3x3)""",
    "points": """a = x -> conv(4, 1x1) -> maxpool(2x2, fit = floor)
  output y = a -> conv(4, 1x1, connect = depthwise) -> relu -> avgpool(2x2, fit = floor)""",
    "windows": """a = x -> conv(6, 3x3, pad = 1) -> avgpool(1x8, fit = floor)
  output y = a -> maxpool(1x2, fit = floor)""",
    "global": """a = x -> conv(6, 3x3) -> relu
  output y = a -> globalavgpool -> dense(3)""",
    "channels": """a = x -> conv(6, 3x3) -> lrn(3)
  output y = a -> conv(4, 1x1) -> softmax""",
}
SHAPES = [(1, 28, 28), (2, 12, 31), (1, 9, 17)]


def text_of(net: str, shape: tuple[int, ...]) -> str:
    return f"net n {{\n  input x: f32{list(shape)}\n  {NETS[net]}\n}}\n"


def rows_of(text: str, lanes: int = 16) -> set[str]:
    """The activations that lie row by row."""
    fused = fuse(front(text).graph)
    found = declare(fused, lanes=lanes, phases=with_prepared(fused.graph, {})).tensors.items()
    last = {n for n, t in found if t.space == "arena" and t.type.rank and t.innermost != 1}
    assert all(dict(found)[n].innermost == dict(found)[n].type.axes - 1 for n in last)
    return last


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("shape", "dtype", "lanes"),
    [
        *((shape, DType.F32, None) for shape in SHAPES),
        (SHAPES[1], DType.F32, 8),
        (SHAPES[0], DType.F64, None),
    ],
)
def test_bits_are_those_of_the_definition(
    net: str, shape: tuple[int, ...], dtype: DType, lanes: int | None
) -> None:
    graph = retyped(front(text_of(net, shape)).graph, dtype)
    rng = np.random.default_rng(0)
    given = {
        node.name: rng.standard_normal(node.type.dims(2)).astype(NUMPY[dtype])
        for node in (*graph.of("input"), *graph.of("parameter"))
    }
    cpu, interp = both_targets(graph, dtype=dtype, lanes=lanes).run(given)
    assert [name for name in cpu if not same_bits(cpu[name], interp[name])] == []


@pytest.mark.parametrize("cache", [0, 1 << 15])
@pytest.mark.parametrize("net", ["pool", "chain"])
def test_bits_do_not_depend_on_the_processor(
    net: str, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a core starts two multiply-adds of the widest vectors decides what lies row by row,
    and which numbers wait in registers.
    """
    monkeypatch.setattr(schedule, "hungry_cache", lambda bits: cache)
    _emitted.cache_clear()  # its texts are of one processor
    graph = front(text_of(net, SHAPES[0])).graph
    rng = np.random.default_rng(1)
    given = {
        node.name: rng.standard_normal(node.type.dims(3)).astype(np.float32)
        for node in (*graph.of("input"), *graph.of("parameter"))
    }
    both = both_targets(graph)
    if net == "pool":
        room = registers(vector_lanes(), DType.F32) == MANY
        assert any("w_v_1 = splat_tile" in t for t in both.cpu.kernel_texts) == bool(cache and room)
    cpu, interp = both.run(given)
    _emitted.cache_clear()
    assert [name for name in cpu if not same_bits(cpu[name], interp[name])] == []


@pytest.mark.parametrize(
    ("net", "rows"),
    [
        ("pool", {"x", "a"}),  # the image, and what the pool leaves of six channels
        ("stride", {"x", "a"}),
        ("third", set()),  # every third element is no vector
        ("global", set()),  # a sum over positions has its lanes along the channels
        ("channels", {"x", "a", "y"}),  # a window of channels has its lanes where it wants
    ],
)
def test_which_activations_lie_row_by_row(net: str, rows: set[str]) -> None:
    found = rows_of(text_of(net, (1, 28, 28)))
    assert {name.partition(".")[0] for name in found} == rows


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        # two readers want different borders, so one of them tests every column
        (
            "a = x -> conv(6, 3x3, pad = 1) -> tanh\n  output y = a -> conv(20, 3x3, pad = 1)\n"
            "  output z = a -> maxpool(3x3, stride = 1, pad = 1)",
            set(),
        ),
        ("output y = x -> conv(4, 3x3, share = tiled(2)) -> tanh", set()),  # weights take turns
        ("output y = x -> conv(4, 5x5, share = none) -> tanh", set()),  # each column has its own
        # channels of one that stays: they would be gathered
        (
            "a = x -> conv(3, 3x3, pad = same)\n  b = concat(a, x)\n"
            "  output y = b -> globalavgpool\n  output z = a -> globalavgpool",
            set(),
        ),
    ],
)
def test_no_other_kernel_suffers(body: str, rows: set[str]) -> None:
    assert rows_of(f"net n {{\n  input x: f32[1, 28, 28]\n  {body}\n}}\n") == rows


def test_what_no_sum_is_needed_for_turns_as_well() -> None:
    assert rows_of("net n { input x: f32[1, 28, 28] output y = x -> relu }\n") == {"x", "y"}
    assert rows_of("net n { input x: f32[3, 28, 28] output y = x -> conv(16, 3x3) }\n") == set()


def test_channels_that_fill_more_lanes_stay_together() -> None:
    net = (
        "net n {{ input x: f32[1, 28, {}] a = x -> conv({}, 3x3) output y = a -> conv(20, 1x1) }}\n"
    )
    assert rows_of(net.format(28, 6)) == {"x", "a"}
    assert rows_of(net.format(28, 9)) == set()  # more than half a register
    assert rows_of(net.format(9, 8)) == set()  # 7 columns of 8, and all of 8 channels
    assert rows_of(net.format(28, 5), lanes=8) == set()
    assert rows_of(net.format(28, 4), lanes=8) == {"x", "a"}
    assert rows_of(net.format(28, 4), lanes=1) == set()


@pytest.mark.parametrize("innermost", [1, 3])
def test_a_border_lies_around_rows(innermost: int) -> None:
    t = TensorType(DType.F32, (3, 4, 5))
    p = place(t, 2, innermost, ((1, 2), (3, 4)), 16, False)
    flat = np.zeros(p.elements, np.float32)
    p.view(flat)[...] = 1
    assert flat.sum() == 2 * 3 * 4 * 5
    assert p.elements == 2 * 3 * (4 + 3) * (5 + 7)
    assert p.strides[innermost] == 1
    grid = flat.reshape(2, 3, 7, 12) if innermost == 3 else flat.reshape(2, 7, 12, 3)
    inside = grid[:, :, 1:5, 3:8] if innermost == 3 else grid[:, 1:5, 3:8]
    assert inside.all()
