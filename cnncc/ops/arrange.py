"""From the numbers that a layer stores to the kernel that it computes with: a linear rearrangement.

Symmetric kernels, flipped kernels, tables of connections and local layers without taps in the
padding all store other numbers than the entries of their kernel, or the same ones in another order.
Each is a table per axis of the kernel: entry e of the axis is entry table[e] of the stored tensor,
and zero where the table points outside. The channels of output and input are one axis with a table
of two indices, which numbers the connections that exist. With `centre` an entry that is not the
centre of its axis counts half: the mean of the two inputs under a symmetric tap instead of the sum.

The gradient sums over all uses of a stored number; the two operators are each other's adjoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnncc.graph.ir import Builder, Node, ShapeError
from cnncc.loops.build import NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Accumulate,
    Choose,
    Condition,
    Fetch,
    Guard,
    Index,
    Lit,
    Nest,
    Size,
    Value,
    Var,
    all_of,
    prim,
    test,
)
from cnncc.ops.base import Array, Op, Sample, operator
from cnncc.tensor import DType, Extent, TensorType, product

TABLES = (DType.I32, DType.I64)


@dataclass(frozen=True)
class _Arrangement(Op):
    """What both directions share: which axes have a table, in the order of the operands.

    pairs: the two channel axes have one; axes: for each spatial axis whether it has one; centre:
    the entry of each spatial axis that counts whole, () where all do.
    """

    pairs: bool = False
    axes: tuple[bool, ...] = ()
    centre: tuple[int, ...] = ()

    linear: ClassVar[tuple[int, ...]] = (0,)

    def tables(self, types: tuple[TensorType, ...]) -> None:
        """Raises ShapeError E0201 unless the operands behind the first are the tables."""
        wanted = [2] * self.pairs + [1] * sum(self.axes)
        found = [len(t.shape) for t in types[1:] if t.dtype in TABLES and not t.batched]
        if found != wanted or len(types) != 1 + len(wanted):
            raise ShapeError(
                "E0201",
                f"{self.name} takes one table of integers for each axis that it arranges",
                arithmetic=[f"operand {i + 1}: {t}" for i, t in enumerate(types)],
            )

    def kernel_shape(self, types: tuple[TensorType, ...], own: Sequence[Extent]) -> list[Extent]:
        """The shape on the kernel's side; `own` are the extents of axes without a table."""
        tables = list(types[1:])
        shape = list(tables.pop(0).shape if self.pairs else own[:2])
        rest = own[1:] if self.pairs else own[2:]
        for tabled, extent in zip(self.axes, rest, strict=True):
            shape.append(tables.pop(0).shape[0] if tabled else extent)
        return shape

    def axis_of(self, a: int) -> int:
        """The position of spatial axis a in the stored tensor."""
        return a + (1 if self.pairs else 2)

    def weighted(self, v: Value, rank: int) -> Value:
        """The value, halved for every axis along which the current entry is not the centre."""
        for a in range(rank if self.centre else 0):
            whole = test("==", Var(f"i_w{a}"), self.centre[a])
            v = prim("mul", v, Choose(whole, Lit(1.0), Lit(0.5)))
        return v

    def weights(self, kernel: Array) -> Array:
        """The factors of `weighted` for all entries, to be broadcast against the kernel."""
        total = np.ones([1] * kernel.ndim, kernel.dtype)
        for a, centre in enumerate(self.centre):
            extent = kernel.shape[2 + a]
            factor = np.where(np.arange(extent) == centre, 1.0, 0.5).astype(kernel.dtype)
            total = total * factor.reshape(-1, *[1] * (kernel.ndim - 3 - a))
        return total

    def declare(
        self, n: NestBuilder, types: tuple[TensorType, ...]
    ) -> tuple[tuple[Index, ...], list[Condition]]:
        """Declare the tables; the stored entry of kernel entry (i_k, i_c, i_w0, ...), and what
        holds where there is one.
        """
        place: list[Index] = [Var("i_k"), Var("i_c")]
        sizes = ["k", "c"]
        tables = list(types[1:])
        if self.pairs:
            n.input("pairs", tables.pop(0), "k c")
            place, sizes = [Fetch("pairs", (Var("i_k"), Var("i_c")))], ["m"]
        for a, tabled in enumerate(self.axes):
            entry: Index = Var(f"i_w{a}")
            if tabled:
                n.input(f"taps{a}", tables.pop(0), f"w{a}")
                entry = Fetch(f"taps{a}", (entry,))
            place.append(entry)
            sizes.append(f"u{a}" if tabled else f"w{a}")
        tests = [
            test(op, *sides)
            for i, size in zip(place, sizes, strict=True)
            if isinstance(i, Fetch)
            for op, sides in (("<=", (0, i)), ("<", (i, Size(size))))
        ]
        return tuple(place), list(tests)

    def stored_axes(self) -> str:
        """Names of the sizes of the stored tensor's axes."""
        lead = ["m"] if self.pairs else ["k", "c"]
        return " ".join(
            [*lead, *(f"u{a}" if tabled else f"w{a}" for a, tabled in enumerate(self.axes))]
        )

    def kernel_axes(self) -> list[str]:
        return ["k", "c", *(f"w{a}" for a in range(len(self.axes)))]


