"""From the arguments of a windowed layer to a `Window`, and the shape rule all windowed operators share.

`resolve` turns size, stride, padding, dilation and fit into one `Axis` per spatial axis, padding the input itself first when
the border holds something else than zeros. `output_extents` is the shape rule: it explains with numbers why a window does
not fit, and which neighbouring arguments would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, Size
from cnncc.ops.pad import BorderPad
from cnncc.ops.spatial import (
    Pairs,
    axis_word,
    by,
    pad_pairs,
    per_axis,
    positions_word,
    require_spatial,
)
from cnncc.tensor import Extent, TensorType
from cnncc.window import Axis, Fit, Window, same_pads, solve_pads

# --- arguments ---------------------------------------------------------------------------------------------------


def resolve(
    b: LayerBuilder,
    x: Node,
    size: Size,
    *,
    stride: tuple[int, ...],
    pad: Pad,
    dilation: tuple[int, ...],
    fit: Fit,
) -> tuple[Node, Window]:
    """The window of a layer, and its input: x, or x padded when the border is not zero.

    Raises ShapeError: E0203 for a wrong number of axes, E0208 for a padding that cannot be, and those of `output_extents`.
    """
    rank = require_spatial(b.layer, x.type)
    if len(size.taps) != rank:
        raise ShapeError(
            "E0203",
            f"the size {size} has {len(size.taps)} axes, but the input has {rank} spatial axes",
            arithmetic=[f"input: {x.type}"],
            fixes=[f"write {by((size.taps[0],) * rank) if rank > 1 else size.taps[0]}"],
            argument="size",
        )
    strides = per_axis("stride", stride, x.type)
    dilations = per_axis("dilation", dilation, x.type)
    pads = _pads(x.type, size, strides, pad, dilations)
    if pad.mode != "zero":
        if any(pair != (0, 0) for pair in pads):
            x = b.add(BorderPad(pads, pad.mode, pad.value), x, suffix=".pad")
        pads = ((0, 0),) * rank
    window = tuple(
        Axis(size.taps[a], strides[a], dilations[a], *pads[a], fit=fit) for a in range(rank)
    )
    output_extents(window, x.type.spatial)
    _require_conditions(b, window, x.type)
    return x, window


def _pads(
    t: TensorType, size: Size, stride: tuple[int, ...], pad: Pad, dilation: tuple[int, ...]
) -> Pairs:
    match pad.amount:
        case "same" | "same_lower":
            return tuple(
                _same(t, a, size.taps[a], stride[a], dilation[a], lower=pad.amount == "same_lower")
                for a in range(t.rank)
            )
        case "solve":
            out = per_axis("pad", pad.out, t)
            return tuple(
                _solved(t, a, size.taps[a], stride[a], dilation[a], out[a]) for a in range(t.rank)
            )
        case _:
            return pad_pairs("pad", pad, t)


def _same(
    t: TensorType, a: int, size: int, stride: int, dilation: int, *, lower: bool
) -> tuple[int, int]:
    pads = same_pads(t.spatial[a], size, stride, dilation, lower=lower)
    if pads is not None:
        return pads
    raise ShapeError(
        "E0208",
        f"`pad = same` with stride {stride} needs a fixed {axis_word(t.rank, a)}, "
        f"but it is {t.spatial[a]}",
        arithmetic=[f"input: {t}", "the padding would depend on the extent's remainder by the stride"],
        fixes=[
            f"give the padding in numbers, for example pad = {(dilation * (size - 1) + 1) // 2}",
            "give the input fixed extents",
        ],
        argument="pad",
    )


def _solved(
    t: TensorType, a: int, size: int, stride: int, dilation: int, out: int
) -> tuple[int, int]:
    n, word = t.spatial[a], axis_word(t.rank, a)
    if not isinstance(n, int):
        raise ShapeError(
            "E0208",
            f"`pad = solve(out = {out})` needs a fixed {word}, but it is {n}",
            arithmetic=[f"input: {t}"],
            fixes=["give the padding in numbers", "give the input fixed extents"],
            argument="pad",
        )
    pads = solve_pads(n, size, stride, dilation, out)
    if pads is not None:
        return pads
    axis = Axis(size, stride, dilation)
    needed = (out - 1) * stride + axis.span
    raise ShapeError(
        "E0208",
        f"no padding gives {out} outputs along the {word}",
        arithmetic=[
            f"{out} windows of {axis.span} at stride {stride} cover "
            f"({out} - 1) * {stride} + {axis.span} = {needed}, "
            f"but the {word} is {n} already",
        ],
        fixes=[f"the smallest possible output is {-(-axis.slack(n) // stride) + 1}"],
        argument="pad",
    )


def _require_conditions(b: LayerBuilder, window: Window, t: TensorType) -> None:
    """With exact fit, strides must divide symbolic extents once these are known."""
    for a, (axis, n) in enumerate(zip(window, t.spatial, strict=True)):
        slack = axis.slack(n)
        if axis.fit != "exact" or isinstance(slack, int):
            continue
        if (slack // axis.stride) * axis.stride != slack:
            word = axis_word(t.rank, a)
            b.require_divisible(
                slack,
                axis.stride,
                f"stride {axis.stride} must divide {n} + {axis.lo} + {axis.hi} - {axis.span} "
                f"along the {word} of {b.layer}",
            )


# --- the shape rule ----------------------------------------------------------------------------------------------


def output_extents(window: Window, spatial: Sequence[Extent]) -> tuple[Extent, ...]:
    """The output extents of a window. Raises ShapeError E0205 (too large) or E0202 (the stride does not fit)."""
    for a, (axis, n) in enumerate(zip(window, spatial, strict=True)):
        slack = axis.slack(n)
        if not isinstance(slack, int):
            _check_partial(window, a, n)
            continue
        if slack < 0 and not (axis.fit == "partial" and slack + axis.stride > 0):
            raise _too_large(window, spatial, a)
        if axis.fit == "exact" and slack % axis.stride:
            raise _does_not_fit(window, spatial, a)
    return tuple(axis.out(n) for axis, n in zip(window, spatial, strict=True))


def _check_partial(window: Window, a: int, n: Extent) -> None:
    """On a symbolic extent nothing can tell whether a last window would lie in the padding only."""
    axis = window[a]
    if axis.fit == "partial" and axis.hi + axis.stride > axis.span:
        word = axis_word(len(window), a)
        raise ShapeError(
            "E0208",
            f"partial windows along the symbolic {word} {n} need pad + stride of at most the window",
            arithmetic=[
                f"pad {axis.hi} + stride {axis.stride} = {axis.hi + axis.stride}, "
                f"but the window is {axis.span}",
                "the last window could lie in the padding only, depending on the data",
            ],
            fixes=["fit = floor", "give the input fixed extents"],
            argument="pad",
        )


def _too_large(window: Window, spatial: Sequence[Extent], a: int) -> ShapeError:
    axis, n, rank = window[a], spatial[a], len(window)
    word = axis_word(rank, a)
    missing = -axis.slack(n)
    assert isinstance(missing, int)
    fixes = []
    half = -(-missing // 2)
    fixes.append(f"pad = {axis.lo + half}" if axis.lo == axis.hi else f"pad the {word} by {missing} more")
    if axis.dilation > 1:
        fixes.append("dilation = 1")
    fixes.append(f"a size of at most {(axis.span - missing - 1) // axis.dilation + 1} along the {word}")
    return ShapeError(
        "E0205",
        f"a window of {axis.span} is larger than the {word} it slides over",
        arithmetic=[f"{word}: {n} + {axis.lo} + {axis.hi} - {_span(axis)} = {-missing}"],
        fixes=[f for f in fixes if "at most 0" not in f and "at most -" not in f],
        argument="size",
    )


def _does_not_fit(window: Window, spatial: Sequence[Extent], a: int) -> ShapeError:
    axis, n, rank = window[a], spatial[a], len(window)
    slack = axis.slack(n)
    assert isinstance(slack, int)
    out = slack / axis.stride + 1
    return ShapeError(
        "E0202",
        f"stride {axis.stride} does not fit {n}: ({n} + {axis.lo} + {axis.hi} - {axis.span}) "
        f"/ {axis.stride} + 1 = {out:.2f}",
        arithmetic=[
            f"{axis_word(rank, a)}: (extent {n} + pad {axis.lo} + {axis.hi} - window {_span(axis)}) "
            f"/ stride {axis.stride} + 1 = {out:.2f}, which is not whole"
        ],
        fixes=[*_fitting_strides(window, spatial, a), *_fitting_pads(window, spatial, a),
               *_other_fits(window, spatial, a)],
        argument="stride",
    )  # fmt: skip


def _span(axis: Axis) -> str:
    """The window's extent; with dilation also where it comes from."""
    if axis.dilation == 1:
        return str(axis.span)
    return f"{axis.span} (dilation {axis.dilation} * ({axis.size} - 1) + 1)"


