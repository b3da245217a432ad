"""Arrays in files that the command line names: inputs to read with nothing taken on trust, results
to write whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import CODE, FORMAT, SIZES, UNKNOWN, WRITE, check_limit, open_bytes, refuse
from cnncc.io.npz import MAX_BYTES, npz_names, read_npz
from cnncc.io.replace import replace_file

Arrays = dict[str, NDArray[Any]]

_KINDS = "fiub"


def read_arrays(path: Path, names: Sequence[str]) -> Arrays:
    """The arrays of the inputs `names`, in their order.

    A .npy file holds the only input; in an .npz file each has its name, unless there is only one of
    both. Raises DataError for a file that is missing, of another format, damaged, or a pickle, and
    for names that do not agree.
    """
    if path.suffix == ".npz":
        return _from_npz(path, names)
    if len(names) != 1:
        raise refuse(
            UNKNOWN,
            f"{path} is one array, but the network has the inputs {', '.join(names)}",
            f"numpy.savez('inputs.npz', {', '.join(f'{name}=...' for name in names)})",
        )
    return {names[0]: _from_npy(path)}


def _from_npz(path: Path, names: Sequence[str]) -> Arrays:
    there = npz_names(path)
    wanted = list(names)
    if len(names) == 1 and len(there) == 1:
        wanted = list(there)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise refuse(
            UNKNOWN,
            f"{path} has no array {', '.join(missing)}; it holds "
            f"{', '.join(sorted(there)[:8]) or 'nothing'}",
            f"numpy.savez('inputs.npz', {', '.join(f'{name}=...' for name in names)})",
        )
    arrays, _ = read_npz(path, only=wanted)
    return {name: arrays[key] for name, key in zip(names, wanted, strict=True)}


def _from_npy(path: Path) -> NDArray[Any]:
    with open_bytes(path) as stream:  # a regular file that can be read, or a DataError
        magic = stream.read(6)
    if magic != b"\x93NUMPY":
        raise refuse(FORMAT, f"{path} is not a .npy file", "write it with numpy.save(path, array)")
    try:
        # Mapping compares the header with the file's size before any memory is taken.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy lets through whatever Python's tokenizer says of a header
        if "object" in str(error).lower():
            raise refuse(
                CODE, f"{path} holds Python objects; reading them could run any code"
            ) from None
        raise refuse(SIZES, f"{path} is damaged: {error}", "write it again") from None
    if mapped.dtype.kind not in _KINDS:
        raise refuse(FORMAT, f"{path} holds {mapped.dtype}; inputs are numbers")
    check_limit(mapped.nbytes, MAX_BYTES, str(path))
    if mapped.ndim == 0:
        raise refuse(SIZES, f"{path} holds one number; inputs are (samples, channels, *extents)")
    return np.array(mapped)


def writable(path: Path) -> None:
    """Make sure now that a file can be written later. Raises DataError (E0710)."""
    if os.path.isdir(path):
        raise refuse(WRITE, f"cannot write {path}: it is a folder")
    folder = next(f for f in path.absolute().parents if os.path.exists(f))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise refuse(WRITE, f"cannot write {path}: {folder} is no folder that may be written to")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a .npy file with the only array, or an .npz file with all. Raises DataError (E0710)."""

    def write(new: Path) -> None:
        with new.open("wb") as stream:
            if path.suffix == ".npz":
                np.savez(stream, **arrays)  # type: ignore[arg-type]
            else:
                (only,) = arrays.values()
                np.save(stream, only, allow_pickle=False)

    def check(new: Path) -> None:
        np.load(new, allow_pickle=False)

    replace_file(path, write, check)
