"""Verbs that read `.cnn` texts and compile nothing: `check` and `fmt`. Neither imports Numba."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cnncc.cli.failures import DONE, MISTAKE, show
from cnncc.cli.output import remark, write_text
from cnncc.cli.verbs import Verbs, add_net_arguments, net_arguments
from cnncc.errors import Diagnostic, SpecError

STDIN = "-"


def add(verbs: Verbs) -> None:
    """Add `check` and `fmt`."""
    parser = verbs.add(
        "check",
        "find the mistakes of .cnn files",
        check,
        [
            "cnncc check net.cnn",
            "cnncc check specs",
            "cnncc check net.cnn:small --arg classes=100",
            "cnncc check net.cnn --error-format json",
        ],
        "Reads each file, builds all its nets, checks shapes and what `expect` says, and shows\n"
        "all mistakes at once. Prints nothing when there are none.",
    )
    parser.add_argument(
        "nets", nargs="+", metavar="FILE", help="a NET, a folder of .cnn files, or - for stdin"
    )
    add_net_arguments(parser)

    parser = verbs.add(
        "fmt",
        "write .cnn files in the one canonical layout",
        fmt,
        ["cnncc fmt net.cnn", "cnncc fmt --check specs", "cnncc fmt - < net.cnn"],
        "Comments stay where they are, and the meaning of a file never changes. Files are written\n"
        "in place; stdin is written to stdout.",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a file, a folder of .cnn files, or - for stdin"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; show what would change, and exit 1"
    )


def check(options: argparse.Namespace) -> int:
    """Check every file; 1 when a mistake was found."""
    from cnncc.compiler import check_claims, check_file, front

    given = net_arguments(options)
    found: list[Diagnostic] = []
    sources = [s for name in options.nets for s in _sources(name)]
    for source in sources:
        if not given:
            found += check_file(source)
            continue
        try:
            checked = front(source, arguments=given)
            check_claims(checked.graph, checked.module)
        except SpecError as error:
            found += error.diagnostics
    if found:
        show(dict.fromkeys(found), as_json=options.error_format == "json")
        remark(f"\n{_count(len(found), 'mistake')} in {_count(len(sources), 'source')}")
        return MISTAKE
    remark(f"{_count(len(sources), 'source')}, no mistakes")
    return DONE


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _sources(name: str) -> Iterator[str]:
    """What a FILE of `check` stands for: itself, the files of a folder, or the text on stdin."""
    if name == STDIN:
        yield _stdin() + "\n"  # a source with a line end is a text
    elif os.path.isdir(name):
        yield from map(str, _cnn_files(Path(name)))
    else:
        yield name


def _cnn_files(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.cnn"))
    if not files:
        raise SpecError(Diagnostic("E0401", f"the folder {folder} holds no .cnn files"))
    return files


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise SpecError(Diagnostic("E0401", "stdin is not text in UTF-8")) from None


def fmt(options: argparse.Namespace) -> int:
    """Format every file; with --check 1 when one is not formatted."""
    from cnncc.graph.imports import display, read_text
    from cnncc.syntax.format import format_text

    changed = 0
    found: list[Diagnostic] = []
    for name in options.files:
        files = _cnn_files(Path(name)) if os.path.isdir(name) else [Path(name)]
        for file in files:
            shown = "<stdin>" if name == STDIN else display(str(file))
            try:
                text = _stdin() if name == STDIN else read_text(file, shown)
                new = format_text(text, shown)
            except SpecError as error:
                found += error.diagnostics
                continue
            if options.check:
                changed += new != text
                _difference(text, new, shown)
            elif name == STDIN:
                sys.stdout.write(new)
            elif new != text:
                write_text(file, new)
                remark(f"formatted {shown}")
    if found:
        show(found, as_json=options.error_format == "json")
    return MISTAKE if found or changed else DONE


def _difference(old: str, new: str, name: str) -> None:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), name, f"{name} (formatted)", lineterm=""
    )
    for line in lines:
        print(line)
