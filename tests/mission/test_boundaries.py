"""Rows S50 to S67 of the lecture table: what a window sees at the border, strides and dilations.

The running example is h = (0.1, 7, -1, 2, 3) under c = (1, 2, 3): sum over j of c_j h_(i-j) for j =
-1, 0, 1. As a cross-correlation its kernel is the flipped (3, 2, 1).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import cnncc
from cnncc.compiler import front
from cnncc.errors import SpecError
from tests.mission.running import Run, integers, net

H = [0.1, 7, -1, 2, 3]
KERNEL = [[[3, 2, 1]]]


def conv(arguments: str, n: int = 5, taps: int = 3) -> Run:
    """A convolution without bias on one channel of length n."""
    return Run(net([1, n], f"conv(1, {taps}, {arguments}, bias = none)"))


def on_h(arguments: str) -> list[float]:
    run = conv(arguments)
    run.parameters["y.weight"] = np.array(KERNEL, np.float32)
    return [round(float(v), 5) for v in run.one([H])[0]]


def extents(shape: list[int], body: str) -> tuple[Any, ...]:
    return Run(net(shape, body)).shape[1:]


# --- S50 to S56: the border ---


def test_s50_the_sum_at_the_border_is_undefined_without_a_padding() -> None:
    assert on_h("pad = valid") == [13.3, 21, 4]
    assert on_h("pad = same") == [7.2, 13.3, 21, 4, 12]


def test_s51_valid_shrinks_by_2s_per_layer() -> None:
    assert conv("pad = valid").shape == (1, 3)
    body = "conv(1, 6) -> conv(1, 6) -> conv(1, 6)"
    graph = front(net([1, 16], body)).graph
    assert [n.type.shape[1] for n in graph.nodes if n.op.name == "conv"] == [11, 6, 1]


def test_s52_constants_that_differ_per_side() -> None:
    assert on_h("pad = const(lo = 10, hi = 20)") == [37.2, 13.3, 21, 4, 32]
    assert on_h("pad = const(-1)") == [4.2, 13.3, 21, 4, 11]
    image = integers((2, 3, 4))
    run = Run(net([2, 3, 4], "pad(const(lo = -1, hi = 5, amount = ((1, 2), (2, 1))))"))
    widths = [(0, 0), (1, 2), (2, 1)]
    expected = np.pad(image, widths, constant_values=[(0, 0), (-1, 5), (-1, 5)])
    np.testing.assert_array_equal(run.one(image), expected)


def test_s52_the_padding_gets_no_gradient() -> None:
    run = Run(net([1, 5], "pad(const(lo = 10, hi = 20, amount = (2, 1)))"))
    dy = integers((1, 1, 8), seed=1)
    np.testing.assert_array_equal(run.backward([[H]], dy)["x"], dy[..., 2:7])


def test_s53_zeros_keep_16_positions_under_6_taps_by_an_uneven_padding() -> None:
    for words, pads in (("same", (2, 3)), ("same_lower", (3, 2))):
        run, explicit = conv(f"pad = {words}", 16, 6), conv(f"pad = {pads}", 16, 6)
        assert run.shape == (1, 16)
        x = integers((2, 1, 16))
        np.testing.assert_array_equal(run(x), explicit(x))
    assert conv("pad = const(0)", 16, 6).shape == (1, 16)


def test_s54_extension_repeats_the_border_and_gathers_its_gradient() -> None:
    averaged = Run(net([1, 5], "avgpool(3, stride = 1, pad = replicate(1))"))
    np.testing.assert_allclose(
        averaged.one([H])[0], [2.4, 2.03333, 2.66667, 1.33333, 2.66667], rtol=1e-5
    )
    run = Run(net([1, 5], "pad(replicate((2, 1)))"))
    gradient = run.backward([[H]], [[[1, 10, 100, 3, 4, 5, 6, 60]]])["x"]
    assert gradient.tolist() == [[[111, 3, 4, 5, 66]]]


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_s55_other_modes_are_those_of_numpy(mode: str) -> None:
    name = {"circular": "wrap", "replicate": "edge"}.get(mode, mode)
    for shape, pairs in (((2, 5), ((2, 1),)), ((2, 4, 3), ((3, 1), (0, 2)))):
        image = integers(shape)
        run = Run(net(list(shape), f"pad({mode}({pairs if len(pairs) > 1 else pairs[0]}))"))
        expected = np.pad(image, [(0, 0), *pairs], mode=name)  # type: ignore[call-overload]
        np.testing.assert_array_equal(run.one(image), expected)


def test_s56_same_is_the_length_divided_by_the_stride_rounded_up() -> None:
    for n, stride in product(range(5, 17), (1, 2, 3)):
        for words in ("same", "same_lower"):
            run = conv(f"stride = {stride}, pad = {words}", n, 5)
            assert run.shape == (1, -(-n // stride))
    assert extents([1, 16], "conv(1, 5, stride = 2, pad = same)") == (8,)


# --- S57 to S60: how many outputs ---


@pytest.mark.parametrize(("stride", "out"), [(1, 5), (2, 3)])
def test_s57_output_size_of_7_under_3(stride: int, out: int) -> None:
    assert extents([1, 7], f"conv(1, 3, stride = {stride})") == (out,)


def test_s57_a_stride_that_does_not_fit_is_an_error_with_fixes() -> None:
    with pytest.raises(SpecError) as refused:
        front(net([1, 7, 7], "conv(1, 3x3, stride = 3)"))
    (found,) = refused.value.diagnostics
    assert found.code == "E0202"
    assert found.message == "stride 3 does not fit 7: (7 + 0 + 0 - 3) / 3 + 1 = 2.33"
    fixes = "\n".join(found.helps)
    for fix in ("stride = 2 (output 3x3)", "pad = 1 (output 3x3)", "fit = floor drops 1 row"):
        assert fix in fixes


def test_s58_padding_1_keeps_7x7_under_3x3() -> None:
    assert extents([1, 7, 7], "conv(1, 3x3, pad = 1)") == (7, 7)


def test_s59_padding_is_solved_from_the_wanted_output() -> None:
    solved = Run(net([1, 7, 7], "conv(1, 3x3, stride = 3, pad = solve(out = 3))"))
    given = Run(net([1, 7, 7], "conv(1, 3x3, stride = 3, pad = 1)"))
    x = integers((2, 1, 7, 7))
    np.testing.assert_array_equal(solved(x), given(x))
    with pytest.raises(SpecError) as refused:
        front(net([1, 7, 7], "conv(1, 3x3, stride = 3, pad = solve(out = 1))"))
    assert [d.code for d in refused.value.diagnostics] == ["E0208"]


def test_s60_ten_filters_on_50x50x3() -> None:
    facts = "params(y) == 760, macs(y) == 7_500 * 250, shape(y) == [10, 50, 50]"
    text = net([3, 50, 50], f"conv(10, 5x5, pad = 2)\n  expect {facts}")
    assert front(text).graph.outputs  # the expectations hold
    dense = Run(net([3, 50, 50], "conv(10, 5x5, pad = 2, bias = none)"))
    assert 3 * 50 * 50 * int(np.prod(dense.shape)) == 187_500_000


# --- S61 to S67: strides and dilations ---


def test_s61_stride_2_from_the_first_position_on() -> None:
    assert on_h("stride = 2, pad = 1") == [7.2, 21, 12]
    assert on_h("stride = 2, phase = 0, pad = 1") == [7.2, 21, 12]


def test_s62_the_other_phase_keeps_multiples_of_2_counted_from_1() -> None:
    assert on_h("stride = 2, phase = 1, pad = 1, fit = floor") == [13.3, 4]


# how the language writes a border of an amount, and how numpy.pad does
BORDERS: dict[str, dict[str, Any]] = {
    "{n}": {},
    "const(-2, {n})": {"constant_values": -2},
    "const(lo = 1, hi = -3, amount = {n})": {"constant_values": ((1, -3),)},
    "replicate({n})": {"mode": "edge"},
    "reflect({n})": {"mode": "reflect"},
    "circular({n})": {"mode": "wrap"},
}
AMOUNTS: dict[str, tuple[int, int] | None] = {
    "0": (0, 0), "1": (1, 1), "(1, 2)": (1, 2), "(3, 0)": (3, 0),
    "valid": (0, 0), "full": None, "same": None, "same_lower": None,
}  # fmt: skip


def test_s62_strided_is_the_subsampled_unstrided_in_every_phase_and_boundary() -> None:
    x = integers((2, 1, 9))
    for border, amount, dilation in product(BORDERS, ("(1, 2)", "full", "valid"), (1, 2)):
        pad = border.format(n=amount)
        whole = conv(f"pad = {pad}, dilation = {dilation}", 9)(x)
        for stride in (2, 3, 4):
            for phase in range(stride):
                kept = whole[..., phase::stride]
                arguments = f"stride = {stride}, phase = {phase}, pad = {pad}"
                run = conv(f"{arguments}, dilation = {dilation}, fit = floor", 9)
                np.testing.assert_array_equal(run(x), kept, err_msg=arguments)


def test_s62_a_strided_convolution_costs_its_part_of_the_unstrided() -> None:
    def macs(arguments: str) -> int:
        text = net([1, 16], f"conv(4, 3, pad = 1, fit = floor, {arguments})")
        report = cnncc.compile(text, target="interp").network.inference.graph
        (node,) = report.of("conv")
        cost = node.op.cost(report.types(node), node.type)  # type: ignore[attr-defined]
        return int(cost.macs)

    for phase in (0, 1):
        assert 2 * macs(f"stride = 2, phase = {phase}") == macs("stride = 1")


def test_s62_a_phase_has_a_gradient() -> None:
    x, dy = integers((2, 1, 9)), integers((2, 1, 3), seed=5)
    run = conv("stride = 3, phase = 2, pad = 1", 9)
    spread = np.zeros((2, 1, 9), np.float32)
    spread[..., 2::3] = dy
    whole = conv("pad = 1", 9)
    gradients, expected = run.backward(x, dy), whole.backward(x, spread)
    for name in ("x", "y.weight"):
        np.testing.assert_array_equal(gradients[name], expected[name])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("stride = 2, phase = 2", "E0213"),
        ("stride = 2, phase = 1", "E0202"),
        ("stride = 9, phase = 7, fit = floor", "E0213"),
        ("stride = 2, phase = -1", "E0304"),
    ],
)
def test_s62_phases_that_cannot_be(arguments: str, code: str) -> None:
    with pytest.raises(SpecError) as refused:
        front(net([1, 5], f"conv(1, 1, {arguments})"))
    assert [d.code for d in refused.value.diagnostics] == [code]


def test_s63_dilation_spreads_the_taps_and_drops_no_output() -> None:
    assert on_h("dilation = 2, pad = same") == [-0.8, 16, 1.3, 25, 3]
    assert conv("dilation = 2").shape == (1, 1)  # 2 s b positions fewer


def correlate(x: Any, w: Any, stride: int, dilation: int) -> Any:
    """The definition on padded arrays [N, C, spatial...] and weights [K, C, taps...]."""
    rank = x.ndim - 2
    spans = tuple(dilation * (k - 1) + 1 for k in w.shape[2:])
    seen = sliding_window_view(x, spans, axis=tuple(range(2, x.ndim)))
    kept = (slice(None),) * 2 + (slice(None, None, stride),) * rank
    seen = seen[(*kept, *[slice(None, None, dilation)] * rank)]
    axes = list(range(2 + rank, 2 + 2 * rank))
    y = np.tensordot(seen, w, axes=([1, *axes], [1, *range(2, 2 + rank)]))
    return np.moveaxis(y, -1, 1)


def widths(amount: str, span: int, stride: int, n: int) -> tuple[int, int]:
    """(lo, hi) of an amount of the language."""
    given = AMOUNTS[amount]
    if given is not None:
        return given
    if amount == "full":
        return (span - 1, span - 1)
    total = max((-(-n // stride) - 1) * stride + span - n, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if amount == "same" else (large, small)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("border", BORDERS)
def test_s63_s66_dilation_in_every_boundary_in_every_rank(border: str, rank: int) -> None:
    shape, taps = [2, 9, 7, 6][: rank + 1], [3, 2, 2][:rank]
    x = integers((2, *shape))
    size = "x".join(map(str, taps))
    choices = product(AMOUNTS, (1, 2), (1, 2)) if rank == 1 else product(AMOUNTS, (2,), (1, 2))
    for amount, dilation, stride in choices:
        pad = border.format(n=amount)
        body = f"conv(2, {size}, stride = {stride}, pad = {pad}, dilation = {dilation}, bias = none"
        run = Run(net(shape, f"{body}, fit = floor)"), seed=3)
        spans = [dilation * (k - 1) + 1 for k in taps]
        pairs = [widths(amount, s, stride, n) for s, n in zip(spans, shape[1:], strict=True)]
        how = dict(BORDERS[border])
        if isinstance(how.get("constant_values"), tuple):
            how["constant_values"] = [(0, 0), (0, 0), *how["constant_values"] * rank]
        padded = np.pad(x, [(0, 0), (0, 0), *pairs], **how)
        expected = correlate(padded, run.parameters["y.weight"], stride, dilation)
        np.testing.assert_array_equal(run(x), expected, err_msg=body)
        y = integers(expected.shape, seed=4)
        back = run.backward(x, y)
        weights = run.parameters["y.weight"]
        forward = np.sum(expected * y, dtype=np.float64)
        # linear in the weights, and in x up to what a constant border adds
        assert np.sum(weights * back["y.weight"], dtype=np.float64) == forward
        constant = np.sum(run(np.zeros_like(x)) * y, dtype=np.float64)
        assert np.sum(x * back["x"], dtype=np.float64) == forward - constant


def test_s63_emitted_kernels_give_the_interpreters_bits_at_every_kind_of_border() -> None:
    x = integers((2, 1, 9))
    for pad in ("full", "const(lo = 1, hi = -3)", "circular(full)"):
        run = conv(f"stride = 2, phase = 1, pad = {pad}, dilation = 2, fit = floor", 9)
        np.testing.assert_array_equal(run.on_cpu(x)(x), run(x))


@pytest.mark.parametrize(
    ("n", "arguments", "out"),
    [
        (4, "pad = valid", 2),
        (5, "pad = 1", 5),
        (5, "stride = 2, pad = 1", 3),
        (7, "dilation = 2", 3),
    ],
)
def test_s64_the_four_demonstrations_of_3x3(n: int, arguments: str, out: int) -> None:
    assert extents([1, n, n], f"conv(1, 3x3, {arguments})") == (out, out)


def test_s65_three_outputs_of_five_inputs_need_padding_1() -> None:
    run = conv("stride = 2, pad = (1, 1)")
    assert run.shape == (1, 3)
    run.parameters["y.weight"] = np.ones((1, 1, 3), np.float32)
    assert run.one([[1, 10, 100, 1000, 10000]])[0].tolist() == [11, 1110, 11000]


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("audio", [1, 12]), ("skeleton", [6, 8]), ("spectrogram", [1, 6, 9]),
        ("colour image", [3, 7, 6]), ("CT volume", [1, 5, 6, 4]), ("colour video", [3, 4, 5, 6]),
    ],
)  # fmt: skip
def test_s66_one_text_for_every_kind_of_data(data: str, shape: list[int]) -> None:
    size = "x".join("3" * (len(shape) - 1))
    run = Run(net(shape, f"conv(2, {size}, pad = same, bias = none)"))
    x = integers((2, *shape))
    padded = np.pad(x, [(0, 0), (0, 0), *[(1, 1)] * (len(shape) - 1)])
    expected = correlate(padded, run.parameters["y.weight"], 1, 1)
    np.testing.assert_array_equal(run(x), expected, err_msg=data)


def test_s67_two_strides_of_4_reduce_256_to_16() -> None:
    body = "conv(1, 4x4, stride = 4) -> conv(1, 4x4, stride = 4)"
    graph = front(net([1, 256, 256], body)).graph
    assert [n.type.shape[1] for n in graph.nodes if n.op.name == "conv"] == [64, 16]
