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
from cnncc.loops.build import BATCH, NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Assign,
    Condition,
    Guard,
    Index,
    Int,
    Least,
    Let,
    Lit,
    Nest,
    Ref,
    Var,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Cost, Op, Sample, axis_names, layer, operator
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
    """[*, C, i...] -> [*, C, lo + i + hi ...]; (lo, hi) per axis, `value` for mode const."""

    amounts: Pairs
    mode: PadMode = "zero"
    value: float = 0.0

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
        return np.pad(x, widths, constant_values=x.dtype.type(self.border))

    @property
    def border(self) -> float:
        """What a constant border holds."""
        return self.value if self.mode == "const" else 0.0

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        if self.mode in MODES:
            extents = tuple(b[node.inputs[0]].type.spatial)
            return (
                b.add(BorderPadDx(self.amounts, self.mode, extents), dy, name=f"{node.name}.dx"),
            )
        from cnncc.ops.crop import Crop  # the two rooms are each other's adjoints

        return (b.add(Crop(self.amounts), dy, name=f"{node.name}.dx"),)

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        names = axis_names(out)
        lead = names[: -out.rank]
        inner = [f"in{a}" for a in range(out.rank)]
        x = n.input("x", types[0], " ".join([*lead, *inner]))
        y = n.output("y", out, " ".join(names))
        index = [Var(f"i_{name}") for name in names]
        at = []
        for a, (lo, _) in enumerate(self.amounts):
            shifted = index[len(lead) + a] + (n.size(f"lo{a}", lo) * -1 if lo else 0)
            at.append(source(self.mode, shifted, n.size(inner[a], types[0].spatial[a])))
        place = (*index[: len(lead)], *at)
        value = x[place] if self.mode in MODES else x.padded(place, self.border)
        loop = [
            (v.name, n.size(name, e)) for v, name, e in zip(index, names, _dims(out), strict=True)
        ]
        return n.nest(parallel(loop, y.store(index, value)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        image = TensorType(DType.F32, (3, 5, 6))
        for mode in ("zero", "replicate", "reflect", "circular"):
            yield Sample(cls(((2, 1), (0, 3)), mode), (image,))
        yield Sample(cls(((4, 4), (5, 5)), "reflect"), (image,), note="the largest reflection")
        yield Sample(cls(((5, 5), (6, 6)), "circular"), (image,), note="the largest wrap")
        yield Sample(cls(((1, 2), (3, 0)), "const", -1.5), (image,))
        yield Sample(cls(((2, 2),), "reflect"), (TensorType(DType.F32, (2, 7)),))
        yield Sample(
            cls(((3, 1),), "replicate"), (TensorType(DType.F32, (2, 1)),), note="one position"
        )
        yield Sample(
            cls(((1, 0), (0, 1), (2, 2)), "replicate"), (TensorType(DType.F32, (2, 5, 4, 3)),)
        )
        yield Sample(cls(((1, 1), (1, 1))), (TensorType(DType.F32, (2, 3, 3), batched=False),))


def _dims(t: TensorType) -> Sequence[Extent]:
    return (BATCH, *t.shape) if t.batched else t.shape


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
        n = NestBuilder()
        names = axis_names(out)
        lead = names[: -out.rank]
        outer = [f"out{a}" for a in range(out.rank)]
        dy = n.input("dy", types[0], " ".join([*lead, *outer]))
        dx = n.output("dx", out, " ".join(names))
        index = [Var(f"i_{name}") for name in names]
        place: list[Index] = list(index[: len(lead)])
        conditions: list[Condition] = []
        counts: list[tuple[str, Index | int]] = []
        for a, (lo, hi) in enumerate(self.amounts):
            count = n.size(f"images{a}", lo + hi + 1) if self.mode == "replicate" else Int(3)
            counts.append((f"t{a}", count))
            extent = n.size(names[len(lead) + a], out.spatial[a])
            end = n.size(outer[a], types[0].spatial[a])
            i, t = index[len(lead) + a], Var(f"t{a}")
            j, shows = candidates(self.mode, t, i, extent, n.size(f"lo{a}", lo), end)
            place.append(j)
            conditions += shows
        add = Assign("acc", prim("add", Ref("acc"), dy[tuple(place)]))
        body = serial(counts, Guard(all_of(conditions[0], *conditions[1:]), (add,)))
        loop = [
            (v.name, n.size(name, e)) for v, name, e in zip(index, names, _dims(out), strict=True)
        ]
        return n.nest(parallel(loop, Let("acc", Lit(0.0)), body, dx.store(index, Ref("acc"))))

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
    """Surround the spatial axes: with zeros, or const(v, n), replicate(n), reflect(n), circular(n).

    `amount` is one number, one (lo, hi) pair, or a pair per axis. reflect needs an extent above the
    amount and circular one of at least the amount.

    Example: `x -> pad(reflect(2))`
    """
    require_spatial("pad", x.type)
    return b.add(BorderPad(pad_pairs("amount", amount, x.type), amount.mode, amount.value), x)
