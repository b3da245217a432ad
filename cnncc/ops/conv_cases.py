"""Small convolutions that show every form: strides that drop columns, dilation, groups, depthwise,
tiled and local kernels, one to three axes. The samples of all three operators of conv.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.ops.sharing import Tiles
from cnncc.tensor import DType, TensorType
from cnncc.window import Axis, Window


@dataclass(frozen=True)
class Case:
    """A convolution of x with so many output channels."""

    window: Window
    x: TensorType
    outputs: int
    groups: int = 1
    tiles: Tiles = ()


def _case(shape: tuple[int, ...], k: int, groups: int, *window: Axis, tiles: Tiles = ()) -> Case:
    return Case(window, TensorType(DType.F32, shape), k, groups, tiles)


CONV_CASES: tuple[Case, ...] = (
    _case((3, 6, 7), 4, 1, Axis(3), Axis(2)),
    _case((5, 5, 6), 3, 1, Axis(1), Axis(1)),
    _case((3, 7, 5), 2, 1, Axis(3, lo=1, hi=1), Axis(3, lo=1, hi=1)),
    _case((2, 9, 8), 3, 1, Axis(3, 2, lo=1, hi=1), Axis(2, 3, lo=2, hi=0)),  # columns are dropped
    _case((3, 7, 9), 2, 1, Axis(1, 2), Axis(1, 3)),
    _case((2, 9, 7), 3, 1, Axis(3, dilation=2), Axis(2, 2, 3, lo=1, hi=2)),
    _case((4, 6, 6), 6, 2, Axis(3, lo=1, hi=1), Axis(3, 2, lo=0, hi=1)),
    _case((5, 6, 7), 5, 5, Axis(3, 2, lo=1, hi=1), Axis(3, lo=1, hi=1)),  # depthwise
    _case((3, 5, 5), 6, 3, Axis(3), Axis(3, lo=1, hi=1)),  # two outputs per input
    _case((1, 5, 6), 1, 1, Axis(2), Axis(2)),
    _case((33, 4, 5), 3, 1, Axis(2, lo=1), Axis(3, 2, lo=1)),  # a sum for each tap
    _case((3, 9), 4, 1, Axis(4, 2, lo=2, hi=1)),
    _case((4, 8), 4, 4, Axis(3, lo=2)),
    _case((2, 5, 4, 6), 3, 1, Axis(2), Axis(3, lo=1, hi=1), Axis(2, 2)),
    _case((2, 6, 7), 3, 1, Axis(3, lo=1, hi=1), Axis(2), tiles=(2, 3)),
    _case(
        (2, 9, 7), 3, 1, Axis(3, 2, lo=1), Axis(2, 2, 3, lo=1, hi=2), tiles=(2, 2)
    ),  # short round
    _case((4, 7, 5), 6, 2, Axis(3, lo=1, hi=1), Axis(3), tiles=(3, 1)),
    _case((2, 4, 5), 3, 1, Axis(3, lo=1, hi=1), Axis(2), tiles=(4, 4)),  # local
    _case((3, 5, 4), 3, 3, Axis(2), Axis(3, lo=1, hi=1), tiles=(4, 2)),
    _case((3, 9), 4, 1, Axis(2, 2), tiles=(4,)),
    _case((2, 4, 3, 5), 2, 1, Axis(2), Axis(2, lo=1), Axis(2, 2, hi=1), tiles=(2, 3, 2)),
    Case((Axis(3, lo=1, hi=1), Axis(3)), TensorType(DType.F32, (2, 5, 6), batched=False), 3),
)
