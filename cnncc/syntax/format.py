"""Writes a tree in the one canonical layout: one statement a line, two blanks a level, lines of at
most 100 columns where they can be broken, at most one empty line between statements and exactly one
between nets. Comments stay where they stand. Formatting a formatted text changes nothing, and
formatting never changes what a text means: parse(format_text(text)) == parse(text)."""

from __future__ import annotations

from collections import deque

from cnncc.errors import Source
from cnncc.syntax import tree as t
from cnncc.syntax.format_expr import STEP, Writer
from cnncc.syntax.layout import concat, lay_out
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
        writer, above = self.begin(item)
        match item:
            case t.Import():
                self.put(item, writer, 0, above)
            case t.Net():
                given = writer.parameters(item.parameters) if item.parameters else ""
                head = lay_out(concat(f"net {item.name}", given), WIDTH - 2)
                self.body(item, head, 0, above)
            case t.Block():
                given = writer.parameters(item.parameters)
                head = lay_out(concat(f"block {item.name}", given), WIDTH - 2)
                self.body(item, head, 0, above)
            case t.Train():
                self.body(item, f"train {item.net}", 0, above)

    def statement(self, statement: t.Statement, depth: int) -> None:
        writer, above = self.begin(statement)
        if isinstance(statement, t.Repeat):
            head = lay_out(writer.statement(statement), WIDTH - 2, depth * STEP)
            self.body(statement, head, depth, above)
        else:
            self.put(statement, writer, depth, above)

    def begin(self, node: t.Item | t.Statement) -> tuple[Writer, list[str]]:
        """A writer for a node with the comments that stand within it, up to its body."""
        owner = isinstance(node, t.Net | t.Block | t.Train | t.Repeat)
        end = node.body_span.start if owner else node.span.end
        inside = [c for c in self.comments if node.span.start <= c.span.start < end]
        remarks = attach(node, inside)
        for comment in inside:
            self.comments.remove(comment)
        return Writer(remarks), remarks.above

    def put(
        self, node: t.Import | t.Statement, writer: Writer, depth: int, above: list[str]
    ) -> None:
        self.own_lines(node.span.start, depth)
        self.gap(node.span.start)
        indent = depth * STEP
        self.lines += [" " * indent + text for text in above]
        self.append(lay_out(writer.statement(node), WIDTH, indent), indent)
        self.written = max(self.written, node.span.end)
        self.end_of_line()

    def body(
        self, owner: t.Net | t.Block | t.Train | t.Repeat, head: str, depth: int, above: list[str]
    ) -> None:
        self.own_lines(owner.span.start, depth)
        self.gap(owner.span.start)
        indent = depth * STEP
        self.lines += [" " * indent + text for text in above]
        end = owner.body_span.end - 1 if owner.body_span.known else owner.span.end
        commented = any(c.span.start < end for c in self.comments)
        if not owner.body and not commented:
            self.append(f"{head} {{ }}", indent)
        else:
            self.append(f"{head} {{", indent)
            self.written = max(self.written, owner.body_span.start + 1)
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
