"""The private folder in which emitted modules and their machine code wait for the next process.

Everything in the folder is addressed by content: a file's name is a hash of what it was made from,
so nothing ever goes stale, two processes that write the same file write the same bytes, and no
index has to be kept (Numba's own index can pair a signature with another one's code when two
processes save at once).  Machine code is run as it stands, so the folder is used only when
nobody else can write to it; otherwise a fresh private folder serves this process alone.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import llvmlite

from cnncc import __version__
from cnncc.targets.cpu.machine import detect
from cnncc.targets.settings import numba_version, setting

__all__ = [
    "CacheInfo",
    "cache_clear",
    "cache_folder",
    "cache_info",
    "is_lasting",
    "load_code",
    "save_code",
]

_MODULE_PREFIXES = ("k_", "e_")
_MACHINE_CODE_SUFFIX = ".code"
_TEMPORARY_PREFIX = ".new-"
MEASURED_PREFIX = "tuned_"  # of what `tuned.py` keeps here

# Settings of Numba that change machine code, and the modules whose code becomes part of emitted
# modules.
_OPTIONS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "DEBUGINFO_DEFAULT",
    "CPU_NAME",
    "CPU_FEATURES",
)
_RUNTIME = (
    "cache.py",
    "load.py",
    "locks.py",
    "settings.py",
    "cpu/arena.py",
    "cpu/atomics.py",
    "cpu/compiled.py",
    "cpu/control.py",
    "cpu/host.py",
    "cpu/jit.py",
    "cpu/linker.py",
    "cpu/machine_code.py",
    "cpu/pipeline.py",
    "cpu/protocol.py",
    "cpu/step.py",
    "cpu/team.py",
    "cpu/tile_shape.py",
    "cpu/vector/*.py",
)

_chosen: dict[str | None, Path] = {}  # value of CNNCC_CACHE_DIR -> the folder in use
_temporary: set[Path] = set()


class CacheInfo(NamedTuple):
    """Where the cache is and what it holds (`cnncc cache info`)."""

    path: Path
    files: int
    bytes: int


def cache_folder() -> Path:
    """The folder for emitted modules: $CNNCC_CACHE_DIR, or `cnncc` in the user's cache folder.

    It is created with mode 0700.  If it cannot be written, or others could write to it, a warning
    says so and a temporary private folder is used until the process ends.
    """
    configured = os.environ.get("CNNCC_CACHE_DIR")
    if configured not in _chosen:
        wanted = Path(configured).absolute() if configured else _user_cache_folder() / "cnncc"
        _chosen[configured] = _private(wanted)
    return _chosen[configured]


def is_lasting() -> bool:
    """Whether what lies in the cache is there for the next process."""
    return cache_folder() not in _temporary


def cache_info() -> CacheInfo:
    """The cache's folder, number of files and their total size in bytes."""
    sizes = [entry.stat().st_size for entry in _own_files()]
    return CacheInfo(cache_folder(), len(sizes), sum(sizes))


def cache_clear() -> CacheInfo:
    """Remove every file that cnncc wrote (and no other); returns what there was.

    Modules that this process has loaded keep working.
    """
    before = cache_info()
    for entry in _own_files():
        entry.unlink(missing_ok=True)
    return before


def _own_files() -> Iterator[Path]:
    for entry in sorted(cache_folder().iterdir()):
        name = entry.name
        module = name.startswith(_MODULE_PREFIXES) and name.endswith(".py")
        code = name.endswith(_MACHINE_CODE_SUFFIX)
        if module or code or name.startswith((_TEMPORARY_PREFIX, MEASURED_PREFIX)):
            yield entry


def _user_cache_folder() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def _private(wanted: Path) -> Path:
    """`wanted`, created if needed, or a temporary folder if it must not be used."""
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = wanted.resolve(strict=True)
        objection = _objection(folder)
        if objection is None:
            with tempfile.TemporaryFile(dir=folder, prefix=_TEMPORARY_PREFIX):
                return folder
    except OSError as error:
        objection = error.strerror or str(error)
    warnings.warn(
        f"the kernel cache {wanted} is not used: {objection}. "
        "Kernels are compiled again in every process; "
        "set CNNCC_CACHE_DIR to a folder of your own to keep them.",
        RuntimeWarning,
        stacklevel=4,
    )
    return _temporary_folder()


def _objection(folder: Path) -> str | None:
    """Why code must not be loaded from `folder`; None if only this user can change what it
    holds."""
    if not hasattr(os, "geteuid"):
        return None  # Windows: the profile folder is protected by its access list
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    for parent in folder.parents:
        status = parent.stat()
        sticky = bool(status.st_mode & stat.S_ISVTX)
        if status.st_uid not in (0, os.geteuid()) and not sticky:
            return f"user {status.st_uid} can replace its parent {parent}"
        if status.st_mode & stat.S_IWOTH and not sticky:
            return f"others can replace its parent {parent}"
    return None


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cnncc-"))
    _temporary.add(folder)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child shares the folder and must leave it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none: temporary file beside it, then
    rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY_PREFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def environment_key() -> str:
    """A hash of all that decides what an emitted text becomes: versions, processor, options and
    our runtime modules."""
    machine = detect()
    facts = [
        __version__,
        hashlib.sha256(numba_version()).hexdigest(),
        llvmlite.__version__,
        sys.version,
        sys.platform,
        machine.isa,
        machine.cpu_name,
        ",".join(machine.features),
        *(f"{option}={setting(option)}" for option in _OPTIONS),
    ]
    digest = hashlib.sha256("\n".join(facts).encode())
    here = Path(__file__).parent
    for pattern in _RUNTIME:
        for path in sorted(here.glob(pattern)):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def load_code(name: str) -> bytes | None:
    """What `save_code` kept under a name in this environment; None if nothing was, or if it is
    damaged.
    """
    try:
        stored = _code_path(name).read_bytes()
    except OSError:
        return None
    checksum, code = stored[:32], stored[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def save_code(name: str, code: bytes) -> None:
    """Keep machine code for the next process under a name that is unique to what it was made
    from.
    """
    try:
        write_atomically(_code_path(name), hashlib.sha256(code).digest() + code)
    except OSError as error:
        warnings.warn(f"compiled code is not kept: {error}", RuntimeWarning, stacklevel=2)


def _code_path(name: str) -> Path:
    digest = hashlib.sha256(f"{environment_key()}\n{name}".encode())
    return cache_folder() / f"{digest.hexdigest()}{_MACHINE_CODE_SUFFIX}"
