"""Words that change no value, only how LLVM or the processor goes about it."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.memory import base_of, each_place, element_at, place
from cnncc.targets.cpu.vector.tile import shape_of
from cnncc.targets.cpu.vector.types import opaque

_I32, _I64 = ir.IntType(32), ir.IntType(64)

NEAREST, NEARBY = 3, 2  # LLVM's words for the first and the second level of caches


@intrinsic
def prefetch(typing: Any, a: Any, i: Any) -> Any:
    element_at(a)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        _prefetch(context, builder, signature.args[0], array, index)
        return context.get_dummy_value()

    return types.void(a, types.int64), codegen


@intrinsic
def prefetch_nearby(typing: Any, a: Any, i: Any) -> Any:
    element_at(a)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        _prefetch(context, builder, signature.args[0], array, index, NEARBY)
        return context.get_dummy_value()

    return types.void(a, types.int64), codegen


@intrinsic
def prefetch_tile(typing: Any, shape: Any, a: Any, i: Any, down: Any, along: Any) -> Any:
    wanted = shape_of(shape)
    element_at(a)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, array, index, down, along = arguments
        of = wanted.positions, wanted.vectors
        for _, _, at in each_place(builder, index, down, along, *of):
            _prefetch(context, builder, signature.args[1], array, at)
        return context.get_dummy_value()

    return types.void(shape, a, *[types.int64] * 3), codegen


@intrinsic
def touch(typing: Any, a: Any, i: Any) -> Any:
    element_at(a)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(place(context, builder, signature.args[0], *arguments), byte)
        # LLVM drops a load that nobody uses, unless other threads may order theirs by it
        builder.load_atomic(pointer, "monotonic", 1)
        return context.get_dummy_value()

    return types.void(a, types.int64), codegen


def _prefetch(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, where: int = NEAREST
) -> None:
    byte = ir.IntType(8).as_pointer()
    anywhere = builder.gep(base_of(context, builder, kind, array), [index])  # outside, too
    pointer = builder.bitcast(anywhere, byte)
    prototype = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, prototype, "llvm.prefetch.p0")
    builder.call(function, [pointer, _I32(0), _I32(where), _I32(1)])  # to read; data


@intrinsic
def keep_rolled(typing: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # LLVM may not copy a convergent call into a loop with a remainder, so it leaves the loop
        # as written.  Unrolled copies of a register tile make it run out of registers and spill (a
        # 12 x 2 tile ran at 40 % for that).
        nothing = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "", side_effect=True)
        builder.call(nothing, [], attrs=["convergent", "nounwind", "readnone"])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def rolled(typing: Any, count: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return opaque(builder, arguments[0])

    return types.int64(types.int64), codegen
