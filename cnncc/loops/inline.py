"""Inlining a producer into its consumer: the one mechanism of fusion.

The producer computes one element of a tensor per iteration of its parallel loops; the consumer
reads that tensor from a buffer. Every Load of the buffer is preceded by the producer's body for the
element that is read (its parallel variables replaced by the Load's indices, its other names by
fresh ones), and replaced by the local that holds the result. The arithmetic of an element and its
order stay the same, so the fused nest gives the bits of the two nests run one after the other.
Whether it is worth computing an element again for every Load is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cnncc.loops.affine import unpack
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    Both,
    Choose,
    Condition,
    For,
    Guard,
    Index,
    Let,
    Lit,
    Load,
    Nest,
    Prim,
    Ref,
    Statement,
    Store,
    Test,
    Value,
    Var,
    all_of,
    test,
)
from cnncc.loops.merge import Merge, merged
from cnncc.loops.producer import CannotInline, Producer

__all__ = ["CannotInline", "inline"]


def inline(
    consumer: Nest,
    producer: Nest,
    buffer: str,
    *,
    keep: bool = False,
    alias: Mapping[str, str] | None = None,
) -> Nest:
    """The consumer with the elements of its input `buffer` computed where they are read.

    The producer is parallel loops around statements that end in its only Store, which writes every
    element of its output once. `alias` maps producer buffers to the consumer buffers that hold the
    same tensor; the others get the names of `merge.merged`. The buffers of the result are the
    consumer's in order, with the producer's other inputs in the place of `buffer`. With `keep` the
    elements are also stored: `buffer` is then the last buffer of the result, an output.

    Raises CannotInline when a nest has another form, or when `keep` is asked for and the consumer
    does not read every element exactly once.
    """
    merge = merged(consumer, producer, buffer, keep=keep, alias=alias)
    fusion = _Fusion(consumer, buffer, merge, Producer.of(merge.producer), keep)
    body = fusion.body(consumer.body, _Scope({}, {}, True))
    if keep and fusion.computed != 1:
        raise CannotInline(f"the consumer reads the tensor in {fusion.computed} places")
    return merge.nest(body)


# --- the consumer ---------------------------------------------------------------------------------

Path = tuple[tuple[Condition, bool], ...]  # the conditions of Choose around a value, and which side


@dataclass(frozen=True)
class _Scope:
    """What surrounds a statement: loops with their extents, and elements that are computed."""

    loops: dict[str, Index]
    known: dict[tuple[Load, Path], str]
    always: bool  # no Guard around


class _Fusion:
    """The rewriting of the consumer's body."""

    def __init__(
        self, consumer: Nest, buffer: str, merge: Merge, producer: Producer, keep: bool
    ) -> None:
        self.buffer = buffer
        self.axes = consumer.buffer(buffer).extents
        self.merge, self.producer = merge, producer
        self.keep = keep
        self.computed = 0  # places where an element is computed

    def body(self, body: Body, scope: _Scope) -> Body:
        inner = replace(scope, known=dict(scope.known))  # what is computed here ends with the body
        return tuple(new for s in body for new in self.statement(s, inner))

    def statement(self, s: Statement, scope: _Scope) -> Body:
        match s:
            case For(var, extent, kind, body):
                inner = replace(scope, loops={**scope.loops, var: extent})
                return (For(var, extent, kind, self.body(body, inner)),)
            case Guard(c, body):
                return (Guard(c, self.body(body, replace(scope, always=False))),)
            case Let() | Assign() | Store() | Accumulate():
                before: list[Statement] = []
                value = self.value(s.value, (), scope, before)
                return (*before, replace(s, value=value))
            case Barrier():
                return (s,)

    def value(self, v: Value, path: Path, scope: _Scope, before: list[Statement]) -> Value:
        """The value with the loads of the buffer replaced; `before` collects what computes them."""
        match v:
            case Load(buffer, _, _) if buffer == self.buffer:
                prefixes = (path[:k] for k in range(len(path) + 1))
                name = next((scope.known[v, p] for p in prefixes if (v, p) in scope.known), None)
                if name is None:
                    name = scope.known[v, path] = self.compute(v, path, scope, before)
                return Ref(name)
            case Prim(fn, args):
                return Prim(fn, tuple(self.value(a, path, scope, before) for a in args))
            case Choose(c, a, b):
                then = self.value(a, (*path, (c, True)), scope, before)
                otherwise = self.value(b, (*path, (c, False)), scope, before)
                return Choose(c, then, otherwise)
            case _:
                return v

    def compute(self, v: Load, path: Path, scope: _Scope, before: list[Statement]) -> str:
        """Compute the element that `v` reads, if its path is taken, into a new local."""
        self.computed += 1
        inside = () if v.outside is None else self.inside(v.index, scope)
        cases = [(*case, *inside) for case in _cases(path)]
        name = self.merge.names.fresh(self.buffer)
        if cases == [()]:
            body, value = self.producer.element(v.index, self.merge.names)
            before += [*body, Let(name, value)]
            if self.keep:
                self.check_once(v, scope)
                before.append(Store(self.buffer, v.index, Ref(name)))
            return name
        if self.keep:
            raise CannotInline("the consumer reads the tensor under a condition")
        before.append(Let(name, Lit(0.0 if v.outside is None else v.outside)))
        for case in cases:
            body, value = self.producer.element(v.index, self.merge.names)
            before.append(Guard(all_of(*case), (*body, Assign(name, value))))
        return name

    def inside(self, index: tuple[Index, ...], scope: _Scope) -> tuple[Condition, ...]:
        """The tests that an element exists, less those that a loop over the axis makes needless."""
        tests: list[Condition] = []
        for i, extent in zip(index, self.axes, strict=True):
            if isinstance(i, Var) and scope.loops.get(i.name) == extent:
                continue
            tests += [test("<=", 0, i), test("<", i, extent)]
        return tuple(tests)

    def check_once(self, v: Load, scope: _Scope) -> None:
        """Storing what is computed here stores every element exactly once."""
        if not scope.always:
            raise CannotInline("the consumer reads the tensor under a condition")
        loops, sizes = scope.loops, self.merge.sizes
        if unpack(v.index, loops, self.axes, sizes, v.index) is None:
            raise CannotInline("the consumer does not read every element exactly once")


def _cases(path: Path) -> list[tuple[Test, ...]]:
    """The path as conjunctions of tests of which at most one holds."""
    cases: list[tuple[Test, ...]] = [()]
    for condition, side in path:
        sides = [_tests(condition)] if side else _denied(condition)
        cases = [(*case, *more) for case in cases for more in sides]
    return cases


def _tests(c: Condition) -> tuple[Test, ...]:
    return (c,) if isinstance(c, Test) else (*_tests(c.a), *_tests(c.b))


def _denied(c: Condition) -> list[tuple[Test, ...]]:
    """not c: the first test fails, or it holds and the second fails, ..."""
    match c:
        case Test("<", a, b):
            return [(Test("<=", b, a),)]
        case Test("<=", a, b):
            return [(Test("<", b, a),)]
        case Test("==", a, b):
            return [(Test("!=", a, b),)]
        case Test(_, a, b):
            return [(Test("==", a, b),)]
        case Both(a, b):
            return [*_denied(a), *((*_tests(a), *case) for case in _denied(b))]
