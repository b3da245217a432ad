"""Pushing a consumer into its producer: fusion where one iteration of the producer computes several
elements that share work, such as a tile of outputs.

The consumer is a function of one element at a time. Every Store of the tensor between the two is
followed by the consumer's body for that element, which then stores its own. The arithmetic of an
element and its order stay the same, so the fused nest gives the bits of the two nests run one after
the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Body,
    For,
    Guard,
    Index,
    Kind,
    Let,
    Load,
    Nest,
    Ref,
    Statement,
    Store,
    Value,
    Var,
)
from cnncc.loops.merge import Merge, merged
from cnncc.loops.producer import CannotInline, Producer
from cnncc.loops.rewrite import Rewrite
from cnncc.loops.walk import statements, values

__all__ = ["push"]


def push(
    consumer: Nest,
    producer: Nest,
    buffer: str,
    *,
    keep: bool = False,
    alias: Mapping[str, str] | None = None,
) -> Nest:
    """The producer with what the consumer makes of each element that it stores.

    The arguments are those of `inline`, and so are the buffers of the result. Raises CannotInline
    unless the consumer is parallel loops over the elements of `buffer` around the work for one.
    """
    merge = merged(consumer, producer, buffer, keep=keep, alias=alias)
    pushed = _Push(merge, Producer.of(consumer))
    return merge.nest(pushed.body(merge.producer.body))


class _Push:
    def __init__(self, merge: Merge, consumer: Producer) -> None:
        self.merge, self.consumer = merge, consumer
        read = {v.index for v in values(consumer.nest.body)
                if isinstance(v, Load) and v.buffer == merge.buffer}  # fmt: skip
        loops = consumer.loops
        extents = consumer.nest.buffer(merge.buffer).extents
        if len(read) != 1:
            raise CannotInline(f"the consumer reads {len(read)} elements of the tensor at a time")
        (self.read,) = read
        own = [i.name for i in self.read if isinstance(i, Var)]
        if len(own) != len(extents) or set(own) != set(loops):
            raise CannotInline("the consumer does not go through the tensor element by element")
        if any(loops[name] != e for name, e in zip(own, extents, strict=True)):
            raise CannotInline("the consumer does not read all of the tensor")
        if any(isinstance(s, (For, Assign)) for s in statements(consumer.work)):
            raise CannotInline("the consumer has loops of its own")

    def body(self, body: Body) -> Body:
        return tuple(new for s in body for new in self.statement(s))

    def statement(self, s: Statement) -> Body:
        match s:
            case For(var, extent, Kind.PARALLEL, body):
                return (For(var, extent, Kind.PARALLEL, self.body(body)),)
            case Guard(condition, body):
                return (Guard(condition, self.body(body)),)
            case Store(_, index, value):
                return self.element(index, value)
            case _:
                if any(isinstance(t, (Store, Accumulate)) for t in statements((s,))):
                    raise CannotInline("the producer changes elements after it has stored them")
                return (s,)

    def element(self, index: tuple[Index, ...], stored: Value) -> Body:
        """The consumer's work on an element that is stored at an index."""
        names = self.merge.names
        name = names.fresh(self.merge.buffer)
        places = {i.name: at for i, at in zip(self.read, index, strict=True) if isinstance(i, Var)}
        consumer = self.consumer
        locals_ = {t.name: names.fresh(t.name) for t in statements(consumer.work)
                   if isinstance(t, Let)}  # fmt: skip

        def value(v: Value) -> Value | None:
            taken = isinstance(v, Load) and v.buffer == self.merge.buffer
            return Ref(name) if taken else None

        rewrite = Rewrite(
            index=lambda i: places[i.name] if isinstance(i, Var) else None,
            value=value,
            rename=lambda local: locals_[local],
        )
        kept = (Store(self.merge.buffer, index, Ref(name)),) if self.merge.keep else ()
        return (Let(name, stored), *kept, *rewrite.on_body((*consumer.work, consumer.store)))
