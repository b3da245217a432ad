"""Turns Lark's parse tree, which has every word of the text in it, into the tree of tree.py. Each
grammar rule has one case. What the parser gave up on after a mistake (`broken`) is left out. The
recursion is safe: the scanner limits brackets and `check_height` everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, cast

from lark import Token, Tree

from cnncc.errors import Diagnostics, Source, Span
from cnncc.syntax import limits
from cnncc.syntax import tree as t

Piece: TypeAlias = "Token | Tree[Any]"

_NESTING_RULES = frozenset(
    {"binary", "unary", "conditional", "group", "tuple", "list", "call", "stage", "repeat",
     "counted_repeat"}
)  # fmt: skip


def check_height(root: Tree[Any], source: Source) -> None:
    """Raise SpecError where operators are nested too deep for the recursive stages that follow."""
    stack: list[tuple[Tree[Any], int]] = [(root, 0)]
    while stack:
        node, height = stack.pop()
        height += node.data in _NESTING_RULES
        if height > limits.NESTING:
            found = Diagnostics()
            found.error(
                "E0105",
                f"operators and brackets of one expression are nested at most {limits.NESTING} "
                "deep",
                _span(source, node),
                helps=("give parts of the expression names of their own",),
            )
            found.raise_if_any()
        stack.extend((child, height) for child in node.children if isinstance(child, Tree))


def construct(root: Tree[Any], source: Source, comments: tuple[t.Comment, ...]) -> t.File:
    """The tree of a file."""
    check_height(root, source)
    return _Constructor(source).file(root, comments)


def _edge(piece: Piece, last: bool) -> Token:
    while isinstance(piece, Tree):
        piece = piece.children[-1 if last else 0]
    return piece


def _span(source: Source, piece: Piece) -> Span:
    first, last = _edge(piece, False), _edge(piece, True)
    return Span(source, int(first.start_pos or 0), int(last.end_pos or 0))


def _trees(piece: Piece | None) -> Iterator[Tree[Any]]:
    """The rules directly under a rule, words left out."""
    children = piece.children if isinstance(piece, Tree) else []
    return (child for child in children if isinstance(child, Tree))


def _under(node: Tree[Any], rule: str) -> Tree[Any] | None:
    """The child made by a rule, if there is one."""
    return next((child for child in _trees(node) if child.data == rule), None)


class _Constructor:
    def __init__(self, source: Source) -> None:
        self.source = source

    def span(self, piece: Piece) -> Span:
        return _span(self.source, piece)

    # --- file and items ---

    def file(self, root: Tree[Any], comments: tuple[t.Comment, ...]) -> t.File:
        items = tuple(self.item(item) for item in _trees(root) if item.data != "broken")
        return t.File(items, comments, span=Span(self.source, 0, len(self.source.text)))

    def item(self, node: Tree[Any]) -> t.Item:
        span = self.span(node)
        name, name_span = str(node.children[1]), self.span(node.children[1])
        if node.data == "import_":
            return t.Import(name[1:-1], path_span=name_span, span=span)
        if node.data == "table":
            rows = self.elements(_under(node, "elements"))
            return t.Table(name, rows, name_span=name_span, span=span)
        body, of = self.body(node), self.span(node.children[-1])
        match node.data:
            case "net":
                parameters = self.parameters(_under(node, "parameters"))
                return t.Net(name, parameters, body, name_span=name_span, body_span=of, span=span)
            case "block":
                parameters = self.parameters(_under(node, "parameters"))
                return t.Block(name, parameters, body, name_span=name_span, body_span=of, span=span)
            case _:
                return t.Train(name, body, net_span=name_span, body_span=of, span=span)

    def parameters(self, node: Tree[Any] | None) -> tuple[t.Parameter, ...]:
        return tuple(
            t.Parameter(
                str(child.children[0]),
                self.expr(child.children[2]) if len(child.children) > 1 else None,
                name_span=self.span(child.children[0]),
                span=self.span(child),
            )
            for child in _trees(node)
        )

    def body(self, node: Tree[Any]) -> tuple[t.Statement, ...]:
        statements = _trees(_under(node, "body"))
        return tuple(self.statement(child) for child in statements if child.data != "broken")

    # --- statements ---

    def statement(self, node: Tree[Any]) -> t.Statement:
        span, parts = self.span(node), node.children
        match node.data:
            case "assign":
                name_span = self.span(parts[0])
                value = self.expr(parts[2])
                return t.Assign(str(parts[0]), value, name_span=name_span, span=span)
            case "default":
                name_span = self.span(parts[1])
                value = self.expr(parts[3])
                return t.Default(str(parts[1]), value, name_span=name_span, span=span)
            case "input":
                return t.Input(
                    str(parts[1]),
                    self.type(cast("Tree[Any]", parts[3])),
                    self.arguments(_under(node, "arguments")),
                    name_span=self.span(parts[1]),
                    span=span,
                )
            case "target":
                name_span = self.span(parts[1])
                of = self.type(cast("Tree[Any]", parts[3]))
                return t.Target(str(parts[1]), of, name_span=name_span, span=span)
            case "named_output":
                name_span = self.span(parts[1])
                value = self.expr(parts[3])
                return t.Output(str(parts[1]), value, name_span=name_span, span=span)
            case "output":
                return t.Output(None, self.expr(parts[1]), span=span)
            case "weights":
                return t.Weights(self.names(node), span=span)
            case "repeat" | "counted_repeat":
                return self.repeat(node)
            case "expect":
                conditions = self.expressions(parts[1::2])
                return t.Expect(conditions, span=span)
            case "require":
                return t.Require(tuple(self.call(call) for call in _trees(node)), span=span)
            case "nofuse":
                return t.NoFuse(self.names(node), span=span)
            case _:
                return t.Return(self.expr(parts[1]), span=span)

    def repeat(self, node: Tree[Any]) -> t.Repeat:
        body, parts = self.body(node), node.children
        span, of = self.span(node), self.span(parts[-1])
        if node.data == "repeat":
            return t.Repeat(None, self.expr(parts[1]), body, body_span=of, span=span)
        return t.Repeat(
            str(parts[1]),
            self.expr(parts[3]),
            body,
            index_span=self.span(parts[1]),
            body_span=of,
            span=span,
        )

    def names(self, node: Tree[Any]) -> tuple[t.Name, ...]:
        words = (part for part in node.children if isinstance(part, Token) and part.type == "NAME")
        return tuple(t.Name(str(word), span=self.span(word)) for word in words)

    def type(self, node: Tree[Any]) -> t.TypeExpr:
        return t.TypeExpr(
            str(node.children[0]),
            self.elements(_under(node, "elements")),
            element_span=self.span(node.children[0]),
            span=self.span(node),
        )

    # --- expressions ---

    def elements(self, node: Tree[Any] | None) -> tuple[t.Expr, ...]:
        return () if node is None else self.expressions(node.children[::2])

    def expressions(self, pieces: list[Piece]) -> tuple[t.Expr, ...]:
        return tuple(self.expr(piece) for piece in pieces)

    def arguments(self, node: Tree[Any] | None) -> tuple[t.Argument, ...]:
        return tuple(self.argument(child) for child in _trees(node))

    def argument(self, node: Tree[Any]) -> t.Argument:
        span, parts = self.span(node), node.children
        if node.data == "argument":
            return t.Argument(None, self.expr(parts[0]), span=span)
        name_span = self.span(parts[0])
        return t.Argument(str(parts[0]), self.expr(parts[2]), name_span=name_span, span=span)

    def call(self, node: Tree[Any]) -> t.Call:
        """A call, or a stage of a pipeline with or without arguments."""
        name = node.children[0]
        arguments = self.arguments(_under(node, "arguments"))
        return t.Call(str(name), arguments, name_span=self.span(name), span=self.span(node))

    def expr(self, piece: Piece) -> t.Expr:
        if isinstance(piece, Token):
            return self.word(piece)
        span, parts = self.span(piece), piece.children
        match piece.data:
            case "call":
                return self.call(piece)
            case "group":
                return self.expr(parts[1])
            case "pipeline":
                return self.pipeline(piece)
            case "binary":
                left, right = self.expr(parts[0]), self.expr(parts[2])
                operator = cast("t.BinaryOperator", str(parts[1]))
                where = self.span(parts[1])
                return t.Binary(operator, left, right, operator_span=where, span=span)
            case "unary":
                operator_ = cast("t.UnaryOperator", str(parts[0]))
                return t.Unary(operator_, self.expr(parts[1]), span=span)
            case "conditional":
                condition, then, otherwise = self.expressions(parts[1::2])
                return t.If(condition, then, otherwise, span=span)
            case "tuple":
                return t.Tuple(self.expressions(_operands(parts)), span=span)
            case _:
                return t.List(self.elements(_under(piece, "elements")), span=span)

    def pipeline(self, node: Tree[Any]) -> t.Pipeline:
        head = self.expr(node.children[0])
        stages = tuple(self.call(stage) for stage in _trees(node) if stage.data == "stage")
        span = self.span(node)
        if isinstance(head, t.Pipeline):
            return t.Pipeline(head.head, head.stages + stages, span=span)
        return t.Pipeline(head, stages, span=span)

    def word(self, token: Token) -> t.Expr:
        span, word = self.span(token), str(token)
        match token.type:
            case "INT":
                return t.Int(int(word.replace("_", "")), spelling=word, span=span)
            case "FLOAT":
                return t.Float(float(word.replace("_", "")), spelling=word, span=span)
            case "SIZE":
                return t.Size(tuple(int(part) for part in word.split("x")), span=span)
            case "TRUE" | "FALSE":
                return t.Bool(token.type == "TRUE", span=span)
            case _:
                return t.Name(word, span=span)


def _operands(parts: list[Piece]) -> list[Piece]:
    """What stands between the brackets and commas."""
    signs = ("LPAR", "RPAR", "COMMA")
    return [part for part in parts if not (isinstance(part, Token) and part.type in signs)]
