"""A team of threads that runs one network call as a single parallel region.

Every thread of a team calls the same compiled function, the entry, with its number and the team's
size; the caller is number 0.  The entry is a sequence of phases, one per kernel, each cut into
`size` shares:

    share = claim(control, size, phase, tid)        # phases count from 1
    while share >= 0:
        kernel(..., share, size)
        share = claim_next(control, size, phase, tid)
    join(control, size, phase)                      # until every share of the phase is done

A thread takes the share of its own number first and then shares that nobody has begun.  So the
caller starts alone when the others are asleep (waking one takes about half a millisecond), does
their shares itself, and a late thread finds the early phases done, passes through them and takes
part where the work is.  Which thread computes a share never changes its bits.  `barrier` instead
of claims gives each thread exactly its own share and waits for all of them. A phase that is too
short to be shared is done by the caller, who then says `hand_over`; nothing is claimed. Every
phase, the last included, ends with `join`, `barrier` or `hand_over`.

Between calls the threads spin for a moment and then sleep, all inside compiled code that holds no
interpreter lock.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any

import numpy as np

from cnncc.targets.cpu.atomics import (
    address_of,
    call_entry,
    compare_swap,
    exchange,
    fetch_add,
    lock_acquire,
    lock_release,
    new_lock,
    pause,
    peek,
    pointer_to,
    put,
    yield_core,
)
from cnncc.targets.cpu.compiled import JIT, CompiledFunction, called_from_python, compiled, unjitted
from cnncc.targets.cpu.machine import detect

__all__ = ["ENTRY", "Team", "barrier", "claim", "claim_next", "entry", "hand_over", "join"]

ENTRY = "void(i64*, i64*, i64, i64)"  # job, control, tid, size

# The control block, in 64-bit words.  What different threads write lies at least 128 bytes apart,
# because processors fetch cache lines in pairs.
_LINE = 16
_GATE = 0 * _LINE  # generation << 16 | closed << 15 | number of threads inside besides the caller
_ARRIVED = 1 * _LINE  # shares completed in this generation
_STOP = 2 * _LINE
_ENTRY, _JOB = 3 * _LINE, 3 * _LINE + 1  # addresses, written while the gate is closed
_CLAIMS = 4 * _LINE  # a line per share: generation << 24 | phase of its last claim
# then a word per thread, 1 while it sleeps, and a word per thread with the address of its lock

_CLOSED = 1 << 15
_INSIDE = _CLOSED - 1
MAX_SIZE = 1024

SPINS = 20_000  # pauses until an idle thread goes to sleep
_YIELD_EVERY = 256  # pauses between offers of the core to others


@compiled("void(i64*, i64, i64)")
def wait_until(control: Any, slot: int, least: int) -> None:
    """Wait until control[slot] >= least.  Yields, because there may be more threads than cores."""
    spins = 0
    while peek(control, slot) < least:
        pause()
        spins += 1
        if spins % _YIELD_EVERY == 0:
            yield_core()


@compiled("void(i64*, i64, i64)")
def barrier(control: Any, size: int, phase: int) -> None:
    """End of a phase whose shares are fixed: this thread has done its own; wait for all others."""
    if size > 1:
        fetch_add(control, _ARRIVED, 1)
        wait_until(control, _ARRIVED, size * phase)


@compiled("i64(i64*, i64, i64, i64)")
def claim(control: Any, size: int, phase: int, tid: int) -> int:
    """A share of the phase that nobody has begun, this thread's own if possible; -1 if there is
    none."""
    if size == 1:
        return 0
    key = (peek(control, _GATE) >> 16) << 24 | phase
    for step in range(size):
        share = tid + step
        if share >= size:
            share -= size
        slot = _CLAIMS + share * _LINE
        last = peek(control, slot)
        if last < key and compare_swap(control, slot, last, key):
            return share
    return -1


@compiled("i64(i64*, i64, i64, i64)")
def claim_next(control: Any, size: int, phase: int, tid: int) -> int:
    """Report the claimed share as done and claim another; -1 if none is left."""
    if size == 1:
        return -1
    fetch_add(control, _ARRIVED, 1)
    return claim(control, size, phase, tid)


@compiled("void(i64*, i64, i64)")
def join(control: Any, size: int, phase: int) -> None:
    """End of a phase whose shares are claimed: wait until all are done, by whomever."""
    if size > 1:
        wait_until(control, _ARRIVED, size * phase)


@compiled("void(i64*, i64, i64, i64)")
def hand_over(control: Any, size: int, phase: int, tid: int) -> None:
    """End of a phase that is the caller's alone: its thread has done it; the others wait."""
    if tid == 0:
        fetch_add(control, _ARRIVED, size)
    else:
        wait_until(control, _ARRIVED, size * phase)


