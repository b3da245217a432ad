"""Rules about a tree that a grammar says badly: which statement may stand where, arguments by
position before those by name, nothing named twice in one list, no reserved word as a parameter.
They are checked here so that their messages can speak of nets and blocks instead of words."""

from __future__ import annotations

from collections.abc import Iterable

from cnncc.errors import Diagnostics, Note, Span
from cnncc.syntax import tree as t
from cnncc.syntax.grammar import grammar

_ALLOWED: dict[type[t.Node], tuple[type[t.Node], ...]] = {
    t.Net: (
        t.Default, t.Input, t.Assign, t.Output, t.Weights, t.Repeat, t.Expect, t.Require, t.NoFuse,
    ),
    t.Block: (t.Default, t.Assign, t.Weights, t.Repeat, t.Expect, t.Require, t.NoFuse, t.Return),
    t.Repeat: (t.Assign, t.Weights, t.Repeat, t.Expect, t.Require, t.NoFuse),
    t.Train: (t.Target, t.Assign),
}  # fmt: skip

_WORDS: dict[type[t.Node], str] = {
    t.Default: "default",
    t.Input: "input",
    t.Assign: "an assignment",
    t.Output: "output",
    t.Weights: "weights",
    t.Repeat: "repeat",
    t.Expect: "expect",
    t.Require: "require",
    t.NoFuse: "nofuse",
    t.Target: "target",
    t.Return: "return",
}

_ADVICE: dict[tuple[type[t.Node], type[t.Node]], str] = {
    (t.Net, t.Return): "a net names its results with `output`",
    (t.Net, t.Target): "targets belong in `train NAME { ... }`, beside the net",
    (t.Block, t.Input): "a block takes its inputs as parameters: block name(x, width) { ... }",
    (t.Block, t.Output): "a block hands its result back with `return`",
    (t.Repeat, t.Output): "put it after the repeat; names set inside keep their last value",
    (t.Repeat, t.Return): "put it after the repeat; names set inside keep their last value",
    (t.Train, t.Input): "in `train`, what the loss compares with is declared by `target`",
}


def check_placement(file: t.File, found: Diagnostics) -> None:
    """Add a diagnostic for every misplaced statement, argument or name of the file.

    What a file lacks is looked for only when nothing else is wrong: after a mistake the part that
    would be missed may be the part that could not be read.
    """
    complete = not found
    # Where a bracket is missing, nothing is known about what belongs to which body.
    whole = all(diagnostic.code != "E0109" for diagnostic in found)
    for item in file.items:
        if isinstance(item, t.Import | t.Table):
            continue
        if whole:
            _check_body(item, item.body, found)
        if not isinstance(item, t.Train):
            _check_parameters(item.parameters, found)
        if isinstance(item, t.Block):
            _check_return(item, found, complete)
    for node in t.walk(file):
        if isinstance(node, t.Call | t.Input):
            _check_arguments(node.arguments, found)


def _check_body(
    owner: t.Net | t.Block | t.Train | t.Repeat, body: tuple[t.Statement, ...], found: Diagnostics
) -> None:
    where = "train block" if isinstance(owner, t.Train) else type(owner).__name__.lower()
    for statement in body:
        kind = type(statement)
        if kind not in _ALLOWED[type(owner)]:
            advice = _ADVICE.get((type(owner), kind), "")
            found.error(
                "E0112",
                f"`{_WORDS[kind]}` has no meaning in a {where}",
                _first_word(statement),
                label=f"not allowed in a {where}",
                helps=(advice,) if advice else (),
            )
        if isinstance(statement, t.Repeat):
            _check_body(statement, statement.body, found)


def _first_word(statement: t.Statement) -> Span:
    span = statement.span
    return Span(span.source, span.start, span.start + len(_WORDS[type(statement)]))


def _check_return(block: t.Block, found: Diagnostics, complete: bool) -> None:
    returns = [s for s in block.body if isinstance(s, t.Return)]
    if not returns and complete:
        found.error(
            "E0112",
            f"the block `{block.name}` returns nothing",
            block.name_span,
            helps=("end the block with `return` and the value it hands back",),
        )
    for statement in returns:
        if statement is not block.body[-1]:
            found.error(
                "E0112",
                "`return` is the last statement of a block, but something follows this one",
                _first_word(statement),
            )


def _check_parameters(parameters: tuple[t.Parameter, ...], found: Diagnostics) -> None:
    _check_repetition("parameter", ((p.name, p.name_span) for p in parameters), found)
    reserved = grammar().keywords
    optional = False
    for parameter in parameters:
        if parameter.name in reserved:
            found.error(
                "E0111",
                f"`{parameter.name}` is a reserved word and cannot name a parameter",
                parameter.name_span,
            )
        if parameter.default is None and optional:
            found.error(
                "E0113",
                f"parameters with a default come last, but `{parameter.name}` has none",
                parameter.name_span,
                helps=(f"give `{parameter.name}` a default or move it to the front",),
            )
        optional = optional or parameter.default is not None


def _check_arguments(arguments: tuple[t.Argument, ...], found: Diagnostics) -> None:
    named = [(a.name, a.name_span) for a in arguments if a.name is not None]
    _check_repetition("argument", named, found)
    by_name: t.Argument | None = None
    for argument in arguments:
        if argument.name is not None:
            by_name = argument
        elif by_name is not None:
            found.error(
                "E0113",
                "arguments by position come before arguments by name",
                argument.span,
                label="this one has no name",
                notes=(Note(f"`{by_name.name}` is given by name here", by_name.span),),
                helps=("give this argument a name too, or move it to the front",),
            )


def _check_repetition(what: str, names: Iterable[tuple[str, Span]], found: Diagnostics) -> None:
    seen: dict[str, Span] = {}
    for name, span in names:
        if name in seen:
            found.error(
                "E0305",
                f"the {what} `{name}` is given twice",
                span,
                notes=(Note("it is given first here", seen[name]),),
            )
        seen.setdefault(name, span)
