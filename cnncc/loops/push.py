"""Pushing a consumer into its producer: fusion where one iteration of the producer computes several
elements that share work, such as a tile of outputs.

The consumer is a function of one element at a time, or of a small window of elements that no other
window shares, such as a 2x2 pool. Every Store of the tensor between the two that completes a window
is followed by the consumer's body for it, with its loops unrolled, which then stores its own
element. The arithmetic of an element and its order stay the same, so the fused nest gives the bits
of the two nests run one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from cnncc.loops.ir import (
    Accumulate,
    Body,
    For,
    Guard,
    Index,
    Kind,
    Let,
    Nest,
    Ref,
    Statement,
    Store,
    Value,
)
from cnncc.loops.merge import Merge, merged
from cnncc.loops.producer import CannotInline, Producer
from cnncc.loops.walk import statements
from cnncc.loops.windows import Windows

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
    unless the consumer is parallel loops over the elements of `buffer`, or over windows of them of
    which each lies in one iteration of the producer, around the work for one.
    """
    merge = merged(consumer, producer, buffer, keep=keep, alias=alias)
    pushed = _Push(merge, Producer.of(consumer))
    return merge.nest(pushed.body(merge.producer.body))


class _Push:
    def __init__(self, merge: Merge, consumer: Producer) -> None:
        self.merge = merge
        self.windows = Windows.of(consumer, merge)
        self.waiting: dict[tuple[Index, ...], dict[tuple[int, ...], str]] = {}

    def body(self, body: Body) -> Body:
        new = tuple(new for s in body for new in self.statement(s))
        if self.waiting:
            raise CannotInline("a window of the consumer is not complete in one iteration")
        return new

    def statement(self, s: Statement) -> Body:
        match s:
            case For(var, extent, Kind.PARALLEL, body):
                return (For(var, extent, Kind.PARALLEL, self.body(body)),)
            case Guard(condition, body):
                before, self.waiting = self.waiting, {}
                inner = self.body(body)
                self.waiting = before
                return (Guard(condition, inner),)
            case Store(_, index, value):
                return self.element(index, value)
            case _:
                if any(isinstance(t, (Store, Accumulate)) for t in statements((s,))):
                    raise CannotInline("the producer changes elements after it has stored them")
                return (s,)

    def element(self, index: tuple[Index, ...], stored: Value) -> Body:
        """An element that is stored at an index, and the consumer's work on its window if it is
        the last of it.
        """
        name = self.merge.names.fresh(self.merge.buffer)
        kept = (Store(self.merge.buffer, index, Ref(name)),) if self.merge.keep else ()
        window, place = self.windows.holding(index)
        elements = self.waiting.setdefault(window, {})
        elements[place] = name
        if len(elements) < self.windows.size:
            return (Let(name, stored), *kept)
        del self.waiting[window]
        return (Let(name, stored), *kept, *self.windows.work_on(window, elements))