@operator("arrange")
@dataclass(frozen=True)
class Arrange(_Arrangement):
    """stored [K, C, u...] or [M, u...], tables ([K, C] if pairs, [w] per tabled axis) -> kernel
    [K, C, w...].
    """

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        self.tables(types)
        if types[0].batched or len(types[0].shape) != self.axis_of(len(self.axes)):
            raise ShapeError(
                "E0201", "arrange takes stored weights", arithmetic=[f"operand 1: {types[0]}"]
            )
        shape = self.kernel_shape(types, types[0].shape)
        return TensorType(types[0].dtype, tuple(shape), batched=False)

    def reference(self, *arrays: Array) -> Array:
        kernel, *tables = arrays
        for a in reversed(range(len(self.axes))):
            if self.axes[a]:
                kernel = _taken(kernel, tables.pop(), self.axis_of(a))
        if self.pairs:
            kernel = _taken(kernel, tables.pop(), 0)
        return kernel * self.weights(kernel)

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        stored, *tables = (b[name] for name in node.inputs)
        adjoint = ArrangeDw(self.pairs, self.axes, self.centre, stored.type.shape)
        dw = b.add(adjoint, dy, *tables, name=f"{node.name}.dw")
        return (dw, *[None] * len(tables))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        stored = n.input("stored", types[0], self.stored_axes())
        place, _ = self.declare(n, types)
        axes = self.kernel_axes()
        arranged = n.output("arranged", out, " ".join(axes))
        index = [Var(f"i_{a}") for a in axes]
        value = self.weighted(stored.padded(place, 0.0), len(self.axes))
        loops = [(v.name, n.size(a, n.sizes[a])) for v, a in zip(index, axes, strict=True)]
        return n.nest(parallel(loops, arranged.store(index, value)))

    def nonzeros(self, types: tuple[TensorType, ...], out: TensorType) -> Extent:
        """The entries of connections that exist. A tap that lies in the padding counts, as it does
        in a layer that shares its kernel.
        """
        return types[0].shape[0] * product(out.shape[2:]) if self.pairs else out.elements

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, types in _cases():
            yield Sample(op, types, low=-1, high=4)


