"""Finds the text that somebody means by a source: a path, a built-in name, or the text itself."""

from __future__ import annotations

import importlib.resources
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cnncc.errors import Diagnostic, SpecError, did_you_mean
from cnncc.graph.imports import display, read_text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PICK = re.compile(r"(?s)(?P<source>.+?)(?::(?P<net>[A-Za-z_][A-Za-z0-9_]*))?")


@dataclass(frozen=True)
class Located:
    """A text with the name that diagnostics show, its path if it is a file, and the net picked."""

    text: str
    file: str
    path: Path | None
    net: str | None


def locate(source: str | os.PathLike[str]) -> Located:
    """The text of a source.

    A path object or a string that ends in `.cnn` is a file, a string with a line end is the text
    itself, any other string is the name of a built-in network. Behind a file or a name `:net` picks
    one of several nets. Raises SpecError (E0401, E0106) and TypeError.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "a source is a path, the name of a built-in network, or the text of one, "
            f"but got {type(source).__name__}"
        )
    if isinstance(source, str) and "\n" in source:
        return Located(source, "<text>", None, None)
    given = os.fspath(source)
    pick = _PICK.fullmatch(given)
    name, net = (pick["source"], pick["net"]) if pick else (given, None)
    if name.endswith(".cnn"):
        return _file(Path(name), display(name), net)
    if isinstance(source, os.PathLike):
        return _file(Path(given), display(given), None)
    folder = specs_folder()
    if _NAME.fullmatch(name) and (folder / f"{name}.cnn").is_file():
        path = folder / f"{name}.cnn"
        return _file(path, display(str(path)), net)
    raise SpecError(Diagnostic("E0401", *_unknown(name)))


def _file(path: Path, shown: str, net: str | None) -> Located:
    return Located(read_text(path, shown), shown, path, net)


def _unknown(name: str) -> tuple[str, None, str, tuple[()], tuple[str, ...]]:
    shown = name if len(name) <= 60 else name[:57] + "..."
    names = built_in()
    helps = [f"did you mean `{n}`?" for n in did_you_mean(name, names)]
    if "/" in name or "\\" in name or (len(name) < 200 and Path(f"{name}.cnn").is_file()):
        helps.insert(0, "a file is given with its ending: `name.cnn`")
    if "{" in name:
        helps.insert(0, "the text of a network has more than one line")
    helps = helps or [f"the built-in networks are {', '.join(names)}"]
    return f"there is no built-in network `{shown}`", None, "", (), tuple(helps)


def built_in() -> list[str]:
    """The names of the built-in networks; files that only others import are none."""
    files = specs_folder().glob("*.cnn")
    return sorted(path.stem for path in files if "\nnet " in path.read_text("utf-8"))


def specs_folder() -> Path:
    """Where the built-in networks are: in the package, or beside it in a checkout."""
    try:
        return Path(str(importlib.resources.files("cnncc.specs")))
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "specs"
