"""`flatten` behind a layer: a dense layer reads a short vector where its elements lie, the kernel
in front of a long one stores each element at its number, and where rows are short flatten is a
kernel of its own.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.loops.ir import Div, For, Kind, Mod
from cnncc.loops.walk import indices, statements

NETS = {
    "lenet": "input x: f32[1, 12, 12]\n"
    "  y = x -> conv({c}, 3x3) -> tanh -> avgpool(2x2) -> flatten -> dense(5)",
    "one row": "input x: f32[3, 9]\n  y = x -> conv({c}, 3) -> relu -> flatten -> dense(5)",
    "volume": "input x: f32[2, 5, 4, 6]\n  y = x -> conv({c}, 2x2x2) -> relu -> flatten",
    "image": "input x: f32[2, 9, 9]\n  y = x -> conv({c}, 2x2) -> relu -> flatten",
    "winograd": "input x: f32[32, 18, 18]\n"
    "  y = x -> conv({c}, 3x3, pad = 1) -> relu -> maxpool(2x2) -> flatten -> dense(3)",
}
RULES = {
    "lenet": {3: "view", 16: "view", 33: "view", 48: "lines"},
    "one row": dict.fromkeys((3, 16, 33, 48), "view"),
    "volume": dict.fromkeys((3, 16, 33, 48), "lines"),
    "image": dict.fromkeys((3, 16, 33, 48), "flatten"),
    "winograd": {3: "view", 16: "flatten", 33: "flatten", 48: "flatten"},
}


@pytest.mark.parametrize("channels", [3, 16, 33, 48])
@pytest.mark.parametrize("name", NETS)
def test_flatten_has_the_bits_of_the_definition(name: str, channels: int) -> None:
    text = f"net n {{\n  {NETS[name].format(c=channels)}\n  output y\n}}\n"
    model, definition = cnncc.compile(text, seed=2), cnncc.compile(text, seed=2, target="interp")
    fused = model._programs.inference.fused  # type: ignore[union-attr]
    (flat,) = (n.name for n in fused.graph.nodes if n.op.name == "reshape")
    rule = RULES[name][channels]
    assert [v.rule for v in fused.ledger if v.consumer == flat] == [rule]
    operators = {n.op.name for n in fused.kernel_of(flat).nodes}
    assert ("dense" in operators, len(operators) > 1) == (rule == "view", rule != "lines")
    (shape,) = {n.type.shape for n in model.network.inference.graph.nodes if n.name == "x"}
    rng = np.random.default_rng(channels)
    for batch in (1, 9):
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
        assert np.array_equal(model(x), definition(x))


def test_nothing_is_divided_where_a_vector_is_read_in_place() -> None:
    text = f"net n {{\n  {NETS['lenet'].format(c=16)}\n  output y\n}}\n"
    fused = cnncc.compile(text)._programs.inference.fused  # type: ignore[union-attr]
    nest = fused.kernel_of("y.flatten").nest
    assert not [i for i in indices(nest.body) if isinstance(i, Div | Mod)]
    assert sum(isinstance(s, For) and s.kind is Kind.SERIAL for s in statements(nest.body)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a = x -> flatten\n  output y = a -> dense(5)\n  output a",
        "a = x -> flatten\n  output y = concat(a -> dense(5), a -> dense(3))",
        "a = x -> conv(3, 1x1)\n  f = a -> flatten\n  nofuse(f)\n  output y = f -> dense(5)",
    ],
    ids=["result", "two readers", "nofuse"],
)
def test_a_vector_that_others_need_is_stored(text: str) -> None:
    text = f"net n {{\n  input x: f32[3, 4, 5]\n  {text}\n}}\n"
    model, definition = cnncc.compile(text, seed=2), cnncc.compile(text, seed=2, target="interp")
    ledger = model._programs.inference.fused.ledger  # type: ignore[union-attr]
    assert "view" not in {v.rule for v in ledger}
    x = np.random.default_rng(0).standard_normal((3, 3, 4, 5)).astype(np.float32)
    found, expected = model(x), definition(x)
    pairs = zip(found.values(), expected.values(), strict=True) if isinstance(found, dict) else (
        [(found, expected)]
    )  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_flatten_may_stay_apart() -> None:
    text = NETS["one row"].format(c=4).replace("relu ->", "relu\n  z = y ->")
    text = f"net n {{\n  {text}\n  nofuse(y, z)\n  output z\n}}\n"
    assert cnncc.compile(text)(np.ones((2, 3, 9), np.float32)).shape == (2, 5)
