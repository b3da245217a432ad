"""The layers `conv` and `conv_transpose`: from arguments to the operators of the conv room."""

from __future__ import annotations

from typing import Literal

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import (
    Connect,
    Count,
    Extents,
    Flag,
    Init,
    Kernel,
    LayerBuilder,
    Pad,
    PerAxis,
    Phases,
    Region,
    Share,
    Size,
    Transposed,
)
from cnncc.ops.base import layer
from cnncc.ops.conv import Conv, ConvDx
from cnncc.ops.conv_kernel import ALL, FULL, Constraint, Form, Kind, kernel, transposed
from cnncc.ops.elementwise import Add
from cnncc.ops.region import within
from cnncc.ops.spatial import axis_word, by, pad_pairs, per_axis, require_size, require_spatial
from cnncc.ops.windows import output_extents, resolve
from cnncc.tensor import Extent
from cnncc.window import Axis, Fit, Window, transposed_out

VALID, HE, ZEROS = Pad("valid"), Init("he"), Init("zeros")
Bias = Literal["tied", "untied", "none"]


@layer("conv", "convolution")
def conv(
    b: LayerBuilder,
    x: Node,
    out: Count,
    size: Size,
    *,
    stride: PerAxis = (1,),
    phase: Phases = (0,),
    pad: Pad = VALID,
    dilation: PerAxis = (1,),
    share: Share = FULL,
    connect: Connect = ALL,
    kind: Kind = "correlation",
    bias: Bias = "tied",
    constraint: Constraint = "none",
    weights: Kernel | None = None,
    init: Init = HE,
    frozen: Flag = False,
    fit: Literal["exact", "floor"] | None = None,
    region: Region | None = None,
) -> Node:
    """Convolution (as a cross-correlation) with `out` kernels, on 1, 2 or 3 spatial axes.

    y[k, o] = bias[k] + the sum over inputs c and taps t of w[k, c, t] * x[c, o * stride + t *
    dilation - lo]. `pad` surrounds the input with zeros, or with const(v), replicate, reflect,
    circular. With a stride, `phase` is the first position that is kept: stride = 2, phase = 1
    keeps positions 1, 3, 5, ... of the layer without stride. `fit` says what a stride that does
    not divide means: an error (exact), or that the last positions are dropped (floor). `share`,
    `connect`, `kind`, `constraint` and `weights` say which weights there are and who shares them:
    see "Connectivity". `bias = tied` adds one number per output channel, `untied` one per output,
    `none` nothing. With `region` only these outputs are computed. Parameters: `weight` [out, inputs
    / groups, taps...] and `bias` [out].

    Example: `x -> conv(64, 3x3, stride = 2, pad = 1, bias = none)`
    """
    require_spatial("conv", x.type)
    # a convolution has no partial windows; in a net whose default is partial it stays exact
    chosen: Fit = fit or ("floor" if b.fit == "floor" else "exact")
    x, window = resolve(
        b, x, "conv", size, stride=stride, phase=phase, pad=pad, dilation=dilation, fit=chosen
    )
    form = Form(share, connect, kind, constraint, weights, init, frozen)
    positions = output_extents(window, x.type.spatial)
    if region is not None:
        x, window = within(b, x, window, region, positions)
        positions = output_extents(window, x.type.spatial)
    if isinstance(weights, Transposed):
        w = transposed(b, form, ConvDx, window, (out, x.type.channels))
    else:
        channels = (out, x.type.channels)
        w = kernel(b, form, window, channels=channels, positions=positions, inputs=x.type.spatial)
    op = Conv(window, w.groups, w.tiles)
    if bias == "none":
        return b.add(op, x, w.node)
    return b.add(op, x, w.node, _bias(b, bias, out, positions, frozen=frozen))


def _bias(
    b: LayerBuilder, bias: Bias, out: int, positions: tuple[Extent, ...], *, frozen: bool
) -> Node:
    """One number per output channel, or one per output. Raises ShapeError E0206."""
    symbolic = [n for n in positions if not isinstance(n, int)]
    if bias == "untied" and symbolic:
        raise ShapeError(
            "E0206",
            "with `bias = untied` every output has a bias of its own, but an extent of the output "
            f"is {symbolic[0]}",
            fixes=["give the input fixed extents", "bias = tied"],
            argument="bias",
        )
    return b.parameter(
        "bias", (out, *(positions if bias == "untied" else ())), ZEROS, frozen=frozen
    )


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
    share: Share = FULL,
    connect: Connect = ALL,
    kind: Kind = "correlation",
    bias: Bias = "tied",
    constraint: Constraint = "none",
    weights: Kernel | None = None,
    init: Init = HE,
    frozen: Flag = False,
) -> Node:
    """Transposed convolution: the input gradient of the conv with the same arguments, as a layer.

    `out` gives the output extents; without it they are the smallest that such a conv maps to the
    extents of x. With a stride several extents are possible, up to stride - 1 more. `pad` is what
    the conv would be padded by (a number or (lo, hi) pairs), so it makes the output smaller.
    `share`, `connect`, `kind`, `constraint` and `weights` mean what they mean for that conv, whose
    outputs are the inputs here. Parameters: `weight` [inputs, channels / groups, taps...] and
    `bias` [channels].

    Example: `x -> conv_transpose(64, 2x2, stride = 2, out = (56, 56))`
    """
    rank = require_spatial("conv_transpose", x.type)
    require_size(size, x.type)
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
    form = Form(share, connect, kind, constraint, weights, init, frozen)
    if isinstance(weights, Transposed):
        w = transposed(b, form, Conv, window, (x.type.channels, channels))
    else:
        w = kernel(
            b,
            form,
            window,
            channels=(x.type.channels, channels),
            positions=x.type.spatial,
            inputs=extents,
            adjoint=True,
        )
    op = ConvDx(window, w.groups, extents, w.tiles)
    if bias == "none":
        return b.add(op, x, w.node)
    y = b.add(op, x, w.node, suffix=".sum")
    return b.add(Add(), y, _bias(b, bias, channels, extents, frozen=frozen))


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
