"""A producer: a nest as a function from an index of its output to the value of that element.

Inlining, and schedules that compute parts of a tensor where they are used, ask a producer for the
statements that compute one element at given indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnncc.loops.affine import unpack
from cnncc.loops.ir import (
    Accumulate,
    Barrier,
    Body,
    Buffer,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Kind,
    Let,
    Load,
    Nest,
    Statement,
    Store,
    Value,
    Var,
)
from cnncc.loops.rewrite import Rewrite
from cnncc.loops.walk import Names, indices, statements, values

__all__ = ["CannotInline", "Producer", "written"]


class CannotInline(Exception):
    """The nests do not have the form that inlining needs; `reason` says what is in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Producer:
    """Parallel loops around the work for one element and the Store of that element."""

    nest: Nest
    output: Buffer
    loops: Mapping[str, Index]  # the parallel variables with their extents
    work: Body
    store: Store

    @staticmethod
    def of(nest: Nest) -> Producer:
        """Take a nest apart; CannotInline when it is not the work for one element in loops."""
        output = written(nest)
        loops, work, last = _opened(nest.body)
        if not isinstance(last, Store):
            raise CannotInline("the producer does not end in the Store of an element")
        for s in statements(work):
            if isinstance(s, (Store, Accumulate, Barrier)):
                raise CannotInline("the producer writes in more than one statement")
            if isinstance(s, For) and s.kind is not Kind.SERIAL:
                raise CannotInline("the producer has parallel loops around part of its work")
        if output.name in _read(nest.body):
            raise CannotInline("the producer reads its own output")
        producer = Producer(nest, output, loops, work, last)
        if producer.variables(tuple(Int(0) for _ in last.index)) is None:
            raise CannotInline("the producer does not store every element exactly once")
        return producer

    def variables(self, index: tuple[Index, ...]) -> dict[str, Index] | None:
        """The parallel variables of the iteration that stores the element at an index."""
        axes = self.output.extents
        return unpack(self.store.index, self.loops, axes, self.nest.sizes, index)

    def element(self, index: tuple[Index, ...], names: Names) -> tuple[Body, Value]:
        """The work for the element at an index, with new names, and the value to be stored."""
        variables = self.variables(index)
        assert variables is not None, "established when the nest was taken apart"
        loops: dict[str, str] = {}
        locals_: dict[str, str] = {}
        for s in statements(self.work):
            if isinstance(s, For) and s.var not in loops:
                loops[s.var] = names.fresh(s.var)
            elif isinstance(s, Let) and s.name not in locals_:
                locals_[s.name] = names.fresh(s.name)
        variables |= {var: Var(new) for var, new in loops.items()}
        stored: dict[Index, Index] = {
            i: at for i, at in zip(self.store.index, index, strict=True) if not isinstance(i, Int)
        }

        def replaced(i: Index) -> Index | None:
            if isinstance(i, Var):
                return variables[i.name]
            return stored.get(i)  # g * KG + k itself, rather than its parts taken from it again

        rewrite = Rewrite(index=replaced, rename=lambda name: locals_[name])
        work = _with_loop_names(rewrite.on_body(self.work), loops)
        return work, rewrite.on_value(self.store.value)


def written(nest: Nest) -> Buffer:
    """The tensor of floats that a nest writes; CannotInline if it writes another or several."""
    outputs = [b for b in nest.buffers if b.role == "out"]
    if len(outputs) != 1:
        raise CannotInline(f"the producer has {len(outputs)} outputs")
    if not outputs[0].dtype.is_float:
        raise CannotInline(f"storing as {outputs[0].dtype} changes the element")
    return outputs[0]


def _opened(body: Body) -> tuple[dict[str, Index], Body, Statement | None]:
    """The parallel loops around everything, the statements inside, and the last of them."""
    loops: dict[str, Index] = {}
    work: list[Statement] = []
    while body and isinstance(body[-1], For) and body[-1].kind is Kind.PARALLEL:
        loop = body[-1]
        if not all(isinstance(s, Let) for s in body[:-1]):
            raise CannotInline("the elements of the producer share work")
        work += body[:-1]
        loops[loop.var] = loop.extent
        body = loop.body
    return loops, (*work, *body[:-1]), body[-1] if body else None


def _read(body: Body) -> set[str]:
    """The buffers that a body reads."""
    loaded = {v.buffer for v in values(body) if isinstance(v, Load)}
    return loaded | {i.buffer for i in indices(body) if isinstance(i, Fetch)}


def _with_loop_names(body: Body, names: Mapping[str, str]) -> Body:
    def renamed(s: Statement) -> Statement:
        match s:
            case For(var, extent, kind, inner):
                return For(names[var], extent, kind, _with_loop_names(inner, names))
            case Guard(condition, inner):
                return Guard(condition, _with_loop_names(inner, names))
            case _:
                return s

    return tuple(map(renamed, body))
