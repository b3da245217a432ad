"""Data sets as npz files of arrays, which is how most people keep their own.

Either the file is divided already, into `x_train`, `y_train`, `x_test` and `y_test`, or it holds
`x` and `y`, of which a fifth is set aside for testing. Bytes are pixels and are scaled to 0..1;
other numbers stay as they are. Whole-number `y` are classes, fractional ones are targets.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import RANGE, SIZES, UNKNOWN, refuse
from cnncc.io.npz import npz_names, read_npz
from cnncc.train.data.dataset import Dataset, Kind
from cnncc.train.data.order import random_order
from cnncc.train.data.pixels import as_pixels
from cnncc.train.data.split import stratified_split

MAX_CLASSES = 1 << 20

TEST_SHARE = 5
"""One in this many samples is for testing, where the source does not say."""


def read_arrays(path: Path, split: str, seed: int, kind: Kind, max_bytes: int) -> Dataset:
    """`x` as stored, with a channel axis added to grey images (uint8 of three axes).

    `seed` decides the split of an undivided file. Raises DataError when arrays are missing, do not
    fit together, are not finite, or are over `max_bytes`.
    """
    names = npz_names(path)
    if {"x_train", "y_train"} <= names:
        return _read_divided(path, split, kind, max_bytes)
    if not {"x", "y"} <= names:
        raise refuse(
            UNKNOWN,
            f"{path} holds {', '.join(sorted(names)[:8]) or 'no arrays'}; a data set has x and y, "
            "or x_train, y_train, x_test and y_test",
            "numpy.savez(path, x=images, y=labels)",
        )
    arrays, _ = read_npz(path, max_bytes, only=("x", "y"))
    x, y = arrays["x"], arrays["y"]
    _check_lengths(x, y, path)
    labels, classes = _targets(y, path)
    chosen = split_indices(None if classes is None else labels, len(x), seed, str(path))
    chosen_now = chosen[split == "test"]
    return Dataset(_inputs(x[chosen_now], kind, path), labels[chosen_now], classes, path.name)


def split_indices(
    labels: NDArray[np.int64] | None, count: int, seed: int, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Training and test indices of a source that is not divided: stratified where it has labels."""
    tests = count // TEST_SHARE
    if tests == 0:
        raise refuse(
            SIZES,
            f"{where} has {count} samples, too few to set one in {TEST_SHARE} aside for testing",
            "divide it yourself into a training and a test part",
        )
    if labels is not None:
        return stratified_split(labels, tests, seed)
    order = random_order(count, seed)
    return np.sort(order[tests:]), np.sort(order[:tests])


def _read_divided(path: Path, split: str, kind: Kind, max_bytes: int) -> Dataset:
    x_name, y_name = f"x_{split}", f"y_{split}"
    arrays, _ = read_npz(path, max_bytes, only=(x_name, "y_train", "y_test"))
    for name in (x_name, y_name):
        if name not in arrays:
            raise refuse(UNKNOWN, f"{path} has no {name}", "add it, or keep only x and y")
    x = arrays[x_name]
    _check_lengths(x, arrays[y_name], path)
    targets = {name: _targets(y, path) for name, y in arrays.items() if name != x_name}
    labels, classes = targets[y_name]
    if classes is not None:
        classes = max(count or 0 for _, count in targets.values())
    return Dataset(_inputs(x, kind, path), labels, classes, path.name)


def _check_lengths(x: NDArray[Any], y: NDArray[Any], path: Path) -> None:
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y):
        raise refuse(
            SIZES,
            f"{path}: x has the shape {x.shape} and y has {y.shape}; both need the samples as "
            "their first axis, and equally many",
        )


def _inputs(x: NDArray[Any], kind: Kind, path: Path) -> NDArray[Any]:
    if x.dtype == np.uint8:
        return as_pixels(x[:, np.newaxis] if x.ndim == 3 else x, kind)
    if kind == "uint8":
        raise refuse(
            RANGE, f"{path}: x is {x.dtype}, but the network takes bytes", "store x as uint8"
        )
    with np.errstate(over="ignore"):  # what does not fit float32 is reported below
        values = x.astype(np.float32)
    _check_finite(values, "x", path)
    return values


def _targets(y: NDArray[Any], path: Path) -> tuple[NDArray[Any], int | None]:
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = y.astype(np.float32)
        _check_finite(values, "y", path)
        return values, None
    labels = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if labels.ndim != 1 or len(labels) == 0:
        raise refuse(
            SIZES,
            f"{path}: class numbers need the shape (samples,), but y has {y.shape}",
            "store class numbers rather than one-hot rows, or targets as floats",
        )
    if int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES:
        raise refuse(
            RANGE,
            f"{path}: a class number is 0 to {MAX_CLASSES - 1}, but y has {labels.min()} to "
            f"{labels.max()}",
            "count classes from 0, or store targets as floats",
        )
    return labels.astype(np.int64), int(labels.max()) + 1


def _check_finite(values: NDArray[np.float32], name: str, path: Path) -> None:
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise refuse(
            RANGE,
            f"{path}: {name} must be finite in float32, but sample {int(np.argmax(bad))} is not "
            f"({int(bad.sum())} of {len(values)} samples)",
            "remove or replace these samples",
        )
