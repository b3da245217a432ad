"""Hostile texts: each ends in a coded diagnostic after a moment, before anything large exists."""

import time

import pytest

from cnncc.compiler import front
from cnncc.errors import SpecError, render

SECONDS = 5.0
"""Generous, because the machine may be busy; alone each of these takes at most about one second."""


def code_of(text: str) -> str:
    start = time.process_time()
    with pytest.raises(SpecError) as caught:
        front(text)
    assert time.process_time() - start < SECONDS
    for diagnostic in caught.value.diagnostics:
        assert len(render(diagnostic)) < 20_000
    return caught.value.diagnostics[0].code


def net(body: str, shape: str = "1, 28, 28") -> str:
    return f"net n {{\n input x: f32[{shape}]\n {body}\n output y = relu(x)\n}}\n"


TOWER = "".join(
    f"block b{i}(x) {{ y = x repeat 10 {{ y = {f'b{i - 1}' if i else 'relu'}(y) }} return y }}\n"
    for i in range(8)
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("z = x repeat 1_000_000_000 { z = relu(z) }", "E0121"),
        ("z = x repeat 10_001 { z = relu(z) }", "E0121"),
        ("repeat 0 - 1 { z = relu(x) }", "E0121"),
        ("z = x repeat 10_000 { repeat 10_000 { z = relu(z) } }", "E0120"),
        ("k = 0 repeat 10_000 { repeat 10_000 { k = k + 1 } }", "E0122"),
        ("repeat 10_000 { repeat 10_000 { repeat 10_000 { } } }", "E0122"),
        ("k = 3 repeat 100 { k = k * k }", "E0125"),
        ("k = 3.0 repeat 100 { k = k * k }", "E0125"),
        ("k = 1.0 repeat 2000 { k = k / 3 } z = 1 / k", "E0309"),
        ("t = (1, 1) repeat 1000 { t = (t, t) }", "E0122"),
        ("t = [1] repeat 1000 { t = [t] }", "E0123"),
        ("t = const(1) repeat 1000 { t = const(t) }", "E0123"),
        ("z = x -> conv(2_147_483_648, 3x3)", "E0126"),
        ("z = x -> flatten -> dense(999_999_999) -> dense(999_999_999)", "E0127"),
        ("z = x -> conv(1, 3x3, pad = 999_999_999_999)", "E0126"),
        ("z = zeros(1_000_000, 1_000_000, 1_000_000)", "E0127"),
        ("z = x -> upsample(1_000_000)", "E0127"),
        ("z = x -> reshape((1, 0))", "E0304"),
        ("z = x -> conv(1, 999999999999999999x3)", "E0126"),
        ("z = x -> conv(1, 3x3, stride = (1, 1_000_000_000_000))", "E0126"),
        ("z = x -> conv(1, 2147483647x2147483647)", "E0205"),
        ("z = x -> conv(1, 3x3, dilation = 2_000_000_000)", "E0205"),
        ("z = x -> maxpool(3x3, stride = 2_000_000_000, pad = 2_000_000_000)", "E0202"),
        ("z = x -> conv(1, 3x3, stride = 2_000_000_000, pad = 2_000_000_000)", "E0202"),
        ("z = x -> conv(1, 3x3, pad = solve(out = 2_000_000_000))", "E0127"),
    ],
)
def test_bodies(body: str, code: str) -> None:
    assert code_of(net(body)) == code


@pytest.mark.parametrize(
    "body",
    [
        "k = extent(x, 0) repeat 5000 { k = (k + 1) // 2 }",
        "k = extent(x, 0) repeat 5000 { k = (k + k // 3 + 1) // 2 }",
        "k = extent(x, 0) + extent(x, 1) repeat 5000 { k = k * k }",
        "default fit = floor z = x repeat 5000 { z = z -> maxpool(3x3, stride = 2, pad = 1) }",
    ],
)
def test_formulas_of_extents(body: str) -> None:
    assert code_of(net(body, shape="1, H, W")) == "E0125"


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("10_000_000_000_000", "E0126"),
        ("2_147_483_648, 8, 8", "E0126"),
        ("0, 8, 8", "E0126"),
        ("0 - 3, 8, 8", "E0126"),
        ("3, 1_000_000, 1_000_000", "E0127"),
        ("1, 2, 3, 4, 5", "E0316"),
        ("2.5, 8, 8", "E0308"),
    ],
)
def test_inputs(shape: str, code: str) -> None:
    assert code_of(net("", shape=shape)) == code


def test_blocks_that_multiply() -> None:
    assert code_of(TOWER + net("z = b7(x)")) == "E0120"


def test_blocks_that_use_themselves() -> None:
    assert code_of("block a(x) { return a(x) }\n" + net("z = a(x)")) == "E0123"
    assert code_of(
        "block a(x) { return relu(b(x)) } block b(x) { return a(x) }\n" + net("z = a(x)")
    )
    ends = "block a(x, n) { return if n == 0 then x else a(relu(x), n - 1) }\n"
    assert front(ends + net("z = a(x, 5)")).graph
    assert code_of(ends + net("z = a(x, 5000)")) == "E0123"


def test_deep_but_legal_nesting_stays_within_the_interpreter() -> None:
    expression = "x"
    for _ in range(50):
        expression = f"relu({expression})"
    blocks = (
        f"block inner(x) {{ return {expression} }}\nblock outer(x) {{ return inner(inner(x)) }}\n"
    )
    assert len(front(blocks + net("z = outer(x)")).graph.nodes) == 102


def test_ten_thousand_layers_are_allowed() -> None:
    start = time.process_time()
    graph = front(net("z = x repeat 9_999 { z = relu(z) }")).graph
    assert len(graph.nodes) == 10_001
    assert time.process_time() - start < 4 * SECONDS


def test_messages_do_not_grow_with_values() -> None:
    numbers = ", ".join(["123456789"] * 5_000)
    assert code_of(net(f"z = x -> conv([{numbers}], 3x3)")) == "E0304"


def test_too_many_mistakes_end_early() -> None:
    body = "\n".join(f"a{i} = unknown{i}" for i in range(2_000))
    with pytest.raises(SpecError) as caught:
        front(net(body))
    assert len(caught.value.diagnostics) == 50
