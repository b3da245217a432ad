"""The frame of nests that read a tensor at other positions than they write: pads, crops, adaptive
pools, upsampling, and the adjoints of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnncc.loops.build import Handle, NestBuilder, parallel, serial
from cnncc.loops.ir import (
    Assign,
    Index,
    Let,
    Lit,
    Load,
    Nest,
    Ref,
    Size,
    Statement,
    Value,
    Var,
    prim,
)
from cnncc.ops.base import axis_names
from cnncc.tensor import DType, TensorType


class GridNest:
    """A nest over [*, C, o...] that reads [*, C, i...] at the same sample and channel.

    `place` is the current position o, `extents` are those of o, `source_extents` those of i.
    """

    def __init__(
        self, source: TensorType, out: TensorType, *, read: str = "x", write: str = "y"
    ) -> None:
        self.n = n = NestBuilder()
        names = axis_names(out)
        inner = [f"in{a}" for a in range(out.rank)]
        self.names, self.lead = names, names[: len(names) - out.rank]
        self.index: tuple[Index, ...] = tuple(Var(f"i_{name}") for name in names)
        self.place: tuple[Index, ...] = self.index[len(self.lead) :]
        self.source = n.input(read, source, " ".join([*self.lead, *inner]))
        self._write, self._out = write, out
        self.source_extents: list[Size] = [n.size(name, n.sizes[name]) for name in inner]

    def second(self, name: str, t: TensorType) -> Handle:
        """Another buffer that is read at the source's positions."""
        return self.n.input(name, t, " ".join([*self.lead, *(f"in{a}" for a in range(t.rank))]))

    @property
    def extents(self) -> list[Size]:
        space = zip(self.names[len(self.lead) :], self._out.spatial, strict=True)
        return [self.n.size(name, extent) for name, extent in space]

    def at(self, place: Sequence[Index], of: Handle | None = None) -> Load:
        """The source (or a second buffer) at a position of its own."""
        return (of or self.source)[(*self.index[: len(self.lead)], *place)]

    def padded(self, place: Sequence[Index], outside: float) -> Load:
        """The source at a position, `outside` where there is none."""
        return self.source.padded((*self.index[: len(self.lead)], *place), outside)

    def each(self, value: Value, *before: Statement) -> Nest:
        """`value` at every position, after the statements."""
        y = self.n.output(self._write, self._out, " ".join(self.names))
        loops = [(f"i_{name}", self.n.size(name, self.n.sizes[name])) for name in self.names]
        return self.n.nest(parallel(loops, *before, y.store(self.index, value)))

    def reduced(
        self,
        loops: Sequence[tuple[str, Index | int]],
        step: Statement,
        result: Value | None = None,
        *,
        start: float = 0.0,
    ) -> Nest:
        """`acc` from `start`, `step` in every round of the loops, then `result` (`acc`)."""
        return self.each(result or Ref("acc"), Let("acc", Lit(start)), serial(loops, step))


def summed(value: Value) -> Assign:
    """acc + value."""
    return Assign("acc", prim("add", Ref("acc"), value))


def factor_cases() -> Iterable[tuple[tuple[int, ...], TensorType]]:
    """Factors and input types of upsampling whose nests differ."""
    yield (2, 2), TensorType(DType.F32, (3, 3, 4))
    yield (3, 1), TensorType(DType.F32, (2, 4, 5))
    yield (4,), TensorType(DType.F32, (2, 5))
    yield (2, 3, 2), TensorType(DType.F32, (2, 2, 3, 1))
    yield (2, 4), TensorType(DType.F32, (2, 2, 3), batched=False)
