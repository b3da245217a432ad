"""Register tiles: every word on tiles gives, part by part, the bits of its NumPy twin, whatever
combination of tile, row of vectors, column of numbers and number its operands are."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import TypingError

sys.path.insert(0, str(Path(__file__).parent))
import primitives
from test_vector import meaning

from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import load_module

SHAPES = [(3, 2, 16), (4, 1, 8), (1, 3, 4), (2, 2, 2), (5, 1, 4)]
HEAD = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *

TILE, VECTORS, NUMBERS = shape({p}, {v}, {l}), shape(1, {v}, {l}), shape({p}, 1, 1)


@compiled("void({e}*, {e}*, {e}*, {e}*, {e}*, i64)")
def every(a, b, c, d, out, count):
    half = {e}(0.5)
    number = load1(b, 3)
    tile = load_tile(TILE, a, 0, 7, 3)
"""


def operands(p: int, v: int) -> list[dict[str, str]]:
    """What x, y and z can be; at least one is a tile."""
    row = "load_tile(VECTORS, b, 2, 0, 5)" if v > 1 else "load{lanes}(b, 2)"
    column = "load_tile(NUMBERS, c, 1, 4, 0)" if p > 1 else "number"
    return [
        {"x": "tile", "y": row, "z": column},
        {"x": column, "y": "tile", "z": row},
        {"x": row, "y": column, "z": "tile"},
        {"x": "tile", "y": "load_tile(TILE, b, 1, 2, 9)", "z": "number"},
    ]


def text_of(body: list[str], p: int, v: int, lanes: int, element: str = "f32") -> str:
    head = HEAD.format(p=p, v=v, l=lanes, e=element)
    return head + "\n".join(f"    {line}" for line in body) + "\n"


def both(text: str, element: str, size: int, count: int = 3) -> list[np.ndarray]:
    """What the compiled text and its meaning in NumPy leave in `out`."""
    outs = []
    for every in (load_module(text, kind="kernel").every, meaning(text)):
        out = np.full(size, -77, primitives.FLOATS[element])
        every(*primitives.inputs(element, 5), out, count)
        outs.append(out)
    return outs


@pytest.mark.parametrize(("p", "v", "lanes"), SHAPES)
@pytest.mark.parametrize("element", ["f32", "f64"])
def test_words_on_tiles_have_the_bits_of_their_twins(p, v, lanes, element):
    if element == "f64":
        lanes = min(lanes, 8)
    body, size = [], p * v * lanes
    for combination in operands(p, v):
        body += [f"{k} = {text.format(lanes=lanes)}" for k, text in combination.items()]
        body += ["n = rint(x)"]
        for operation in primitives.FLOAT_RESULTS:
            at = len([line for line in body if line.startswith("store")]) * size
            # an operation on numbers alone gives numbers: they are repeated
            value = f"splat_tile(TILE, {operation})"
            body.append(f"store_tile(out, {at}, {v * lanes}, {lanes}, {value})")
    stores = sum(line.startswith("store") for line in body)
    compiled, twin = both(text_of(body, p, v, lanes, element), element, stores * size)
    names = [f"{k}: {o}" for k in range(4) for o in primitives.FLOAT_RESULTS]
    for k, name in enumerate(names):
        part = slice(k * size, (k + 1) * size)
        assert primitives.same_bits(compiled[part], twin[part]), name
    assert (twin != -77).any()


@pytest.mark.parametrize(("p", "v", "lanes"), SHAPES)
@pytest.mark.parametrize("count", [-1, 0, 1, 3, 19, 40])
def test_loads_and_stores_of_tiles(p, v, lanes, count):
    size = p * v * lanes * 4
    loads = [
        "load_tile(TILE, a, 0, 6, 2)",
        "load_tile_tail(TILE, a, 1, 6, 2, count)",
        "load_tile_strided(TILE, a, 40, 1, -2, -2)",
        "load_tile_strided_tail(TILE, a, 40, 1, -2, -2, count)",
        "load_tile_second(TILE, a, 0, 3, 1)",
        "load_tile_second_tail(TILE, a, 1, 3, 1, count)",
    ]
    apart = 4 * lanes
    ends = [
        ("", f"{apart * v}, {apart}, %s"),
        ("_tail", f"{apart * v}, {apart}, %s, count"),
        ("_strided", f"{apart * v}, {apart}, 3, %s"),
        ("_strided_tail", f"{apart * v}, {apart}, 3, %s, count"),
    ]
    body = [
        f"store_tile{how}(out, {(4 * k + j) * size}, {arguments % load})"
        for k, load in enumerate(loads)
        for j, (how, arguments) in enumerate(ends)
    ]
    compiled, twin = both(text_of(body, p, v, lanes), "f32", 24 * size, count)
    assert primitives.same_bits(compiled, twin)
    assert np.count_nonzero(twin != -77) >= 4 * p * v * lanes


SOME = [(*s, some) for s in [*SHAPES, (6, 1, 8)] for some in range(1, s[0]) if s[0] % some == 0]


