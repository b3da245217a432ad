"""Padding as an operator: zeros, a constant, or the input's own border, mirror image or other end.

Output position j holds input position source(j - lo), as `numpy.pad` with modes constant, edge,
reflect and wrap (PyTorch: constant, replicate, reflect, circular). Its adjoint adds every output
back to the position it came from; in gather form each input position reads the few outputs that can
show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.graph.layer import LayerBuilder, Pad, PadMode
from cnncc.loops.ir import (
    Choose,
    Condition,
    Guard,
    Index,
    Int,
    Least,
    Lit,
    Nest,
    Value,
    Var,
    all_of,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, layer, operator
from cnncc.ops.grid import GridNest, summed
from cnncc.ops.spatial import Pairs, axis_word, pad_pairs, require_rank, require_spatial
from cnncc.tensor import DType, Extent, TensorType

MODES: dict[PadMode, str] = {"replicate": "edge", "reflect": "reflect", "circular": "wrap"}


def source(mode: PadMode, i: Index, n: Index) -> Index:
    """The input position that position i (negative or beyond n in the padding) shows."""
    match mode:
        case "replicate":
            return _inside(i, n)
        case "reflect":  # |i| folds the low side, n - 1 - |n - 1 - |i|| the high side too
            above = n + -1 + Least(i, i * -1)
            return _inside(n + -1 + Least(above, above * -1), n)
        case "circular":
            return i % n
        case _:
            return i


def _inside(i: Index, n: Index) -> Index:
    """The position of 0 .. n - 1 that is closest to i.

    A reflection is inside anyway where the border is smaller than the input; for a symbolic extent
    this holds the access inside until that is known.
    """
    return Least(n + -1, Least(Int(0), i * -1) * -1)


def candidates(
    mode: PadMode, t: Index, i: Index, n: Index, lo: Index, out: Index
) -> tuple[Index, tuple[Condition, ...]]:
    """Candidate t for an output that shows input i, in ascending order, and when it does."""
    match mode:
        case "replicate":
            # an inner position is shown once; the two ends also by the padding beside them
            j = i + t
            return j, (test("==", source(mode, j + lo * -1, n), i),)
        case "reflect":
            # the images lo - i, lo + i itself, lo + 2 (n - 1) - i; the ends are their own image
            sign = Int(1) + (t + 1) % 2 * -2
            image = i * sign + (n + -1) * 2 * (t // 2)
            j = lo + image
            distinct = test("!=", image + i * -1 + t % 2, 0)
            return j, (distinct, test("<=", 0, j), test("<", j, out))
        case "circular":
            j = i + lo + (t + -1) * n
            return j, (test("<=", 0, j), test("<", j, out))
        case _:
            raise AssertionError(f"the adjoint of {mode} padding is a crop")


def _pad_border(x: Array, widths: Sequence[tuple[int, int]], mode: PadMode) -> Array:
    return cast(Array, np.pad(x, widths, mode=MODES[mode]))  # type: ignore[call-overload]


def padded_extents(t: TensorType, amounts: Pairs) -> tuple[Extent, ...]:
    return tuple(n + (lo + hi) for n, (lo, hi) in zip(t.spatial, amounts, strict=True))


def check_border(argument: str, t: TensorType, amounts: Pairs, mode: PadMode) -> None:
    """Raises ShapeError E0208 where the input is too small for the border it should show."""
    for a, (n, pair) in enumerate(zip(t.spatial, amounts, strict=True)):
        if not isinstance(n, int):
            continue
        word, largest = axis_word(t.rank, a), max(pair)
        limit = {"reflect": n - 1, "circular": n}.get(mode, largest)
        if largest > limit:
            raise ShapeError(
                "E0208",
                f"{mode} padding of {largest} is more than the {word} can show",
                arithmetic=[f"{word}: {n}, so at most {limit} positions per side"],
                fixes=[f"pad by at most {limit}", "use replicate, which has no limit"],
                argument=argument,
            )


@operator("pad")
@dataclass(frozen=True)
class BorderPad(Op):
    """[*, C, i...] -> [*, C, lo + i + hi ...]; (lo, hi) per axis.

    `value` is for mode const: one number, or the ones in front of and behind every axis. Where two
    axes are outside, the last one of them decides, as in `numpy.pad`.
    """

    amounts: Pairs
    mode: PadMode = "zero"
    value: float | tuple[float, float] = 0.0

    linear = (0,)  # affine where the border holds a constant

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (x,) = types
        require_rank("pad", x, len(self.amounts))
        check_border("amount", x, self.amounts, self.mode)
        return x.with_shape((x.channels, *padded_extents(x, self.amounts)))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        widths = [(0, 0)] * (x.ndim - len(self.amounts)) + list(self.amounts)
        if self.mode in MODES:
            return _pad_border(x, widths, self.mode)
        return np.pad(x, widths, constant_values=np.array(self.border, x.dtype))

    @property
    def border(self) -> tuple[float, float]:
        """What a constant border holds in front and behind."""
        if self.mode != "const":
            return (0.0, 0.0)
        return self.value if isinstance(self.value, tuple) else (self.value, self.value)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        if self.mode in MODES:
            extents = tuple(b[node.inputs[0]].type.spatial)
            return (
                b.add(BorderPadDx(self.amounts, self.mode, extents), dy, name=f"{node.name}.dx"),
            )
        from cnncc.ops.crop import Crop  # the two rooms are each other's adjoints

        return (b.add(Crop(self.amounts), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out)
        at = [
            source(self.mode, o + (g.n.size(f"lo{a}", lo) * -1 if lo else 0), end)
            for a, (o, end, (lo, _)) in enumerate(
                zip(g.place, g.source_extents, self.amounts, strict=True)
            )
        ]
        value: Value = g.at(at) if self.mode in MODES else g.padded(at, self.border[0])
        if self.border[0] != self.border[1]:
            for i, end in zip(at, g.source_extents, strict=True):  # the last axis is asked first
                value = Choose(test("<=", end, i), Lit(self.border[1]), value)
                value = Choose(test("<", i, 0), Lit(self.border[0]), value)
        return g.each(value)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 5, 6))
        for mode in ("zero", "replicate", "reflect", "circular"):
            yield Sample(cls(((2, 1), (0, 3)), mode), (image,))
        yield Sample(cls(((4, 4), (5, 5)), "reflect"), (image,), note="the largest reflection")
        yield Sample(cls(((5, 5), (6, 6)), "circular"), (image,), note="the largest wrap")
        yield Sample(cls(((1, 2), (3, 0)), "const", -1.5), (image,))
        yield Sample(cls(((1, 2), (3, 1)), "const", (-1.5, 2.0)), (image,), note="two values")
        yield Sample(cls(((2, 2),), "reflect"), (TensorType(DType.F32, (2, 7)),))
        yield Sample(
            cls(((3, 1),), "replicate"), (TensorType(DType.F32, (2, 1)),), note="one position"
        )
        yield Sample(
            cls(((1, 0), (0, 1), (2, 2)), "replicate"), (TensorType(DType.F32, (2, 5, 4, 3)),)
        )
        yield Sample(cls(((1, 1), (1, 1))), (TensorType(DType.F32, (2, 3, 3), batched=False),))


@operator("pad_dx")
@dataclass(frozen=True)
class BorderPadDx(Op):
    """The adjoint of a border pad: [*, C, lo + i + hi ...] -> [*, C, i...]."""

    amounts: Pairs
    mode: PadMode
    extents: tuple[Extent, ...]

    linear = (0,)

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        (dy,) = types
        require_rank("pad_dx", dy, len(self.amounts))
        x = dy.with_shape((dy.channels, *self.extents))
        if padded_extents(x, self.amounts) != dy.spatial:
            raise ShapeError("E0201", f"pad_dx: {dy} is not {x} padded by {self.amounts}")
        return x

    def reference(self, *arrays: Array) -> Array:
        (dy,) = arrays
        rank = len(self.amounts)
        for a, ((lo, _), extent) in enumerate(zip(self.amounts, dy.shape[-rank:], strict=True)):
            n = self.extents[a]
            assert isinstance(n, int)
            shown = _pad_border(np.arange(n), [(lo, extent - n - lo)], self.mode)
            moved = np.moveaxis(dy, dy.ndim - rank + a, 0)
            dx = np.zeros((n, *moved.shape[1:]), dy.dtype)
            np.add.at(dx, shown, moved)
            dy = np.moveaxis(dx, 0, dy.ndim - rank + a)
        return dy

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        return (b.add(BorderPad(self.amounts, self.mode), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        g = GridNest(types[0], out, read="dy", write="dx")
        place: list[Index] = []
        conditions: list[Condition] = []
        counts: list[tuple[str, Index | int]] = []
        for a, (lo, hi) in enumerate(self.amounts):
            count = g.n.size(f"images{a}", lo + hi + 1) if self.mode == "replicate" else Int(3)
            counts.append((f"t{a}", count))
            i, t, extent, end = g.place[a], Var(f"t{a}"), g.extents[a], g.source_extents[a]
            j, shows = candidates(self.mode, t, i, extent, g.n.size(f"lo{a}", lo), end)
            place.append(j)
            conditions += shows
        step = Guard(all_of(conditions[0], *conditions[1:]), (summed(g.at(place)),))
        return g.reduced(counts, step)

    def cost(self, types: tuple[TensorType, ...], out: TensorType) -> Cost:
        return Cost(flops=types[0].elements)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in BorderPad.samples():
            pad = sample.op
            if isinstance(pad, BorderPad) and pad.mode in MODES:
                x = sample.types[0]
                y = pad.infer((x,))
                yield Sample(cls(pad.amounts, pad.mode, x.spatial), (y,), note=sample.note)


@layer("pad", "shape")
def pad(b: LayerBuilder, x: Node, amount: Pad) -> Node:
    """Surround the spatial axes: with zeros, or const(v, n), const(lo = a, hi = b, amount = n),
    replicate(n), reflect(n), circular(n).

    `amount` is one number, one (lo, hi) pair, or a pair per axis. reflect needs an extent above the
    amount and circular one of at least the amount. With two constants the corners of an image hold
    those of the last axis, as in `numpy.pad`.

    Example: `x -> pad(reflect(2))`
    """
    require_spatial("pad", x.type)
    return b.add(BorderPad(pad_pairs("amount", amount, x.type), amount.mode, amount.value), x)
