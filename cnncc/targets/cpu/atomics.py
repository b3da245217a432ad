"""Words for threads that talk through memory: atomic operations, pausing, yielding, sleeping,
calling by address.

Memory is a pointer to 64-bit integers and an index.  Sleeping uses Python's own thread locks
through their C interface: they exist on every platform and need no interpreter lock, so a thread
can sleep and be woken inside compiled code.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnncc.targets.cpu.vector.memory import base_of, place

__all__ = [
    "address_of",
    "call_entry",
    "compare_swap",
    "exchange",
    "fetch_add",
    "lock_acquire",
    "lock_release",
    "new_lock",
    "pause",
    "peek",
    "pointer_to",
    "put",
    "yield_core",
]

_I64 = ir.IntType(64)
_VOID = ir.VoidType()

# PyDLL would hold the interpreter lock while a thread sleeps; the same library as CDLL releases it.
_python = ctypes.CDLL(None, handle=ctypes.pythonapi._handle)
_python.PyThread_allocate_lock.restype = ctypes.c_void_p
_python.PyThread_acquire_lock.argtypes = [ctypes.c_void_p, ctypes.c_int]
_python.PyThread_acquire_lock.restype = ctypes.c_int
_python.PyThread_release_lock.argtypes = [ctypes.c_void_p]
_python.PyThread_release_lock.restype = None


def _yield_function() -> Any:
    """The system's call that lets another thread have the core; one without effect where none is
    known."""
    if sys.platform == "win32":
        return ctypes.WinDLL("kernel32").SwitchToThread
    return getattr(ctypes.CDLL(None), "sched_yield", _python.PyThread_get_thread_ident)


# Compiled code names these symbols, so that it stays valid in the next process, where the
# addresses differ.
_YIELD, _ACQUIRE, _RELEASE = "cnncc_yield", "cnncc_lock_acquire", "cnncc_lock_release"
for _symbol, _function in (
    (_YIELD, _yield_function()),
    (_ACQUIRE, _python.PyThread_acquire_lock),
    (_RELEASE, _python.PyThread_release_lock),
):
    llvm.add_symbol(_symbol, ctypes.cast(_function, ctypes.c_void_p).value)


def new_lock() -> int:
    """The address of a new lock, already taken: the first lock_acquire sleeps until a
    lock_release."""
    lock = _python.PyThread_allocate_lock()
    if not lock:
        raise MemoryError("no more thread locks")
    _python.PyThread_acquire_lock(lock, 1)
    return int(lock)


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
        builder.call(_external(builder, _YIELD, ir.IntType(32)), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _lock_pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@intrinsic
def lock_acquire(typing: Any, lock: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _lock_pointer(builder, arguments[0])
        wait = ir.IntType(32)(1)
        function = _external(builder, _ACQUIRE, ir.IntType(32), pointer.type, wait.type)
        builder.call(function, [pointer, wait])
        return context.get_dummy_value()

    return types.void(_INT64), codegen


@intrinsic
def lock_release(typing: Any, lock: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _lock_pointer(builder, arguments[0])
        builder.call(_external(builder, _RELEASE, _VOID, pointer.type), [pointer])
        return context.get_dummy_value()

    return types.void(_INT64), codegen


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = base_of(context, builder, signature.args[0], arguments[0])
        return builder.ptrtoint(pointer, _I64)

    return _INT64(array), codegen


@intrinsic
def pointer_to(typing: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return base_of(context, builder, signature.args[0], arguments[0])

    return types.CPointer(_INT64)(array), codegen


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
