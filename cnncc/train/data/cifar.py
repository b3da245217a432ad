"""CIFAR-10 and CIFAR-100 in their binary versions (A. Krizhevsky, 2009).

A file is a row of records without a header. CIFAR-10: one byte label, then 3072 pixels, the red,
green and blue planes of 32x32. CIFAR-100: a coarse label before the fine one, which is used. The
"python version" of the same data is pickles, which are refused.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnncc.io.files import CODE, SIZES, UNKNOWN, file_size, open_bytes, read_exact, refuse
from cnncc.train.data.dataset import Dataset, Kind, check_labels
from cnncc.train.data.pixels import as_pixels, check_pixels

PIXELS = 3 * 32 * 32
HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Edition:
    """What the two data sets differ in."""

    name: str
    classes: int
    label_bytes: int
    files: dict[str, tuple[str, ...]]
    pickles: tuple[str, ...]
    archive: str

    @property
    def record(self) -> int:
        return self.label_bytes + PIXELS


CIFAR10 = Edition(
    "cifar10",
    10,
    1,
    {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    ("data_batch_1", "test_batch", "batches.meta"),
    "cifar-10-binary.tar.gz",
)
CIFAR100 = Edition(
    "cifar100",
    100,
    2,
    {"train": ("train.bin",), "test": ("test.bin",)},
    ("train", "test", "meta"),
    "cifar-100-binary.tar.gz",
)


def cifar_edition(folder: Path) -> Edition | None:
    """Which of the two is in the folder. Raises DataError when it is there as pickles only."""
    for edition in (CIFAR10, CIFAR100):
        if any((folder / name).is_file() for names in edition.files.values() for name in names):
            return edition
    for edition in (CIFAR10, CIFAR100):
        found = [name for name in edition.pickles if (folder / name).is_file()]
        if found:
            raise refuse_pickles(folder / found[0], edition)
    return None


def refuse_pickles(path: Path, edition: Edition) -> Exception:
    """The error for the python version of the data."""
    return refuse(
        CODE,
        f"{path} is the python version of {edition.name}, which is a pickle; reading it could run "
        "any code, so cnncc never does",
        f"get the binary version, {edition.archive}, from {HOME}",
    )


def read_cifar(folder: Path, edition: Edition, split: str, kind: Kind, max_bytes: int) -> Dataset:
    """`x` of shape (samples, 3, 32, 32), from 0 to 1 or uint8.

    Raises DataError when a file is missing, is no whole number of records, has a label out of
    range, or when all together are over `max_bytes`.
    """
    paths = [folder / name for name in edition.files[split]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise refuse(
            UNKNOWN,
            f"{folder} lacks {', '.join(missing)} of {edition.name}",
            f"unpack {edition.archive} from {HOME} again",
        )
    records = [_records(path, edition) for path in paths]
    check_pixels(sum(records) * edition.record, kind, max_bytes, f"{edition.name} in {folder}")
    raw = np.empty((sum(records), edition.record), np.uint8)
    at = 0
    for path, count in zip(paths, records, strict=True):
        with open_bytes(path) as stream:
            data = read_exact(stream, count * edition.record, path)
        raw[at : at + count] = np.frombuffer(data, np.uint8).reshape(count, edition.record)
        check_labels(raw[at : at + count, edition.label_bytes - 1], edition.classes, str(path))
        at += count
    labels = raw[:, edition.label_bytes - 1].astype(np.int64)
    pixels = np.ascontiguousarray(raw[:, edition.label_bytes :]).reshape(-1, 3, 32, 32)
    return Dataset(as_pixels(pixels, kind), labels, edition.classes, edition.name)


def _records(path: Path, edition: Edition) -> int:
    with open_bytes(path) as stream:
        size = file_size(stream)
    if size == 0 or size % edition.record:
        raise refuse(
            SIZES,
            f"{path} has {size} bytes, which is no whole number of {edition.record}-byte records "
            f"({edition.label_bytes} for labels, {PIXELS} for pixels)",
            "the file is probably truncated: unpack or download it again",
        )
    return size // edition.record
