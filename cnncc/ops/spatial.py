"""What rooms with spatial axes ask of their inputs and arguments, and the words for it in messages.

A spatial tensor is [channels, extents...] with 1, 2 or 3 extents. Arguments such as stride are one
number for all axes or one per axis; paddings are one (lo, hi) pair for all axes or one per axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from cnncc.graph.ir import ShapeError
from cnncc.graph.layer import Pad, Size
from cnncc.tensor import Extent, TensorType

Pairs = tuple[tuple[int, int], ...]

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def axis_word(rank: int, axis: int) -> str:
    """`height` and `width` for images, `length` for signals, `depth` first for volumes."""
    return AXES.get(rank, ())[axis] if rank in AXES else f"axis {axis}"


def positions_word(rank: int, axis: int, count: int) -> str:
    """What leaves or enters along an axis: `1 column`, `2 rows`, `3 positions`."""
    word = {(2, 0): "row", (2, 1): "column"}.get((rank, axis), "position")
    return f"{count} {word}" + ("" if count == 1 else "s")


def by(extents: Sequence[Extent]) -> str:
    """Extents as the language writes sizes: 28x28."""
    return "x".join(str(e) if isinstance(e, int) else f"({e})" for e in extents)


def require_spatial(name: str, t: TensorType) -> int:
    """The number of spatial axes, 1 to 3. Raises ShapeError E0203 (vectors) or E0210 (integers)."""
    if not t.dtype.is_float:
        raise ShapeError(
            "E0210",
            f"{name} computes with floats, but its input has elements of type {t.dtype.value}",
            arithmetic=[f"input: {t}"],
            fixes=["give an input of bytes `scale`, `mean` and `std`", "embed class numbers"],
        )
    if t.rank not in AXES:
        raise ShapeError(
            "E0203",
            f"{name} needs an input with channels and 1, 2 or 3 spatial extents",
            arithmetic=[f"input: {t} has {max(t.rank, 0)} spatial extents"],
            fixes=["use dense for a vector of features"] if t.rank == 0 else [],
        )
    return t.rank


def require_rank(name: str, t: TensorType, rank: int) -> None:
    """Raises ShapeError E0203 unless the tensor has `rank` spatial axes."""
    if require_spatial(name, t) != rank:
        raise ShapeError(
            "E0203",
            f"{name} works on {rank} spatial axes",
            arithmetic=[f"input: {t} has {t.rank}"],
        )


def require_size(size: Size, t: TensorType) -> None:
    """Raises ShapeError E0203 unless the size has one number of taps per spatial axis."""
    if len(size.taps) != t.rank:
        raise ShapeError(
            "E0203",
            f"the size {size} has {_counted(len(size.taps), 'axis', 'axes')}, "
            f"but the input has {_counted(t.rank, 'spatial axis', 'spatial axes')}",
            arithmetic=[f"input: {t}"],
            fixes=[f"write {by((size.taps[0],) * t.rank)}"],
            argument="size",
        )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def per_axis(argument: str, values: tuple[int, ...], t: TensorType) -> tuple[int, ...]:
    """One value per spatial axis; a single value is repeated. Raises ShapeError E0203."""
    if len(values) == 1:
        return values * t.rank
    if len(values) != t.rank:
        raise ShapeError(
            "E0203",
            f"`{argument}` has {_counted(len(values), 'value', 'values')} "
            f"for {_counted(t.rank, 'spatial axis', 'spatial axes')}",
            arithmetic=[f"input: {t}", f"{argument}: {values}"],
            fixes=["give one value for all axes, or one per axis"],
            argument=argument,
        )
    return values


def pad_pairs(argument: str, pad: Pad, t: TensorType) -> Pairs:
    """The (lo, hi) pairs of an explicit padding, one per axis. Raises ShapeError E0203 or E0208."""
    amount = pad.amount
    if amount == "valid":
        return ((0, 0),) * t.rank
    if isinstance(amount, int):
        return ((amount, amount),) * t.rank
    if isinstance(amount, str):
        mode = "" if pad.mode == "zero" else pad.mode
        constants = {
            "const": "write const(v, 1) or const(lo = a, hi = b, amount = 1)",
            "": "write 1 or (lo, hi)",
        }
        raise ShapeError(
            "E0208",
            f"`{argument}` has no window to take the amounts from",
            arithmetic=[f"{argument}: {mode or amount}"],
            fixes=[constants.get(mode, f"write {mode}(1)")],
            argument=argument,
        )
    if len(amount) == 1:
        return amount * t.rank
    if len(amount) != t.rank:
        raise ShapeError(
            "E0203",
            f"`{argument}` has {_counted(len(amount), 'pair', 'pairs')} "
            f"for {_counted(t.rank, 'spatial axis', 'spatial axes')}",
            arithmetic=[f"input: {t}"],
            fixes=["give one (lo, hi) pair for all axes, or one per axis"],
            argument=argument,
        )
    return amount
