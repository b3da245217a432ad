"""Building nests: named sizes and buffers, and the loops around a body.

Operators write `n = NestBuilder(); x = n.input("x", type, "n c h w"); ...`. Axis names are sizes:
two buffers that share an axis name share the run-time argument, and the builder insists that the
extents agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cnncc.loops.ir import (
    Body,
    Buffer,
    For,
    Index,
    Int,
    Kind,
    Load,
    Nest,
    Size,
    Statement,
    Store,
    Value,
    ix,
)
from cnncc.tensor import Extent, TensorType, symbol

BATCH = symbol("*")  # the value of the size `n`


@dataclass(frozen=True)
class Handle:
    """A buffer while its nest is being written: indexing it loads, `store` stores."""

    name: str

    def __getitem__(self, index: tuple[Index | int, ...] | Index | int) -> Load:
        return Load(self.name, _indices(index))

    def padded(self, index: Sequence[Index | int], outside: float) -> Load:
        """A load that gives `outside` where any index is out of range."""
        return Load(self.name, _indices(tuple(index)), outside)

    def store(self, index: Sequence[Index | int], value: Value) -> Store:
        return Store(self.name, _indices(tuple(index)), value)


def _indices(index: tuple[Index | int, ...] | Index | int) -> tuple[Index, ...]:
    return tuple(map(ix, index)) if isinstance(index, tuple) else (ix(index),)


@dataclass
class NestBuilder:
    sizes: dict[str, Extent] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)

    def size(self, name: str, value: Extent) -> Size:
        """A run-time integer argument; asking again with the same value gives the same argument."""
        known = self.sizes.setdefault(name, value)
        if known != value:
            raise AssertionError(f"size {name} is {known} and {value}")
        return Size(name)

    def input(self, name: str, type: TensorType, axes: str) -> Handle:
        return self._buffer(name, type, axes, "in")

    def output(self, name: str, type: TensorType, axes: str) -> Handle:
        return self._buffer(name, type, axes, "out")

    def _buffer(self, name: str, type: TensorType, axes: str, role: str) -> Handle:
        """`axes`: one size name per axis, batch first when batched; a digit is a fixed extent of 1,
        2, ...
        """
        extents: list[Extent] = [*([BATCH] if type.batched else []), *type.shape]
        names = axes.split()
        if len(names) != len(extents):
            raise AssertionError(f"{name}: axes {axes!r} for {type}")
        sizes = tuple(
            Int(int(a)) if a.isdigit() else self.size(a, e)
            for a, e in zip(names, extents, strict=True)
        )
        self.buffers.append(Buffer(name, type.dtype, sizes, role))
        return Handle(name)

    def nest(self, *body: Statement | Body) -> Nest:
        parts = (part if isinstance(part, tuple) else (part,) for part in body)
        return Nest(tuple(self.buffers), dict(self.sizes), tuple(s for part in parts for s in part))


def loops(kind: Kind, axes: Sequence[tuple[str, Index | int]], *body: object) -> For:
    """Nested loops of one kind, outermost first, around the body's statements."""
    inner: object = tuple(body)
    for var, extent in reversed(axes):
        inner = (For(var, ix(extent), kind, inner),)  # type: ignore[arg-type]
    return inner[0]  # type: ignore[index,no-any-return]


def parallel(axes: Sequence[tuple[str, Index | int]], *body: object) -> For:
    """Independent iterations: the axes of what the kernel writes."""
    return loops(Kind.PARALLEL, axes, *body)


def serial(axes: Sequence[tuple[str, Index | int]], *body: object) -> For:
    """Iterations in order: the axes of a reduction."""
    return loops(Kind.SERIAL, axes, *body)
