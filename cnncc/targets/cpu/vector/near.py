"""Numbers of a register tile's positions near others: the turns of a loop that are written out read
theirs one element after the other, from pointers that they share.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import errors
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.memory import element_at, place
from cnncc.targets.cpu.vector.tile import Near, anchored, shape_of


@intrinsic
def anchor(typing: Any, shape: Any, a: Any, i: Any, down: Any) -> Any:
    near = Near(element_at(a), shape_of(shape).positions)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, array, index, step = arguments
        return anchored(
            builder, near, place(context, builder, signature.args[1], array, index), step
        )

    return near(shape, a, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def load_near(typing: Any, anchor: Any, offset: Any) -> Any:
    if not isinstance(anchor, Near):
        raise errors.TypingError(f"an anchor was expected, but got {anchor}")
    behind = Near(anchor.part, anchor.positions, anchor.offset + offset.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return behind(anchor, offset), codegen
