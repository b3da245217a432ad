"""Runs the blocks of a page in order, in one folder, as a reader would.

    ```cnn file=net.cnn    a file to write
    ```sh                  commands after `$ `, each with what it prints; `...` stands for anything
    ```python              statements; what they print stands in the ```text block that follows

Other blocks are for reading only. `pytest --update-golden` rewrites outputs that differ.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnncc.cli import main

_BLOCK = re.compile(r"^```(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A fenced block: the words behind the fence, its text, and where the text stands."""

    kind: str
    options: dict[str, str]
    text: str
    start: int
    end: int


def blocks(page: str) -> Iterator[Block]:
    """All blocks of a page."""
    for found in _BLOCK.finditer(page):
        kind, *options = found["head"].split() or [""]
        given = dict(option.split("=", 1) for option in options)
        yield Block(kind, given, found["body"], found.start("body"), found.end("body"))


def run_page(path: Path, update: bool = False) -> list[str]:
    """Run a page in the current folder; what differs, as texts. `update` mends the page."""
    page = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    wrong: list[str] = []
    changes: list[tuple[int, int, str]] = []
    printed = ""
    for block in blocks(page):
        line = page.count("\n", 0, block.start)
        match block.kind:
            case "cnn" if "file" in block.options:
                Path(block.options["file"]).write_text(block.text, encoding="utf-8")
            case "python":
                printed = captured(lambda b=block: exec(compile(b.text, f"{path}", "exec"), names))
            case "text":
                if not matches(block.text, printed):
                    wrong.append(f"{path.name}:{line}\n--- page\n{block.text}--- now\n{printed}")
                    changes.append((block.start, block.end, printed))
            case "sh":
                now = run_commands(block.text)
                if now != block.text:
                    wrong.append(f"{path.name}:{line}\n--- page\n{block.text}--- now\n{now}")
                    changes.append((block.start, block.end, now))
    if update and changes:
        for start, end, text in reversed(changes):
            page = page[:start] + text + page[end:]
        path.write_text(page, encoding="utf-8")
    return wrong


def run_commands(text: str) -> str:
    """The block with what its commands print now; an output that matches stays as it is."""
    parts = re.split(r"^(?=\$ )", text, flags=re.MULTILINE)
    return "".join(run_command(part) for part in parts)


def run_command(part: str) -> str:
    """One command with its output. Lines that are no `$ cnncc ...` are left alone."""
    if not part.startswith("$ cnncc "):
        return part
    command, _, expected = part.partition("\n")
    words = shlex.split(command[2:], comments=True)
    now = captured(lambda: main(words[1:]))
    return part if matches(expected, now) else f"{command}\n{now}"


def matches(expected: str, got: str) -> bool:
    """Whether the output is the expected one; `...` stands for anything."""
    return doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS)


def captured(action: Any) -> str:
    """What an action writes to stdout and stderr, without blanks at line ends."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        action()
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
