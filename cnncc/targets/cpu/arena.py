"""Memory for a network's activations: one aligned block per call, taken from a small pool and
given back.

A block of 2 MB or more starts at a 2 MB boundary and asks the kernel for huge pages, which spares
most of the address translation of large activations; a smaller one starts at a cache line.  Pages
that were never touched cost no memory, and the end of a block that fills no huge page has small
ones.  A large block goes back to the system when it is freed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from typing import Any

import numpy as np

__all__ = [
    "HUGE_PAGE",
    "LINE",
    "PAGE",
    "ArenaPool",
    "Loan",
    "address_of",
    "aligned_bytes",
    "aligned_f32",
]

HUGE_PAGE = 2 << 20
PAGE = mmap.PAGESIZE
LINE = 64
_POISON = 0xFF  # four of them are a NaN in float32, eight in float64

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def aligned_bytes(count: int) -> Bytes:
    """A new zeroed buffer of `count` bytes (uint8), aligned to 2 MB if it is that large, else to
    64 bytes.

    ValueError for a negative count; MemoryError if the system refuses.
    """
    if count < 0:
        raise ValueError(f"a buffer needs a size of at least 0, but got {count}")
    if count < HUGE_PAGE:
        return _from_boundary(np.zeros(count + LINE, np.uint8), LINE, count)
    try:
        block = _map(count + HUGE_PAGE)
    except OSError as error:
        raise MemoryError(f"cannot reserve {count} bytes: {error.strerror}") from error
    buffer = _from_boundary(np.frombuffer(block, np.uint8), HUGE_PAGE, count)
    if hasattr(block, "madvise") and hasattr(mmap, "MADV_HUGEPAGE"):
        start = -np.frombuffer(block, np.uint8).ctypes.data % HUGE_PAGE
        try:
            block.madvise(mmap.MADV_HUGEPAGE, start, count // HUGE_PAGE * HUGE_PAGE)
        except OSError:
            return buffer  # a kernel without huge pages: the buffer works all the same
    return buffer


def aligned_f32(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A new zeroed float32 buffer of `count` elements, aligned as aligned_bytes."""
    return aligned_bytes(4 * count).view(np.float32)


def address_of(array: np.ndarray[Any, Any]) -> int:
    """Where an array's memory begins."""
    try:  # a third of the time of `array.ctypes.data`
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # a read-only, strided or empty array
        return int(array.ctypes.data)


def _map(count: int) -> mmap.mmap:
    # Python's default is shared memory: a forked child would write into ours.
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, count)


def _from_boundary(block: Bytes, boundary: int, count: int) -> Bytes:
    skip = -block.ctypes.data % boundary
    return block[skip : skip + count]


class ArenaPool:
    """At most `limit` buffers of `size` bytes, made when first needed and used again.

    Concurrent callers take one each and wait when all are in use, so memory stays bounded however
    many they are. With `poison` every buffer is filled with NaN when it is taken, so that reading
    what was never written shows.
    """

    def __init__(self, size: int, limit: int = 1, *, poison: bool = False) -> None:
        if limit < 1:
            raise ValueError(f"a pool needs a limit of at least 1, but got {limit}")
        self.size = size
        self.limit = limit
        self.poison = poison
        self._idle: list[Bytes] = []
        self._reset()
        _pools.add(self)

    @property
    def reserved(self) -> int:
        """Bytes of all buffers made so far."""
        return self.size * self._made

    def acquire(self, timeout: float | None = None) -> Loan:
        """A buffer for the duration of a `with` block: uint8, contents undefined.

        TimeoutError if none is given back within `timeout` seconds (None waits for ever).
        """
        return Loan(self, timeout)

    def take(self, timeout: float | None = None) -> Bytes:
        """A buffer, to be given back by `release`. Raises as `acquire`."""
        try:
            buffer = self._idle.pop()  # without a lock: one list operation is never half done
        except IndexError:
            buffer = self._new_or_awaited(timeout)
        self._in_use[id(buffer)] = buffer
        if self.poison:
            buffer[:] = _POISON
        return buffer

    def _new_or_awaited(self, timeout: float | None) -> Bytes:
        with self._changed:
            self._waiting += 1  # before looking once more: whoever gives back appends, then looks
            try:
                if not self._changed.wait_for(self._available, timeout):
                    raise TimeoutError(f"all {self.limit} arenas are in use")
            finally:
                self._waiting -= 1
            return self._found.pop()

    def _available(self) -> bool:
        """Whether there is a buffer for a caller that waits; it is then the last one found."""
        try:
            self._found.append(self._idle.pop())
        except IndexError:
            if self._made >= self.limit:
                return False
            self._found.append(aligned_bytes(self.size))
            self._made += 1
        return True

    def release(self, buffer: Bytes) -> None:
        """Give back a buffer that was taken; `acquire` does it by itself.  One that is not in use
        is ignored."""
        if self._in_use.pop(id(buffer), None) is None:
            return
        self._idle.append(buffer)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _reset(self) -> None:
        """Forget buffers in use: after a fork they belong to threads that the child does not
        have."""
        self._changed = threading.Condition(threading.Lock())
        self._made = len(self._idle)
        self._in_use: dict[int, Bytes] = {}
        self._found: list[Bytes] = []  # by a caller that holds the lock
        self._waiting = 0


class Loan:
    """A buffer of a pool for the duration of a `with` block. A class, because a generator's frame
    takes as long as a small network.
    """

    __slots__ = ("_buffer", "_pool", "_timeout")

    def __init__(self, pool: ArenaPool, timeout: float | None) -> None:
        self._pool, self._timeout = pool, timeout

    def __enter__(self) -> Bytes:
        self._buffer = self._pool.take(self._timeout)
        return self._buffer

    def __exit__(self, *error: object) -> None:
        self._pool.release(self._buffer)


_pools: weakref.WeakSet[ArenaPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
