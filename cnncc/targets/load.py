"""Emitted Python text as modules: `load_module(text)` writes the text to the cache folder and
imports it from there.

A module is named by a hash of its text and of everything that decides what it becomes
(cache.environment_key), so equal text is one module, for all networks and processes; where an entry
remarks on places in a spec, those do not count.  Emitted modules import each other as
`cnncc_emitted.k_<hash>`; a finder below resolves these names in any process, and imports a file
only if hashing it gives its name, so that a file which was tampered with or damaged is never run.
Where the machine code of all its functions is in the cache, a module consists of them alone and its
text is not run, unless somebody asks for the text of a function.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from cnncc.errors import CompilerBug
from cnncc.targets.cache import (
    CacheInfo,
    cache_clear,
    cache_folder,
    cache_info,
    environment_key,
    write_atomically,
)
from cnncc.targets.cpu.compiled import JIT, PACKAGE, functions_of, keep_functions
from cnncc.targets.cpu.machine_code import kept

__all__ = [
    "CacheInfo",
    "cache_clear",
    "cache_folder",
    "cache_info",
    "is_stored",
    "load_module",
    "module_name",
]

Kind = Literal["kernel", "entry"]
_PREFIX = {"kernel": "k", "entry": "e"}
_KEY = b"# key: "
_DOCSTRING = re.compile(rb'"""[^"]*"""')


def module_name(text: str, *, kind: Kind, key_extra: str = "") -> str:
    """The full name under which `load_module` loads `text`, for emitted texts that import it."""
    return _name(_stored(text, key_extra), _PREFIX[kind])


def load_module(text: str, *, kind: Kind, key_extra: str = "") -> ModuleType:
    """Import an emitted text, compiling its kernels or taking them from the cache.

    `kind` shows in the file's name; of an entry, lines that are comments do not count in it.
    `key_extra` makes otherwise equal texts distinct modules; it becomes a comment in the file and
    must be one line (else ValueError).  CompilerBug if the text is not valid Python: it was
    emitted.
    """
    stored = _stored(text, key_extra)
    name = _name(stored, _PREFIX[kind])
    if name in sys.modules:
        return sys.modules[name]
    path = _path(name)
    if not _intact(path, name):
        write_atomically(path, stored)
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise CompilerBug("emit", path.name, f"emitted text is valid Python ({error})") from error


def is_stored(text: str, *, kind: Kind) -> bool:
    """Whether `text` is loaded already or was loaded by an earlier process, so that loading it is
    quick.
    """
    name = module_name(text, kind=kind)
    return name in sys.modules or bool(JIT and kept(name))


def _stored(text: str, key_extra: str) -> bytes:
    if len(key_extra.splitlines()) > 1:
        raise ValueError(f"key_extra must be one line, but got {key_extra!r}")
    return (f"{text.rstrip()}\n\n{_KEY.decode()}{key_extra}\n" if key_extra else text).encode()


def _name(stored: bytes, prefix: str) -> str:
    digest = hashlib.sha256(environment_key().encode())
    digest.update(stored if prefix == _PREFIX["kernel"] else _without_remarks(stored))
    return f"{PACKAGE}.{prefix}_{digest.hexdigest()[:40]}"


def _without_remarks(stored: bytes) -> bytes:
    """An entry without the comments, on lines of their own, that say where layers stand in a spec:
    the same network in another folder, or seen from another one, is the same machine code. All of
    it where the end of another line might not be its end: behind that a comment may be none.
    """
    lines = [line for line in stored.split(b"\n") if not _is_remark(line)]
    return stored if any(map(_may_go_on, lines)) else b"\n".join(lines)


def _may_go_on(line: bytes) -> bool:
    if b"\\" in line or b"'''" in line:
        return True
    return b'"""' in line and not _DOCSTRING.fullmatch(line)


def _is_remark(line: bytes) -> bool:
    """Whether a line is a comment and nothing that Python might take for more, such as a carriage
    return, which ends a line for it.
    """
    words = line.lstrip(b" ")
    return words.startswith(b"#") and not words.startswith(_KEY) and min(line) >= ord(" ")


def _path(name: str) -> Path:
    return cache_folder() / f"{name.rpartition('.')[2]}.py"


def _intact(path: Path, name: str) -> bool:
    """Whether the file exists and holds what its name says."""
    return _read_checked(path, name) is not None


def _read_checked(path: Path, name: str) -> str | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    prefix, _, _ = name.rpartition(".")[2].partition("_")
    if name != _name(stored, prefix):
        return None
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return None


class _Loader(InspectLoader):
    """Runs text that was checked, not the file a second time; keeps no bytecode file. A comment
    that asks for another encoding is not heard.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        name = module.__name__
        functions = functions_of(name, lambda: self._run({"__name__": name}))
        if functions:
            module.__dict__.update(functions)
        else:
            self._run(module.__dict__)
            keep_functions(name)

    def _run(self, names: dict[str, Any]) -> None:
        """Run the text, which compiles its functions where there is no machine code yet."""
        exec(compile(self.source, str(self.path), "exec"), names)


class _EmittedFinder(MetaPathFinder):
    """Finds `cnncc_emitted` (an empty package) and the modules in it, in the cache folder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == PACKAGE:
            spec = ModuleSpec(PACKAGE, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        package, _, name = fullname.rpartition(".")
        if package != PACKAGE or not name.startswith(("k_", "e_")) or os.sep in name:
            return None
        file = _path(fullname)
        source = _read_checked(file, fullname)
        if source is None:
            return None
        loader = _Loader(file, source)
        return importlib.util.spec_from_loader(fullname, loader, origin=str(file))


if not any(isinstance(finder, _EmittedFinder) for finder in sys.meta_path):
    sys.meta_path.append(_EmittedFinder())
