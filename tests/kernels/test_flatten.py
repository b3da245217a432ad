"""`flatten` behind a layer: the kernel in front of it stores each element at its number."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc

NETS = {
    "lenet": "input x: f32[1, 12, 12]\n"
    "  y = x -> conv({c}, 3x3) -> tanh -> avgpool(2x2) -> flatten -> dense(5)",
    "one row": "input x: f32[3, 9]\n  y = x -> conv({c}, 3) -> relu -> flatten -> dense(5)",
    "volume": "input x: f32[2, 5, 4, 6]\n  y = x -> conv({c}, 2x2x2) -> relu -> flatten",
    "winograd": "input x: f32[32, 18, 18]\n"
    "  y = x -> conv({c}, 3x3, pad = 1) -> relu -> maxpool(2x2) -> flatten -> dense(3)",
}


@pytest.mark.parametrize("channels", [3, 16, 33, 48])
@pytest.mark.parametrize("name", NETS)
def test_flatten_has_the_bits_of_the_definition(name: str, channels: int) -> None:
    text = f"net n {{\n  {NETS[name].format(c=channels)}\n  output y\n}}\n"
    model, definition = cnncc.compile(text, seed=2), cnncc.compile(text, seed=2, target="interp")
    program = model._programs.inference.program  # type: ignore[union-attr]
    flat = [s for s in program.steps if any(n.op.name == "reshape" for n in s.nodes)]
    assert [len(s.nodes) > 1 for s in flat] == [True], "flatten is a kernel of its own"
    (shape,) = {n.type.shape for n in model.network.inference.graph.nodes if n.name == "x"}
    rng = np.random.default_rng(channels)
    for batch in (1, 9):
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
        assert np.array_equal(model(x), definition(x))


def test_flatten_may_stay_apart() -> None:
    text = NETS["one row"].format(c=4).replace("relu ->", "relu\n  z = y ->")
    text = f"net n {{\n  {text}\n  nofuse(y, z)\n  output z\n}}\n"
    assert cnncc.compile(text)(np.ones((2, 3, 9), np.float32)).shape == (2, 5)
