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

from cnncc.errors import CompilerBug
from cnncc.loops.affine import extent_of, unpack
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    Both,
    Buffer,
    Choose,
    Condition,
    Fetch,
    For,
    Guard,
    Index,
    Int,
    Let,
    Lit,
    Load,
    Nest,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Test,
    Value,
    Var,
    all_of,
    test,
)
from cnncc.loops.producer import CannotInline, Producer
from cnncc.loops.walk import Names, indices, names_of, subindices
from cnncc.tensor import Extent

__all__ = ["CannotInline", "inline", "merged_names"]


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
    same tensor; the others get the names of `merged_names`. The buffers of the result are the
    consumer's in order, with the producer's other inputs in the place of `buffer`. With `keep` the
    elements are also stored: `buffer` is then the last buffer of the result, an output.

    Raises CannotInline when a nest has another form, or when `keep` is asked for and the consumer
    does not read every element exactly once.
    """
    merge = _merge(consumer, Producer.of(producer), buffer, alias or {}, keep)
    fusion = _Fusion(consumer, buffer, merge, keep)
    body = fusion.body(consumer.body, _Scope({}, {}, True))
    if keep and fusion.computed != 1:
        raise CannotInline(f"the consumer reads the tensor in {fusion.computed} places")
    return _pruned(Nest(_merged_buffers(consumer, buffer, merge, keep), merge.sizes, body))


def merged_names(
    consumer: Nest,
    producer: Nest,
    buffer: str,
    *,
    keep: bool = False,
    alias: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What `inline` with these arguments calls the producer's inputs, and with `keep` its output.

    A name that the consumer uses too is prefixed: the `w` of what computes `x` becomes `x_w`.
    """
    names = _merge(consumer, Producer.of(producer), buffer, alias or {}, keep).buffers
    return {b.name: names[b.name] for b in producer.buffers if keep or b.role == "in"}


# --- names, sizes and buffers ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Merge:
    """The producer in the words of the fused nest."""

    producer: Producer
    buffers: dict[str, str]  # what the producer's buffers are called now
    sizes: dict[str, Extent]  # all of the fused nest
    names: Names  # taken in either nest


def _merge(
    consumer: Nest, producer: Producer, buffer: str, alias: Mapping[str, str], keep: bool
) -> _Merge:
    _check_fit(consumer, buffer, producer)
    nest = producer.nest
    names = Names(names_of(consumer) - (set() if keep else {buffer}))
    buffers = {producer.output.name: buffer}
    for b in nest.buffers:
        if b.name in alias:
            _check_alias(consumer.buffer(alias[b.name]), consumer, b, nest)
            buffers[b.name] = alias[b.name]
        elif b.name not in buffers:
            buffers[b.name] = names.claim(b.name, f"{buffer}_{b.name}")
    sizes = dict(consumer.sizes)
    replaced: dict[str, Index] = {}
    # the axes of the tensor between the two have a name on each side; the consumer's is kept
    read = consumer.buffer(buffer).extents
    for mine, theirs in zip(producer.output.extents, read, strict=True):
        if isinstance(mine, Size) and isinstance(theirs, (Size, Int)):
            replaced.setdefault(mine.name, theirs)
    for name, value in nest.sizes.items():
        if name in replaced:
            continue
        new = name if sizes.get(name) == value else names.claim(name, f"{buffer}_{name}")
        replaced[name] = Size(new)
        sizes[new] = value
    names.take(names_of(nest))
    return _Merge(producer.renamed(buffers, replaced, sizes), buffers, sizes, names)


def _check_fit(consumer: Nest, buffer: str, producer: Producer) -> None:
    into = consumer.buffer(buffer)
    if into.role != "in":
        raise CompilerBug("inline", buffer, "only an input can be replaced by its producer")
    read = [extent_of(e, consumer.sizes) for e in into.extents]
    written = [extent_of(e, producer.nest.sizes) for e in producer.output.extents]
    if read != written or into.dtype != producer.output.dtype:
        raise CompilerBug("inline", buffer, f"reads {read} of what was produced as {written}")
    if any(isinstance(i, Fetch) and i.buffer == buffer for i in indices(consumer.body)):
        raise CannotInline("the consumer uses the tensor as an index")


def _check_alias(theirs: Buffer, consumer: Nest, mine: Buffer, producer: Nest) -> None:
    a = [extent_of(e, consumer.sizes) for e in theirs.extents]
    b = [extent_of(e, producer.sizes) for e in mine.extents]
    if a != b or theirs.dtype != mine.dtype or (theirs.role, mine.role) != ("in", "in"):
        raise CompilerBug("inline", mine.name, f"is not the tensor of {theirs.name}: {b} and {a}")


def _merged_buffers(consumer: Nest, buffer: str, merge: _Merge, keep: bool) -> tuple[Buffer, ...]:
    others = {b.name for b in consumer.buffers if b.name != buffer}
    inputs = [b for b in merge.producer.nest.buffers if b.role == "in"]
    merged: list[Buffer] = []
    for b in consumer.buffers:
        if b.name == buffer:
            merged += [mine for mine in inputs if mine.name not in others]
        else:
            merged.append(b)
    if keep:
        merged.append(replace(consumer.buffer(buffer), role="out"))
    return tuple(merged)


def _pruned(nest: Nest) -> Nest:
    """Without the sizes that nothing mentions any more."""
    used = {i.name for i in indices(nest.body) if isinstance(i, Size)}
    for b in nest.buffers:
        used |= {i.name for e in b.extents for i in subindices(e) if isinstance(i, Size)}
    return replace(nest, sizes={name: e for name, e in nest.sizes.items() if name in used})


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

    def __init__(self, consumer: Nest, buffer: str, merge: _Merge, keep: bool) -> None:
        self.buffer = buffer
        self.axes = consumer.buffer(buffer).extents
        self.merge = merge
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
            body, value = self.merge.producer.element(v.index, self.merge.names)
            before += [*body, Let(name, value)]
            if self.keep:
                self.check_once(v, scope)
                before.append(Store(self.buffer, v.index, Ref(name)))
            return name
        if self.keep:
            raise CannotInline("the consumer reads the tensor under a condition")
        before.append(Let(name, Lit(0.0 if v.outside is None else v.outside)))
        for case in cases:
            body, value = self.merge.producer.element(v.index, self.merge.names)
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
