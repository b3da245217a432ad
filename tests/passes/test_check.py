"""`expect`: what can be asserted of a network, and what a failed assertion shows."""

import pytest

from cnncc.compiler import front
from cnncc.errors import Diagnostic, SpecError
from cnncc.passes.check import check_memory

NET = """net n {{
  input x: f32[1, 28, 28]
  c1 = x -> conv(6, 5x5, pad = 2) -> tanh
  s2 = c1 -> avgpool(2x2)
  output y = s2 -> conv(16, 5x5) -> flatten -> dense(10)
  expect {}
}}
"""


def fails(condition: str) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        front(NET.format(condition))
    (found,) = caught.value.diagnostics
    return found


@pytest.mark.parametrize(
    "condition",
    [
        "params == 156 + 2_416 + 16_010",
        "params(c1) == 156 and params(s2) == 0",
        "macs(c1) == 28 * 28 * 6 * 25",
        "connections(c1) == 122_304",
        "units(c1) == 4_704, depth == 3",
        "shape(s2) == [6, 14, 14]",
        "channels(s2) == 6, extent(s2, 1) == 14",
        "receptive_field(c1) == 5, receptive_field(s2) == 6",
        "macs < 10_000_000",
        "not (params > 1_000_000)",
        "2 * params(c1) < params",
    ],
)
def test_what_holds(condition: str) -> None:
    assert front(NET.format(condition)).graph


def test_a_wrong_number_is_shown_with_its_parts() -> None:
    found = fails("params == 61_706")
    assert found.code == "E0501"
    assert found.message == "expected params == 61_706, but it is 18_582"
    assert found.span is not None
    assert found.span.text == "params == 61_706"
    assert found.notes[0].text.splitlines() == [
        "params by layer:", "c1: 156", "y.conv: 2416", "y.dense: 16_010",
    ]  # fmt: skip


def test_the_parts_of_a_name() -> None:
    found = fails("macs(c1) < 1000")
    assert found.message == "expected macs(c1) < 1000, but it is 117_600"
    assert found.notes[0].text == "macs by layer:\nc1: 117_600"


def test_long_breakdowns_are_cut() -> None:
    text = "net n { input x: f32[1, 8, 8]\n y = x repeat 40 { y = y -> conv(1, 1x1) } output y\n"
    with pytest.raises(SpecError) as caught:
        front(text + "expect params == 1 }")
    assert caught.value.diagnostics[0].notes[0].text.endswith("and 17 more layers")


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("shape(s2) == [6, 14, 15]", "E0501"),
        ("shape(s2) == (6, 14, 14)", "E0501"),
        ("receptive_field(s2) == 5", "E0501"),
        ("params > 1 and macs < 1", "E0501"),
        ("params", "E0502"),
        ("c1 == s2", "E0502"),
        ("c1 + 1 == 2", "E0502"),
        ("params(3) == 1", "E0502"),
        ("params() == 1", "E0502"),
        ("receptive_field(c1, s2) == 1", "E0502"),
        ("parameters == 3", "E0301"),
        ("parms(c1) == 3", "E0301"),
        ("params(c9) == 3", "E0301"),
        ("params(layer = c1) == 3", "E0302"),
        ("zeros(3) == 1", "E0301"),
        ("params == same", "E0301"),
    ],
)
def test_what_fails_or_makes_no_sense(condition: str, code: str) -> None:
    assert fails(condition).code == code


def test_all_that_fails_is_reported() -> None:
    with pytest.raises(SpecError) as caught:
        front(NET.format("params == 1, macs == 2, depth == 3, units == 4"))
    assert [d.code for d in caught.value.diagnostics] == ["E0501"] * 3


def test_memory_is_left_to_the_planner() -> None:
    module = front(NET.format("memory < 1_000_000")).module
    check_memory(module, 999_999)
    with pytest.raises(SpecError, match="expected memory < 1_000_000, but it is 1_000_000"):
        check_memory(module, 1_000_000)


def test_a_layer_may_have_the_name_of_a_count() -> None:
    text = "net n { input x: f32[1, 8, 8]\n output memory = relu(x)\n"
    assert front(text + "expect shape(memory) == [1, 8, 8] }\n").graph


def test_symbolic_counts() -> None:
    text = "net n { input x: f32[1, H, W]\n output y = x -> conv(2, 3x3)\n expect params == 20 }\n"
    assert front(text).graph
    with pytest.raises(SpecError) as caught:
        front(text.replace("params == 20", "macs < 100"))
    assert [d.code for d in caught.value.diagnostics] == ["E0315"]


def test_expectations_in_blocks_hold_for_every_use() -> None:
    block = "block b(x) { c = x -> conv(4, 3x3)\n expect channels(x) == 1, params(c) == 40\n"
    block += "return c }\n"
    net = "net n { input x: f32[1, 8, 8]\n output y = b(x) }\n"
    assert front(block + net).graph
    with pytest.raises(SpecError) as caught:
        front(block + net.replace("b(x)", "x -> b -> b"))
    assert [d.code for d in caught.value.diagnostics] == ["E0501", "E0501"]
