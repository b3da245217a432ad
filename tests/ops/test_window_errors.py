"""What a user reads when windowed arguments do not fit: code, rule, arithmetic and fixes."""

from __future__ import annotations

from typing import Any

import pytest

from cnncc.graph.ir import Builder, Origin, ShapeError
from cnncc.graph.layer import ArgumentError, LayerBuilder, Pad, Size, Word
from cnncc.graph.sources import Input
from cnncc.ops import LAYERS
from cnncc.tensor import DType, Extent, TensorType, symbol
from cnncc.window import Fit
from tests.ops.layers import network

H = symbol("H")


def message(layer: str, shape: tuple[Extent, ...], **arguments: Any) -> str:
    """Everything that a diagnostic takes from the mistake, one part per line."""
    with pytest.raises((ShapeError, ArgumentError)) as caught:
        network(layer, TensorType(DType.F32, shape), **arguments)
    e: Any = caught.value
    lines = [f"{e.code} at {e.argument or 'layer'}: {e}"]
    lines += [f"  = {line}" for line in getattr(e, "arithmetic", ())]
    return "\n".join(lines + [f"  ? {fix}" for fix in e.fixes])


def size(*taps: int) -> Size:
    return Size(taps)


CASES: list[tuple[str, tuple[Extent, ...], dict[str, Any], str]] = [
    (
        "conv", (1, 7, 7), {"out": 4, "size": size(3, 3), "stride": (3,)},
        """E0202 at stride: stride 3 does not fit 7: (7 + 0 + 0 - 3) / 3 + 1 = 2.33
  = height: (extent 7 + pad 0 + 0 - window 3) / stride 3 + 1 = 2.33
  = width: (extent 7 + pad 0 + 0 - window 3) / stride 3 + 1 = 2.33
  ? stride = 2 (output 3x3)
  ? stride = 1 (output 5x5)
  ? pad = 1 (output 3x3)
  ? fit = floor drops 1 row and 1 column (output 2x2)""",
    ),
    (
        "conv", (3, 224, 224), {"out": 96, "size": size(11, 11), "stride": (4,)},
        """E0202 at stride: stride 4 does not fit 224: (224 + 0 + 0 - 11) / 4 + 1 = 54.25
  = height: (extent 224 + pad 0 + 0 - window 11) / stride 4 + 1 = 54.25
  = width: (extent 224 + pad 0 + 0 - window 11) / stride 4 + 1 = 54.25
  ? stride = 3 (output 72x72)
  ? stride = 1 (output 214x214)
  ? pad = (1, 2) (output 55x55)
  ? fit = floor drops 1 row and 1 column (output 54x54)""",
    ),
    (
        "conv", (1, 56, 57), {"out": 4, "size": size(3, 3), "stride": (2,), "pad": Pad(1)},
        """E0202 at stride: stride 2 does not fit 56: (56 + 1 + 1 - 3) / 2 + 1 = 28.50
  = height: (extent 56 + pad 1 + 1 - window 3) / stride 2 + 1 = 28.50
  ? stride = 1 (output 56x57)
  ? pad = ((1, 2), (1, 1)) (output 29x29)
  ? fit = floor drops 1 row of padding (output 28x29)""",
    ),
    (
        "maxpool", (1, 9), {"size": size(3), "stride": (3,), "dilation": (2,)},
        """E0202 at stride: stride 3 does not fit 9: (9 + 0 + 0 - 5) / 3 + 1 = 2.33
  = length: (extent 9 + pad 0 + 0 - window 5 (= 2 * (3 - 1) + 1)) / stride 3 + 1 = 2.33
  ? stride = 2 (output 3)
  ? stride = 4 (output 2)
  ? pad = 1 (output 3)
  ? fit = floor drops 1 position (output 2)
  ? fit = partial keeps an incomplete last window (output 3)""",
    ),
    (
        "conv", (1, 8), {"out": 1, "size": size(3), "stride": (2,), "pad": Pad(1, "circular")},
        """E0202 at stride: stride 2 does not fit 8: (8 + 1 + 1 - 3) / 2 + 1 = 4.50
  = length: (extent 8 + pad 1 + 1 - window 3) / stride 2 + 1 = 4.50
  ? stride = 1 (output 8)
  ? pad = (1, 2) (output 5)
  ? fit = floor drops 1 position of padding (output 4)""",
    ),
    (
        "conv", (1, 8, 8), {"out": 4, "size": size(3)},
        """E0203 at size: the size 3 has 1 axis, but the input has 2 spatial axes
  = input: f32[*, 1, 8, 8]
  ? write 3x3""",
    ),
    (
        "conv", (8,), {"out": 4, "size": size(3)},
        """E0203 at layer: conv needs an input with channels and 1, 2 or 3 spatial extents
  = input: f32[*, 8] has 0 spatial extents
  ? use dense for a vector of features""",
    ),
    (
        "l2pool", (1, 8, 8), {"size": size(2, 2), "stride": (1, 2, 3)},
        """E0203 at stride: `stride` has 3 values for 2 spatial axes
  = input: f32[*, 1, 8, 8]
  = stride: (1, 2, 3)
  ? give one value for all axes, or one per axis""",
    ),
    (
        "pad", (1, 8), {"amount": Pad(((1, 1), (2, 2)))},
        """E0203 at amount: `amount` has 2 pairs for 1 spatial axis
  = input: f32[*, 1, 8]
  ? give one (lo, hi) pair for all axes, or one per axis""",
    ),
    (
        "conv", (4, 8, 8), {"out": 6, "size": size(3, 3), "connect": Word("groups", (3,))},
        """E0204 at connect: input channels must be divisible by groups, but got 4 and 3
  = 4 / 3 = 1.33, which is not whole
  ? groups(2)""",
    ),
    (
        "conv_transpose", (4, 8, 8),
        {"channels": 6, "size": size(3, 3), "connect": Word("depthwise")},
        """E0204 at connect: output channels must be divisible by groups, but got 6 and 4
  = 6 / 4 = 1.50, which is not whole
  ? groups(2)""",
    ),
    (
        "conv", (1, 2, 9), {"out": 4, "size": size(3, 3), "dilation": (3,)},
        """E0205 at size: a window of 7 is larger than the height it slides over
  = height: 2 + 0 + 0 - 7 (= 3 * (3 - 1) + 1) = -5
  ? pad = 3
  ? dilation = 1
  ? a size of at most 1 along the height""",
    ),
    (
        "maxpool", (1, 300, 300), {"size": size(300, 300)},
        """E0205 at size: a max pool of 300x300 has 90000 taps, more than 65536
  ? pool in two steps
  ? globalmaxpool""",
    ),
    (
        "conv_transpose", (1, 8, 8),
        {"channels": 2, "size": size(3, 3), "stride": (2,), "out": (17, 30)},
        """E0207 at out: a 3-tap window with stride 2 does not map 30 to 8
  = width: (30 + 0 + 0 - 3) // 2 + 1 = 14, but the input has 8
  = smallest possible: (8 - 1) * 2 + 3 - 0 - 0 = 17
  ? possible along the width: 17, 18""",
    ),
    (
        "conv_transpose", (1, 1), {"channels": 2, "size": size(3), "pad": Pad(2)},
        """E0207 at pad: the padding leaves nothing of the length
  = length: (1 - 1) * 1 + 3 - 2 - 2 = -1
  ? pad less
  ? a larger size along the length""",
    ),
    (
        "conv", (1, 7, 7),
        {"out": 1, "size": size(3, 3), "stride": (3,), "pad": Pad("solve", out=(2, 2))},
        """E0208 at pad: no padding gives 2 outputs along the height
  = 2 windows of 3 at stride 3 cover (2 - 1) * 3 + 3 = 6, but the height is 7 already
  ? the smallest possible output is 3""",
    ),
    (
        "conv", (1, H, 8), {"out": 1, "size": size(3, 3), "stride": (2,), "pad": Pad("same")},
        """E0208 at pad: `pad = same` with stride 2 needs a fixed height, but it is H
  = input: f32[*, 1, H, 8]
  = the padding would depend on the extent's remainder by the stride
  ? give the padding in numbers, for example pad = 1
  ? give the input fixed extents""",
    ),
    (
        "conv", (1, 4, 9), {"out": 1, "size": size(3, 3), "pad": Pad(4, "reflect")},
        """E0208 at pad: reflect padding of 4 is more than the height can show
  = height: 4, so at most 3 positions per side
  ? pad by at most 3
  ? use replicate, which has no limit""",
    ),
    (
        "maxpool", (1, H, 8), {"size": size(2, 2), "pad": Pad(1), "fit": "partial"},
        """E0208 at pad: partial windows along the symbolic height H must cover pad + stride
  = pad 1 + stride 2 = 3, but the window is 2
  = the last window could lie in the padding only, depending on the data
  ? fit = floor
  ? give the input fixed extents""",
    ),
    (
        "avgpool", (1, 8, 8), {"size": size(2, 2), "pad": Pad(((0, 2),))},
        """E0208 at pad: a pool padded by 2 has windows of 2 that see nothing but padding
  = height: pad (0, 2), window 2
  ? pad by at most 1""",
    ),
    (
        "conv_transpose", (1, 8), {"channels": 2, "size": size(3), "pad": Pad(1, "reflect")},
        """E0208 at pad: a transposed conv cuts its padding off, so its border has no mode
  ? give the padding as a number or (lo, hi) pairs""",
    ),
    (
        "pad", (1, 8, 8), {"amount": Pad("same", "reflect")},
        """E0208 at amount: `amount` has no window to take the amounts from
  = amount: reflect
  ? write reflect(1)""",
    ),
    (
        "crop", (1, 8, 5), {"amount": Pad(((1, 1), (2, 3)))},
        """E0209 at amount: the crop leaves nothing of the width
  = width: 5 - 2 - 3 = 0
  ? crop at most 4 positions""",
    ),
    (
        "crop", (1, 8, 8), {"amount": Pad("same")},
        """E0304 at amount: `amount` of a crop must be a number, a (lo, hi) pair, or a pair per axis
  ? crop(1)
  ? crop((1, 2))""",
    ),
    (
        "conv", (4, 8, 8), {"out": 6, "size": size(3, 3), "connect": Word("groups", (0,))},
        """E0304 at connect: `connect` must be all, groups(g), depthwise or table(T), """
        """but got groups(0)
  ? connect = groups(2)""",
    ),
    (
        "avgpool", (1, 8, 8), {"size": size(2, 2), "pad": Pad(1)},
        """E0304 at pad: an average pool with padding must say whether padding counts in the divisor
  ? count_include_pad = false (TensorFlow, ONNX)
  ? count_include_pad = true (PyTorch)""",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "shape", "arguments", "expected"),
    CASES,
    ids=[f"{i}-{case[0]}-{case[3][:5]}" for i, case in enumerate(CASES)],
)
def test_message(
    layer: str, shape: tuple[Extent, ...], arguments: dict[str, Any], expected: str
) -> None:
    assert message(layer, shape, **arguments) == expected


