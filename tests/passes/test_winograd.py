"""Which convolutions become Winograd's, and that the network stays what it was."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.compiler import front, kernels
from cnncc.graph.verify import verify
from cnncc.passes.choices import Choices
from cnncc.passes.winograd import algorithms, with_winograd

WIDE = "32, 12, 13"


def net(layer: str, shape: str = WIDE, after: str = "") -> str:
    return f"net n {{\n  input x: f32[{shape}]\n  output y = x -> {layer}{after}\n}}\n"


def operators(text: str) -> list[str]:
    return [n.op.name for n in with_winograd(front(text).graph).nodes if n.inputs]


CHAIN = ["winograd_filter", "winograd_input", "winograd_product", "winograd_output"]


@pytest.mark.parametrize(
    "layer",
    ["3x3, pad = same", "5x5", "3x3, connect = groups(2)", "5x5, pad = 2, connect = groups(2)"],
)
def test_a_large_convolution_is_replaced(layer: str) -> None:
    assert operators(net(f"conv(64, {layer})", "64, 12, 13")) == CHAIN


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("64, 7x7, stride = 2, pad = 3, fit = floor", "3, 60, 61"),
        ("96, 11x11, stride = 4, fit = floor", "3, 99, 103"),
        ("64, 5x5, stride = 2", "16, 41, 41"),
        ("64, 2x2", "32, 25, 25"),
        ("64, 4x4, pad = 1", "32, 25, 25"),
    ],
)
def test_so_is_one_with_a_stride_or_an_even_window(layer: str, shape: str) -> None:
    assert operators(net(f"conv({layer})", shape)) == CHAIN


def test_weights_that_are_read_once_for_many_samples_cost_less() -> None:
    graph = front(net("conv(512, 3x3, pad = same)", "512, 7, 7")).graph
    assert [algorithms(graph, Choices(batch=b))["y"] for b in (1, 16)] == [2, 4]


def test_a_required_fusion_is_had_for_every_batch() -> None:
    """The algorithm does not depend on the batch where the text requires something of a kernel."""
    found = front(
        "net n {\n  input x: f32[512, 7, 7]\n  a = x -> conv(512, 3x3, pad = same) -> relu\n"
        "  require fused(a)\n  output y = a\n}\n"
    )
    one, many = (
        kernels(found.graph, found.module, choices=Choices(batch=b)).graph for b in (1, 16)
    )
    assert [n.op for n in one.nodes] == [n.op for n in many.nodes]


@pytest.mark.parametrize(
    "layer",
    [
        "conv(32, 3x3, stride = 2, fit = floor)",
        "conv(32, 3x3, dilation = 2)",
        "conv(32, 7x7)",
        "conv(32, 3x5, pad = same)",
        "conv(32, 1x1)",
        "conv(32, 3x3, connect = groups(4))",
        "conv(32, 3x3, share = tiled(2))",
        "conv(32, 3x3, bias = untied)",
        "conv(8, 3x3)",
    ],
)
def test_others_stay(layer: str) -> None:
    assert not set(operators(net(layer))) & set(CHAIN)


@pytest.mark.parametrize("shape", ["32, 8, 8", "4, 99, 99", "32, 9", "32, 4, 5, 6"])
def test_small_ones_and_other_ranks_stay(shape: str) -> None:
    size = "x".join(["3"] * shape.count(",")) if shape.count(",") > 1 else "(3,)"
    assert not set(operators(net(f"conv(32, {size}, pad = same)", shape))) & set(CHAIN)


def test_symbolic_extents_stay() -> None:
    text = "net n {\n  input x: f32[32, H, W]\n  output y = x -> conv(32, 3x3, pad = same)\n}\n"
    assert operators(text) == ["conv"]


def test_names_types_and_outputs_stay() -> None:
    before = front(net("conv(32, 3x3, pad = same)", after=" -> relu -> maxpool(2x2, fit = floor)"))
    graph = before.graph
    after = verify(with_winograd(graph), "winograd")
    assert after.outputs == graph.outputs
    for node in graph.nodes:
        assert after[node.name].type == node.type
        assert after[node.name].origin == node.origin


RESIDUAL = """
net n {
  input x: f32[32, 11, 14]
  a = x -> conv(48, 3x3, pad = same) -> batchnorm -> relu
  b = a -> conv(32, 3x3, pad = same, bias = none)
  output y = add(b, x) -> relu
}
"""


def test_the_epilogue_is_in_the_kernel_of_the_last_transform() -> None:
    checked = front(RESIDUAL)
    fused = kernels(checked.graph, checked.module)
    ends = [tuple(n.op.name for n in k.nodes) for k in fused.kernels]
    assert ("winograd_output", "affine", "relu") in ends
    assert ("winograd_output", "add", "relu") in ends


def test_so_is_a_pool_whose_windows_lie_in_one_tile() -> None:
    def ends(layers: str, shape: str) -> list[tuple[str, ...]]:
        checked = front(net("conv(32, 3x3, pad = same)", shape, f" -> relu -> {layers}"))
        return [
            tuple(n.op.name for n in k.nodes)[1:]
            for k in kernels(checked.graph, checked.module).kernels
            if k.nodes[0].op.name == "winograd_output"
        ]

    assert ends("maxpool(2x2)", "32, 16, 24") == [("relu", "maxpool")]
    assert ends("avgpool(4x4)", "32, 16, 24") == [("relu", "avgpool")]
    assert ends("maxpool(2x2)", "32, 18, 24") == [("relu",)], "the last tile reaches beyond"
    assert ends("maxpool(3x3)", "32, 24, 24") == [("relu",)], "windows lie in two tiles"


STEM = "conv(64, 7x7, stride = 2, pad = 3, fit = floor)"
STRIDED = net(STEM, "3, 58, 61", " -> batchnorm -> relu")  # the last tiles reach beyond the image


@pytest.mark.parametrize(("text", "shape"), [(RESIDUAL, (32, 11, 14)), (STRIDED, (3, 58, 61))])
def test_both_targets_fused_or_not_have_the_same_bits(text: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    results = [
        cnncc.compile(text, target=target, fuse=fuse, num_threads=threads)(x)
        for target, fuse, threads in (
            ("interp", False, None), ("interp", True, None), ("cpu", False, 1), ("cpu", True, 1),
            ("cpu", True, 2),
        )
    ]  # fmt: skip
    assert all(np.array_equal(results[0], other) for other in results[1:])
    exact = cnncc.compile(text, precision="exact")(x)
    assert not np.array_equal(results[0], exact)
    assert np.linalg.norm(results[0] - exact) < 2e-6 * np.linalg.norm(exact)


def test_exact_precision_keeps_the_definition_of_every_sum() -> None:
    checked = front(RESIDUAL)
    fused = kernels(checked.graph, checked.module, exact=True)
    assert not {n.op.name for k in fused.kernels for n in k.nodes} & set(CHAIN)
    x = np.random.default_rng(0).integers(-4, 5, (2, 32, 11, 14)).astype(np.float32)
    text = net("conv(32, 3x3, pad = same, bias = none)", "32, 11, 14")
    model = cnncc.compile(text, precision="exact")
    w = np.random.default_rng(1).integers(-4, 5, (32, 32, 3, 3)).astype(np.float32)
    model.load_state_dict({"y.weight": w})
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    assert np.array_equal(model(x), np.einsum("nchwij,kcij->nkhw", windows, w))


def test_training_is_not_rewritten() -> None:
    assert "winograd" not in " ".join(
        n.op.name for n in kernels_of_training().graph.nodes if n.inputs
    )


def kernels_of_training():  # type: ignore[no-untyped-def]
    from cnncc.passes.training import seeded_graph

    checked = front(RESIDUAL)
    step = seeded_graph(checked.graph, checked.module)
    return kernels(step.graph, checked.module, phases=dict(step.phases))
