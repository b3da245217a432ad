"""How a map that becomes a vector is best handed on: stored element by element by the kernel that
computes it, by a kernel of its own, or not at all, as a dense layer can read it where it lies.
"""

from __future__ import annotations

from cnncc.tensor import TensorType, product

FEW = 1024
"""Elements of a sample that a dense layer may read one by one: the nearest cache has them all."""

WIDE = 64
"""Positions of a map of which each channel fills lines of its own."""


def is_short(t: TensorType) -> bool:
    """Whether a dense layer may read a map of this type where it lies, channel by channel.

    A kernel of its own would take as long to start as to run.
    """
    return t.batched and isinstance(t.elements, int) and t.elements <= FEW


def shares_lines(t: TensorType) -> bool:
    """Whether kernels that store a map of this type channel by channel, as a vector, write to a
    line of memory from several rows, perhaps of several threads.
    """
    positions = product(t.shape[1:])
    return isinstance(positions, int) and 1 < positions < WIDE