def test_integers_are_refused() -> None:
    with pytest.raises(ShapeError, match="elements of type u8") as caught:
        network("conv", TensorType(DType.U8, (3, 8, 8)), out=1, size=size(3, 3))
    assert caught.value.code == "E0210"


def fitted(layer: str, default: Fit, **arguments: Any) -> TensorType:
    """The type that a layer gives on f32[1, 6] in a net with `default fit = ...`."""
    b = Builder("net")
    x = b.add(Input(TensorType(DType.F32, (1, 6))), name="x")

    def parameter(name: str, t: TensorType, *rest: Any) -> Any:
        return b.add(Input(t), name=name)

    builder = LayerBuilder(b, "layer", Origin(), parameter, fit=default)
    return LAYERS[layer].function(builder, x, **arguments).type


def test_the_default_fit_of_a_net_holds_where_a_layer_says_nothing() -> None:
    pool: dict[str, Any] = {"size": size(3), "stride": (2,)}
    assert fitted("maxpool", "floor", **pool).shape == (1, 2)
    assert fitted("maxpool", "partial", **pool).shape == (1, 3)
    assert fitted("maxpool", "partial", **pool, fit="floor").shape == (1, 2)
    assert fitted("conv", "floor", out=1, **pool).shape == (1, 2)
    with pytest.raises(ShapeError, match="does not fit"):
        fitted("maxpool", "exact", **pool)
    with pytest.raises(ShapeError, match="does not fit"):
        fitted("conv", "partial", out=1, **pool)  # a convolution has no partial windows


