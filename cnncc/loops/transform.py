"""Schedule transformations: each keeps the nest's meaning and its bits.

    parallel_loops / around   take the PARALLEL loops off a nest's body and put others on
    lift                      give every load below an operation a name of its own, so that copies
        can share it
    jam                       unroll an independent loop and interleave its copies statement by
        statement

`jam` is what makes a register tile: the copies of `acc = fma(x, w, acc)` for several outputs end up
next to each other inside one loop over the reduction, where a load that does not depend on the
unrolled variable stands once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cnncc.errors import CompilerBug
from cnncc.loops.ir import (
    Accumulate,
    Assign,
    Barrier,
    Body,
    Choose,
    Fetch,
    For,
    Guard,
    Index,
    Kind,
    Let,
    Load,
    Nest,
    Ref,
    Rewrite,
    Statement,
    Store,
    Value,
    Var,
    condition_indices,
    statements,
    subindices,
    substitute,
    subvalues,
)
from cnncc.loops.walk import Names, indices, names_of, value_indices, values


def parallel_loops(nest: Nest) -> tuple[dict[str, Index], Body]:
    """The perfectly nested PARALLEL loops of a nest, outermost first, and the body inside them."""
    loops: dict[str, Index] = {}
    body = nest.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].kind is Kind.PARALLEL:
        loops[body[0].var] = body[0].extent
        body = body[0].body
    return loops, body


def accesses(body: Body) -> Iterator[tuple[str, tuple[Index, ...]]]:
    """Every buffer access of a body: loads, stores, accumulations and fetches."""
    for s in statements(body):
        if isinstance(s, (Store, Accumulate)):
            yield s.buffer, s.index
    for v in values(body):
        if isinstance(v, Load):
            yield v.buffer, v.index
    for i in indices(body):
        if isinstance(i, Fetch):
            yield i.buffer, i.index


# --- lift ---


def lift(nest: Nest) -> Nest:
    """Every Load that is an operand becomes a Let in front of its statement.

    Loads below a Choose stay where they are: only one of its sides may be in bounds.
    """
    names = Names(names_of(nest))
    return nest.with_body(_lift(nest.body, names))


def _lift(body: Body, names: Names) -> Body:
    out: list[Statement] = []
    for s in body:
        match s:
            case For(_, _, _, inner) | Guard(_, inner):
                out.append(replace(s, body=_lift(inner, names)))
            case Let(_, Load()):
                out.append(s)
            case Let() | Assign() | Store() | Accumulate():
                known: dict[Load, str] = {}

                def value(v: Value, known: dict[Load, str] = known) -> Value | None:
                    if not isinstance(v, Load):
                        return v if isinstance(v, Choose) else None
                    if v not in known:
                        known[v] = names.fresh(f"{v.buffer}_v")
                    return Ref(known[v])

                new = Rewrite(value=value).on_statement(s)
                out += [Let(name, load) for load, name in known.items()]
                out.append(new)
            case Barrier():
                out.append(s)
    return tuple(out)


# --- dependence ---


def _indices_of(s: Statement) -> Iterator[Index]:
    """The indices that a statement itself uses (not those of statements inside it)."""
    match s:
        case For(_, extent, _, _):
            yield from subindices(extent)
        case Guard(condition, _):
            for i in condition_indices(condition):
                yield from subindices(i)
        case Let(_, v) | Assign(_, v):
            yield from _value_indices(v)
        case Store(_, index, v) | Accumulate(_, index, v):
            for i in index:
                yield from subindices(i)
            yield from _value_indices(v)
        case Barrier():
            return


def _value_indices(v: Value) -> Iterator[Index]:
    for part in subvalues(v):
        for i in value_indices(part):
            yield from subindices(i)


def _refs_of(s: Statement) -> Iterator[str]:
    match s:
        case Let(_, v) | Assign(_, v) | Store(_, _, v) | Accumulate(_, _, v):
            for part in subvalues(v):
                if isinstance(part, Ref):
                    yield part.name
        case _:
            return


def dependents(body: Body, var: str) -> set[str]:
    """The locals whose value depends on a loop variable, directly or through other locals or
    guards.
    """
    found: set[str] = set()
    while True:
        before = len(found)
        _collect(body, var, found, False)
        if len(found) == before:
            return found


def _collect(body: Body, var: str, found: set[str], guarded: bool) -> None:
    for s in body:
        direct = guarded or Var(var) in set(_indices_of(s)) or any(r in found for r in _refs_of(s))
        match s:
            case Let(name, _) | Assign(name, _):
                if direct:
                    found.add(name)
            case For(_, _, _, inner):
                _collect(inner, var, found, guarded or Var(var) in set(_indices_of(s)))
            case Guard(_, inner):
                _collect(inner, var, found, direct)
            case _:
                pass


def depends(s: Statement, var: str, found: set[str]) -> bool:
    """Whether a statement, or one inside it, differs between the iterations of `var`."""
    return any(
        Var(var) in set(_indices_of(t))
        or any(r in found for r in _refs_of(t))
        or (isinstance(t, (Let, Assign)) and t.name in found)
        for t in statements((s,))
    )


# --- jam ---


def jam(body: Body, var: str, copies: Sequence[Index]) -> Body:
    """The body once per copy, `var` replaced by the copy's index, interleaved.

    Requires that iterations of `var` are independent (a PARALLEL axis). What does not depend on
    `var` stands once, in front of the copies of its run of statements; serial loops whose extent
    does not depend on it contain all copies.
    """
    if len(copies) == 1:
        return substitute(body, {var: copies[0]})
    found = dependents(body, var)
    joint = "_"
    while any(name.startswith(f"{f}{joint}") for f in found for name in _locals(body)):
        joint += "_"  # the copies' names are new
    return _jam(body, var, tuple(copies), found, joint)


def _locals(body: Body) -> set[str]:
    return {s.name for s in statements(body) if isinstance(s, Let)}


def _jam(body: Body, var: str, copies: tuple[Index, ...], found: set[str], joint: str) -> Body:
    out: list[Statement] = []
    run: list[Statement] = []  # dependent statements that are to be interleaved

    def flush() -> None:
        for number, index in enumerate(copies):
            names = {name: f"{name}{joint}{number}" for name in found}
            out.extend(substitute(tuple(run), {var: index}, lambda n, names=names: names.get(n, n)))  # type: ignore[misc]
        run.clear()

    for s in body:
        if not depends(s, var, found):
            if not isinstance(s, Let):
                flush()  # it may change or read what the copies before it did
            out.append(s)
        elif isinstance(s, (For, Guard)) and not _varies(s, var, found):
            flush()
            out.append(replace(s, body=_jam(s.body, var, copies, found, joint)))
        else:
            run.append(s)
    flush()
    return tuple(out)


def _varies(s: For | Guard, var: str, found: set[str]) -> bool:
    """Whether the loop's extent or the guard's condition differs between the copies."""
    if isinstance(s, For) and s.kind is not Kind.SERIAL:
        raise CompilerBug("jam", s.var, "only serial loops are left inside a tile")
    return Var(var) in set(_indices_of(s))
