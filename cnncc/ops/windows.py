"""From the arguments of a windowed layer to a `Window`, and the shape rule of windowed operators.

`resolve` turns size, stride, padding, dilation and fit into one `Axis` per spatial axis, padding
the input itself first when the border holds something else than zeros. `output_extents` is the
shape rule: it explains with numbers why a window does not fit, and which neighbouring arguments
would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, Size
from cnncc.ops.crop import Crop
from cnncc.ops.pad import BorderPad, check_border
from cnncc.ops.phase import check_phase_fits, phases_of, span_text
from cnncc.ops.spatial import (
    Pairs,
    axis_word,
    by,
    pad_pairs,
    per_axis,
    positions_word,
    require_size,
    require_spatial,
)
from cnncc.tensor import Extent, TensorType
from cnncc.window import Axis, Fit, Window, same_pads, solve_pads

# --- arguments ------------------------------------------------------------------------------------


def resolve(
    b: LayerBuilder,
    x: Node,
    operator: str,
    size: Size,
    *,
    stride: tuple[int, ...],
    pad: Pad,
    dilation: tuple[int, ...],
    fit: Fit,
    phase: tuple[int, ...] = (0,),
    partial: bool = False,
) -> tuple[Node, Window]:
    """The window of a layer, and its input: x, or x padded when the border is not zero.

    `phase` is the first position of the unstrided layer that is kept: it is taken off the padding
    in front, and where that is not enough, off the input. Raises ShapeError: E0203 for a wrong
    number of axes, E0208 for a padding that cannot be, E0213 for a phase that is no remainder of
    the stride, and those of `output_extents`.
    """
    rank = require_spatial(operator, x.type)
    require_size(size, x.type)
    strides = per_axis("stride", stride, x.type)
    dilations = per_axis("dilation", dilation, x.type)
    pads = _pads(x.type, size, strides, pad, dilations)
    phases = phases_of(phase, strides, x.type)
    skipped = tuple((max(p - lo, 0), 0) for p, (lo, _) in zip(phases, pads, strict=True))
    if pad.mode != "zero":
        check_border("pad", x.type, pads, pad.mode)
    pads = tuple((max(lo - p, 0), hi) for p, (lo, hi) in zip(phases, pads, strict=True))
    window = tuple(
        Axis(size.taps[a], strides[a], dilations[a], *pads[a], fit=fit) for a in range(rank)
    )
    check_phase_fits(window, phases, skipped, x.type)
    seen = tuple(n - drop for n, (drop, _) in zip(x.type.spatial, skipped, strict=True))
    output_extents(window, seen, partial=partial)
    _require_conditions(b, window, x.type.with_shape((x.type.channels, *seen)))
    if pad.mode != "zero" and any(pair != (0, 0) for pair in pads):
        x = b.add(BorderPad(pads, pad.mode, pad.value), x, suffix=".pad")
        window = tuple(axis.padded(0, 0) for axis in window)
    if any(drop for drop, _ in skipped):
        x = b.add(Crop(skipped), x, suffix=".phase")
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
        case "full":
            spans = (Axis(size.taps[a], 1, dilation[a]).span for a in range(t.rank))
            return tuple((span - 1, span - 1) for span in spans)
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
        arithmetic=[
            f"input: {t}",
            "the padding would depend on the extent's remainder by the stride",
        ],
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


# --- the shape rule -------------------------------------------------------------------------------


def output_extents(
    window: Window, spatial: Sequence[Extent], *, partial: bool = False
) -> tuple[Extent, ...]:
    """The output extents. Raises ShapeError E0205 (too large) or E0202 (does not fit).

    `partial` says that the operator could also take incomplete windows (fit = partial).
    """
    for a, (axis, n) in enumerate(zip(window, spatial, strict=True)):
        slack = axis.slack(n)
        if not isinstance(slack, int):
            _check_partial(window, a, n)
            continue
        if slack < 0 and not (axis.fit == "partial" and slack + axis.stride > 0):
            raise _too_large(window, spatial, a)
        if axis.fit == "exact" and slack % axis.stride:
            raise _does_not_fit(window, spatial, partial)
    return tuple(axis.out(n) for axis, n in zip(window, spatial, strict=True))


def _check_partial(window: Window, a: int, n: Extent) -> None:
    """On a symbolic extent nothing can tell whether a last window would lie in the padding only."""
    axis = window[a]
    if axis.fit == "partial" and axis.hi + axis.stride > axis.span:
        word = axis_word(len(window), a)
        raise ShapeError(
            "E0208",
            f"partial windows along the symbolic {word} {n} must cover pad + stride",
            arithmetic=[
                f"pad {axis.hi} + stride {axis.stride} = {axis.hi + axis.stride}, "
                f"but the window is {axis.span}",
                "the last window could lie in the padding only, depending on the data",
            ],
            fixes=["fit = floor", "give the input fixed extents"],
            argument="pad",
        )


SEARCHED = 256
"""Strides and paddings that are tried for a fix: whatever the numbers are, a message comes at
once.
"""


def _too_large(window: Window, spatial: Sequence[Extent], a: int) -> ShapeError:
    axis, n = window[a], spatial[a]
    word, missing = axis_word(len(window), a), _missing(axis, n)
    fixes = [f"pad = {pad}" for pad in _sufficient_pads(window, spatial)]
    if axis.dilation > 1:
        fixes.append("dilation = 1")
    largest = (axis.span - missing - 1) // axis.dilation + 1
    fixes.append(f"a size of at most {largest} along the {word}")
    return ShapeError(
        "E0205",
        f"a window of {axis.span} is larger than the {word} it slides over",
        arithmetic=[f"{word}: {n} + {axis.lo} + {axis.hi} - {span_text(axis)} = {-missing}"],
        fixes=fixes,
        argument="size",
    )


def _sufficient_pads(window: Window, spatial: Sequence[Extent]) -> list[int]:
    """The smallest symmetric padding, if any, with which all axes have room and strides fit."""
    for pad in range(1, min(max(axis.span for axis in window), SEARCHED)):
        if _fits(tuple(axis.padded(pad, pad) for axis in window), spatial):
            return [pad]
    return []


def _does_not_fit(window: Window, spatial: Sequence[Extent], partial: bool) -> ShapeError:
    wrong = [a for a in range(len(window)) if _remainder(window[a], spatial[a])]
    first, n = window[wrong[0]], spatial[wrong[0]]
    lines = []
    for a in wrong:
        axis = window[a]
        lines.append(
            f"{axis_word(len(window), a)}: (extent {spatial[a]} + pad {axis.lo} + {axis.hi} "
            f"- window {span_text(axis)}) / stride {axis.stride} + 1 "
            f"= {_quotient(axis, spatial[a])}"
        )
    return ShapeError(
        "E0202",
        f"stride {first.stride} does not fit {n}: ({n} + {first.lo} + {first.hi} - {first.span}) "
        f"/ {first.stride} + 1 = {_quotient(first, n)}",
        arithmetic=lines,
        fixes=[
            *_fitting_strides(window, spatial),
            *_fitting_pads(window, spatial),
            *_other_fits(window, spatial, wrong, partial),
        ],
        argument="stride",
    )


def _quotient(axis: Axis, n: Extent) -> str:
    slack = axis.slack(n)
    assert isinstance(slack, int)
    return f"{slack / axis.stride + 1:.2f}"


def _remainder(axis: Axis, n: Extent) -> int:
    """Positions that the stride leaves over; none as far as is known on a symbolic extent."""
    slack = axis.slack(n)
    return slack % axis.stride if isinstance(slack, int) else 0


def _fits(window: Window, spatial: Sequence[Extent]) -> bool:
    pairs = list(zip(window, spatial, strict=True))
    return not any(_remainder(axis, n) or _missing(axis, n) > 0 for axis, n in pairs)


def _missing(axis: Axis, n: Extent) -> int:
    """How many positions the input is too small for the window."""
    slack = axis.slack(n)
    return -slack if isinstance(slack, int) else 0


def _gives(window: Window, spatial: Sequence[Extent]) -> str:
    return f"(output {by([axis.out(n) for axis, n in zip(window, spatial, strict=True)])})"


def _fitting_strides(window: Window, spatial: Sequence[Extent]) -> Iterable[str]:
    """At most two strides, the same for all axes, close to the wanted one."""
    wanted = max(axis.stride for axis in window)
    smallest = min(axis.span for axis in window)  # larger strides leave gaps
    found = 0
    last = min(wanted + 2, smallest)
    near = range(max(1, last - SEARCHED), last + 1)
    for stride in sorted(near, key=lambda s: abs(s - wanted)):
        other = tuple(replace(axis, stride=stride) for axis in window)
        if other != window and _fits(other, spatial) and found < 2:
            found += 1
            yield f"stride = {stride} {_gives(other, spatial)}"


def _fitting_pads(window: Window, spatial: Sequence[Extent]) -> Iterable[str]:
    """One symmetric padding for all axes if there is one, else the least uneven one."""
    lo = window[0].lo
    largest = max(lo, min(axis.span for axis in window) // 2)
    near = range(max(0, lo - SEARCHED), min(largest, lo + SEARCHED) + 1)
    for pad in sorted(near, key=lambda p: (abs(p - lo), p)):
        other = tuple(axis.padded(pad, pad) for axis in window)
        if other != window and _fits(other, spatial):
            yield f"pad = {pad} {_gives(other, spatial)}"
            return
    pads = []
    for axis, n in zip(window, spatial, strict=True):
        total = axis.lo + axis.hi + -(-_remainder(axis, n) // axis.stride) * axis.stride
        total -= _remainder(axis, n)
        kept = (axis.lo, axis.hi) if total == axis.lo + axis.hi else (total // 2, -(-total // 2))
        pads.append(kept)
    other = tuple(axis.padded(*pair) for axis, pair in zip(window, pads, strict=True))
    shown = pads[0] if len(set(pads)) == 1 else tuple(pads)
    yield f"pad = {shown} {_gives(other, spatial)}"


def _other_fits(
    window: Window, spatial: Sequence[Extent], wrong: Sequence[int], partial: bool
) -> Iterable[str]:
    dropped = " and ".join(
        positions_word(len(window), a, _remainder(window[a], spatial[a]))
        + (" of padding" if _remainder(window[a], spatial[a]) <= window[a].hi else "")
        for a in wrong
    )
    floor = tuple(replace(axis, fit="floor") for axis in window)
    yield f"fit = floor drops {dropped} {_gives(floor, spatial)}"
    if partial:
        kept = tuple(replace(axis, fit="partial") for axis in window)
        yield f"fit = partial keeps an incomplete last window {_gives(kept, spatial)}"
