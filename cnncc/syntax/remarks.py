"""Finds for every comment inside a statement the place that it is about. A comment behind an
element of a list, a stage of a pipeline or an operand stays behind it; one on a line of its own
stays before what follows; any other goes above the whole statement."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from cnncc.syntax import tree as t


@dataclass
class Remarks:
    """Comments of one statement: by the node they stand before or behind (nodes are told apart by
    identity), after the last element of a list, and above the statement."""

    above: list[str] = field(default_factory=list)
    before: dict[int, list[str]] = field(default_factory=dict)
    behind: dict[int, list[str]] = field(default_factory=dict)
    last: dict[int, list[str]] = field(default_factory=dict)


def sequence(node: t.Node) -> tuple[t.Node, ...]:
    """The parts of a node between which comments have a place of their own."""
    match node:
        case t.Call() | t.Input():
            return node.arguments
        case t.Net() | t.Block():
            return node.parameters
        case t.Tuple() | t.List():
            return node.elements
        case t.Table():
            return node.rows
        case t.Pipeline():
            return (node.head, *node.stages)
        case t.Binary():
            return tuple(operands(node))
        case t.If():
            return (node.condition, node.then, node.otherwise)
        case t.TypeExpr():
            return node.extents
        case t.Expect():
            return node.conditions
        case t.Require():
            return node.facts
        case t.NoFuse() | t.Weights():
            return node.names
        case _:
            return ()


def operands(node: t.Binary) -> list[t.Expr]:
    """`a + b - c` as [a, b, c]: the operands of a chain of operators that bind alike."""
    chain: list[t.Expr] = [node.right]
    left = node.left
    while isinstance(left, t.Binary) and chains(left, node):
        chain.append(left.right)
        left = left.left
    return [left, *reversed(chain)]


def chains(left: t.Binary, node: t.Binary) -> bool:
    """True when `left` needs no parentheses before the operator of `node` and binds as tightly."""
    same = PRECEDENCE[left.operator] == PRECEDENCE[node.operator]
    return same and PRECEDENCE[node.operator] != PRECEDENCE["=="]


PRECEDENCE: dict[str, int] = {
    "or": 2,
    "and": 3,
    "not": 4,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 5),
    **dict.fromkeys(("+", "-"), 6),
    **dict.fromkeys(("*", "/", "//", "%"), 7),
}
"""How tightly each operator binds; an `if` has 0, a pipeline 1, a sign 8, anything else 9."""


def attach(statement: t.Node, comments: list[t.Comment]) -> Remarks:
    """The places of the comments that stand within a statement."""
    remarks = Remarks()
    # A list may have as many elements as comments, so what is under a node is looked up once.
    known: dict[int, tuple[tuple[t.Node, ...], tuple[t.Node, ...]]] = {}
    for comment in comments:
        path: list[tuple[t.Node, tuple[t.Node, ...]]] = []
        node: t.Node | None = statement
        while node is not None:
            if id(node) not in known:
                known[id(node)] = (_inner(node), sequence(node))
            path.append((node, known[id(node)][1]))
            node = _child_at(known[id(node)][0], comment.span.start)
        _attach(path, comment, remarks)
    return remarks


def _inner(node: t.Node) -> tuple[t.Node, ...]:
    """The nodes to look for a comment in: the operands of a chain rather than its inner nodes."""
    return sequence(node) if isinstance(node, _OF_PARTS) else tuple(t.children(node))


_OF_PARTS = t.Binary | t.Net | t.Block
_BRACKETED = t.Call | t.Tuple | t.List | t.TypeExpr | t.Input | t.Net | t.Block | t.Table


def _child_at(nodes: tuple[t.Node, ...], at: int) -> t.Node | None:
    index = bisect_right(nodes, at, key=_start) - 1
    return nodes[index] if index >= 0 and at < nodes[index].span.end else None


def _start(node: t.Node) -> int:
    return node.span.start


def _attach(
    path: list[tuple[t.Node, tuple[t.Node, ...]]], comment: t.Comment, remarks: Remarks
) -> None:
    """Keep a comment that stands in the last node of `path` but in none of its parts.

    Behind the last operand of `a + (b # so)` it stands at the end of the sum, which is where it is
    found when it is read again after the bracket: it belongs to whatever ends there.
    """
    at = comment.span.start
    for node, parts in reversed(path):
        split = bisect_right(parts, at, key=_start)
        earlier, later = parts[max(0, split - 1) : split], parts[split : split + 1]
        bracketed = isinstance(node, _BRACKETED)
        last = earlier[0] if earlier else None
        if not bracketed and not later:
            ending = last if parts else _last_before(node, at)
            if ending is not None and _same_line(ending, comment):
                continue
            remarks.above.append(comment.text)
        elif isinstance(node, t.Net | t.Block) and last is not None and _closed(last, comment):
            remarks.above.append(comment.text)
        elif last is not None and _same_line(last, comment):
            remarks.behind.setdefault(id(last), []).append(comment.text)
        elif later and (earlier or bracketed):
            remarks.before.setdefault(id(later[0]), []).append(comment.text)
        elif earlier:
            remarks.last.setdefault(id(node), []).append(comment.text)
        else:
            remarks.above.append(comment.text)
        return
    remarks.behind.setdefault(id(path[0][0]), []).append(comment.text)


def _last_before(node: t.Node, at: int) -> t.Node | None:
    """The last child that begins before an offset, when no child begins after it."""
    nodes = tuple(t.children(node))
    return nodes[-1] if nodes and nodes[-1].span.start <= at else None


def _between(node: t.Node, comment: t.Comment) -> str:
    return comment.span.source.text[node.span.end : comment.span.start]


def _same_line(node: t.Node, comment: t.Comment) -> bool:
    return "\n" not in _between(node, comment)


def _closed(parameter: t.Node, comment: t.Comment) -> bool:
    """True when the bracket around parameters ends before the comment."""
    return ")" in re.sub("#.*", "", _between(parameter, comment))
