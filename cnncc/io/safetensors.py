"""Saving and loading named arrays with a few texts: the weights of a model, a checkpoint.

The format is safetensors, or npz where the file name ends in `.npz`. Neither can hold code. Saving
replaces the file in one step (a crash leaves the old or the new one, never half of one), and
loading compares names, shapes and dtypes with what is expected before a single value is read.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cnncc.errors import Diagnostic, Note, did_you_mean
from cnncc.io.files import (
    GIB,
    MISMATCH,
    WRITE,
    DataError,
    check_limit,
    file_size,
    open_bytes,
    refuse,
)
from cnncc.io.layout import DTYPES, MAX_NAME, TensorInfo, read_layout, read_tensors
from cnncc.io.npz import METADATA, inspect_npz, read_npz, write_npz
from cnncc.io.replace import replace_file

State = dict[str, NDArray[Any]]

MAX_BYTES = 16 * GIB
_MOST_SHOWN = 20


def save_state(
    path: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    previous: str | Path | None = None,
) -> None:
    """Write `tensors` and `metadata` to `path`, crash-safe and verified by reading them back.

    `tensors` maps names to arrays of any shape with a float16, float32, float64, integer or boolean
    dtype; they are stored little-endian in C order. `previous` names a file that keeps what stood
    at `path` before. Raises DataError E0710 when the file cannot be written (the old one is then
    untouched), and ValueError or TypeError for names, dtypes or metadata that cannot be stored.
    """
    path = Path(path)
    texts = dict(metadata or {})
    if not all(isinstance(item, str) for pair in texts.items() for item in pair):
        raise TypeError("metadata maps texts to texts")
    stored = {name: _storable(name, array) for name, array in tensors.items()}

    def write(new: Path) -> None:
        if path.suffix == ".npz":
            write_npz(new, stored, texts)
        else:
            save_file(stored, new, metadata=texts)

    def check(new: Path) -> None:
        _check_written(new, stored, texts)

    replace_file(path, write, check, None if previous is None else Path(previous))


def load_state(
    path: str | Path,
    *,
    expect: Mapping[str, TensorInfo] | None = None,
    strict: bool = True,
    max_bytes: int = MAX_BYTES,
) -> tuple[State, dict[str, str]]:
    """The arrays and the texts of a file written by `save_state` or by any safetensors writer.

    With `expect`, names, shapes and dtypes are compared as `check_state` does, for safetensors
    before any value is read. Raises DataError: E0701 no file, E0702 not of its format, E0703
    truncated or inconsistent, E0704 a pickle inside, E0705 over `max_bytes`, E0707 not as expected.
    """
    path = Path(path)

    def check(found: Mapping[str, TensorInfo]) -> None:
        if expect is not None:
            check_state(found, expect, path, strict)

    if _is_zip(path):
        return read_npz(path, max_bytes, check)
    with open_bytes(path) as stream:
        check_limit(file_size(stream), max_bytes, str(path))
        layout = read_layout(stream, path)
        check(layout.tensors)
        return dict(read_tensors(stream, layout, path)), layout.metadata


def inspect_state(path: str | Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Names, dtypes, shapes and texts of a file; no value is read. Raises as `load_state`."""
    path = Path(path)
    if _is_zip(path):
        return inspect_npz(path)
    with open_bytes(path) as stream:
        layout = read_layout(stream, path)
        return layout.tensors, layout.metadata


def check_state(
    found: Mapping[str, TensorInfo],
    expected: Mapping[str, TensorInfo],
    path: str | Path,
    strict: bool = True,
) -> None:
    """Raise DataError E0707 with every difference between a file and what a model needs.

    `strict=False` lets names be missing on either side; a name that is on both sides must have the
    same shape and dtype in any case.
    """
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    differences = [
        f"{name} is {found[name]} in the file, but {info} is needed"
        for name, info in expected.items()
        if name in found and found[name] != info
    ]
    if strict:
        for name in missing:
            near = did_you_mean(name, unknown, 1)
            hint = f" (it has {near[0]})" if near else ""
            differences.append(f"{name} {expected[name]} is missing from the file{hint}")
        differences += [f"{name} {found[name]} is not part of the network" for name in unknown]
    if not differences:
        return
    notes = differences[:_MOST_SHOWN]
    if len(differences) > _MOST_SHOWN:
        notes.append(f"and {len(differences) - _MOST_SHOWN} more")
    helps = ["check that the file belongs to this network and these arguments"]
    if strict and len(differences) == len(missing) + len(unknown):
        helps.append("strict=False loads only the names that both have")
    raise DataError(
        Diagnostic(
            MISMATCH,
            f"{path} does not fit: {len(differences)} of its tensors differ from those expected",
            notes=tuple(Note(note) for note in notes),
            helps=tuple(helps),
        )
    )


def _storable(name: str, value: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"a tensor's name has 1 to {MAX_NAME} printable characters, got {name!r}")
    if name == METADATA:
        raise ValueError(f"{METADATA} is reserved")
    array = np.asarray(value)
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES.values():
        raise TypeError(f"{name}: arrays of dtype {array.dtype} cannot be stored")
    # The library stores the memory from the first element on, whatever the strides are.
    return np.require(array, little, "C")


def _check_written(path: Path, stored: State, texts: dict[str, str]) -> None:
    """Raise DataError unless the file holds exactly these bytes."""
    if _is_zip(path):
        tensors, found_texts = read_npz(path, MAX_BYTES)
        same = found_texts == texts and _are_same(tensors.items(), stored)
    else:
        with open_bytes(path) as stream:
            layout = read_layout(stream, path)
            same = layout.metadata == texts and _are_same(
                read_tensors(stream, layout, path), stored
            )
    if not same:
        raise refuse(WRITE, f"{path.name}: what was written does not read back as it was")


def _are_same(found: Iterable[tuple[str, NDArray[Any]]], stored: State) -> bool:
    seen = set()
    for name, array in found:
        wanted = stored.get(name)
        if wanted is None or TensorInfo.of(array) != TensorInfo.of(wanted):
            return False
        # As bytes: a NaN is not equal to itself, and 0.0 is equal to -0.0.
        if not np.array_equal(array.reshape(-1).view(np.uint8), wanted.reshape(-1).view(np.uint8)):
            return False
        seen.add(name)
    return seen == stored.keys()


def _is_zip(path: Path) -> bool:
    """What a file is, its first bytes say: a name may lie, and links have two names."""
    with open_bytes(path) as stream:
        return stream.read(4) == b"PK\x03\x04"
