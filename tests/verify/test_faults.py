"""Planted faults: each changes one thing in one operator's loops, in an emitted kernel or in a
gradient, and the certificate must refuse the network and name the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cnncc.graph.ir import Builder, Node
from cnncc.loops.ir import Nest
from cnncc.loops.parse import parse
from cnncc.loops.text import print_nest
from cnncc.ops import OPERATORS
from cnncc.passes import lower
from cnncc.targets.cpu import program
from cnncc.verify import Certificate, Settings, verify_network

NETS = {
    "conv": "input x: f32[2, 7, 7]\n output y = x -> conv(3, 3x3, pad = 1, stride = 2)\n",
    "tiled": "input x: f32[2, 7, 7]\n"
    " output y = x -> conv(2, 3x3, share = tiled(2), dilation = 2)\n",
    "max": "input x: f32[2, 5, 6]\n output y = x -> maxpool(2x2, stride = 1) -> relu\n",
    "average": "input x: f32[2, 4, 6]\n output y = x -> avgpool(2x2)\n",
    "dense": "input x: f32[2, 2, 3]\n output y = x -> flatten -> dense(3) -> sigmoid\n",
    "symmetric": "input x: f32[2, 5, 5]\n output y = x -> conv(2, 3x3, share = symmetric)\n",
    "table": "input x: f32[3, 5, 5]\n output y = x -> conv(3, 3x3, connect = table(pairs))\n",
    "ninths": "input x: f32[2, 6, 6]\n output y = x -> avgpool(3x3)\n",
    "borders": "input x: f32[2, 6, 6]\n output y = x -> conv(4, 3x3, pad = 1) -> relu"
    " -> conv(6, 3x3, pad = 1) -> relu -> conv(3, 3x3, pad = 1)\n",
}
TABLES = "table pairs { [0, 1], [1, 2], [0, 2] }\n"

FAULTS = [  # net, operator, text of its loops, the text with a fault
    ("conv", "conv", "+ $lo0 * -1", "+ $lo0 * -1 + 1"),
    ("conv", "conv", "+ $lo1 * -1", ""),
    ("conv", "conv", "i_s0 * $stride0", "i_s0"),
    ("conv", "conv", "i_s1 * $stride1", "i_s1 * $stride1 + 1"),
    ("conv", "conv", "serial t1 < 3", "serial t1 < 2"),
    ("conv", "conv", "w[i_k, i_c, t0, t1]", "w[i_k, i_c, t1, t0]"),
    ("conv", "conv", "w[i_k, i_c, t0, t1]", "w[i_k, i_c, t0, t1 * -1 + 2]"),
    ("conv", "conv", "; 0.0]", "; 1.0]"),
    ("conv", "conv", "bias[i_k]", "0.0"),
    ("conv", "conv", "y[i_n, i_k, i_s0, i_s1] = acc", "y[i_n, i_k, i_s0, i_s1] = acc + acc"),
    ("conv", "conv_dx", "$lo0 + t0", "t0"),
    ("conv", "conv_dx", "% $stride1 == 0", "% $stride1 == 1"),
    ("conv", "conv_dx", "w[i_k, i_c, t0, t1]", "w[i_k, i_c, t1, t0]"),
    ("conv", "conv_dx", "serial t0 < 3", "serial t0 < 2"),
    ("conv", "conv_dw", "i_s1 * $stride1", "i_s1"),
    ("conv", "conv_dw", "+ $lo1 * -1", ""),
    ("conv", "conv_dw", "serial i_s1 < $s1", "serial i_s1 < $s1 - 1"),
    ("conv", "conv_dw", "serial i_n < $n", "serial i_n < 1"),
    ("tiled", "conv", "t0 * $dilation0", "t0"),
    ("tiled", "conv", "i_s0 % $p0", "i_s1 % $p0"),
    ("tiled", "conv", "i_s1 % $p1 * 3", "(i_s1 + 1) % $p1 * 3"),
    ("tiled", "conv", "i_s1 % $p1 * 3 + t1", "i_s1 % $p1 + t1"),
    ("tiled", "conv_dx", "; 0.0]", "; 1.0]"),
    ("tiled", "conv_dw", "i_q1 * $p1 + i_p1 < $s1", "i_q1 * $p1 + i_p1 < $s1 - 1"),
    ("max", "maxpool", "-inf", "0.0"),
    ("max", "maxpool", "serial t0 < 2", "serial t0 < 1"),
    ("max", "maxpool", "i_s1 * $stride1", "i_s1 * $stride1 + 1"),
    ("max", "maxpool_argmax", "t0 * 2 + t1", "t0 + t1"),
    ("max", "maxpool_dx", "serial t1 < 2", "serial t1 < 1"),
    ("max", "relu", "i_s1], 0.0), 0.0", "i_s1], 0.0), 1.0"),
    ("average", "avgpool", "/ 4.0", "/ 3.0"),
    ("average", "avgpool_dx", "/ 4.0", "/ 2.0"),
    ("dense", "dense", "w[i_o, i_f]", "w[0, i_f]"),
    ("dense", "dense_dx", "dy[i_n, i_o]", "dy[0, i_o]"),
    ("dense", "dense_dw", "let acc = 0.0", "let acc = 1.0"),
    ("dense", "sigmoid_grad", "1.0 - x0", "2.0 - x0"),
    ("table", "arrange", "pairs[i_k, i_c]", "pairs[i_c, i_k]"),
    ("table", "arrange", "pairs[i_k, i_c]", "pairs[i_k, i_c] + 1"),
    ("table", "arrange", "; 0.0]", "; 1.0]"),
    ("table", "arrange", "i_w0, i_w1; ", "i_w1, i_w0; "),
    ("table", "arrange_dw", "0 <= pairs", "1 <= pairs"),
    ("table", "arrange_dw", "< $m:", "< $m - 1:"),
    ("table", "arrange_dw", "g[i_k, i_c, i_w0, i_w1]", "g[i_k, i_c, i_w1, i_w0]"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def new_nests() -> Iterator[None]:
    """Equal layers share nests, but not one with a fault and one without."""
    for made in (lower._nest, lower._joined):
        made.cache_clear()
    yield
    for made in (lower._nest, lower._joined):
        made.cache_clear()


WRONG_GRADIENTS = [("conv", "conv"), ("dense", "dense"), ("dense", "sigmoid")]


def certificate(net: str, *, machine: bool = False) -> Certificate:
    text = f"{TABLES}net n {{\n {NETS[net]}}}\n"
    return verify_network(text, settings=Settings(machine=machine))


def named(found: Certificate) -> str:
    return " ".join(v.subject for v in found.failing if v.kind != "program")


@pytest.mark.parametrize("net", NETS)
def test_networks_without_a_fault_are_certified(net: str) -> None:
    found = certificate(net)
    assert found.holds, found.failing
    assert all(c.elements for v in found.verdicts for c in v.checks if c.outcome != "skipped")


@pytest.mark.parametrize(("net", "operator", "old", "new"), FAULTS)
def test_faults_in_loops_are_caught(
    monkeypatch: pytest.MonkeyPatch, net: str, operator: str, old: str, new: str
) -> None:
    cls = OPERATORS[operator]
    right, planted = cls.nest, []

    def wrong(self, types, out) -> Nest:  # type: ignore[no-untyped-def]
        text = print_nest(right(self, types, out))
        planted.append(old in text)
        return parse(text.replace(old, new))

    monkeypatch.setattr(cls, "nest", wrong)
    found = certificate(net)
    assert any(planted), "the fault was not planted"
    assert not found.holds
    assert f"({operator})" in named(found)


@pytest.mark.parametrize(("net", "operator"), WRONG_GRADIENTS)
def test_a_wrong_gradient_is_caught(
    monkeypatch: pytest.MonkeyPatch, net: str, operator: str
) -> None:
    cls = OPERATORS[operator]
    right = cls.gradient

    def wrong(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:  # type: ignore[no-untyped-def]
        return right(self, b, node, b.add(OPERATORS["add"](), dy, dy))

    monkeypatch.setattr(cls, "gradient", wrong)
    found = certificate(net)
    assert not found.holds
    assert f"({operator})" in " ".join(v.subject for v in found.failing if v.kind == "operator")


WRONG_LINEAR = {  # what is added to the gradient of a linear operator, as graph
    "tiny": lambda b, g: b.add(OPERATORS["scale"](1 + 1e-6), g),
    "nan": lambda b, g: b.add(OPERATORS["scale"](float("nan")), g),
    "infinite": lambda b, g: b.add(OPERATORS["scale"](float("inf")), g),
}


@pytest.mark.parametrize("machine", [False, True])
@pytest.mark.parametrize("fault", WRONG_LINEAR)
@pytest.mark.parametrize(("net", "operator"), [("conv", "conv"), ("dense", "dense")])
def test_a_gradient_without_short_numbers_is_caught(
    monkeypatch: pytest.MonkeyPatch, net: str, operator: str, fault: str, machine: bool
) -> None:
    """Kernels and definition agree about such a graph: the adjoint identity alone is against it."""
    cls = OPERATORS[operator]
    right = cls.gradient

    def wrong(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:  # type: ignore[no-untyped-def]
        parts = right(self, b, node, dy)
        return tuple(None if g is None else WRONG_LINEAR[fault](b, g) for g in parts)

    monkeypatch.setattr(cls, "gradient", wrong)
    found = certificate(net, machine=machine)
    failing = {
        c.name for v in found.failing for c in v.checks
        if c.failed and v.kind == "operator" and f"({operator})" in v.subject
    }  # fmt: skip
    assert {"adjoint in operand 1", "adjoint in operand 2"} <= failing


SMALL = """
net n {
  input x: f32[6]
  output scores = x -> dense(4)
}
train n {
  target label: class[4]
  loss = 0.000001 * cross_entropy(scores, label)
  optimizer = sgd(lr = 0.1)
}
"""


@pytest.mark.parametrize("factor", [None, 0.0, 2.0, 1.0001])
def test_small_gradients_are_compared(
    monkeypatch: pytest.MonkeyPatch, factor: float | None
) -> None:
    """An error is measured against the result, not against what the result was computed from."""
    cls, planted = OPERATORS["cross_entropy_grad"], []
    right = cls.nest

    def wrong(self, types, out) -> Nest:  # type: ignore[no-untyped-def]
        text = print_nest(right(self, types, out))
        lines = text.splitlines()
        planted.append(lines[-1].strip().startswith("dx["))
        stored, value = lines[-1].split(" = ", 1)
        lines[-1] = f"{stored} = ({value}) * {factor}"
        return parse("\n".join(lines) + "\n")

    if factor is not None:
        monkeypatch.setattr(cls, "nest", wrong)
    found = verify_network(SMALL, settings=Settings(machine=False))
    if factor is None:
        assert found.holds, found.failing
        return
    assert planted
    assert all(planted), "the fault was not planted"
    assert not found.holds
    assert "(cross_entropy_grad)" in named(found)


EMITTED = [  # net, operator, a pattern of the emitted text, and what it becomes
    ("average", "avgpool", r"i_s1 \* y_step3", "i_s1 * y_step3 * 0"),
    ("max", "maxpool", r"table\[first \+ 1\]", "table[first + 1] - 1"),
    ("conv", "conv", r"rolled\(3\)", "rolled(2)"),
    # rounding: once more, once less, the last digit of a coefficient, another order
    ("conv", "conv", r"(acc\w*) = fma\((\w+), (\w+), \1\)", r"\1 = \2 * \3 + \1"),
    ("average", "avgpool", r"acc \+ x", "acc + f32(1.0001) * x"),
    ("ninths", "avgpool", r"/ f32\(9\.0\)", "* f32(0.11111111)"),
    ("dense", "sigmoid", r"f32\(0\.041666\d*\)", "f32(0.0418)"),
    ("dense", "dense", r"for i_f in range\((\w+)\)", r"for i_f in range(\1 - 1, -1, -1)"),
]


@pytest.mark.parametrize(("net", "operator", "old", "new"), EMITTED)
def test_faults_in_emitted_text_are_caught(
    monkeypatch: pytest.MonkeyPatch, net: str, operator: str, old: str, new: str
) -> None:
    right, planted = program.emit, []

    def wrong(*given, **options):  # type: ignore[no-untyped-def]
        emitted = right(*given, **options)
        text, times = re.subn(old, new, emitted.text)
        planted.append(times)
        return replace(emitted, text=text)

    monkeypatch.setattr(program, "emit", wrong)
    found = certificate(net, machine=True)
    assert sum(planted), "the fault was not planted"
    assert not found.holds
    assert f"({operator})" in named(found)


BORDERS = [  # a part of the kernel that fills borders, and what it becomes
    ("splat16(f32(0.0))", "splat16(f32(1.0))"),
    ("store_tail(y, start, value, stop - start)", "pass"),
    ("fill(y, start, start + left)", "fill(y, start + 1, start + left)"),
    ("start + left + inside, start + pitch", "start + left + inside + 1, start + pitch"),
    ("lo1 <= r1 < lo1 + e1", "lo1 <= r1 <= lo1 + e1"),
    ("rows = samples * each", "rows = (samples - 1) * each"),
    ("row // each * step + row % each * pitch", "row * pitch"),
]


@pytest.mark.parametrize(("old", "new"), BORDERS)
def test_stale_borders_are_caught(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """What lay in the memory of a border before must not be read as padding."""
    right, planted = program.border_text, []

    def wrong(dtype: str, fill: float) -> str:
        text = right(dtype, fill)
        planted.append(old in text)
        return text.replace(old, new)

    monkeypatch.setattr(program, "border_text", wrong)
    found = certificate("borders", machine=True)
    assert any(planted), "the fault was not planted"
    assert not found.holds
    assert any(v.kind == "program" for v in found.failing)
