"""Reads a file and what it imports. An import names a file by a relative path below the folder of
the file that was asked for (the root); it can neither climb out nor follow a link out, import
itself, or bring in more than a bounded number of files. What a file defines is visible in the files
that import it directly, and nowhere else.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

from cnncc.errors import NOWHERE, Diagnostics, Note, Span, SpecError
from cnncc.graph import limits
from cnncc.syntax import tree as t
from cnncc.syntax.limits import TEXT_BYTES
from cnncc.syntax.parse import parse


@dataclass(eq=False)
class Unit:
    """A file with the blocks, nets and tables visible in it, and the unit where each block and net
    is defined.
    """

    name: str
    tree: t.File
    blocks: dict[str, tuple[t.Block, Unit]] = field(default_factory=dict)
    nets: dict[str, tuple[t.Net, Unit]] = field(default_factory=dict)
    tables: dict[str, t.Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """The file that was asked for, and every file that was read for it, itself first."""

    top: Unit
    units: tuple[Unit, ...]

    @property
    def nets(self) -> tuple[t.Net, ...]:
        """The nets of the top file, in order."""
        return self.top.tree.nets


def read_program(text: str, file: str = "<text>", path: Path | None = None) -> Program:
    """Parse a text and its imports, which lie beside or below `path`: without one, none may be.

    Raises SpecError with the mistakes of all files: E01xx of each, E04xx of imports, E0305 for a
    name that is defined twice.
    """
    where = None if path is None else path.resolve()
    reader = _Reader(None if where is None else where.parent)
    chain = () if where is None else ((where, where.name),)
    top = reader.unit(text, file, reader.root, chain)
    reader.found.raise_if_any()
    assert top is not None
    return Program(top, tuple(reader.units))


def read_text(path: Path, shown: str, span: Span = NOWHERE) -> str:
    """The text of a `.cnn` file. Raises SpecError (E0401, E0106) when it is none."""
    try:
        # Asked before it is opened: to open a pipe that nobody writes to would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _wrong("E0401", f"`{shown}` is not a file", span)
        with path.open("rb") as stream:
            data = stream.read(TEXT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = str(getattr(error, "strerror", None) or "no such file").lower()
        raise _wrong("E0401", f"cannot read `{shown}`: {reason}", span) from None
    if len(data) > TEXT_BYTES:
        raise _wrong(
            "E0106", f"a file has at most {TEXT_BYTES} bytes, but `{shown}` has more", span
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong("E0401", f"`{shown}` is not a text: line {line} is not UTF-8", span) from None


def _wrong(code: str, message: str, span: Span) -> SpecError:
    found = Diagnostics()
    found.error(code, message, span)
    return SpecError(found.sorted())


class _Reader:
    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.found = Diagnostics()
        self.units: list[Unit] = []
        self.done: dict[Path, Unit | None] = {}

    def unit(
        self, text: str, file: str, folder: Path | None, chain: tuple[tuple[Path, str], ...]
    ) -> Unit | None:
        """A file and its imports, None when its text is wrong; `chain`: the files before it."""
        try:
            tree = parse(text, file)
        except SpecError as error:
            self.found.extend(error.diagnostics)
            return None
        unit = Unit(file, tree)
        self.units.append(unit)
        places: dict[str, Span] = {}
        for item in tree.items:
            if isinstance(item, t.Net | t.Block | t.Table):
                self._define(unit, item, unit, item.name_span, places)
        imported: list[Unit] = []
        for statement in tree.imports:
            other = self._import(statement, folder, chain)
            if other is None or other in imported:
                continue
            imported.append(other)
            for item in other.tree.items:
                if isinstance(item, t.Net | t.Block | t.Table):
                    self._define(unit, item, other, statement.path_span, places)
        return unit

    def _define(
        self,
        unit: Unit,
        item: t.Net | t.Block | t.Table,
        home: Unit,
        span: Span,
        places: dict[str, Span],
    ) -> None:
        if item.name in places:
            self.found.error(
                "E0305",
                f"`{item.name}` is defined twice",
                span,
                notes=(Note("the other definition", places[item.name]),),
            )
            return
        places[item.name] = item.name_span
        if isinstance(item, t.Block):
            unit.blocks[item.name] = (item, home)
        elif isinstance(item, t.Table):
            unit.tables[item.name] = item
        else:
            unit.nets[item.name] = (item, home)

    def _import(
        self, statement: t.Import, folder: Path | None, chain: tuple[tuple[Path, str], ...]
    ) -> Unit | None:
        span = statement.path_span if statement.path_span.known else statement.span
        if self.root is None or folder is None:
            self.found.error(
                "E0405",
                "a text without a file cannot import",
                span,
                helps=("save the text as a file beside what it imports",),
            )
            return None
        path = self._locate(statement.path, folder, span)
        if path is None:
            return None
        shown = path.relative_to(self.root).as_posix()
        names = [name for where, name in chain]
        if any(where == path for where, _ in chain):
            at = [where for where, _ in chain].index(path)
            self.found.error(
                "E0403", "imports go in a circle: " + " -> ".join([*names[at:], shown]), span
            )
            return None
        if path in self.done:
            return self.done[path]
        if len(chain) >= limits.FILE_DEPTH or len(self.done) >= limits.FILES:
            depth = len(chain) >= limits.FILE_DEPTH
            bound = f"{limits.FILE_DEPTH} deep" if depth else f"{limits.FILES} files"
            self.found.error("E0404", f"imports reach at most {bound}", span)
            return None
        self.done[path] = None
        try:
            text = read_text(path, shown, span)
        except SpecError as error:
            self.found.extend(error.diagnostics)
            return None
        name = (self.root / shown).as_posix()
        self.done[path] = self.unit(text, display(name), path.parent, (*chain, (path, shown)))
        return self.done[path]

    def _locate(self, text: str, folder: Path, span: Span) -> Path | None:
        """The file that an import means, inside the root; None after a report."""
        assert self.root is not None
        parts = text.split("/")
        rule = "an import is a relative path below this file's folder, with `/` between its parts"
        if not text or any(p in ("", ".", "..") for p in parts) or "\\" in text or ":" in text:
            self.found.error(
                "E0402",
                f"{rule}, but got `{text}`",
                span,
                helps=("copy the file into this folder",) if ".." in parts else (),
            )
            return None
        if not text.endswith(".cnn"):
            self.found.error("E0402", f"an imported file ends in `.cnn`, but got `{text}`", span)
            return None
        try:
            path = folder.joinpath(*parts).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            self.found.error("E0401", f"there is no file `{text}` here", span)
            return None
        if not path.is_relative_to(self.root):
            self.found.error("E0402", f"`{text}` is a link to outside of the folder", span)
            return None
        return path


def display(path: str) -> str:
    """A path as diagnostics show it: relative to the working folder when it lies below it."""
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path
