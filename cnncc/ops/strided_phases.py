"""A convolution with stride s as one with stride 1 over the phases of its input.

Every s-th position of an axis is a phase: position s i + p of the axis is position i of phase p.
What a tap of the window reads for all outputs lies in one phase.

Nests go through the phases of both axes by the loops `i_p` and `i_q`; with stride 1 there are none.
"""

from __future__ import annotations

from cnncc.loops.build import serial
from cnncc.loops.ir import Index, Int, Statement, Var


def taps_of(size: int, stride: int) -> int:
    """r: the most taps of a window along an axis that fall on one phase."""
    return -(-size // stride)


def of_phases(stride: int, *body: Statement) -> tuple[Statement, ...]:
    """The body for every phase of both axes."""
    return (serial([("i_p", stride), ("i_q", stride)], *body),) if stride > 1 else body


def phased(at: int, phase: str, stride: int) -> Index:
    """Where an axis has position `at` of a phase."""
    return Int(at) if stride == 1 else Var(phase) + at * stride


def phase_channel(inputs: Index, stride: int) -> Index:
    """Of the s s C channels, that of a phase and an input channel."""
    if stride == 1:
        return Var("i_c")
    return (Var("i_p") * stride + Var("i_q")) * inputs + Var("i_c")
