"""A layer on a part of the image: detectors that exist only where what they detect can be.

A region is a range of output positions along each axis. The layer computes these and no others, so
it costs its area; its windows look beyond the region as those of the whole layer do. The result is
the same piece of the whole layer's result, and `join` puts pieces together again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cnncc.graph.ir import Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Word
from cnncc.ops.crop import Crop
from cnncc.ops.spatial import Pairs, axis_word
from cnncc.tensor import Extent, TensorType
from cnncc.window import Window


def within(
    b: LayerBuilder, x: Node, window: Window, region: Any, positions: tuple[Extent, ...]
) -> tuple[Node, Window]:
    """The input and the window of a layer that computes only the outputs of a region.

    `positions` are the extents of the whole output. Raises ShapeError: E0206 for a symbolic extent,
    E0220 for a region that does not lie inside.
    """
    pairs = _pairs(b, region, x.type)
    crops, axes = [], []
    for a, (axis, n, o) in enumerate(zip(window, x.type.spatial, positions, strict=True)):
        pair = pairs[a]
        if pair is None:
            crops.append((0, 0))
            axes.append(axis)
            continue
        word = axis_word(x.type.rank, a)
        if not (isinstance(n, int) and isinstance(o, int)):
            raise ShapeError(
                "E0206",
                f"a region needs a fixed {word}, but it is {n}",
                fixes=["give the input fixed extents"],
                argument="region",
            )
        start, stop = pair
        if not 0 <= start < stop <= o:
            raise ShapeError(
                "E0220",
                f"the region {start} to {stop} does not lie inside the {word} of the output",
                arithmetic=[f"{word}: positions 0 to {o}, without the last"],
                fixes=[f"rows(0, {o})" if (x.type.rank, a) == (2, 0) else f"(0, {o})"],
                argument="region",
            )
        first, last = axis.input(start, 0), axis.input(stop - 1, axis.size - 1)
        crops.append((max(first, 0), max(n - 1 - last, 0)))
        axes.append(replace(axis, lo=max(-first, 0), hi=max(last - (n - 1), 0)))
    if any(pair != (0, 0) for pair in crops):
        x = b.add(Crop(tuple(crops)), x, suffix=".region")
    return x, tuple(axes)


def _pairs(b: LayerBuilder, region: Any, t: TensorType) -> tuple[tuple[int, int] | None, ...]:
    """(from, to) for each axis, None where all of it is meant. Raises ArgumentError E0304."""
    found: Pairs | tuple[tuple[int, int] | None, ...] | None = None
    match region:
        case Word("rows", (int(lo), int(hi)), ()) if t.rank == 2:
            found = ((lo, hi), None)
        case Word("columns", (int(lo), int(hi)), ()) if t.rank == 2:
            found = (None, (lo, hi))
        case (int(lo), int(hi)) if t.rank == 1:
            found = ((lo, hi),)
        case tuple() if len(region) == t.rank and all(_is_pair(pair) for pair in region):
            found = region
    if found is None:
        b.error(
            "E0304",
            "`region` must be rows(from, to) or columns(from, to) of an image, or a (from, to) "
            f"pair for each of {t.rank} axes",
            argument="region",
        )
    return found


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
    )
