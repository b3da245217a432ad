"""Rules about a file that hold whether or not its blocks are used: a name gets one value in a body,
a block does not take the name of an operator, and a `train` block names a net of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnncc.errors import Note, Span, did_you_mean
from cnncc.graph.faults import Faults
from cnncc.graph.imports import Program
from cnncc.syntax import tree as t


def check_declarations(program: Program, faults: Faults) -> None:
    """Report every broken rule of every file."""
    for unit in program.units:
        for item in unit.tree.items:
            if isinstance(item, t.Net | t.Block):
                parameters = [(p.name, p.span) for p in item.parameters]
                _check_body(item.body, parameters, faults)
            elif isinstance(item, t.Train):
                _check_body(item.body, [], faults)
        _check_trains(unit.tree, faults)


def _check_body(
    body: Sequence[t.Statement], before: Sequence[tuple[str, Span]], faults: Faults
) -> None:
    """A name has one value in a body; a `repeat` in it may set the names around it anew."""
    seen = dict(before)
    for name, span in _names(body):
        if name in seen:
            faults.error(
                "E0305",
                f"`{name}` has a value already",
                span,
                notes=(Note("it is set first here", seen[name]),),
                helps=("give this one a name of its own",),
            )
        seen.setdefault(name, span)
    for statement in body:
        if isinstance(statement, t.Repeat):
            index = [(statement.index, statement.index_span)] if statement.index else []
            _check_body(statement.body, index, faults)


def _names(body: Sequence[t.Statement]) -> Iterator[tuple[str, Span]]:
    for s in body:
        match s:
            case t.Assign() | t.Input() | t.Target():
                yield s.name, s.name_span if s.name_span.known else s.span
            case t.Output(name=str(name)):
                yield name, s.name_span if s.name_span.known else s.span
            case t.Weights():
                yield from ((n.name, n.span) for n in s.names)


def _check_trains(file: t.File, faults: Faults) -> None:
    nets = [net.name for net in file.nets]
    seen: dict[str, Span] = {}
    for train in file.trains:
        span = train.net_span if train.net_span.known else train.span
        if train.net not in nets:
            helps = [f"did you mean `{n}`?" for n in did_you_mean(train.net, nets)]
            faults.error("E0301", f"this file has no net `{train.net}`", span, helps=helps)
        elif train.net in seen:
            faults.error(
                "E0305",
                f"the net `{train.net}` has two `train` blocks",
                span,
                notes=(Note("the other one", seen[train.net]),),
            )
        seen.setdefault(train.net, span)
