"""A data set in memory, and the batches that a training run takes from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import RANGE, SIZES, refuse
from cnncc.train.data.order import random_order

Kind = Literal["float32", "uint8"]
Batch = tuple[NDArray[Any], NDArray[Any]]

_EPOCH_ORDER = 0x65706F63  # keeps the orders of epochs apart from every other use of the seed


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their targets.

    `x` has shape (samples, channels, *extents) and dtype float32 or uint8. For classification `y`
    holds class numbers, int64 of shape (samples,), from 0 up to `classes` (not included); otherwise
    `classes` is None and `y` is float32 of shape (samples, ...). `class_names`, where known, has
    one name per class. Raises DataError when these do not fit together.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    classes: int | None
    name: str
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or len(self.x) == 0:
            raise refuse(SIZES, f"{self.name}: x has the shape {self.x.shape}; it needs samples")
        if self.y.ndim < 1 or len(self.x) != len(self.y):
            raise refuse(
                SIZES, f"{self.name}: x has {len(self.x)} samples, but y has {self.y.shape}"
            )
        if self.x.dtype not in (np.float32, np.uint8):
            raise refuse(RANGE, f"{self.name}: x must be float32 or uint8, not {self.x.dtype}")
        if self.classes is None:
            if self.y.dtype != np.float32:
                raise refuse(RANGE, f"{self.name}: y must be float32, not {self.y.dtype}")
            return
        if self.y.ndim != 1 or self.y.dtype != np.int64:
            raise refuse(
                RANGE,
                f"{self.name}: class numbers must be int64 of shape (samples,), but y is "
                f"{self.y.dtype} of shape {self.y.shape}",
            )
        check_labels(self.y, self.classes, self.name)
        if self.class_names and len(self.class_names) != self.classes:
            raise refuse(
                SIZES,
                f"{self.name}: {len(self.class_names)} class names for {self.classes} classes",
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (channels, *extents)."""
        return self.x.shape[1:]


def check_labels(labels: NDArray[Any], classes: int, where: str) -> None:
    """Raise DataError E0706 unless every label is one of 0 to classes - 1."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise refuse(
            RANGE,
            f"{where}: with {classes} classes a label is 0 to {classes - 1}, but sample {at} has "
            f"{int(labels[at])}",
            "count classes from 0",
        )


def batch_count(samples: int, batch: int, drop_last: bool = False) -> int:
    """Batches in an epoch: the last one may be smaller, or is left out with `drop_last`."""
    return samples // batch if drop_last else -(-samples // batch)


def batches(
    dataset: Dataset,
    batch: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    *,
    start: int = 0,
) -> Iterator[Batch]:
    """The batches (x, y) of one epoch, from batch `start` on.

    The order depends on `seed`, `epoch` and the number of samples only, so a run that resumes in
    the middle of an epoch continues with exactly the batches that it would have seen. Without
    `shuffle` the order is that of the data set, and batches are views. Raises ValueError when
    `batch` is less than 1, `start` negative, or no full batch exists to be kept by `drop_last`.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, but got {batch}")
    if start < 0 or epoch < 0:
        raise ValueError(f"start and epoch count from 0, but got {start} and {epoch}")
    count = batch_count(len(dataset), batch, drop_last)
    if count == 0:
        raise ValueError(
            f"{dataset.name} has {len(dataset)} samples: no batch of {batch} with drop_last"
        )
    return _batches(dataset, batch, seed, epoch, shuffle, range(start, count))


def _batches(
    dataset: Dataset, batch: int, seed: int, epoch: int, shuffle: bool, numbers: range
) -> Iterator[Batch]:
    if not shuffle:
        for at in numbers:
            part = slice(at * batch, (at + 1) * batch)
            yield dataset.x[part], dataset.y[part]
        return
    order = random_order(len(dataset), _EPOCH_ORDER, seed, epoch)
    for at in numbers:
        chosen = order[at * batch : (at + 1) * batch]
        yield dataset.x[chosen], dataset.y[chosen]