def _fits(window: Window, spatial: Sequence[Extent]) -> bool:
    for axis, n in zip(window, spatial, strict=True):
        slack = axis.slack(n)
        if isinstance(slack, int) and (slack < 0 or slack % axis.stride):
            return False
    return True


def _gives(window: Window, spatial: Sequence[Extent]) -> str:
    return by([axis.out(n) for axis, n in zip(window, spatial, strict=True)])


def _fitting_strides(window: Window, spatial: Sequence[Extent], a: int) -> Iterable[str]:
    """At most two strides close to the wanted one that fit all axes."""
    wanted = window[a].stride
    found = 0
    for stride in sorted(range(1, wanted + 3), key=lambda s: (abs(s - wanted), -s)):
        other = tuple(replace(axis, stride=stride) for axis in window)
        if stride != wanted and stride <= window[a].span and _fits(other, spatial) and found < 2:
            found += 1
            yield f"stride = {stride} (output {_gives(other, spatial)})"


def _fitting_pads(window: Window, spatial: Sequence[Extent], a: int) -> Iterable[str]:
    """One symmetric padding that fits all axes, or else some more at the end of this one."""
    axis = window[a]
    largest = max(axis.span // 2, axis.lo)
    for pad in sorted(range(largest + 1), key=lambda p: (abs(p - axis.lo), p)):
        other = tuple(each.padded(pad, pad) for each in window)
        if (pad, pad) != (axis.lo, axis.hi) and _fits(other, spatial):
            yield f"pad = {pad} (output {_gives(other, spatial)})"
            return
    slack, n = axis.slack(spatial[a]), spatial[a]
    assert isinstance(slack, int)
    more = axis.hi + axis.stride - slack % axis.stride
    one = axis.padded(axis.lo, more)
    yield (
        f"pad the {axis_word(len(window), a)} by ({axis.lo}, {more}) (output {one.out(n)})"
    )


def _other_fits(window: Window, spatial: Sequence[Extent], a: int) -> Iterable[str]:
    slack = window[a].slack(spatial[a])
    assert isinstance(slack, int)
    dropped = positions_word(len(window), a, slack % window[a].stride)
    floor = tuple(replace(axis, fit="floor") for axis in window)
    yield f"fit = floor drops {dropped} (output {_gives(floor, spatial)})"
