"""What verbs print. Results go to stdout, everything else to stderr; remarks that only a person
wants are left out when nobody looks, and colours are used on a terminal unless NO_COLOR is set."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.table import Table

from cnncc.io.files import WRITE, amount, refuse

__all__ = [
    "amount",
    "counting",
    "is_terminal",
    "print_json",
    "print_table",
    "remark",
    "use_color",
    "write_text",
]


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sees the stream."""
    return stream.isatty()


def use_color(stream: TextIO) -> bool:
    """Whether to colour what goes to the stream (https://no-color.org)."""
    dumb = os.environ.get("TERM") == "dumb"
    return is_terminal(stream) and not dumb and not os.environ.get("NO_COLOR")


def remark(text: str) -> None:
    """Say something to a person; silent when stderr is no terminal."""
    if is_terminal(sys.stderr):
        print(text, file=sys.stderr)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print JSON-ready values: on one line when piped, else indented unless `one_line`.

    NaN and infinities, which JSON lacks, become null.
    """
    indent = 2 if is_terminal(sys.stdout) and not one_line else None
    print(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(name): _finite(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
    return value


def print_table(table: Table, width: int = 120) -> None:
    """A rich table on a terminal as wide as that is, elsewhere in plain text of `width` columns."""
    from rich.console import Console

    if is_terminal(sys.stdout):
        Console(no_color=not use_color(sys.stdout), highlight=False).print(table)
        return
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def write_text(path: Path, text: str) -> None:
    """Write a file whole. Raises DataError (E0710) when that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise refuse(WRITE, f"cannot write {path}: {why}") from None


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for a person, nothing for others. What it gives is told what comes next, how
    much is done, and of how much.
    """
    if not is_terminal(sys.stderr):
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling")

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield show
