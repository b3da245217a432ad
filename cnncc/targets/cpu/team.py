"""A team of threads that runs one network call as a single parallel region.

Every thread of a team calls the same compiled function, the entry, with its number and the team's
size; the caller is number 0.  The entry is a sequence of phases, one per kernel and the borders
of what it writes, each cut into `size` shares, and each share into pieces:

    done = 0
    piece = claim(control, size, phase, tid, pieces)        # phases count from 1
    while piece >= 0:
        kernel(..., piece, size * pieces)
        done += 1
        piece = claim(control, size, phase, tid, pieces)
    join(control, size, phase, pieces, done)                # until every piece of the phase is done

or, in a team of one, done as a whole.

A thread takes the pieces of the share of its own number first and then those of others that nobody
has begun.  So the caller starts alone when the others are asleep (waking one takes about half a
millisecond), does their shares itself, and a late thread finds the early phases done, passes
through them and takes part where the work is.  And a core that is slower than the others, because
somebody else uses it as well, gets less to do.  Which thread computes a piece never changes its
bits.  `barrier` instead of claims gives each thread exactly its own share and waits for all of
them. A phase that is too short to be shared is done by the caller, who then says `hand_over`;
nothing is claimed. Every phase, the last included, ends with `join`, `barrier` or `hand_over`.

Between calls the threads spin for a moment and then sleep, all inside compiled code that holds no
interpreter lock.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from cnncc.targets.cpu.arena import address_of
from cnncc.targets.cpu.compiled import ENTRY, JIT, entry, functions_of, keep_functions, unjitted
from cnncc.targets.cpu.control import CLAIMS, LINE
from cnncc.targets.cpu.host import allow_cores, allowed_cores, core, new_lock
from cnncc.targets.cpu.machine import detect

__all__ = ["ENTRY", "Team", "barrier", "claim", "entry", "hand_over", "join"]

MAX_SIZE = 1024

SPINS = 20_000  # pauses until an idle thread goes to sleep

_WORDS = np.dtype(np.int64)


def _protocol() -> Mapping[str, Any]:
    """The compiled functions of `protocol`, from the cache, or compiled and kept for the next
    process.
    """
    name = "cnncc.targets.cpu.protocol"
    functions: Mapping[str, Any] = functions_of(name, lambda: import_module(name))
    if not functions:
        functions = vars(import_module(name))
        keep_functions(name)
    return functions


_words = _protocol()
barrier, claim, join, hand_over = (_words[n] for n in ("barrier", "claim", "join", "hand_over"))
_serve, _dismiss = _words["serve"], _words["dismiss"]


def _direct(name: str, result: Any) -> Callable[..., Any]:
    """A function of the protocol for calls with addresses and numbers, which is how a call is the
    fastest.
    """
    count = len(_words[name].stored.arguments)
    return ctypes.CFUNCTYPE(result, *[ctypes.c_void_p] * count)(_words[name].address)


_lead, _alone = _direct("lead", ctypes.c_int64), _direct("alone", None)


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

    def run(
        self, entry_address: int, job: np.ndarray[Any, np.dtype[np.int64]], place: int = 0
    ) -> None:
        """Run a compiled entry on all threads and return when its work is done.

        `job` is a contiguous int64 array whose meaning is between the caller and the entry; every
        thread sees it. `place`: its address, from a caller who has run it before. A team of one
        calls the entry directly, without any lock, so callers run at the same time.  So does every
        team when NUMBA_DISABLE_JIT is set. Raises TypeError for another array.
        """
        if not place:
            if job.dtype != _WORDS or not job.flags.c_contiguous:
                raise TypeError(f"a job is a contiguous array of int64, but got {job.dtype}")
            place = address_of(job)
        if self.size == 1 or not JIT:
            self.alone(entry_address, job, place)
            return
        with self._lock:
            if not self._threads:
                self._start()
            if _lead(self._address, place, entry_address, self.size):
                self._move_away()

    def alone(
        self, entry_address: int, job: np.ndarray[Any, np.dtype[np.int64]], place: int
    ) -> None:
        """Run a compiled entry on a job at a known place by the caller's thread, without the others
        and without any lock: callers run at the same time.
        """
        if not JIT:  # a person can step through it; the bits are the same
            unjitted(entry_address)(job, self._control, 0, 1)
        else:
            _alone(self._address, place, entry_address)

    def stop(self) -> None:
        """End the threads; a later run starts new ones."""
        with self._lock:
            if not self._threads:
                return
            _dismiss(self._control, self.size)
            for thread in self._threads:
                thread.join()
            self._threads = []

    def _move_away(self) -> None:
        """Take the threads off the core of the caller, behind which they may wait beside one that
        is idle. They may come back: what a thread is allowed is given back, unless somebody else
        has changed it meanwhile.
        """
        for thread in self._threads:
            allowed = allowed_cores(thread.native_id)
            others = allowed - {core()}
            if not others or others == allowed:
                continue
            try:
                allow_cores(thread.native_id, others)
            finally:  # a signal handler may raise in between
                if allowed_cores(thread.native_id) == others:
                    allow_cores(thread.native_id, allowed)

    def _reset(self) -> None:
        self._control = _aligned_words(CLAIMS + self.size * LINE + 2 * self.size)
        self._address = address_of(self._control)
        self._lock = threading.Lock()
        self._threads = []

    def _start(self) -> None:
        self._control[:] = 0
        locks = CLAIMS + self.size * LINE + self.size
        self._control[locks:] = [0, *(new_lock() for _ in range(1, self.size))]
        crowded = int(self.size > detect().cores)
        for tid in range(1, self.size):
            thread = threading.Thread(
                target=_serve,
                args=(self._control, tid, self.size, self._spins, crowded),
                name=f"cnncc-{tid}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)


def _aligned_words(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Zeroed words from a 128-byte boundary on."""
    words = np.zeros(count + LINE, np.int64)
    skip = -words.ctypes.data // 8 % LINE
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