@pytest.mark.parametrize(("p", "v", "lanes", "some"), SOME)
def test_a_tile_in_memory_is_taken_some_positions_at_a_time(p, v, lanes, some):
    size = v * lanes
    body = [
        "numbers = load_tile(NUMBERS, c, 1, 4, 0)",
        "doubled = in_memory(numbers + numbers)",
        "rows = in_memory(tile)",
        "made = blank(TILE, half)",
        f"for nth in range(0, rolled({p}), {some}):",
        f"    one = take(S{some}, rows, nth) * take(N{some}, doubled, nth)",
        "    put(rows, nth, one)",
        "    put(made, nth, one - half)",
        f"store_tile(out, 0, {size}, {lanes}, from_memory(rows))",
        f"store_tile(out, {p * size}, {size}, {lanes}, from_memory(made))",
    ]
    text = text_of(body, p, v, lanes)
    shapes = f"S{some}, N{some} = shape({some}, {v}, {lanes}), shape({some}, 1, 1)"
    compiled, twin = both(text.replace("\n\n\n@", f"\n{shapes}\n\n\n@"), "f32", 2 * p * size)
    assert primitives.same_bits(compiled, twin)
    a, _, c, _ = primitives.inputs("f32", 5)
    at = np.arange(p)[:, None, None] * 7 + np.arange(v)[:, None] * 3 + np.arange(lanes)
    with np.errstate(all="ignore"):
        expected = a[at] * (c[1 + 4 * np.arange(p)] * np.float32(2))[:, None, None]
    assert primitives.same_bits(twin[: p * size], expected.reshape(-1))


SUM = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *

TILE, VECTORS, NUMBERS = shape(14, 2, {lanes}), shape(1, 2, {lanes}), shape(14, 1, 1)


@compiled("void(f32*, f32*, f32*, i64, i64)")
def product(x, w, y, channels, step):
    acc = load_tile(TILE, y, 0, {block}, {lanes})
    for c in range(channels):
        keep_rolled()
        acc = fma(load_tile(NUMBERS, x, c, step, 0), load_tile(VECTORS, w, c * {block}, 0, {lanes}), acc)
    store_tile(y, 0, {block}, {lanes}, acc)
"""  # noqa: E501


@pytest.mark.parametrize(("first", "step", "some"), [(0, 1, 3), (1, 1, 2), (0, 2, 2), (2, 1, 1)])
def test_some_positions_of_a_tile(first, step, some):
    body = [f"store_tile(out, 5, 32, 16, pick(SOME, tile, {first}, {step}))"]
    shapes = f"SOME = shape({some}, 2, 16)"
    text = text_of(body, 3, 2, 16).replace("\n\n\n@", f"\n{shapes}\n\n\n@")
    compiled, twin = both(text, "f32", 120)
    assert primitives.same_bits(compiled, twin)
    assert np.count_nonzero(twin != -77) == 32 * some


@pytest.mark.parametrize("positions", [2, 4, 6, 8])
@pytest.mark.parametrize("element", ["f32", "f64"])
def test_numbers_near_an_anchor_are_those_behind_the_column(positions, element):
    body = [
        "near = anchor(NUMBERS, a, 2, 5)",
        "tile = tile * load_near(near, 0)",
        "tile = fma(load_near(near, 3), half * load_near(near, 1), tile)",
        "store_tile(out, 5, 16, 8, tile)",
    ]
    lanes = 8 if element == "f32" else 4
    compiled, twin = both(text_of(body, positions, 2, lanes, element), element, 200)
    assert primitives.same_bits(compiled, twin)


def test_a_tile_of_sums_stays_in_registers():
    machine = detect()
    if machine.isa != "avx512":
        return  # 28 accumulators need 32 registers
    text = SUM.format(lanes=16, block=32)
    assembly = load_module(text, kind="kernel").product.assembly()
    assert len(re.findall(r"vfmadd\d+ps\b.*zmm", assembly)) == 28
    assert not re.search(r"vmov\w*\s.*zmm.*\(%r[sb]p|vmov\w*\s.*\(%r[sb]p.*zmm", assembly), "spills"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("tile + load_tile(shape_b, b, 0, 1, 1)", "different shapes"),
        ("store_tile(out, 0, 1, 1, load16(a, 0))", "cannot be stored"),
        ("take(TILE, number, 0)", "in memory"),
        ("take(shape_b, in_memory(tile), 0)", "no part"),
        ("load_tile(number, a, 0, 1, 1)", "a shape"),
        ("in_memory(number)", "a tile"),
        ("load_near(tile, 1)", "an anchor"),
    ],
)
def test_what_is_no_tile_is_refused(line, complaint):
    text = text_of([f"v = {line}"], 3, 2, 16)
    text = text.replace("\n\n\n@compiled", "\nshape_b = shape(2, 2, 16)\n\n\n@compiled")
    with pytest.raises(TypingError, match=complaint):
        load_module(text, kind="kernel")
