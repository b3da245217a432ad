"""Made-up images that can be learnt: for trying a network out, for tests and for benchmarks.

Every class has a pattern of uniform random pixels, and a sample is the mean of its class's pattern
and of noise of its own. Training and test samples share the patterns and differ in the noise.
"""

import math
from pathlib import Path

import numpy as np

from cnncc.io.files import UNKNOWN, check_limit, refuse
from cnncc.io.npz import MAX_BYTES
from cnncc.train.data.dataset import Dataset, Kind
from cnncc.train.data.order import random_floats, random_order

PREFIX = "synthetic"
_PATTERNS, _NOISE, _LABELS = 1, 2, 3
_DEFAULT = ((1, 8, 8), 10, 1000)


def synthetic(
    shape: tuple[int, ...] = _DEFAULT[0],
    classes: int = _DEFAULT[1],
    count: int = _DEFAULT[2],
    seed: int = 0,
    split: str = "train",
    kind: Kind = "float32",
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """`x` of shape (count, *shape): float32 from 0 up to 1, or uint8.

    The classes are as even as can be and in random order. The same arguments give the same bits.
    Raises ValueError when an extent, `classes` or `count` is below 1, and DataError E0705 when the
    set would take more than `max_bytes`.
    """
    if min(*shape, classes, count, 1) < 1 or not shape:
        raise ValueError(f"extents, classes and count are at least 1: {shape}, {classes}, {count}")
    size = math.prod(shape)
    check_limit(16 * size * (count + classes), max_bytes, "the synthetic set")
    part = int(split == "test")
    labels = (random_order(count, _LABELS, seed, part) % classes).astype(np.int64)
    patterns = random_floats(classes * size, _PATTERNS, seed).reshape(classes, size)
    noise = random_floats(count * size, _NOISE, seed, part).reshape(count, size)
    x = ((patterns[labels] + noise) * np.float32(0.5)).reshape(count, *shape)
    if kind == "uint8":
        x = (x * np.float32(256)).astype(np.uint8)
    return Dataset(x, labels, classes, PREFIX)


def parse_synthetic(name: str) -> tuple[tuple[int, ...], int, int]:
    """Shape, classes and count of `synthetic`, `synthetic:3x32x32` or `synthetic:1x8x8:10:500`.

    Raises DataError E0701 for anything else.
    """
    parts = name.split(":")[1:]
    try:
        if len(name) > 200 or len(parts) > 3:
            raise ValueError
        shape = tuple(_positive(part) for part in parts[0].split("x")) if parts else _DEFAULT[0]
        classes = _positive(parts[1]) if len(parts) > 1 else _DEFAULT[1]
        count = _positive(parts[2]) if len(parts) > 2 else _DEFAULT[2]
    except ValueError:
        raise refuse(
            UNKNOWN,
            f"{name[:80]} does not describe a synthetic set: after the name come the shape, the "
            "number of classes and the number of samples, each at least 1",
            "for example synthetic:3x32x32:10:1000",
        ) from None
    return shape, classes, count


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) == 0:
        raise ValueError(text)
    return int(text)


def is_synthetic(name: str | Path) -> bool:
    """True for the names that `parse_synthetic` is for."""
    return str(name).split(":")[0] == PREFIX
