"""Windowed layers against PyTorch: borders, odd paddings, transposed extents, partial windows,
interpolation, special values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest

from cnncc.graph.layer import Pad, Word
from cnncc.ops.adaptive_max import AdaptiveMax, AdaptiveMaxAt
from cnncc.ops.base import Array
from cnncc.ops.pool_average import AvgPool
from cnncc.ops.pool_max import MaxPool, MaxPoolArgmax
from cnncc.window import Axis
from tests.ops.layers import network
from tests.ops.nests import f32, run, square

torch = pytest.importorskip("torch")
F = torch.nn.functional
ERROR = 1e-10  # relative L2, both in float64


@dataclass(frozen=True)
class Twin:
    """A layer with its arguments and PyTorch's function of its input and parameters."""

    layer: str
    shape: tuple[int, ...]
    torch: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)


def twins() -> list[Twin]:
    image, signal, volume = (3, 7, 6), (2, 9), (2, 4, 5, 3)
    three = {"size": square(3, 3), "fit": "floor"}
    table: list[Twin] = []

    def add(layer: str, shape: tuple[int, ...], twin: Callable[..., Any], **arguments: Any) -> None:
        table.append(Twin(layer, shape, twin, arguments))

    # torch pads the last axis first
    borders = {"replicate": "replicate", "reflect": "reflect", "circular": "circular"}
    pairs = ((2, 1), (0, 3))
    for mode, name in borders.items():
        add("pad", image, lambda x, m=name: F.pad(x, (0, 3, 2, 1), m), amount=Pad(pairs, mode))
        add("pad", signal, lambda x, m=name: F.pad(x, (4, 3), m), amount=Pad(((4, 3),), mode))
        add("pad", volume, lambda x, m=name: F.pad(x, (1,) * 6, m), amount=Pad(1, mode))
        add(
            "conv", image,
            lambda x, w, b, m=name: F.conv2d(F.pad(x, (1,) * 4, m), w, b, stride=2),
            out=4, **three, stride=(2,), pad=Pad(1, mode),
        )  # fmt: skip
    add("pad", image, lambda x: F.pad(x, (0, 3, 2, 1)), amount=Pad(pairs))
    add("pad", image, lambda x: F.pad(x, (1,) * 4, value=-1.5), amount=Pad(1, "const", -1.5))
    add("crop", image, lambda x: x[:, :, 1:5, 2:], amount=Pad(((1, 2), (2, 0))))
    add(
        "conv", image, lambda x, w, b: F.conv2d(F.pad(x, (1,) * 4, value=2.0), w, b),
        out=2, **three, pad=Pad(1, "const", 2.0),
    )  # fmt: skip
    add(
        "conv", image, lambda x, w, b: F.conv2d(F.pad(x, (0, 1, 1, 1)), w, b, stride=2),
        out=2, **three, stride=(2,), pad=Pad("same"),
    )  # fmt: skip
    add(
        "conv", (4, 7, 6), lambda x, w, b: F.conv2d(x, w, b, padding=1, dilation=(2, 1), groups=4),
        out=8, **three, pad=Pad(1), dilation=(2, 1), connect=Word("depthwise"),
    )  # fmt: skip
    for height, width in product((13, 14), (16, 17, 18)):
        add(
            "conv_transpose", (4, 7, 6),
            lambda x, w, b, h=height, v=width: F.conv_transpose2d(
                x, w, b, (2, 3), (1, 0), (h - 13, v - 16), groups=2, dilation=(1, 1)
            ),
            channels=6, size=square(3, 1), stride=(2, 3), pad=Pad(((1, 1), (0, 0))),
            out=(height, width), connect=Word("groups", (2,)),
        )  # fmt: skip
    add(
        "conv_transpose", signal, lambda x, w: F.conv_transpose1d(x, w, groups=2, dilation=3),
        channels=2, size=square(3), dilation=(3,), connect=Word("depthwise"), bias="none",
    )  # fmt: skip
    add("maxpool", image, lambda x: F.max_pool2d(x, 3, 2, 1, 2, ceil_mode=True),
        size=square(3, 3), stride=(2,), pad=Pad(1), dilation=(2,), fit="partial")  # fmt: skip
    add("maxpool", image, lambda x: F.max_pool2d(F.pad(x, (1,) * 4, "circular"), 3, 1),
        **three, stride=(1,), pad=Pad("same", "circular"))  # fmt: skip
    for include, extents in product((True, False), ((7, 6), (8, 9), (5, 10))):
        add(
            "avgpool", (2, *extents),
            lambda x, i=include: F.avg_pool2d(x, 3, 3, 1, ceil_mode=True, count_include_pad=i),
            size=square(3, 3), pad=Pad(1), count_include_pad=include, fit="partial",
        )  # fmt: skip
    add(
        "avgpool", image,
        lambda x, s, b: F.avg_pool2d(x, 2) * s[:, None, None] + b[:, None, None],
        size=square(2, 2), affine="per_map", fit="floor",
    )  # fmt: skip
    add("l2pool", image, lambda x: F.lp_pool2d(x, 2, (3, 2), (2, 1)),
        size=square(3, 2), stride=(2, 1))  # fmt: skip
    add("adaptiveavgpool", image, lambda x: F.adaptive_avg_pool2d(x, (4, 5)), out=(4, 5))
    add("adaptiveavgpool", image, lambda x: F.adaptive_avg_pool2d(x, (9, 2)), out=(9, 2))
    # torch's norm of odd p drops the sign of x^p, so an even one
    add("lppool", image, lambda x: F.lp_pool2d(x, 4, 2, 2), size=square(2, 2), p=4.0, fit="floor")
    add("adaptivemaxpool", image, lambda x: F.adaptive_max_pool2d(x, (4, 5)), out=(4, 5))
    add("adaptivemaxpool", image, lambda x: F.adaptive_max_pool2d(x, (9, 2)), out=(9, 2))
    add("adaptivemaxpool", volume, lambda x: F.adaptive_max_pool3d(x, (3, 5, 2)), out=(3, 5, 2))
    add("maxout", (6, 7, 5), lambda x: x.unflatten(1, (2, 3)).amax(dim=2), channels=3)
    add("channelpool", (6, 7), lambda x: x.unflatten(1, (3, 2)).mean(dim=2), channels=2, kind="avg")
    add("channelpool", (6,), lambda x: x.unflatten(1, (2, 3)).norm(dim=2), channels=3, kind="l2")
    blur = torch.outer(*[torch.tensor([1.0, 2, 1], dtype=torch.float64)] * 2) / 16
    add(
        "wavgpool", image,
        lambda x: F.conv2d(
            F.pad(x, (1,) * 4, "reflect"), blur.expand(3, 1, 3, 3), stride=2, groups=3
        ),
        **three, kernel=Word("binomial"), stride=(2,), pad=Pad(1, "reflect"),
    )  # fmt: skip
    add("log_softmax", image, lambda x: F.log_softmax(x, 1))
    for shape, mode in ((signal, "linear"), (image, "bilinear"), (volume, "trilinear")):
        rank = len(shape) - 1
        add("upsample", shape, lambda x: F.interpolate(x, scale_factor=3), factor=(3,))
        for factor in ((2,), (3, 4, 1)[:rank]):
            add(
                "upsample", shape,
                lambda x, f=factor, m=mode, r=rank: F.interpolate(
                    x, scale_factor=tuple(map(float, f * r if len(f) == 1 else f)), mode=m
                ),
                factor=factor, mode="linear",
            )  # fmt: skip
    return table


