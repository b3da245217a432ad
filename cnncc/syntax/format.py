"""Writes a tree in the one canonical layout: one statement a line, two blanks a level, lines of at
most 100 columns where they can be broken, at most one empty line between statements and exactly one
between nets. Comments stay where they stand. Formatting a formatted text changes nothing, and
formatting never changes what a text means: parse(format_text(text)) == parse(text)."""

from __future__ import annotations

from collections import deque

from cnncc.errors import Source
from cnncc.syntax import tree as t
from cnncc.syntax.format_expr import STEP, Writer
from cnncc.syntax.layout import Doc, concat, lay_out
from cnncc.syntax.parse import parse
from cnncc.syntax.remarks import attach

WIDTH = 100
"""Columns of a line. A comment behind a statement does not count."""


def format_text(text: str, file: str = "<text>") -> str:
    """A text in the canonical layout, comments included. Raises SpecError as `parse` does."""
    return format_tree(parse(text, file))


def format_tree(file: t.File) -> str:
    """The text of a tree, with the comments that `file.comments` holds; ends with a line end."""
    return _Formatter(file).run()


class _Formatter:
    def __init__(self, file: t.File) -> None:
        self.file = file
        self.source: Source = file.span.source
        self.comments = deque(sorted(file.comments, key=lambda c: c.span.start))
        self.lines: list[str] = []
        self.written = 0
        """Offset in the source up to which everything is written."""

    def run(self) -> str:
        previous: t.Item | None = None
        for item in self.file.items:
            both_imports = isinstance(item, t.Import) and isinstance(previous, t.Import)
            if previous is not None and not both_imports:
                self.lines.append("")
                self.written = max(self.written, self._next_offset(item))
            self.item(item)
            previous = item
        self.own_lines(len(self.source.text) + 1, 0)
        return "".join(f"{line}\n" for line in self.lines)

    def _next_offset(self, node: t.Node) -> int:
        """Where the node begins, or the comments above it."""
        first = self.comments[0].span.start if self.comments else node.span.start
        return min(first, node.span.start)

    # --- items and statements ---

    def item(self, item: t.Item) -> None:
        writer = self.begin(item, 0)
        match item:
            case t.Import() | t.Table():
                self.put(item, writer, 0)
            case t.Net():
                given = writer.parameters(item) if item.parameters else ""
                self.body(item, concat(f"net {item.name}", given), 0)
            case t.Block():
                given = writer.parameters(item)
                self.body(item, concat(f"block {item.name}", given), 0)
            case t.Train():
                self.body(item, f"train {item.net}", 0)

    def statement(self, statement: t.Statement, depth: int) -> None:
        writer = self.begin(statement, depth)
        if isinstance(statement, t.Repeat):
            head = concat(writer.statement(statement), *writer.behind(statement))
            self.body(statement, head, depth)
        else:
            self.put(statement, writer, depth)

    def begin(self, node: t.Item | t.Statement, depth: int) -> Writer:
        """Write the comments above a node; a writer that knows those within it, up to its body."""
        self.own_lines(node.span.start, depth)
        self.gap(node.span.start)
        if isinstance(node, t.Net | t.Block | t.Train | t.Repeat):
            end = node.body_span.start
        else:
            end = node.span.end
        inside: list[t.Comment] = []
        while self.comments and self.comments[0].span.start < end:
            inside.append(self.comments.popleft())
        remarks = attach(node, inside)
        for text in remarks.above:
            self.append(text, depth * STEP)
        return Writer(remarks)

    def put(self, node: t.Import | t.Table | t.Statement, writer: Writer, depth: int) -> None:
        laid = lay_out(concat(writer.statement(node), *writer.behind(node)), WIDTH, depth * STEP)
        self.append(laid.text, depth * STEP)
        self.written = max(self.written, node.span.end)
        if not laid.commented:
            self.end_of_line()

    def body(self, owner: t.Net | t.Block | t.Train | t.Repeat, head: Doc, depth: int) -> None:
        indent = depth * STEP
        opening = lay_out(concat(head, " {"), WIDTH, indent, indent + STEP)
        end = max(owner.body_span.end - 1, owner.body_span.start)
        commented = bool(self.comments) and self.comments[0].span.start < end
        if not owner.body and not commented and not opening.commented:
            self.append(f"{opening.text} }}", indent)
        else:
            self.append(opening.text, indent)
            self.written = max(self.written, owner.body_span.start + 1)
            if not opening.commented:
                self.end_of_line()
            self.opened = len(self.lines)
            for statement in owner.body:
                self.statement(statement, depth + 1)
            self.own_lines(end, depth + 1)
            self.append("}", indent)
        self.written = max(self.written, owner.span.end)
        self.end_of_line()

    # --- lines, empty lines and comments ---

    opened = 0
    """The number of lines when the innermost bracket was opened: no empty line follows it."""

    def append(self, text: str, indent: int) -> None:
        """Add lines; those after the first are indented already."""
        self.lines += (" " * indent + text).split("\n")

    def gap(self, offset: int) -> None:
        """One empty line where the source has one or more before `offset`."""
        between = self.source.text[self.written : offset]
        fresh = not self.lines or self.lines[-1] == "" or len(self.lines) == self.opened
        if between.count("\n") > 1 and not fresh:
            self.lines.append("")
        self.written = max(self.written, offset)

    def own_lines(self, before: int, depth: int) -> None:
        """The comments that stand before an offset, each on a line of its own."""
        while self.comments and self.comments[0].span.start < before:
            comment = self.comments.popleft()
            self.gap(comment.span.start)
            self.append(comment.text, depth * STEP)
            self.written = comment.span.end

    def end_of_line(self) -> None:
        """The comment behind what was written last, when nothing else stands between."""
        if not self.comments:
            return
        at = self.comments[0].span.start
        if self.written <= at and not self.source.text[self.written : at].strip(" \t"):
            comment = self.comments.popleft()
            self.lines[-1] += f"  {comment.text}"
            self.written = comment.span.end
