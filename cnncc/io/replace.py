"""Replacing a file so that a crash at any moment leaves the old one or the new one, whole.

The new content is written into a private folder beside the target, flushed to the disk, read back
and checked, and only then renamed over the target; after that the folder's own entry is flushed.
A process that dies on the way leaves its private folder behind, and the next save removes it: a
lock, which the system drops with its owner, tells the dead from the living.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cnncc.io.files import WRITE, refuse

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, leftovers stay until a person removes them
    fcntl = None  # type: ignore[assignment]

LEFTOVER = ".saving"


def replace_file(
    path: Path,
    write: Callable[[Path], None],
    check: Callable[[Path], None],
    previous: Path | None = None,
) -> None:
    """Write a file through `write(temporary)`, verify it through `check(temporary)`, install it.

    `check` raises when what was written does not read back. With `previous`, the file that stood
    at `path` is kept under that name. Missing folders are made. A symbolic link at `path` is
    followed. Raises DataError when the system refuses (no permission, disk full); `path` is then
    as it was before.
    """
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _private_folder(path) as folder:
            new = folder / path.name
            write(new)
            _copy_mode(path, new, folder)
            _flush(new)
            check(new)
            if previous is not None and path.exists():
                _keep(path, previous, folder)
            os.replace(new, path)
        _flush(path.parent)
    except OSError as error:
        raise refuse(
            WRITE,
            f"cannot write {path}: {error.strerror or error}",
            "check that the folder may be written and that the disk has room",
        ) from error


@contextlib.contextmanager
def _private_folder(path: Path) -> Iterator[Path]:
    """A locked folder beside `path`, on the same file system, gone at the end."""
    prefix = f".{path.name}."
    _remove_leftovers(path.parent, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=LEFTOVER, dir=path.parent))
        lock = _lock(folder)
        # Between mkdtemp and the lock another process may have taken this folder for a leftover.
        if folder.exists():
            break
        _unlock(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    if fcntl is None:
        return
    for folder in parent.iterdir():
        if folder.name.startswith(prefix) and folder.name.endswith(LEFTOVER):
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                _unlock(lock)


def _lock(folder: Path) -> int | None:
    """A lock on the folder that ends with the process; None when another process holds it."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _copy_mode(path: Path, new: Path, folder: Path) -> None:
    """Give the new file the permissions of the old one, or those that a new file gets here."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        probe = folder / "mode"
        probe.touch()  # asking for the umask would mean to change it for all threads
        mode = probe.stat().st_mode
    new.chmod(mode & 0o777)


def _keep(path: Path, previous: Path, folder: Path) -> None:
    """Let `previous` name the present file, without a moment in which `path` does not exist."""
    kept = folder / "previous"
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        shutil.copy2(path, kept)
        _flush(kept)
    os.replace(kept, previous)


def _flush(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, survive a loss of power."""
    if path.is_dir() and fcntl is None:
        return  # Windows cannot open a folder, and its renames are journaled
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
