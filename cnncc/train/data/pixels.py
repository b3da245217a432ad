"""From stored bytes to the numbers that a network sees."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import check_limit
from cnncc.train.data.dataset import Kind


def as_pixels(raw: NDArray[np.uint8], kind: Kind, top: int = 255) -> NDArray[Any]:
    """Bytes 0 to `top` as float32 from 0 to 1 (correctly rounded), or unchanged for "uint8"."""
    if kind == "uint8":
        return raw
    return np.divide(raw, np.float32(top), dtype=np.float32)


def pixel_bytes(count: int, kind: Kind) -> int:
    """The most memory that `count` values take while they are loaded."""
    return count if kind == "uint8" else count * 5


def check_pixels(count: int, kind: Kind, max_bytes: int, what: str) -> None:
    """Raise DataError E0705 when `count` values are over the limit."""
    check_limit(pixel_bytes(count, kind), max_bytes, what)
