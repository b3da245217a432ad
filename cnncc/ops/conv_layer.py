"""The layers `conv` and `conv_transpose`: from arguments to the operators of the conv room."""

from __future__ import annotations

from typing import Literal

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import (
    Count,
    Extents,
    Flag,
    Init,
    LayerBuilder,
    Pad,
    PerAxis,
    Size,
    Weights,
    Word,
)
from cnncc.ops.base import layer
from cnncc.ops.conv import Conv, ConvDx
from cnncc.ops.conv_channels import check_groups
from cnncc.ops.elementwise import Add
from cnncc.ops.spatial import axis_word, by, pad_pairs, per_axis, require_size, require_spatial
from cnncc.ops.windows import resolve
from cnncc.tensor import Extent
from cnncc.window import Axis, Fit, Window, transposed_out

VALID, HE, ZEROS, ALL = Pad("valid"), Init("he"), Init("zeros"), Word("all")


@layer("conv", "convolution")
def conv(
    b: LayerBuilder,
    x: Node,
    out: Count,
    size: Size,
    *,
    stride: PerAxis = (1,),
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    connect: Word = ALL,
    bias: Literal["tied", "none"] = "tied",
    weights: Weights | None = None,
    init: Init = HE,
    frozen: Flag = False,
    fit: Literal["exact", "floor"] | None = None,
) -> Node:
    """Convolution (as a cross-correlation) with `out` kernels, on 1, 2 or 3 spatial axes.

    y[k, o] = bias[k] + the sum over inputs c and taps t of w[k, c, t] * x[c, o * stride + t *
    dilation - lo]. `pad` surrounds the input with zeros, or with const(v), replicate, reflect,
    circular. `fit` says what a stride that does not divide means: an error (exact), or that the
    last positions are dropped (floor). `connect` is all, groups(g) or depthwise (one group per
    input channel). `bias = tied` adds one number per output channel, `none` nothing. Parameters:
    `weight` [out, inputs / groups, taps...] and `bias` [out].

    Example: `x -> conv(64, 3x3, stride = 2, pad = 1, bias = none)`
    """
    require_spatial("conv", x.type)
    groups = groups_of(b, connect, x.type.channels)
    check_groups(x.type.channels, out, groups)
    # a convolution has no partial windows; in a net whose default is partial it stays exact
    chosen: Fit = fit or ("floor" if b.fit == "floor" else "exact")
    x, window = resolve(b, x, "conv", size, stride=stride, pad=pad, dilation=dilation, fit=chosen)
    shape = (out, x.type.channels // groups, *size.taps)
    w = b.parameter("weight", shape, init, shared=weights, frozen=frozen)
    if bias == "none":
        return b.add(Conv(window, groups), x, w)
    return b.add(Conv(window, groups), x, w, b.parameter("bias", (out,), ZEROS, frozen=frozen))


@layer("conv_transpose", "convolution")
def conv_transpose(
    b: LayerBuilder,
    x: Node,
    channels: Count,
    size: Size,
    *,
    stride: PerAxis = (1,),
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    out: Extents | None = None,
    connect: Word = ALL,
    bias: Literal["tied", "none"] = "tied",
    weights: Weights | None = None,
    init: Init = HE,
    frozen: Flag = False,
) -> Node:
    """Transposed convolution: the input gradient of the conv with the same arguments, as a layer.

    `out` gives the output extents; without it they are the smallest that such a conv maps to the
    extents of x. With a stride several extents are possible, up to stride - 1 more. `pad` is what
    the conv would be padded by (a number or (lo, hi) pairs), so it makes the output smaller.
    `connect` is all, groups(g) or depthwise. Parameters: `weight` [inputs, channels / groups,
    taps...] and `bias` [channels].

    Example: `x -> conv_transpose(64, 2x2, stride = 2, out = (56, 56))`
    """
    rank = require_spatial("conv_transpose", x.type)
    require_size(size, x.type)
    groups = groups_of(b, connect, x.type.channels)
    check_groups(x.type.channels, channels, groups)
    strides, dilations = per_axis("stride", stride, x.type), per_axis("dilation", dilation, x.type)
    if pad.mode != "zero":
        raise ShapeError(
            "E0208",
            "a transposed conv cuts its padding off, so its border has no mode",
            fixes=["give the padding as a number or (lo, hi) pairs"],
            argument="pad",
        )
    pads = pad_pairs("pad", pad, x.type)
    window = tuple(Axis(size.taps[a], strides[a], dilations[a], *pads[a]) for a in range(rank))
    extents = transposed_extents(window, x.type.spatial, out and per_axis("out", out, x.type))
    shape = (x.type.channels, channels // groups, *size.taps)
    w = b.parameter("weight", shape, init, shared=weights, frozen=frozen)
    if bias == "none":
        return b.add(ConvDx(window, groups, extents), x, w)
    y = b.add(ConvDx(window, groups, extents), x, w, suffix=".sum")
    return b.add(Add(), y, b.parameter("bias", (channels,), ZEROS, frozen=frozen))


def transposed_extents(
    window: Window, spatial: tuple[Extent, ...], wanted: tuple[int, ...] | None
) -> tuple[Extent, ...]:
    """The extents of a transposed conv: as wanted, or the smallest. Raises ShapeError E0207."""
    smallest = tuple(transposed_out(n, axis) for n, axis in zip(spatial, window, strict=True))
    rank = len(window)
    for a, (axis, n, low) in enumerate(zip(window, spatial, smallest, strict=True)):
        word = axis_word(rank, a)
        sum_text = f"({n} - 1) * {axis.stride} + {axis.span} - {axis.lo} - {axis.hi} = {low}"
        if wanted is None and isinstance(low, int) and low < 1:
            raise ShapeError(
                "E0207",
                f"the padding leaves nothing of the {word}",
                arithmetic=[f"{word}: {sum_text}"],
                fixes=["pad less", f"a larger size along the {word}"],
                argument="pad",
            )
        if wanted is None or axis.out(wanted[a]) == n:
            continue
        fixes = [f"out = {by(smallest)}"]
        if isinstance(low, int):
            possible = [e for e in range(low, low + axis.stride) if e >= 1]
            listed = ", ".join(map(str, possible[:8])) + (", ..." if len(possible) > 8 else "")
            fixes = [f"possible along the {word}: {listed}"]
        raise ShapeError(
            "E0207",
            f"a {axis.size}-tap window with stride {axis.stride} does not map {wanted[a]} to {n}",
            arithmetic=[
                f"{word}: ({wanted[a]} + {axis.lo} + {axis.hi} - {axis.span}) // {axis.stride} + 1 "
                f"= {axis.out(wanted[a])}, but the input has {n}",
                f"smallest possible: {sum_text}",
            ],
            fixes=fixes,
            argument="out",
        )
    return smallest if wanted is None else wanted


def groups_of(b: LayerBuilder, connect: Word, channels: Extent) -> int:
    """The number of groups that `connect` names."""
    match connect:
        case Word("all", (), ()):
            return 1
        case Word("depthwise", (), ()) if isinstance(channels, int):
            return channels
        case Word("groups", (int(g),), ()) if not isinstance(g, bool) and g >= 1:
            return g
        case _:
            b.error(
                "E0304",
                f"`connect` must be all, groups(g) or depthwise, but got {connect}",
                argument="connect",
                fixes=["connect = groups(2)"],
            )
