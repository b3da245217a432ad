"""What the threads of a team do, in compiled code: the words of emitted entries, the life of a
thread, and the caller's part.

The rules by which threads share work are those of `team`; the words that they share are in
`control`.
"""

from __future__ import annotations

from typing import Any

from cnncc.targets.cpu.atomics import (
    call_entry,
    compare_swap,
    exchange,
    fetch_add,
    lock_acquire,
    lock_release,
    pause,
    peek,
    put,
    yield_core,
)
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.control import (
    ARRIVED,
    BEGUN,
    CLAIMS,
    CLOSED,
    ENTRY,
    GATE,
    INSIDE,
    JOB,
    LINE,
    STOP,
    TAKEN,
    WHOLE,
)

_YIELD_EVERY = 256  # pauses between offers of the core to others
_LOOK_EVERY = 256  # generations between looks for threads that miss most of them


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
        fetch_add(control, ARRIVED, WHOLE)
        wait_until(control, ARRIVED, size * WHOLE * phase)


@compiled("i64(i64*, i64, i64, i64, i64)")
def claim(control: Any, size: int, phase: int, tid: int, pieces: int) -> int:
    """A piece of the phase that nobody has begun, of this thread's own share if possible, else of
    the next that has one; -1 if there is none. Each share has so many pieces, a divisor of WHOLE,
    and piece p of share s is number s * pieces + p. For teams of several: one thread alone needs no
    claims, and begins no generation.
    """
    key = (peek(control, GATE) >> 16) << 24 | phase << 5
    for step in range(size):
        share = tid + step
        if share >= size:
            share -= size
        slot = CLAIMS + share * LINE
        last = peek(control, slot)
        while last < key + pieces:
            begun = last & BEGUN if last >= key else 0
            if compare_swap(control, slot, last, key + begun + 1):
                return share * pieces + begun
            last = peek(control, slot)
    return -1


@compiled("void(i64*, i64, i64, i64, i64)")
def join(control: Any, size: int, phase: int, pieces: int, done: int) -> None:
    """End of a phase whose pieces are claimed: this thread has done so many and found no more; wait
    until all are done, by whomever.
    """
    if done > 0:
        fetch_add(control, ARRIVED, done * (WHOLE // pieces))
    wait_until(control, ARRIVED, size * WHOLE * phase)


@compiled("void(i64*, i64, i64, i64)")
def hand_over(control: Any, size: int, phase: int, tid: int) -> None:
    """End of a phase that is the caller's alone: its thread has done it; the others wait."""
    if size == 1:
        return
    if tid == 0:
        fetch_add(control, ARRIVED, size * WHOLE)
    else:
        wait_until(control, ARRIVED, size * WHOLE * phase)


@compiled("i64(i64*, i64, i64)")
def enter(control: Any, generation: int, tid: int) -> int:
    """Go in with a generation's threads: 1, or 0 if its caller has finished already."""
    gate = peek(control, GATE)
    while gate >> 16 == generation and gate & CLOSED == 0:
        if compare_swap(control, GATE, gate, gate + 1):
            put(control, TAKEN + tid * LINE, peek(control, TAKEN + tid * LINE) + 1)
            return 1
        gate = peek(control, GATE)
    return 0


@compiled("void(i64*, i64, i64, i64)")
def sleep(control: Any, tid: int, size: int, seen: int) -> None:
    """Sleep until woken, unless a generation after `seen` has begun meanwhile.

    The thread first says that it sleeps and then looks at the gate once more; a caller opens the
    gate first and then looks who sleeps.  So one of them notices the other.  Whoever takes the
    word back from 1 to 0 decides: if it was the caller, exactly one release follows and must be
    awaited.
    """
    asleep = CLAIMS + size * LINE + tid
    exchange(control, asleep, 1)
    unchanged = peek(control, GATE) >> 16 == seen and peek(control, STOP) == 0
    if unchanged or exchange(control, asleep, 0) == 0:
        lock_acquire(peek(control, asleep + size))


@compiled("void(i64*, i64)")
def wake(control: Any, size: int) -> None:
    """Wake every thread that sleeps."""
    for tid in range(1, size):
        asleep = CLAIMS + size * LINE + tid
        if peek(control, asleep) == 1 and exchange(control, asleep, 0) == 1:
            lock_release(peek(control, asleep + size))


@compiled("i64(i64*, i64)")
def missing(control: Any, size: int) -> int:
    """How many threads have missed most generations since this was last asked."""
    count = 0
    for tid in range(1, size):
        if peek(control, TAKEN + tid * LINE) < _LOOK_EVERY // 2:
            count += 1
        put(control, TAKEN + tid * LINE, 0)
    return count


@compiled("void(i64*, i64, i64, i64, i64)")
def serve(control: Any, tid: int, size: int, spins: int, crowded: int) -> None:
    """The life of a thread: take part in every generation that it catches, sleep when idle, until
    told to stop.

    Only where the team is `crowded`, with more threads than cores, does an idle thread offer its
    core to others. Linux 6.18 takes from a thread a whole slice of its time each time, so that one
    which had spun for milliseconds stood behind its caller for seconds.
    """
    seen, idle = 0, 0
    while peek(control, STOP) == 0:
        generation = peek(control, GATE) >> 16
        if generation != seen:
            seen, idle = generation, 0
            if enter(control, generation, tid) == 1:
                call_entry(peek(control, ENTRY), peek(control, JOB), control, tid, size)
                fetch_add(control, GATE, -1)
        elif idle < spins:
            idle += 1
            pause()
            if crowded != 0 and idle % _YIELD_EVERY == 0:
                yield_core()
        else:
            sleep(control, tid, size, seen)
            idle = 0


@compiled("i64(i64*, i64, i64, i64)")
def lead(control: Any, job: int, entry_address: int, size: int) -> int:
    """The caller's part: open the gate, wake sleepers, do the work, close the gate, see everybody
    out. Now and then it counts the threads that do not come; else 0.

    All of it is one call into compiled code, so a signal handler that raises (Ctrl-C) cannot leave
    it half done. A thread that has not come in yet is not waited for.
    """
    generation = (peek(control, GATE) >> 16) + 1
    put(control, ENTRY, entry_address)
    put(control, JOB, job)
    put(control, ARRIVED, 0)
    exchange(control, GATE, generation << 16)
    wake(control, size)
    call_entry(entry_address, job, control, 0, size)
    fetch_add(control, GATE, CLOSED)
    spins = 0
    while peek(control, GATE) & INSIDE != 0:
        pause()
        spins += 1
        if spins % _YIELD_EVERY == 0:
            yield_core()
    return missing(control, size) if generation % _LOOK_EVERY == 0 else 0


@compiled("void(i64*, i64)")
def dismiss(control: Any, size: int) -> None:
    """Tell the threads to stop, sleeping ones too."""
    exchange(control, STOP, 1)
    wake(control, size)


@compiled("void(i64*, i64, i64)")
def alone(control: Any, job: int, entry_address: int) -> None:
    """All the work by the caller, without a team."""
    call_entry(entry_address, job, control, 0, 1)
