"""How a convolution loops over its channels: all to all, one to one, or within groups.

The three cases are separate nests so that the common ones stay simple: without groups there is no
group loop, and depthwise (as many groups as inputs and outputs) has one channel loop and no
reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnncc.graph.ir import ShapeError
from cnncc.loops.build import NestBuilder
from cnncc.loops.ir import Index, Int, Var
from cnncc.tensor import Extent

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Channels:
    """Loops `shared` by all tensors, `outs` for y and w, `ins` for x and w; and the indices."""

    shared: tuple[str, ...]
    outs: tuple[str, ...]
    ins: tuple[str, ...]
    x: Index
    y: Index
    w: tuple[Index, Index]
    x_axis: str  # names of the channel sizes, for declaring the buffers
    y_axis: str
    w_axes: str


def channels(n: NestBuilder, ins: Extent, outs: Extent, groups: int) -> Channels:
    """Declare the channel sizes of a convolution from `ins` to `outs` channels."""
    n.size("c", ins)
    if groups == 1:
        k, c = Var("i_k"), Var("i_c")
        n.size("k", outs)
        return Channels((), ("k",), ("c",), c, k, (k, c), "c", "k", "k c")
    if groups == ins == outs:
        c = Var("i_c")
        return Channels(("c",), (), (), c, c, (c, Int(0)), "c", "c", "c 1")
    n.size("k", outs)
    n.size("g", groups)
    cg, kg = n.size("cg", ins // groups), n.size("kg", outs // groups)
    g, c, k = Var("i_g"), Var("i_cg"), Var("i_kg")
    x, y = g * cg + c, g * kg + k
    return Channels(("g",), ("kg",), ("cg",), x, y, (y, c), "c", "k", "k cg")


def grouped(a: Array, groups: int) -> Array:
    """Split the channel axis: [n, C, ...] -> [n, groups, C / groups, ...]."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, *a.shape[2:])


def check_groups(ins: Extent, outs: Extent, groups: int) -> None:
    """Raises ShapeError E0204 unless groups divides the channels on both sides."""
    for side, count in (("input", ins), ("output", outs)):
        if not isinstance(count, int):
            raise ShapeError(
                "E0204", f"the number of {side} channels must be fixed, but it is {count}"
            )
        if count % groups:
            raise ShapeError(
                "E0204",
                f"{side} channels must be divisible by groups, but got {count} and {groups}",
                arithmetic=[f"{count} / {groups} = {count / groups:.2f}, which is not whole"],
                fixes=[f"groups({g})" for g in _common_divisors(ins, outs, groups)],
                argument="connect",
            )


def _common_divisors(ins: Extent, outs: Extent, near: int) -> list[int]:
    """At most two numbers of groups above 1 that divide both sides, closest to `near` first."""
    if not (isinstance(ins, int) and isinstance(outs, int)):
        return []
    fits = [g for g in range(2, min(ins, outs, 4096) + 1) if ins % g == 0 and outs % g == 0]
    return sorted(fits, key=lambda g: (abs(g - near), g))[:2]
