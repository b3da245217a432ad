"""How far two results are apart, and how far they may be."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

FORWARD = 1e-5  # relative L2 error of an output against PyTorch's float32
GRADIENT = 1e-4  # of a gradient tensor
TIMES = 4  # or this many times PyTorch's own distance from float64, ours from float64


def relative_l2(got: Array, expected: Array) -> float:
    """|got - expected| / |expected|, computed in float64; infinite for another shape or a NaN."""
    if got.shape != expected.shape:
        return float("inf")
    a, b = got.astype(np.float64), expected.astype(np.float64)
    error = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))
    return error if np.isfinite(error) else float("inf")
