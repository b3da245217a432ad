"""What compiled code calls of the process that it runs in: a thread's offer of its core, and
Python's own thread locks, through their C interface. They exist on every platform and need no
interpreter lock, so a thread can sleep and be woken inside compiled code.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Set
from contextlib import suppress
from typing import Any

from cnncc.targets.cpu.linker import define

__all__ = ["ACQUIRE", "RELEASE", "YIELD", "allow_cores", "allowed_cores", "core", "new_lock"]

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
YIELD, ACQUIRE, RELEASE = "cnncc_yield", "cnncc_lock_acquire", "cnncc_lock_release"
for _symbol, _function in (
    (YIELD, _yield_function()),
    (ACQUIRE, _python.PyThread_acquire_lock),
    (RELEASE, _python.PyThread_release_lock),
):
    define(_symbol, ctypes.cast(_function, ctypes.c_void_p).value or 0)


def new_lock() -> int:
    """The address of a new lock, already taken: the first lock_acquire sleeps until a
    lock_release."""
    lock = _python.PyThread_allocate_lock()
    if not lock:
        raise MemoryError("no more thread locks")
    _python.PyThread_acquire_lock(lock, 1)
    return int(lock)


_core = getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None


def core() -> int:
    """The number of the core that runs this; -1 where the system does not say."""
    return int(_core()) if _core is not None else -1


def allowed_cores(thread: int | None) -> set[int]:
    """The cores that a thread may use, by the system's number of it; empty where nobody knows, or
    the thread is gone.
    """
    if sys.platform != "linux" or thread is None:
        return set()
    try:
        return os.sched_getaffinity(thread)
    except OSError:
        return set()


def allow_cores(thread: int | None, cores: Set[int]) -> None:
    """Let a thread use these cores only, where the system can."""
    if sys.platform == "linux" and thread is not None:
        with suppress(OSError):  # no right to: it stays where it is
            os.sched_setaffinity(thread, cores)
