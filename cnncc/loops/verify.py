"""The verifier of the loop IR: names, buffers, independence of parallel loops, and bounds.

Every rewriting of nests is followed by `verify`. Bounds are proved by interval arithmetic: each
index of each access gets an interval that lies in the buffer's axis. Where sizes are symbolic,
proofs hold for all values of the symbols; what can only be shown for given numbers is left to a
second call with these numbers. `bounds` lists the proofs, as a certificate that can be read and
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cnncc.errors import CompilerBug
from cnncc.loops.affine import extent_of, linear
from cnncc.loops.build import BATCH
from cnncc.loops.ir import (
    Accumulate,
    AsFloat,
    Assign,
    Barrier,
    Body,
    Both,
    Buffer,
    Choose,
    Condition,
    Div,
    Fetch,
    For,
    Guard,
    Index,
    Kind,
    Let,
    Lit,
    Load,
    Mod,
    Nest,
    Prim,
    Ref,
    Size,
    Statement,
    Store,
    Test,
    Uniform,
    Value,
    Var,
)
from cnncc.loops.ranges import Range, Scope, at_least, nonnegative
from cnncc.loops.text import print_access, print_statement
from cnncc.loops.walk import subindices
from cnncc.tensor import Extent, symbols

__all__ = ["Proof", "bounds", "verify"]


@dataclass(frozen=True)
class Proof:
    """One access: per axis the range of its index, which must lie in [0, extent - 1].

    `assumed`: an index comes from an integer buffer, whose content the caller checks.
    """

    access: str
    ranges: tuple[Range, ...]
    extents: tuple[Extent, ...]
    assumed: tuple[bool, ...]

    @property
    def failing(self) -> int | None:
        """The first axis whose index is not shown to be inside."""
        for axis, (r, extent) in enumerate(zip(self.ranges, self.extents, strict=True)):
            inside = at_least(r.lo, 0) and r.hi is not None and nonnegative(extent - 1 - r.hi)
            if not inside and not self.assumed[axis]:
                return axis
        return None

    @property
    def holds(self) -> bool:
        return self.failing is None

    def __str__(self) -> str:
        parts = [
            f"a number below {e} in the data" if assumed else f"{r} in [0, {e - 1}]"
            for r, e, assumed in zip(self.ranges, self.extents, self.assumed, strict=True)
        ]
        return f"{self.access}: {', '.join(parts)}"


def verify(nest: Nest, sizes: Mapping[str, int] | None = None) -> None:
    """Raise CompilerBug, with the statement and the interval, where a nest is not valid.

    `sizes` are the numbers of one use. Without them the extents in `nest.sizes` count. An access
    that is not proved for every batch size is an error, unless its proof has another symbol.
    """
    known: Mapping[str, Extent] = nest.sizes if sizes is None else sizes
    check = _Checker(nest, known)
    check.nest()
    free = {name for e in known.values() for name in symbols(e)} - symbols(BATCH)
    for proof in check.proofs:
        axis = proof.failing
        if axis is None:
            continue
        r, extent = proof.ranges[axis], proof.extents[axis]
        if r.lo is None or r.hi is None:
            undecided = bool(free)
        else:
            undecided = bool(free & (symbols(r.lo) | symbols(r.hi) | symbols(extent)))
        if not undecided:
            raise _bug(proof.access, f"index {axis} is in {r}, the axis is [0, {extent - 1}]")


def bounds(nest: Nest, sizes: Mapping[str, int] | None = None) -> list[Proof]:
    """Every access of a nest that must be in range, as in the text, with its intervals."""
    check = _Checker(nest, nest.sizes if sizes is None else sizes)
    check.nest()
    return check.proofs


def _bug(node: str, invariant: str) -> CompilerBug:
    return CompilerBug("verifying loops", node, invariant)


@dataclass(frozen=True)
class _Place:
    """What surrounds a statement."""

    scope: Scope
    parallel: tuple[str, ...] = ()  # variables of the loops around that are not SERIAL
    tested: frozenset[str] = frozenset()  # variables that a Guard around mentions
    top: bool = True


class _Checker:
    """One walk over a nest."""

    def __init__(self, nest: Nest, sizes: Mapping[str, Extent]) -> None:
        self.of = nest
        self.sizes = sizes
        self.buffers: dict[str, Buffer] = {}
        self.locals: dict[str, int] = {}  # visible locals: how many parallel loops are around each
        self.stored: set[str] = set()
        self.proofs: list[Proof] = []

    def nest(self) -> None:
        missing = set(self.of.sizes) - set(self.sizes)
        if missing:
            raise _bug("sizes", f"no value for {', '.join(sorted(missing))}")
        for b in self.of.buffers:
            if b.name in self.buffers:
                raise _bug(b.name, "two buffers of one name")
            if b.role not in ("in", "out"):
                raise _bug(b.name, f"no such role: {b.role}")
            self.buffers[b.name] = b
            for e in b.extents:
                self.sizes_known(e, b.name)
                if extent_of(e, self.sizes) is None:
                    raise _bug(b.name, "an extent depends on more than sizes")
        self.body(self.of.body, _Place(Scope(self.sizes)))

    # Statements

    def body(self, body: Body, place: _Place) -> None:
        for s in body:
            self.statement(s, place)
        for s in body:
            if isinstance(s, Let):
                del self.locals[s.name]

    def statement(self, s: Statement, place: _Place) -> None:
        inner = replace(place, top=False)
        match s:
            case For(var, extent, kind, body):
                self.index(extent, place, s)
                if var in place.scope.variables:
                    raise _bug(var, "a loop variable is introduced where it is already visible")
                if kind is not Kind.SERIAL:
                    inner = replace(inner, parallel=(*place.parallel, var))
                self.body(body, replace(inner, scope=place.scope.inside(var, extent)))
            case Guard(condition, body):
                self.condition(condition, place, s)
                tested = place.tested | _equal_variables(condition)
                scope = place.scope.where(condition)
                self.body(body, replace(inner, scope=scope, tested=tested))
            case Let(name, value):
                self.value(value, place, s)
                if name in self.locals:
                    raise _bug(name, "a local is introduced where it is already visible")
                self.locals[name] = len(place.parallel)
            case Assign(name, value):
                self.value(value, place, s)
                if name not in self.locals:
                    raise _bug(print_statement(s), "Assign to a local that is not visible")
                if self.locals[name] != len(place.parallel):
                    raise _bug(print_statement(s), "parallel iterations assign to one local")
            case Store(buffer, index, value) | Accumulate(buffer, index, value):
                self.value(value, place, s)
                self.write(s, buffer, index, place)
            case Barrier():
                if not place.top:
                    raise _bug("barrier", "only at the top level of a nest")

    def write(
        self, s: Store | Accumulate, buffer: str, index: tuple[Index, ...], place: _Place
    ) -> None:
        self.access(buffer, index, place, s, print_access(buffer, index))
        if self.buffers[buffer].role != "out":
            raise _bug(print_statement(s), f"{buffer} is an input")
        left = {
            var
            for var in set(place.parallel) - _determined(index, place.scope)
            if place.scope.variables[var].hi != 0 and var not in place.tested
        }
        used = {i.name for part in index for i in subindices(part) if isinstance(i, Var)}
        if isinstance(s, Store):
            self.stored.add(buffer)
            left -= used  # they may be independent all the same
        elif buffer not in self.stored:
            raise _bug(print_statement(s), f"{buffer} was not stored before")
        if left:
            raise _bug(
                print_statement(s),
                f"iterations of the parallel loop {', '.join(sorted(left))} write one address",
            )

    # Expressions

    def value(self, v: Value, place: _Place, s: Statement) -> None:
        match v:
            case Lit():
                return
            case Ref(name):
                if name not in self.locals:
                    raise _bug(print_statement(s), f"the local {name} is not visible")
            case Load(buffer, index, None):
                self.access(buffer, index, place, s, print_access(buffer, index))
            case Load(buffer, index, _):
                self.known_buffer(buffer, index, s)
                for i in index:
                    self.index(i, place, s)
            case AsFloat(i):
                self.index(i, place, s)
            case Uniform(key, counter):
                self.index(key, place, s)
                self.index(counter, place, s)
            case Prim(_, args):
                for a in args:
                    self.value(a, place, s)
            case Choose(c, a, b):
                self.condition(c, place, s)
                self.value(a, replace(place, scope=place.scope.where(c)), s)
                self.value(b, replace(place, scope=place.scope.where(c, holds=False)), s)

    def condition(self, c: Condition, place: _Place, s: Statement) -> None:
        match c:
            case Test(op, a, b):
                if op not in ("<", "<=", "==", "!="):
                    raise _bug(print_statement(s), f"no such test: {op}")
                self.index(a, place, s)
                self.index(b, place, s)
            case Both(a, b):
                self.condition(a, place, s)
                self.condition(b, replace(place, scope=place.scope.where(a)), s)

    def index(self, i: Index, place: _Place, s: Statement) -> None:
        """Names are visible, divisors positive, and integer buffers are read in range."""
        self.sizes_known(i, print_statement(s))
        for part in subindices(i):
            match part:
                case Var(name) if name not in place.scope.variables:
                    raise _bug(print_statement(s), f"the loop variable {name} is not visible")
                case Fetch(buffer, index):
                    self.access(buffer, index, place, s, print_access(buffer, index))
                    if not self.buffers[buffer].dtype.is_integer:
                        raise _bug(print_statement(s), f"{buffer} does not hold integers")
                case Div(_, b) | Mod(_, b):
                    lo = place.scope.narrowed(b + (-1), 0).lo
                    if isinstance(lo, int) and lo < 0:
                        raise _bug(print_statement(s), f"a divisor may be {lo + 1}")
                case _:
                    pass

    def sizes_known(self, i: Index, where: str) -> None:
        for part in subindices(i):
            if isinstance(part, Size) and part.name not in self.sizes:
                raise _bug(where, f"there is no size {part.name}")

    def known_buffer(self, buffer: str, index: tuple[Index, ...], s: Statement) -> Buffer:
        if buffer not in self.buffers:
            raise _bug(print_statement(s), f"there is no buffer {buffer}")
        b = self.buffers[buffer]
        if len(index) != len(b.extents):
            raise _bug(
                print_statement(s),
                f"{len(index)} indices for the {len(b.extents)} axes of {buffer}",
            )
        return b

    def access(
        self, buffer: str, index: tuple[Index, ...], place: _Place, s: Statement, text: str
    ) -> None:
        b = self.known_buffer(buffer, index, s)
        extents = []
        ranges = []
        for i, e in zip(index, b.extents, strict=True):
            self.index(i, place, s)
            extent = extent_of(e, self.sizes)
            assert extent is not None, "checked with the buffers"
            extents.append(extent)
            ranges.append(place.scope.narrowed(i, extent - 1))
        assumed = tuple(isinstance(i, Fetch) for i in index)
        self.proofs.append(Proof(text, tuple(ranges), tuple(extents), assumed))


def _equal_variables(c: Condition) -> frozenset[str]:
    """Variables that a condition compares for equality: it may leave one iteration."""
    match c:
        case Both(a, b):
            return _equal_variables(a) | _equal_variables(b)
        case Test("==", a, b):
            parts = (*subindices(a), *subindices(b))
            return frozenset(i.name for i in parts if isinstance(i, Var))
        case _:
            return frozenset()


def _determined(index: tuple[Index, ...], scope: Scope) -> set[str]:
    """Variables whose values follow from the value of the indices.

    A variable follows when its coefficient is larger than all that smaller ones can add up to; what
    follows is known in the other indices.
    """
    known: set[str] = set()
    sums = [linear(i, scope.sizes).terms for i in index]
    changed = True
    while changed:
        changed = False
        for terms in sums:
            for var in _leading(terms, known, scope):
                known.add(var)
                changed = True
    return known


def _leading(terms: Mapping[Index, Extent], known: set[str], scope: Scope) -> Iterator[str]:
    """The variables of a sum that can be read off it, from the largest coefficient down."""
    left: dict[str, Extent] = {}
    for atom, c in terms.items():
        if isinstance(atom, Var):
            if atom.name not in known:
                left[atom.name] = c
        elif any(isinstance(i, Var) and i.name not in known for i in subindices(atom)):
            return  # something unknown that is not affine
    while left:
        var = next((v for v in left if _dominates(v, left, scope)), None)
        if var is None:
            return
        del left[var]
        yield var


def _dominates(var: str, terms: Mapping[str, Extent], scope: Scope) -> bool:
    rest: Extent = 0
    for other, c in terms.items():
        if other == var:
            continue
        span = scope.variables[other].hi
        if span is None:
            return False
        size = c if nonnegative(c) else -c
        if not nonnegative(size):
            return False
        rest = rest + size * span
    own = terms[var]
    return nonnegative(own - rest - 1) or nonnegative(-own - rest - 1)
