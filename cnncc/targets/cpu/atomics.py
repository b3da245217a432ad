"""Words for threads that talk through memory: atomic operations, pausing, yielding, sleeping,
calling by address.

Memory is a pointer to 64-bit integers and an index.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnncc.targets.cpu.host import ACQUIRE, RELEASE, YIELD
from cnncc.targets.cpu.vector.memory import place

__all__ = [
    "call_entry",
    "compare_swap",
    "exchange",
    "fetch_add",
    "lock_acquire",
    "lock_release",
    "pause",
    "peek",
    "put",
    "yield_core",
]

_I64 = ir.IntType(64)
_VOID = ir.VoidType()


def _word(result: Any, codegen: Callable[..., Any], *more: Any) -> Any:
    """Signature and code of an operation on (memory, index, ...)."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = place(context, builder, signature.args[0], *arguments[:2])
        value = codegen(builder, slot, *arguments[2:])
        return context.get_dummy_value() if value is None else value

    return result(*more), lower


def _external(builder: Any, name: str, result: ir.Type, *kinds: ir.Type) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)


_INT64 = types.int64


@intrinsic
def fetch_add(typing: Any, a: Any, i: Any, v: Any) -> Any:
    def codegen(builder: Any, slot: Any, value: Any) -> Any:
        return builder.atomic_rmw("add", slot, value, "seq_cst")

    return _word(_INT64, codegen, a, _INT64, _INT64)


@intrinsic
def exchange(typing: Any, a: Any, i: Any, v: Any) -> Any:
    def codegen(builder: Any, slot: Any, value: Any) -> Any:
        return builder.atomic_rmw("xchg", slot, value, "seq_cst")

    return _word(_INT64, codegen, a, _INT64, _INT64)


@intrinsic
def compare_swap(typing: Any, a: Any, i: Any, old: Any, new: Any) -> Any:
    def codegen(builder: Any, slot: Any, expected: Any, value: Any) -> Any:
        pair = builder.cmpxchg(slot, expected, value, "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return _word(types.boolean, codegen, a, _INT64, _INT64, _INT64)


@intrinsic
def peek(typing: Any, a: Any, i: Any) -> Any:
    def codegen(builder: Any, slot: Any) -> Any:
        return builder.load_atomic(slot, "acquire", 8)

    return _word(_INT64, codegen, a, _INT64)


@intrinsic
def put(typing: Any, a: Any, i: Any, v: Any) -> Any:
    def codegen(builder: Any, slot: Any, value: Any) -> None:
        builder.store_atomic(value, slot, "release", 8)

    return _word(types.void, codegen, a, _INT64, _INT64)


@intrinsic
def pause(typing: Any) -> Any:
    """Tell the core that this is a waiting loop."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64", "i386", "i686"):
            builder.call(_external(builder, "llvm.x86.sse2.pause", _VOID), [])
        elif machine in ("arm64", "aarch64"):
            hint = _external(builder, "llvm.aarch64.hint", _VOID, ir.IntType(32))
            builder.call(hint, [ir.IntType(32)(1)])  # the instruction `yield`
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typing: Any) -> Any:
    """Let another thread run on this core."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(_external(builder, YIELD, ir.IntType(32)), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _lock_pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@intrinsic
def lock_acquire(typing: Any, lock: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _lock_pointer(builder, arguments[0])
        wait = ir.IntType(32)(1)
        function = _external(builder, ACQUIRE, ir.IntType(32), pointer.type, wait.type)
        builder.call(function, [pointer, wait])
        return context.get_dummy_value()

    return types.void(_INT64), codegen


@intrinsic
def lock_release(typing: Any, lock: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _lock_pointer(builder, arguments[0])
        builder.call(_external(builder, RELEASE, _VOID, pointer.type), [pointer])
        return context.get_dummy_value()

    return types.void(_INT64), codegen


@intrinsic
def call_entry(typing: Any, address: Any, job: Any, control: Any, tid: Any, size: Any) -> Any:
    """Call the entry at an address, with the job at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = _I64.as_pointer()
        entry = ir.FunctionType(_VOID, [words, words, _I64, _I64]).as_pointer()
        target, job_words, block, *numbers = arguments
        call = [builder.inttoptr(job_words, words), block, *numbers]
        builder.call(builder.inttoptr(target, entry), call)
        return context.get_dummy_value()

    return types.void(_INT64, _INT64, types.CPointer(_INT64), _INT64, _INT64), codegen
