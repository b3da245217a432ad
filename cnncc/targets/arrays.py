"""NumPy arrays for the targets, and the element types of both worlds."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnncc.tensor import DType

Array = np.ndarray[Any, np.dtype[Any]]

NUMPY: dict[DType, type[np.generic]] = {
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.U8: np.uint8,
    DType.U16: np.uint16,
    DType.I32: np.int32,
    DType.I64: np.int64,
    DType.BF16: np.uint16,  # its bits
}