@operator("arrange_dw")
@dataclass(frozen=True)
class ArrangeDw(_Arrangement):
    """g [K, C, w...], tables -> the sum over all uses of each stored number, [*shape]."""

    shape: tuple[Extent, ...] = ()

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        self.tables(types)
        expected = tuple(self.kernel_shape(types, self.shape))
        if types[0].shape != expected or types[0].batched:
            raise ShapeError(
                "E0201",
                "arrange_dw takes the gradient of a kernel",
                arithmetic=[f"operand 1: {types[0]}, expected {list(expected)}"],
            )
        return TensorType(types[0].dtype, self.shape, batched=False)

    def reference(self, *arrays: Array) -> Array:
        g, *tables = arrays
        g = g * self.weights(g)
        if self.pairs:
            g = _added(g, tables.pop(0), 0, self.shape[0])
        for a, tabled in enumerate(self.axes):
            if tabled:
                g = _added(g, tables.pop(0), self.axis_of(a), self.shape[self.axis_of(a)])
        return g

    def gradient(self, b: Builder, node: Node, dy: Node) -> tuple[Node | None, ...]:
        tables = [b[name] for name in node.inputs[1:]]
        arrange = Arrange(self.pairs, self.axes, self.centre)
        return (b.add(arrange, dy, *tables, name=f"{node.name}.dg"), *[None] * len(tables))

    def nest(self, types: tuple[TensorType, ...], out: TensorType) -> Nest:
        n = NestBuilder()
        axes = self.kernel_axes()
        g = n.input("g", types[0], " ".join(axes))
        place, known = self.declare(n, types)
        stored = self.stored_axes().split()
        dw = n.output("dw", out, " ".join(stored))
        sizes = {name: n.size(name, value) for name, value in list(n.sizes.items())}
        # one owner for what an axis with a table may bring together, so that it adds up in order
        owned = [a for a in axes if a in stored]
        start = [(f"i_{a}", sizes[a]) for a in stored if a not in owned]
        uses = [(f"i_{a}", sizes[a]) for a in axes if a not in owned]
        value = self.weighted(g[tuple(Var(f"i_{a}") for a in axes)], len(self.axes))
        zero = dw.store([Var(f"i_{a}") for a in stored], Lit(0.0))
        return n.nest(
            parallel(
                [(f"i_{a}", sizes[a]) for a in owned] or [("i_all", 1)],
                serial(start, zero),
                serial(uses, Guard(all_of(*known), (Accumulate("dw", place, value),))),
            )
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for op, (stored, *tables) in _cases():
            g = op.infer((stored, *tables))
            adjoint = cls(op.pairs, op.axes, op.centre, stored.shape)
            yield Sample(adjoint, (g, *tables), low=-1, high=4)


def _taken(x: Array, table: Array, axis: int) -> Array:
    """x with its axis replaced by the table's axes: entry table[...], zero where there is none."""
    inside = (table >= 0) & (table < x.shape[axis])
    found = np.take(x, np.where(inside, table, 0), axis=axis)
    mask = inside.reshape(*inside.shape, *[1] * (x.ndim - axis - 1))
    return np.where(mask, found, np.zeros((), x.dtype))


def _added(g: Array, table: Array, axis: int, extent: Extent) -> Array:
    """The adjoint of `_taken`."""
    moved = np.moveaxis(g, range(axis, axis + table.ndim), range(table.ndim))
    total = np.zeros((int(str(extent)), *moved.shape[table.ndim :]), g.dtype)
    inside = (table >= 0) & (table < len(total))
    np.add.at(total, table[inside], moved[inside])
    return np.moveaxis(total, 0, axis)


def _cases() -> Iterable[tuple[Arrange, tuple[TensorType, ...]]]:
    def stored(*shape: int) -> TensorType:
        return TensorType(DType.F32, shape, batched=False)

    def table(*shape: int) -> TensorType:
        return TensorType(DType.I32, shape, batched=False)

    yield Arrange(axes=(True,)), (stored(3, 2, 4), table(5))
    yield Arrange(axes=(True, True), centre=(1, 2)), (stored(2, 3, 2, 3), table(3), table(5))
    yield Arrange(axes=(True, False)), (stored(5, 2, 3, 4), table(7))
    yield Arrange(True, (False, False)), (stored(4, 3, 2), table(3, 2))
    yield Arrange(True, (True, True)), (stored(4, 3, 4), table(3, 2), table(5), table(6))
    yield Arrange(axes=(False, True, True)), (stored(17, 2, 2, 3, 4), table(6), table(4))
