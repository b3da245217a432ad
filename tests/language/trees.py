"""Random trees of the language, for tests that hold for every tree."""

from __future__ import annotations

from hypothesis import strategies as st

from cnncc.syntax import tree as t
from cnncc.syntax.grammar import grammar

RESERVED = frozenset(grammar().keywords)

identifiers = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,9}", fullmatch=True).filter(
    lambda word: word not in RESERVED
)
labels = st.one_of(identifiers, st.sampled_from(["weights", "input", "target", "if"]))
integers = st.integers(0, 10**18 - 1).map(t.Int)
floats = st.floats(0, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(t.Float)
sizes = st.lists(st.integers(1, 99), min_size=2, max_size=3).map(lambda e: t.Size(tuple(e)))
names = identifiers.map(t.Name)
leaves = st.one_of(integers, floats, st.booleans().map(t.Bool), sizes, names)
operators = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or"]
)


@st.composite
def argument_lists(draw: st.DrawFn, values: st.SearchStrategy[t.Expr]) -> tuple[t.Argument, ...]:
    by_position = draw(st.lists(values, max_size=3))
    by_name = draw(st.lists(labels, max_size=2, unique=True))
    given = [t.Argument(None, value) for value in by_position]
    return tuple(given + [t.Argument(name, draw(values)) for name in by_name])


def calls(values: st.SearchStrategy[t.Expr]) -> st.SearchStrategy[t.Call]:
    return st.builds(t.Call, identifiers, argument_lists(values))


def _pipeline(head: t.Expr, stages: list[t.Call]) -> t.Expr:
    if isinstance(head, t.Pipeline):
        return t.Pipeline(head.head, (*head.stages, *stages))
    return t.Pipeline(head, tuple(stages))


def _larger(inner: st.SearchStrategy[t.Expr]) -> st.SearchStrategy[t.Expr]:
    some = st.lists(inner, min_size=1, max_size=4).map(tuple)
    return st.one_of(
        calls(inner),
        st.builds(_pipeline, inner, st.lists(calls(inner), min_size=1, max_size=5)),
        st.builds(t.Binary, operators, inner, inner),
        st.builds(t.Unary, st.sampled_from(["-", "not"]), inner),
        st.builds(t.If, inner, inner, inner),
        some.map(t.Tuple),
        st.lists(inner, max_size=4).map(lambda e: t.List(tuple(e))),
    )


expressions: st.SearchStrategy[t.Expr] = st.recursive(leaves, _larger, max_leaves=14)
types = st.builds(t.TypeExpr, identifiers, st.lists(expressions, max_size=3).map(tuple))
some_names = st.lists(names, min_size=1, max_size=4).map(tuple)

_anywhere = [
    st.builds(t.Assign, identifiers, expressions),
    st.builds(t.Weights, some_names),
    st.builds(t.Expect, st.lists(expressions, min_size=1, max_size=3).map(tuple)),
    st.builds(t.Require, st.lists(calls(names), min_size=1, max_size=2).map(tuple)),
    st.builds(t.NoFuse, some_names),
]


def _with_repeats(inner: st.SearchStrategy[t.Statement]) -> st.SearchStrategy[t.Statement]:
    bodies = st.lists(inner, max_size=3).map(tuple)
    return st.builds(t.Repeat, st.one_of(st.none(), identifiers), expressions, bodies)


inside_repeat = st.recursive(st.one_of(*_anywhere), _with_repeats, max_leaves=4)
defaults = st.builds(t.Default, identifiers, expressions)
net_statements = st.one_of(
    inside_repeat,
    defaults,
    st.builds(t.Input, identifiers, types, argument_lists(expressions)),
    st.builds(t.Output, st.one_of(st.none(), identifiers), expressions),
)
train_statements = st.one_of(
    st.builds(t.Assign, identifiers, expressions), st.builds(t.Target, identifiers, types)
)


@st.composite
def parameter_lists(draw: st.DrawFn) -> tuple[t.Parameter, ...]:
    words = draw(st.lists(identifiers, max_size=4, unique=True))
    needed = draw(st.integers(0, len(words)))
    return tuple(
        t.Parameter(word, None if index < needed else draw(expressions))
        for index, word in enumerate(words)
    )


def _block(name: str, given: tuple[t.Parameter, ...], body: list[t.Statement], value: t.Expr):
    return t.Block(name, given, (*body, t.Return(value)))


block_bodies = st.lists(st.one_of(inside_repeat, defaults), max_size=3)
paths = st.from_regex(r"[a-z/._ ]{1,12}", fullmatch=True)
items = st.one_of(
    paths.map(t.Import),
    st.builds(
        t.Net, identifiers, parameter_lists(), st.lists(net_statements, max_size=5).map(tuple)
    ),
    st.builds(_block, identifiers, parameter_lists(), block_bodies, expressions),
    st.builds(t.Train, identifiers, st.lists(train_statements, max_size=4).map(tuple)),
    st.builds(t.Table, identifiers, st.lists(expressions, max_size=4).map(tuple)),
)
files = st.lists(items, max_size=4).map(lambda parts: t.File(tuple(parts)))
