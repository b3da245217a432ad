"""One tensor of a program: in which kind of memory it lies, and how."""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.targets.cpu.bands import Cut
from cnncc.targets.cpu.halo import Border
from cnncc.targets.cpu.strips import Strip
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Tensor:
    """One tensor of the job table, before its extents are known.

    space: `outside` (an array of the caller, row-major), `store` (parameters and prepared values),
    `constant`, or `arena`.
    """

    name: str
    type: TensorType
    space: str
    innermost: int | None = None
    border: Border | None = None
    panels: bool = False  # laid out in panels of a block of lanes
    slice_of: str = ""  # these are channels of another tensor, from `first_channel` on
    first_channel: int = 0
    alias: str = ""  # shares the memory of this tensor (an update in place)
    cut: Cut | Strip | None = None  # only a band of its tiles, or a strip, exists at a time
    planes: bool = False  # kernels touch a position of every plane along axis 2 at a time