TWINS = twins()


@pytest.mark.parametrize("twin", TWINS, ids=[f"{i}-{t.layer}" for i, t in enumerate(TWINS)])
def test_layer_agrees_with_pytorch(twin: Twin) -> None:
    net = network(twin.layer, twin.shape, **twin.arguments)
    arrays = net.arrays(2, seed=7)
    names = [n.name for n in [*net.inputs, *net.parameters]]
    operands = [torch.tensor(arrays[name], requires_grad=True) for name in names]
    expected = twin.torch(*operands)
    actual = net.value(arrays)[net.output.name]
    close(actual, expected.detach().numpy())
    dy = np.random.default_rng(8).standard_normal(actual.shape)
    expected.backward(torch.tensor(dy))
    gradients = net.gradients(arrays, dy)
    for name, operand in zip(names, operands, strict=True):
        close(gradients[name], operand.grad.numpy())


def close(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= ERROR * max(float(np.linalg.norm(expected)), 1e-3)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_pool_as_in_pytorch(special: float) -> None:
    x = np.random.default_rng(1).integers(-3, 4, (2, 3, 7, 8)).astype(np.float32)
    x[0, 1, 3, 2:4] = special
    x[1, 0] = special
    window = (Axis(3, 2, lo=1, hi=1), Axis(2, 2))
    expected, place = torch.nn.functional.max_pool2d(
        torch.tensor(x), (3, 2), 2, (1, 0), return_indices=True
    )
    types = (f32(3, 7, 8),)
    np.testing.assert_array_equal(run(MaxPool(window), types, [x]), expected.numpy())
    taps = run(MaxPoolArgmax(window), types, [x]).astype(int)
    rows = 2 * np.arange(4)[:, None] - 1 + taps // 2
    columns = 2 * np.arange(4)[None, :] + taps % 2
    # PyTorch starts in the image; a window of nothing but -inf names tap 0, wherever that is
    known = expected.numpy() != -np.inf
    np.testing.assert_array_equal((rows * 8 + columns)[known], place.numpy()[known])
    average = torch.nn.functional.avg_pool2d(torch.tensor(x), 2)
    actual = run(AvgPool((Axis(2, 2), Axis(2, 2))), types, [x])
    np.testing.assert_array_equal(actual, average.numpy())


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_pool_adaptively_as_in_pytorch(special: float) -> None:
    x = np.random.default_rng(1).integers(-3, 4, (2, 3, 7, 8)).astype(np.float32)
    x[0, 1, 3, 2:4] = special
    x[1, 0] = special
    expected, place = torch.nn.functional.adaptive_max_pool2d(
        torch.tensor(x), (3, 5), return_indices=True
    )
    types = (f32(3, 7, 8),)
    np.testing.assert_array_equal(run(AdaptiveMax((3, 5)), types, [x]), expected.numpy())
    at = run(AdaptiveMaxAt((3, 5)), types, [x])
    # a bin holds at most 4 x 3 positions, 7 / 3 and 8 / 5 rounded up and one more
    rows = np.arange(3)[:, None] * 7 // 3 + at // 3
    columns = np.arange(5)[None, :] * 8 // 5 + at % 3
    known = expected.numpy() != -np.inf
    np.testing.assert_array_equal((rows * 8 + columns)[known], place.numpy()[known])
