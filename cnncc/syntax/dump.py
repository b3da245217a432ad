"""The tree of a file as text for people: one node a line, with its place and its plain fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from cnncc.syntax.tree import Node


def dump(node: Node) -> str:
    """The tree as indented text: one node a line, with its place and its plain fields."""
    return "\n".join(_lines(node, "")) + "\n"


def _lines(node: Node, indent: str) -> Iterator[str]:
    values = {f.name: getattr(node, f.name) for f in fields(node) if f.compare}
    place = f" @{node.span.line}:{node.span.column}" if node.span.known else ""
    nested = {n: v for n, v in values.items() if isinstance(v, Node) or _holds_nodes(v)}
    plain = "".join(f" {n}={v!r}" for n, v in values.items() if n not in nested)
    yield f"{indent}{type(node).__name__}{place}{plain}"
    for name, value in nested.items():
        if value:
            yield f"{indent}  {name}"
        for child in value if isinstance(value, tuple) else (value,):
            yield from _lines(child, indent + "    ")


def _holds_nodes(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, Node) for v in value)
