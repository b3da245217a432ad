"""What both kinds of dropout share: how keys are made, and what a mask multiplies by."""

from __future__ import annotations

import math

# The key has 62 bits: seed, step and stream side by side, so different ones never share a mask.
SEEDS, STEPS, STREAMS = 2**22, 2**26, 2**14


def threshold(p: float) -> float:
    """p rounded up to a multiple of 2^-24, as uniform numbers are, so that f32 and f64 drop the
    same elements.
    """
    return math.ceil(p * 2**24) / 2**24


def growth(p: float) -> float:
    """What kept elements are multiplied by."""
    return 1 / (1 - p)