@compiled("i64(i64*, i64)")
def _enter(control: Any, generation: int) -> int:
    """Go in with a generation's threads: 1, or 0 if its caller has finished already."""
    gate = peek(control, _GATE)
    while gate >> 16 == generation and gate & _CLOSED == 0:
        if compare_swap(control, _GATE, gate, gate + 1):
            return 1
        gate = peek(control, _GATE)
    return 0


@compiled("void(i64*, i64, i64, i64)")
def _sleep(control: Any, tid: int, size: int, seen: int) -> None:
    """Sleep until woken, unless a generation after `seen` has begun meanwhile.

    The thread first says that it sleeps and then looks at the gate once more; a caller opens the
    gate first and then looks who sleeps.  So one of them notices the other.  Whoever takes the
    word back from 1 to 0 decides: if it was the caller, exactly one release follows and must be
    awaited.
    """
    asleep = _CLAIMS + size * _LINE + tid
    exchange(control, asleep, 1)
    unchanged = peek(control, _GATE) >> 16 == seen and peek(control, _STOP) == 0
    if unchanged or exchange(control, asleep, 0) == 0:
        lock_acquire(peek(control, asleep + size))


@compiled("void(i64*, i64)")
def _wake(control: Any, size: int) -> None:
    """Wake every thread that sleeps."""
    for tid in range(1, size):
        asleep = _CLAIMS + size * _LINE + tid
        if peek(control, asleep) == 1 and exchange(control, asleep, 0) == 1:
            lock_release(peek(control, asleep + size))


@compiled("void(i64*, i64, i64, i64)")
def _serve(control: Any, tid: int, size: int, spins: int) -> None:
    """The life of a thread: take part in every generation that it catches, sleep when idle, until
    told to stop."""
    seen, idle = 0, 0
    while peek(control, _STOP) == 0:
        generation = peek(control, _GATE) >> 16
        if generation != seen:
            seen, idle = generation, 0
            if _enter(control, generation) == 1:
                call_entry(peek(control, _ENTRY), peek(control, _JOB), control, tid, size)
                fetch_add(control, _GATE, -1)
        elif idle < spins:
            idle += 1
            pause()
            if idle % _YIELD_EVERY == 0:
                yield_core()
        else:
            _sleep(control, tid, size, seen)
            idle = 0


@compiled("void(i64*, i64, i64, i64)")
def _lead(control: Any, job: int, entry_address: int, size: int) -> None:
    """The caller's part: open the gate, wake sleepers, do the work, close the gate, see everybody
    out.

    All of it is one call into compiled code, so a signal handler that raises (Ctrl-C) cannot leave
    it half done. A thread that has not come in yet is not waited for.
    """
    generation = (peek(control, _GATE) >> 16) + 1
    put(control, _ENTRY, entry_address)
    put(control, _JOB, job)
    put(control, _ARRIVED, 0)
    exchange(control, _GATE, generation << 16)
    _wake(control, size)
    call_entry(entry_address, job, control, 0, size)
    fetch_add(control, _GATE, _CLOSED)
    spins = 0
    while peek(control, _GATE) & _INSIDE != 0:
        pause()
        spins += 1
        if spins % _YIELD_EVERY == 0:
            yield_core()


