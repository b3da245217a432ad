"""The windows that a nest reads of one of its inputs, when every element belongs to one window: a
single element, or the taps of a pool whose stride is its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from cnncc.loops.affine import extent_of, linear
from cnncc.loops.ir import (
    Assign,
    Body,
    For,
    Guard,
    Index,
    Int,
    Let,
    Load,
    Ref,
    Statement,
    Value,
    Var,
    add,
    mul,
)
from cnncc.loops.merge import Merge
from cnncc.loops.producer import CannotInline, Producer
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.walk import Names, statements, values

__all__ = ["Windows"]

LARGEST = 16  # elements of a window: its loops are unrolled
LONGEST = 8 * LARGEST  # statements then

_NOT_ONE_BY_ONE = "the consumer does not go through the tensor element by element"


@dataclass(frozen=True)
class Windows:
    """What a consumer does with the window of `merge.buffer` that belongs to one of its iterations.

    axes: for every axis of the buffer the variable that moves along it, and how many elements of
    the axis belong to one of its values. work: straight-line, ends with the Store.
    """

    merge: Merge
    axes: tuple[tuple[str, int], ...]
    work: Body

    @staticmethod
    def of(consumer: Producer, merge: Merge) -> Windows:
        """Raises CannotInline where it does not read all of the tensor once, window by window."""
        sizes = merge.sizes
        loops = any(isinstance(s, For) for s in statements(consumer.work))
        work = (*_unrolled(consumer.work, merge), consumer.store)
        read = {v.index for v in values(work)
                if isinstance(v, Load) and v.buffer == merge.buffer}  # fmt: skip
        axes = {tuple((var, step) for var, step, _ in _places(i, merge)) for i in read}
        if len(axes) != 1:
            raise CannotInline(_NOT_ONE_BY_ONE)
        (own,) = axes
        size = prod(step for _, step in own)
        if size == 1 and len(read) > 1:
            raise CannotInline(f"the consumer reads {len(read)} elements of the tensor at a time")
        if size == 1 and (loops or any(isinstance(s, Assign) for s in statements(work))):
            raise CannotInline("the consumer has loops of its own")
        if len(own) != len(dict(own)) or set(dict(own)) != set(consumer.loops):
            raise CannotInline(_NOT_ONE_BY_ONE)
        if size > 1 and any(isinstance(s, Guard) for s in statements(work)):
            raise CannotInline("the consumer leaves out elements of its windows")
        extents = consumer.nest.buffer(merge.buffer).extents
        for (var, step), extent in zip(own, extents, strict=True):
            count, whole = extent_of(consumer.loops[var], sizes), extent_of(extent, sizes)
            if count is None or whole is None or count * step != whole:
                raise CannotInline("the consumer does not read all of the tensor")
        if len(read) != size:
            raise CannotInline("the consumer does not read all of the tensor")
        return Windows(merge, own, work)

    @property
    def size(self) -> int:
        """Elements of a window."""
        return prod(step for _, step in self.axes)

    def holding(self, index: tuple[Index, ...]) -> tuple[tuple[Index, ...], tuple[int, ...]]:
        """The window of an element, by the consumer's variables, and the element's place in it."""
        window: list[Index] = []
        place: list[int] = []
        for (_, step), i in zip(self.axes, index, strict=True):
            if step == 1:
                window.append(i)
                place.append(0)
                continue
            found = linear(i, self.merge.sizes)
            at: Index = Int(0)
            for atom, times in found.terms.items():
                if not isinstance(times, int) or times % step:
                    raise CannotInline("a window of the consumer is not in one iteration")
                at = add(at, mul(atom, times // step))
            if not isinstance(found.constant, int):
                raise CannotInline("a window of the consumer is not in one iteration")
            window.append(add(at, found.constant // step))
            place.append(found.constant % step)
        return tuple(window), tuple(place)

    def work_on(self, window: tuple[Index, ...], elements: Mapping[tuple[int, ...], str]) -> Body:
        """The consumer's work on a window, whose elements are the locals of these names."""
        names = self.merge.names
        variables = {var: at for (var, _), at in zip(self.axes, window, strict=True)}
        locals_ = {t.name: names.fresh(t.name) for t in statements(self.work)
                   if isinstance(t, Let)}  # fmt: skip

        def value(v: Value) -> Value | None:
            if not isinstance(v, Load) or v.buffer != self.merge.buffer:
                return None
            return Ref(elements[tuple(at for _, _, at in _places(v.index, self.merge))])

        rewrite = Rewrite(
            index=lambda i: variables[i.name] if isinstance(i, Var) else None,
            value=value,
            rename=lambda local: locals_[local],
        )
        return rewrite.on_body(self.work)


def _places(index: tuple[Index, ...], merge: Merge) -> list[tuple[str, int, int]]:
    """An index of the consumer, axis by axis: variable, step and place in the window."""
    places = []
    for i in index:
        found = linear(i, merge.sizes)
        terms = [(a.name, c) for a, c in found.terms.items() if isinstance(a, Var)]
        if len(terms) != 1 or len(found.terms) != 1:
            raise CannotInline(_NOT_ONE_BY_ONE)
        ((var, step),) = terms
        at = found.constant
        if not isinstance(step, int) or not isinstance(at, int) or not 0 <= at < step:
            raise CannotInline(_NOT_ONE_BY_ONE)
        places.append((var, step, at))
    return places


def _unrolled(body: Body, merge: Merge) -> Body:
    """Without serial loops, if they are short."""
    work: list[Statement] = []
    for s in body:
        if not isinstance(s, For):
            work.append(s)
            continue
        extent = extent_of(s.extent, merge.sizes)
        if not isinstance(extent, int) or extent > LARGEST:
            raise CannotInline("the consumer has loops of its own")
        for k in range(extent):
            work += _unrolled(_turn(s, k, merge.names), merge)
    if len(work) > LONGEST:
        raise CannotInline("the consumer has loops of its own")
    return tuple(work)


def _turn(loop: For, k: int, names: Names) -> Body:
    """The k-th turn of a loop, with its own names of locals."""
    own = {s.name: names.fresh(s.name) for s in statements(loop.body) if isinstance(s, Let)}
    return substitute(loop.body, {loop.var: Int(k)}, lambda name: own.get(name, name))
