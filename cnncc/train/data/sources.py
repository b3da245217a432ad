"""From a name or a path to a data set: finds out what it is, and calls the reader for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnncc.errors import did_you_mean
from cnncc.io.files import CODE, FORMAT, UNKNOWN, DataError, refuse
from cnncc.io.npz import MAX_BYTES
from cnncc.train.data.arrays import read_arrays
from cnncc.train.data.cifar import (
    CIFAR10,
    CIFAR100,
    Edition,
    cifar_edition,
    read_cifar,
    refuse_pickles,
)
from cnncc.train.data.dataset import Dataset, Kind
from cnncc.train.data.digits import ATTRIBUTION, read_digits
from cnncc.train.data.idx import is_idx_folder, read_idx_folder
from cnncc.train.data.images import Size, is_image_folder, read_images
from cnncc.train.data.synthetic import PREFIX, is_synthetic, parse_synthetic, synthetic

SPLITS = ("train", "test")
_BUILT_IN = ("digits", PREFIX)
# Folders that archives and torchvision put around the files.
_INNER = ("MNIST/raw", "raw", "cifar-10-batches-bin", "cifar-100-binary")
_INNER_PICKLED = {"cifar-10-batches-py": CIFAR10, "cifar-100-python": CIFAR100}
_DOWNLOADS = {
    "mnist": "a folder with train-images-idx3-ubyte.gz and the three other files of MNIST",
    "cifar10": f"the unpacked folder of {CIFAR10.archive}",
    "cifar100": f"the unpacked folder of {CIFAR100.archive}",
}


@dataclass(frozen=True)
class _Source:
    """What a name turned out to be, and how to read a split of it."""

    kind: str
    read: Callable[[str], Dataset]


def load(
    name_or_path: str | Path,
    split: str = "train",
    seed: int = 0,
    *,
    dtype: Kind = "float32",
    max_bytes: int = MAX_BYTES,
    image_size: Size | None = None,
) -> Dataset:
    """Load a data set into memory.

    `name_or_path` is `digits`, `synthetic[:shape[:classes[:samples]]]`, a folder (MNIST as IDX
    files, CIFAR-10 or CIFAR-100 in the binary version, or images in one folder per class), or an
    npz file. A file that is called like a built-in set is `./digits`. `split` is "train" or "test".
    `seed` decides how a source that is not divided is split, and what `synthetic` makes up; sources
    with a split of their own, `digits` among them, always keep it.

    `x` comes as float32 of shape (samples, channels, *extents), pixels from 0 to 1; with
    `dtype="uint8"` pixels stay as stored, for networks that take bytes. `image_size` = (height,
    width) scales the images of a folder. Nothing over `max_bytes` is read or decompressed.

    Raises DataError when the data set cannot be found (E0701), is not of its format (E0702), is
    inconsistent (E0703, E0706), is a pickle (E0704), or is over `max_bytes` (E0705); ValueError for
    another `split`, `dtype` or size.
    """
    _check_arguments(split, dtype, image_size)
    source = _find(name_or_path, seed, dtype, max_bytes, image_size)
    try:
        return source.read(split)
    except OSError as error:  # a folder that may not be listed, or that went away
        raise refuse(UNKNOWN, f"cannot read {name_or_path}: {error.strerror or error}") from None


def info(
    name_or_path: str | Path, seed: int = 0, *, image_size: Size | None = None
) -> dict[str, Any]:
    """What a data set holds, as JSON-ready values. Reads all of it, and so checks all of it.

    Keys: name, kind, shape (of a sample), dtype, classes, class_names, train and test (each with
    samples, class_counts, min, max, mean; test is None where there is none), bytes (of both splits
    in memory), attribution (of a built-in set, otherwise None). Raises as `load`.
    """
    read = partial(load, name_or_path, seed=seed, image_size=image_size)
    kind = _find(name_or_path, seed, "float32", MAX_BYTES, image_size).kind
    train = read("train")
    try:
        test = read("test")
    except DataError as error:
        if error.diagnostics[0].code != UNKNOWN:
            raise
        test = None
    return {
        "name": train.name,
        "kind": kind,
        "shape": list(train.shape),
        "dtype": str(train.x.dtype),
        "classes": train.classes,
        "class_names": list(train.class_names),
        "train": _describe(train),
        "test": None if test is None else _describe(test),
        "bytes": sum(part.x.nbytes + part.y.nbytes for part in (train, test) if part),
        "attribution": ATTRIBUTION if kind == "digits" else None,
    }


def _describe(part: Dataset) -> dict[str, Any]:
    counts = None
    if part.classes is not None:
        counts = np.bincount(part.y, minlength=part.classes).tolist()
    return {
        "samples": len(part),
        "class_counts": counts,
        "min": float(part.x.min()),
        "max": float(part.x.max()),
        "mean": float(part.x.mean(dtype=np.float64)),
    }


def _check_arguments(split: str, dtype: str, image_size: Size | None) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is one of {SPLITS}, but got {split!r}")
    if dtype not in ("float32", "uint8"):
        raise ValueError(f"dtype is float32 or uint8, but got {dtype!r}")
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(f"image_size is (height, width), each at least 1, but got {image_size}")


def _find(
    name: str | Path, seed: int, kind: Kind, max_bytes: int, image_size: Size | None
) -> _Source:
    if name == "digits":
        return _Source("digits", lambda split: read_digits(split, kind))
    if isinstance(name, str) and is_synthetic(name):
        shape, classes, count = parse_synthetic(name)
        made = partial(synthetic, shape, classes, count, seed, kind=kind, max_bytes=max_bytes)
        return _Source("synthetic", lambda split: made(split=split))
    path = Path(name)
    try:
        if path.is_dir():
            return _find_in_folder(path, seed, kind, max_bytes, image_size)
        is_file = path.is_file()
    except DataError:
        raise
    except (OSError, ValueError) as error:  # no permission, or a name that no file can have
        raise refuse(UNKNOWN, f"cannot look into {str(path)[:200]}: {error}") from None
    if not is_file:
        raise _unknown(str(name))
    if path.suffix == ".npz":
        return _Source("npz", lambda split: read_arrays(path, split, seed, kind, max_bytes))
    raise _unreadable(path)


def _find_in_folder(
    path: Path, seed: int, kind: Kind, max_bytes: int, image_size: Size | None
) -> _Source:
    for folder in (path, *(path / inner for inner in _INNER if (path / inner).is_dir())):
        if is_idx_folder(folder):
            return _Source("idx", partial(_read_idx, folder, kind, max_bytes))
        edition = cifar_edition(folder)
        if edition is not None:
            return _Source(edition.name, partial(_read_cifar, folder, edition, kind, max_bytes))
    for inner, edition in _INNER_PICKLED.items():
        if (path / inner).is_dir():
            raise refuse_pickles(path / inner, edition)
    if is_image_folder(path):
        return _Source(
            "images",
            lambda split: read_images(path, split, seed, kind, max_bytes, image_size),
        )
    raise refuse(
        UNKNOWN,
        f"the folder {path} holds no data set that cnncc knows",
        "MNIST: the four files as downloaded, such as train-images-idx3-ubyte.gz",
        f"CIFAR: the .bin files of {CIFAR10.archive} or {CIFAR100.archive}",
        "images: one folder per class, or train and test with one folder per class in each",
    )


def _read_idx(folder: Path, kind: Kind, max_bytes: int, split: str) -> Dataset:
    return read_idx_folder(folder, split, kind, max_bytes)


def _read_cifar(folder: Path, edition: Edition, kind: Kind, max_bytes: int, split: str) -> Dataset:
    return read_cifar(folder, edition, split, kind, max_bytes)


def _unknown(name: str) -> DataError:
    known = name.lower().replace("-", "").replace("_", "")
    if known in _DOWNLOADS:
        return refuse(
            UNKNOWN,
            f"there is no folder {name}, and cnncc downloads nothing",
            f"give the path of {_DOWNLOADS[known]}",
        )
    near = did_you_mean(name, _BUILT_IN, 1)
    helps = [f"did you mean {near[0]}?"] if near else []
    return refuse(
        UNKNOWN,
        f"{name[:200]} is neither a built-in data set ({', '.join(_BUILT_IN)}), nor a file, nor a "
        "folder",
        *helps,
    )


def _unreadable(path: Path) -> DataError:
    endings = "".join(path.suffixes[-2:]).lower()
    if endings.endswith((".pkl", ".pickle", ".pt", ".pth", ".npy", ".joblib")):
        return refuse(
            CODE,
            f"{path} may be a pickle; reading it could run any code, so cnncc never does",
            "store the arrays with numpy.savez(path, x=images, y=labels)",
        )
    if endings.endswith((".tar.gz", ".tgz", ".zip", ".tar", ".tar.bz2", ".tar.xz")):
        return refuse(FORMAT, f"{path} is an archive", "unpack it, and give the folder")
    return refuse(
        FORMAT,
        f"{path} is not a data set that cnncc reads: an npz file or a folder",
        "for MNIST, CIFAR or images, give the folder that holds the files",
    )
