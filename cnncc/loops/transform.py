"""Schedule transformations: each keeps the nest's meaning and its bits.

parallel_loops   take the PARALLEL loops off a nest's body
in_order         make parallel loops below other statements serial
lift             give every load below an operation a name of its own
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
    Statement,
    Store,
    Value,
)
from cnncc.loops.rewrite import Rewrite
from cnncc.loops.walk import Names, indices, names_of, statements, values


def parallel_loops(nest: Nest) -> tuple[dict[str, Index], Body]:
    """The perfectly nested PARALLEL loops of a nest, outermost first, and the body inside them."""
    loops: dict[str, Index] = {}
    body = nest.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].kind is Kind.PARALLEL:
        loops[body[0].var] = body[0].extent
        body = body[0].body
    return loops, body


def accesses(body: Body, *, fetches: bool = True) -> Iterator[tuple[str, tuple[Index, ...]]]:
    """Every buffer access of a body: loads, stores, accumulations and, unless they are known not
    to be there, fetches.
    """
    for s in statements(body):
        if isinstance(s, (Store, Accumulate)):
            yield s.buffer, s.index
    for v in values(body):
        if isinstance(v, Load):
            yield v.buffer, v.index
    for i in indices(body) if fetches else ():
        if isinstance(i, Fetch):
            yield i.buffer, i.index


# --- in order ---


def in_order(s: Statement, perfect: bool = True) -> Statement:
    """Parallel loops below other statements run in order. `perfect`: there are none around it."""
    if not isinstance(s, (For, Guard)):
        return s
    perfect = perfect and isinstance(s, For) and s.kind is Kind.PARALLEL
    inner = tuple(in_order(t, perfect and len(s.body) == 1) for t in s.body)
    if isinstance(s, For) and not perfect:
        return replace(s, kind=Kind.SERIAL, body=inner)
    return replace(s, body=inner)


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
