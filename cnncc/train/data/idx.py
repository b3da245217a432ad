"""MNIST and its relatives (Fashion-MNIST, KMNIST, EMNIST): the IDX format, plain or gzipped.

    00 00 08 n        two zeros, the type (8: unsigned bytes), the number of axes
    n x 4 bytes       the extents, big-endian
    the rest          the values, C order

(Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section File formats.) The header says how
many bytes must follow, so no more than that is ever read or decompressed.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import (
    FORMAT,
    LIMIT,
    SIZES,
    UNKNOWN,
    ByteStream,
    DataError,
    file_size,
    open_bytes,
    read_exact,
    refuse,
)
from cnncc.train.data.dataset import Dataset, Kind, check_labels
from cnncc.train.data.pixels import as_pixels, check_pixels

PREFIXES = {"train": "train", "test": "t10k"}
_MAX_LABELS = 1 << 27


def find_idx(folder: Path, split: str, what: str) -> Path | None:
    """The file with the `images` or `labels` of a split, under one of its usual names."""
    axes = 3 if what == "images" else 1
    for joint in ("-", "."):
        for end in ("", ".gz"):
            path = folder / f"{PREFIXES[split]}-{what}{joint}idx{axes}-ubyte{end}"
            if path.is_file():
                return path
    return None


def is_idx_folder(folder: Path) -> bool:
    """True when images or labels of any split are here."""
    return any(find_idx(folder, s, w) for s in PREFIXES for w in ("images", "labels"))


def read_idx_folder(folder: Path, split: str, kind: Kind, max_bytes: int) -> Dataset:
    """`x` of shape (samples, 1, rows, columns), from 0 to 1 or uint8.

    The number of classes is that of the labels of both splits, and at least 10. Raises DataError
    for files that are missing, damaged, inconsistent or over `max_bytes`.
    """
    images_path, labels_path = _need(folder, split, "images"), _need(folder, split, "labels")
    labels = read_idx(labels_path, 1, _MAX_LABELS)
    with _open(images_path) as stream:
        extents = _read_extents(stream, images_path, 3)
        if extents[0] != len(labels):
            raise refuse(
                SIZES,
                f"{images_path} holds {extents[0]} images, but {labels_path} holds {len(labels)} "
                "labels",
                "take both files from the same download",
            )
        check_pixels(math.prod(extents), kind, max_bytes, str(images_path))
        images = _read_values(stream, images_path, extents)
    classes = _classes(folder, split, labels)
    check_labels(labels, classes, str(labels_path))
    x = as_pixels(images[:, np.newaxis], kind)
    return Dataset(x, labels.astype(np.int64), classes, folder.name or str(folder))


def read_idx(path: Path, axes: int, max_bytes: int) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes with this number of axes."""
    with _open(path) as stream:
        extents = _read_extents(stream, path, axes)
        if math.prod(extents) > max_bytes:
            raise refuse(LIMIT, f"{path} announces {math.prod(extents)} bytes, over {max_bytes}")
        return _read_values(stream, path, extents)


def _need(folder: Path, split: str, what: str) -> Path:
    path = find_idx(folder, split, what)
    if path is None:
        axes = 3 if what == "images" else 1
        name = f"{PREFIXES[split]}-{what}-idx{axes}-ubyte"
        raise refuse(
            UNKNOWN,
            f"{folder} has no {split} {what}: there is neither {name} nor {name}.gz",
            f"put {name}.gz there, as it was downloaded",
        )
    return path


def _classes(folder: Path, split: str, labels: NDArray[np.uint8]) -> int:
    """One more than the largest label; MNIST's ten at least, so that a subset has ten too."""
    other = find_idx(folder, "test" if split == "train" else "train", "labels")
    largest = int(labels.max())
    if other is not None:
        largest = max(largest, int(read_idx(other, 1, _MAX_LABELS).max()))
    return max(10, largest + 1)


@contextmanager
def _open(path: Path) -> Iterator[ByteStream]:
    with open_bytes(path) as raw:
        if path.suffix != ".gz":
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        except DataError:
            raise
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise refuse(
                FORMAT,
                f"{path} is not a gzip file, or it is damaged: {error}",
                "download it again, or drop .gz from its name if it is already unpacked",
            ) from None


def _read_extents(stream: ByteStream, path: Path, axes: int) -> tuple[int, ...]:
    start = bytes(read_exact(stream, 4, path))
    if start[:2] == b"\x1f\x8b":
        raise refuse(FORMAT, f"{path} is gzipped", f"rename it to {path.name}.gz")
    if start[:3] != b"\x00\x00\x08":
        raise refuse(
            FORMAT,
            f"{path} is not an IDX file of unsigned bytes: it must begin with 00 00 08, but begins "
            f"with {start[:3].hex(' ')}",
        )
    if start[3] != axes:
        raise refuse(FORMAT, f"{path} must have {axes} axes, but it has {start[3]}")
    header = bytes(read_exact(stream, 4 * axes, path))
    extents = tuple(int.from_bytes(header[at : at + 4]) for at in range(0, 4 * axes, 4))
    if 0 in extents:
        raise refuse(SIZES, f"{path} is empty: its extents are {extents}")
    return extents


def _read_values(stream: ByteStream, path: Path, extents: tuple[int, ...]) -> NDArray[np.uint8]:
    count = math.prod(extents)
    if not isinstance(stream, gzip.GzipFile):
        _check_plain_size(path, 4 + 4 * len(extents), count)
    data = read_exact(stream, count, path)
    if stream.read(1):  # at the end of a gzip stream this also compares its checksum
        raise refuse(SIZES, f"{path} goes on after the {count} bytes that its header announces")
    return np.frombuffer(data, np.uint8).reshape(extents)


def _check_plain_size(path: Path, header: int, count: int) -> None:
    with open_bytes(path) as raw:
        size = file_size(raw)
    if size != header + count:
        raise refuse(
            SIZES,
            f"{path} announces {count} values, so it must have {header + count} bytes, but it has "
            f"{size}",
            "the file is probably truncated: copy or download it again",
        )