def test_operators_refuse_types_that_are_not_of_one_convolution() -> None:
    """Graph text can hold anything; the verifier relies on these rules."""
    from cnncc.ops.conv import Conv, ConvDw, ConvDx
    from cnncc.ops.pool_max import MaxPoolDx
    from cnncc.window import Axis

    def plain(*shape: int, batched: bool = True) -> TensorType:
        return TensorType(DType.F32, shape, batched)

    window = (Axis(3), Axis(3))
    w = plain(4, 2, 3, 3, batched=False)
    wrong: list[tuple[Any, tuple[TensorType, ...]]] = [
        (Conv(window), (plain(3, 8, 8), w)),
        (Conv(window), (plain(2, 8, 8), plain(4, 2, 3, 3))),
        (Conv(window), (plain(2, 8, 8), w, plain(3, batched=False))),
        (Conv(window), (plain(2, 8), w)),
        (ConvDx(window, 1, (8, 9)), (plain(4, 6, 6), w)),
        (ConvDx(window, 1, (8, 8)), (plain(3, 6, 6), w)),
        (ConvDw(window), (plain(2, 8, 8), plain(4, 6, 5))),
        (MaxPoolDx(window, (8, 8)), (plain(4, 6, 6), plain(4, 6, 5).with_dtype(DType.U8))),
    ]
    for op, types in wrong:
        with pytest.raises(ShapeError):
            op.infer(types)