@compiled("void(i64*, i64)")
def _dismiss(control: Any, size: int) -> None:
    """Tell the threads to stop, sleeping ones too."""
    exchange(control, _STOP, 1)
    _wake(control, size)


@called_from_python("void(int64[::1], int64[::1], int64, int64)")
def _run(control: Any, job: Any, entry_address: int, size: int) -> None:
    _lead(pointer_to(control), address_of(job), entry_address, size)


@called_from_python("void(int64[::1], int64[::1], int64)")
def _run_alone(control: Any, job: Any, entry_address: int) -> None:
    call_entry(entry_address, address_of(job), pointer_to(control), 0, 1)


def entry(function: Any) -> CompiledFunction:
    """Decorate an emitted entry: `void(int64* job, int64* control, int64 tid, int64 size)`."""
    return compiled(ENTRY)(function)


class Team:
    """`size` threads, the caller among them, that run entries together.

    Threads start at the first run and die with the process.  Callers of one team take turns.  A
    child made by fork has none of its parent's threads; the same team object starts new ones
    there.
    """

    def __init__(self, size: int, spins: int = SPINS) -> None:
        if not 1 <= size <= MAX_SIZE:
            raise ValueError(f"a team has 1 to {MAX_SIZE} threads, but got {size}")
        self.size = size
        self._spins = spins
        self._control: np.ndarray[Any, np.dtype[np.int64]]
        self._lock: threading.Lock
        self._threads: list[threading.Thread]
        self._reset()
        _teams.add(self)

    @staticmethod
    def shared(size: int | None = None) -> Team:
        """The process's team of `size` threads, by default one for each core that the process may
        use."""
        size = detect().cores if size is None else size
        with _sharing:
            if size not in _shared:
                _shared[size] = Team(size)
            return _shared[size]

    def run(self, entry_address: int, job: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Run a compiled entry on all threads and return when its work is done.

        `job` is a contiguous int64 array whose meaning is between the caller and the entry; every
        thread sees it. A team of one calls the entry directly, without any lock, so callers run at
        the same time.  So does every team when NUMBA_DISABLE_JIT is set.
        """
        if not JIT:  # a team of one that a person can step through; the bits are the same
            unjitted(entry_address)(job, self._control, 0, 1)
            return
        if self.size == 1:
            _run_alone(self._control, job, entry_address)
            return
        with self._lock:
            if not self._threads:
                self._start()
            _run(self._control, job, entry_address, self.size)

    def stop(self) -> None:
        """End the threads; a later run starts new ones."""
        with self._lock:
            if not self._threads:
                return
            _dismiss(self._control, self.size)
            for thread in self._threads:
                thread.join()
            self._threads = []

    def _reset(self) -> None:
        self._control = _aligned_words(_CLAIMS + self.size * _LINE + 2 * self.size)
        self._lock = threading.Lock()
        self._threads = []

    def _start(self) -> None:
        self._control[:] = 0
        locks = _CLAIMS + self.size * _LINE + self.size
        self._control[locks:] = [0, *(new_lock() for _ in range(1, self.size))]
        for tid in range(1, self.size):
            thread = threading.Thread(
                target=_serve,
                args=(self._control, tid, self.size, self._spins),
                name=f"cnncc-{tid}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)


def _aligned_words(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Zeroed words from a 128-byte boundary on."""
    words = np.zeros(count + _LINE, np.int64)
    skip = -words.ctypes.data // 8 % _LINE
    return words[skip : skip + count]


_teams: weakref.WeakSet[Team] = weakref.WeakSet()
_shared: dict[int, Team] = {}
_sharing = threading.Lock()


def _after_fork() -> None:
    """Locks may be held by threads that the child does not have, so it begins with new ones."""
    global _sharing
    _sharing = threading.Lock()
    for team in list(_teams):
        team._reset()


def _at_exit() -> None:
    """A thread must not wake up in code that is being taken down."""
    for team in list(_teams):
        team.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
