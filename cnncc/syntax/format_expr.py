"""Expressions and statements as documents for layout.py: the canonical blanks, the fewest
parentheses, and where a line may be broken. A pipeline too long for one line is broken before every
operator that has arguments, its arrows one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from cnncc.syntax import tree as t
from cnncc.syntax.layout import (
    Align,
    Comment,
    Doc,
    Group,
    HardLine,
    Line,
    Nest,
    concat,
    join,
    lay_out,
)
from cnncc.syntax.remarks import PRECEDENCE, Remarks, chains, operands, sequence

STEP = 2
"""Columns of one level of indentation."""

_LONG_HEAD = 24
"""A pipeline whose first part is longer than this has its arrows below the statement instead."""


def precedence(node: t.Expr) -> int:
    """How tightly an expression binds, see remarks.PRECEDENCE."""
    match node:
        case t.If():
            return 0
        case t.Pipeline():
            return 1
        case t.Binary():
            return PRECEDENCE[node.operator]
        case t.Unary():
            return PRECEDENCE["not"] if node.operator == "not" else 8
        case _:
            return 9


class Writer:
    """Writes the nodes of one statement, with its comments."""

    def __init__(self, remarks: Remarks) -> None:
        self.remarks = remarks

    # --- statements ---

    def statement(self, node: t.Statement | t.Import | t.Table) -> Doc:
        """A statement; of a `repeat`, what stands before the bracket."""
        match node:
            case t.Import():
                return f'import "{node.path}"'
            case t.Table():
                rows = self.bracketed("{", node, self.elements(node.rows), "}", " ")
                return concat(f"table {node.name} ", rows)
            case t.Default():
                return concat(f"default {node.name} = ", self.expr(node.value))
            case t.Input():
                given = self.arguments(node)
                parts: Doc = concat(" ", given) if node.arguments else ""
                return concat(f"input {node.name}: ", self.type(node.type), parts)
            case t.Assign():
                return concat(f"{node.name} = ", self.expr(node.value))
            case t.Output():
                name = "" if node.name is None else f"{node.name} = "
                return concat(f"output {name}", self.expr(node.value))
            case t.Weights():
                return self.words("weights ", node, node.names)
            case t.Repeat():
                index = "" if node.index is None else f"{node.index} in "
                return concat(f"repeat {index}", self.expr(node.count))
            case t.Expect():
                return self.words("expect ", node, node.conditions)
            case t.Require():
                return self.words("require ", node, node.facts)
            case t.NoFuse():
                return concat("nofuse", self.bracketed("(", node, self.elements(node.names), ")"))
            case t.Target():
                return concat(f"target {node.name}: ", self.type(node.type))
            case t.Return():
                return concat("return ", self.expr(node.value))
            case _:
                assert_never(node)

    def words(self, keyword: str, node: t.Node, parts: Sequence[t.Expr]) -> Doc:
        """A keyword and a list without brackets."""
        return Group(concat(keyword, Align(self.items(node, self.elements(parts)))))

    def type(self, node: t.TypeExpr) -> Doc:
        return concat(node.element, self.bracketed("[", node, self.elements(node.extents), "]"))

    def parameters(self, node: t.Net | t.Block) -> Doc:
        """The parameters of a net or block, in their brackets."""
        written: list[Doc] = [
            p.name if p.default is None else concat(f"{p.name} = ", self.expr(p.default))
            for p in node.parameters
        ]
        return self.bracketed("(", node, written, ")")

    # --- expressions ---

    def expr(self, node: t.Expr, binding: int = 0) -> Doc:
        """An expression where only what binds at least so tightly needs no parentheses."""
        doc = self.bare(node)
        return concat("(", doc, ")") if precedence(node) < binding else doc

    def bare(self, node: t.Expr) -> Doc:
        match node:
            case t.Int():
                return node.spelling or str(node.value)
            case t.Float():
                return node.spelling or repr(node.value)
            case t.Bool():
                return "true" if node.value else "false"
            case t.Size():
                return "x".join(str(extent) for extent in node.extents)
            case t.Name():
                return node.name
            case t.Tuple():
                return self.bracketed("(", node, self.elements(node.elements), ")")
            case t.List():
                return self.bracketed("[", node, self.elements(node.elements), "]")
            case t.Call():
                return concat(node.name, self.arguments(node))
            case t.Pipeline():
                return self.pipeline(node)
            case t.Unary():
                sign = "not " if node.operator == "not" else "-"
                return concat(sign, self.expr(node.operand, precedence(node)))
            case t.Binary():
                return self.binary(node)
            case t.If():
                return self.conditional(node)
            case _:
                assert_never(node)

    def elements(self, nodes: Sequence[t.Expr]) -> list[Doc]:
        return [self.expr(node) for node in nodes]

    def arguments(self, node: t.Call | t.Input) -> Doc:
        """The arguments of a call or an input, in their brackets."""
        written: list[Doc] = [
            self.expr(a.value) if a.name is None else concat(f"{a.name} = ", self.expr(a.value))
            for a in node.arguments
        ]
        return self.bracketed("(", node, written, ")")

    def bracketed(
        self, opening: str, node: t.Node, written: list[Doc], closing: str, blank: str = ""
    ) -> Doc:
        if not written:
            return opening + blank + closing
        inner = [Line(blank), self.items(node, written)]
        if isinstance(node, t.Tuple) and len(written) == 1:
            inner.append(",")
        for text in self.remarks.last.get(id(node), ()):
            inner += [HardLine(), text]
        return Group(concat(opening, Nest(STEP, concat(*inner)), Line(blank), closing))

    def items(self, node: t.Node, written: list[Doc]) -> Doc:
        """The parts of a node with commas between them and their comments beside them."""
        docs: list[Doc] = []
        parts = sequence(node)
        for index, (part, doc) in enumerate(zip(parts, written, strict=True)):
            last = index == len(parts) - 1
            docs.append(concat(*self.before(part), doc, "" if last else ",", *self.behind(part)))
        return join(Group(Line()) if self.fills(node, parts) else Line(), docs)

    def fills(self, node: t.Node, parts: Sequence[t.Node]) -> bool:
        """Whether the parts stand beside each other in as many lines as they need: numbers of a
        list without comments, such as a row of a kernel.
        """
        plain = all(
            isinstance(p.operand if isinstance(p, t.Unary) else p, t.Int | t.Float) for p in parts
        )
        return isinstance(node, t.List) and plain and not any(self.commented(p) for p in parts)

    def commented(self, node: t.Node) -> bool:
        return bool(self.before(node) or self.behind(node))

    def pipeline(self, node: t.Pipeline) -> Doc:
        head = self.expr(node.head, 2)
        first, *others = node.stages
        rest: list[Doc] = []
        for previous, stage in zip(node.stages, others, strict=False):
            arrow = concat("-> ", self.stage(stage), *self.behind(stage))
            if self.commented_between(previous, stage):
                rest += [HardLine(), *self.before(stage), arrow]
            elif stage.arguments:
                rest += [Line(), arrow]
            else:
                rest.append(Group(concat(Line(), arrow)))
        start = concat("-> ", self.stage(first), *self.behind(first))
        if self.commented_between(node.head, first):
            lead = concat(*self.behind(node.head), HardLine(), *self.before(first))
            return concat(head, Nest(STEP, concat(lead, Group(concat(start, *rest)))))
        if len(lay_out(head, 1000).text) > _LONG_HEAD:
            return Group(concat(head, Nest(STEP, concat(Line(), start, *rest))))
        return Group(concat(head, " ", Align(concat(start, *rest))))

    def stage(self, node: t.Call) -> Doc:
        """An operator in a pipeline: without brackets when it has no arguments."""
        return self.bare(node) if node.arguments else node.name

    def binary(self, node: t.Binary) -> Doc:
        binding = PRECEDENCE[node.operator]
        parts = operands(node)
        signs: list[str] = [node.operator]
        left = node.left
        while isinstance(left, t.Binary) and chains(left, node):
            signs.append(left.operator)
            left = left.left
        compares = binding == PRECEDENCE["=="]
        docs: list[Doc] = [self.expr(parts[0], binding + compares), *self.behind(parts[0])]
        for sign, previous, part in zip(reversed(signs), parts, parts[1:], strict=False):
            commented = self.commented_between(previous, part)
            operand = self.expr(part, binding + 1)
            docs += [HardLine() if commented else Line(), *self.before(part)]
            docs += [f"{sign} ", operand, *self.behind(part)]
        return Group(Align(concat(*docs)))

    def conditional(self, node: t.If) -> Doc:
        docs: list[Doc] = ["if ", self.expr(node.condition, 1), *self.behind(node.condition)]
        for word, previous, part, binding in (
            ("then", node.condition, node.then, 1),
            ("else", node.then, node.otherwise, 0),
        ):
            commented = self.commented_between(previous, part)
            clause = [*self.before(part), f"{word} ", self.expr(part, binding), *self.behind(part)]
            if word == "then" and not commented:
                docs.append(Group(concat(Line(), *clause)))
            else:
                docs += [HardLine() if commented else Line(), *clause]
        return Group(Align(concat(*docs)))

    # --- comments ---

    def commented_between(self, previous: t.Node, following: t.Node) -> bool:
        return id(previous) in self.remarks.behind or id(following) in self.remarks.before

    def before(self, node: t.Node) -> list[Doc]:
        """Comments on lines of their own, each with its line end."""
        docs: list[Doc] = []
        for text in self.remarks.before.get(id(node), ()):
            docs += [text, HardLine()]
        return docs

    def behind(self, node: t.Node) -> list[Doc]:
        return [Comment(text) for text in self.remarks.behind.get(id(node), ())]
