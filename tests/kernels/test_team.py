"""The thread team: every share is done exactly once per phase and phases do not overlap, whatever
the number of threads, of callers and of processes."""

import faulthandler
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cnncc.targets.load import load_module

ROOT = Path(__file__).parents[2]

# job: 0 phases, 1 a piece's work (additions), 2 address of counts[phase, piece], 3 address of
# errors, 4 pieces of a share
ENTRIES = """
from cnncc.targets.cpu.compiled import inlined
from cnncc.targets.cpu.team import barrier, claim, entry, hand_over, join
from cnncc.targets.cpu.vector import i64_at


@inlined
def work(job, size, phase, piece):
    every = size * job[4]
    counts = i64_at(job[2], job[0] * every)
    errors = i64_at(job[3], 1)
    if phase > 1:
        for other in range(every):  # everything of the phase before must be done
            if counts[(phase - 2) * every + other] != 1:
                errors[0] += 1
    total = 0
    for i in range(job[1]):
        total += i ^ phase
    counts[(phase - 1) * every + piece] += 1 if total >= 0 else 2


@inlined
def all_by_one(job, control, tid, size, phase):
    if tid == 0:
        for piece in range(size * job[4]):
            work(job, size, phase, piece)
    hand_over(control, size, phase, tid)


@inlined
def by_claims(job, control, tid, size, phase):
    done = 0
    piece = claim(control, size, phase, tid, job[4])
    while piece >= 0:
        work(job, size, phase, piece)
        done += 1
        piece = claim(control, size, phase, tid, job[4])
    join(control, size, phase, job[4], done)


@entry
def claimed(job, control, tid, size):
    for phase in range(1, job[0] + 1):
        if size == 1:
            all_by_one(job, control, tid, size, phase)
        else:
            by_claims(job, control, tid, size, phase)


@entry
def mixed(job, control, tid, size):
    for phase in range(1, job[0] + 1):
        if phase % 3 or size == 1:
            all_by_one(job, control, tid, size, phase)
        else:
            by_claims(job, control, tid, size, phase)


@entry
def fixed(job, control, tid, size):
    for phase in range(1, job[0] + 1):
        for piece in range(tid * job[4], (tid + 1) * job[4]):
            work(job, size, phase, piece)
        barrier(control, size, phase)
"""


class Run:
    """One call's job, and a check that the entry did what it should."""

    def __init__(self, size: int, phases: int, additions: int = 50, pieces: int = 1) -> None:
        self.counts = np.zeros((phases, size * pieces), np.int64)
        self.errors = np.zeros(1, np.int64)
        addresses = [self.counts.ctypes.data, self.errors.ctypes.data]
        self.job = np.array([phases, additions, *addresses, pieces], np.int64)

    def on(self, team, entry) -> None:
        self.counts[:] = 0
        team.run(entry.address, self.job)
        assert (self.counts == 1).all(), "a piece was left out or done twice"
        assert self.errors[0] == 0, "a phase began before the one before it ended"


@pytest.fixture(autouse=True)
def no_hang():
    """A thread that waits for ever fails the run, with a traceback of every thread."""
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def entries():
    return load_module(ENTRIES, kind="entry")


@pytest.fixture
def make_team():
    # Compiles when it is imported, which must not happen before the tests' cache folder is set.
    from cnncc.targets.cpu.team import Team

    teams = []

    def make(size: int, **options):
        teams.append(Team(size, **options))
        return teams[-1]

    yield make
    for team in teams:
        team.stop()


@pytest.mark.parametrize("kind", ["claimed", "fixed", "mixed"])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("pieces", [1, 2, 16])
def test_every_piece_is_done_once_and_phases_are_separate(make_team, entries, kind, size, pieces):
    team, entry = make_team(size), getattr(entries, kind)
    for phases in (0, 1, 2, 17):
        run = Run(size, phases, pieces=pieces)
        for _ in range(20 if size <= 2 else 5):
            run.on(team, entry)


def test_sleeping_threads_wake_up_and_idle_ones_use_no_processor(make_team, entries):
    team, run = make_team(3, spins=100), Run(3, 4)
    for kind in (entries.fixed, entries.claimed, entries.mixed):
        for pause in (0, 0.001, 0.005, 0.02):
            time.sleep(pause)
            run.on(team, kind)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_the_caller_does_not_wait_for_a_thread_that_never_comes(make_team, entries, monkeypatch):
    team, run = make_team(2), Run(2, 5)
    monkeypatch.setattr(team, "_start", lambda: team._control.fill(0))
    run.on(team, entries.claimed)


def test_threads_that_do_not_come_are_taken_off_the_callers_core(make_team, entries, monkeypatch):
    """No thread comes here at all; looked for every 256 calls."""
    team, run, looks = make_team(2), Run(2, 1, additions=1), []
    monkeypatch.setattr(team, "_threads", [threading.current_thread()])  # which does not serve
    monkeypatch.setattr(team, "_move_away", lambda: looks.append(len(calls)))
    calls = []
    for call in range(1, 600):
        calls.append(call)
        run.on(team, entries.claimed)
    assert looks == [256, 512]


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
def test_a_thread_that_was_moved_may_come_back(make_team, entries):
    from cnncc.targets.cpu.host import allowed_cores, core

    team, run = make_team(2), Run(2, 3)
    run.on(team, entries.claimed)
    (thread,) = team._threads
    before = allowed_cores(thread.native_id)
    assert core() in before
    assert before == os.sched_getaffinity(0)
    for _ in range(50):
        team._move_away()
        run.on(team, entries.claimed)
    assert allowed_cores(thread.native_id) == before


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_thread_leaves_the_callers_core_and_is_given_it_back(
    make_team, entries, monkeypatch, interrupted
):
    """Also where a signal handler raises in between."""
    team_run, given, may = Run(2, 3), [], {0, 1, 2}
    team = make_team(2)
    team_run.on(team, entries.claimed)

    def allow(thread, cores):
        given.append(set(cores))
        may.clear()
        may.update(cores)
        if interrupted and len(given) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("cnncc.targets.cpu.team.allowed_cores", lambda thread: set(may))
    monkeypatch.setattr("cnncc.targets.cpu.team.allow_cores", allow)
    monkeypatch.setattr("cnncc.targets.cpu.team.core", lambda: 1)
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        team._move_away()
    assert given == [{0, 2}, {0, 1, 2}]


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
def test_what_somebody_else_allows_meanwhile_stays(make_team, entries, monkeypatch):
    team, run, seen, given = make_team(2), Run(2, 3), [{0, 1, 2}, {0}], []
    run.on(team, entries.claimed)
    monkeypatch.setattr("cnncc.targets.cpu.team.allowed_cores", lambda thread: seen.pop(0))
    monkeypatch.setattr(
        "cnncc.targets.cpu.team.allow_cores", lambda thread, cores: given.append(set(cores))
    )
    monkeypatch.setattr("cnncc.targets.cpu.team.core", lambda: 1)
    team._move_away()
    assert given == [{0, 2}]


def test_late_threads_help(make_team, entries):
    team = make_team(2, spins=10)
    run = Run(2, 30, additions=400_000)
    helped = False
    for _ in range(20):
        time.sleep(0.002)
        before = time.thread_time(), time.process_time()
        run.on(team, entries.claimed)
        mine, everybody = time.thread_time() - before[0], time.process_time() - before[1]
        helped = helped or everybody > 1.05 * mine
    assert helped, "the caller did everything itself, twenty times"


def test_a_slow_thread_leaves_pieces_to_the_others(make_team):
    """The caller begins 16 pieces of either share, beside a thread that comes late or never."""
    team = make_team(2)
    shared = load_module(WHO, kind="entry").run
    by_caller = np.zeros(1, np.int64)
    job = np.array([16, by_caller.ctypes.data], np.int64)
    for _ in range(20):
        by_caller[:] = 0
        team.run(shared.address, job)
        assert by_caller[0] > 16, "the other thread takes 100 000 times as long"


WHO = """
from cnncc.targets.cpu.team import claim, entry, join
from cnncc.targets.cpu.vector import i64_at


@entry
def run(job, control, tid, size):
    mine = i64_at(job[1], 1)
    done = 0
    piece = claim(control, size, 1, tid, job[0])
    while piece >= 0:
        total = 0
        for i in range(100_000_000 if tid else 1000):
            total += i ^ piece
        done += 1 if total >= 0 else 0
        if tid == 0:
            mine[0] += 1
        piece = claim(control, size, 1, tid, job[0])
    join(control, size, 1, job[0], done)
"""


def test_callers_take_turns(make_team, entries):
    team = make_team(2)
    failures = []

    def call() -> None:
        run = Run(2, 5, additions=10)
        try:
            for _ in range(300):
                run.on(team, entries.claimed)
        except AssertionError as error:
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(120)
    assert not failures
    assert not any(thread.is_alive() for thread in callers)


def test_a_stopped_team_starts_again(make_team, entries):
    team, run = make_team(2), Run(2, 3)
    for _ in range(3):
        run.on(team, entries.claimed)
        team.stop()


def test_one_team_of_a_size_is_shared(entries):
    from cnncc.targets.cpu.machine import detect
    from cnncc.targets.cpu.team import Team

    assert Team.shared(2) is Team.shared(2)
    assert Team.shared().size == detect().cores
    with pytest.raises(ValueError, match="1 to"):
        Team(0)


def test_a_job_must_be_int64(make_team, entries):
    with pytest.raises(TypeError):
        make_team(1).run(entries.claimed.address, np.zeros(4, np.float32))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_its_own_threads(make_team, entries):
    team, run = make_team(2), Run(2, 5)
    run.on(team, entries.claimed)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run.on(team, entries.claimed)
                run.on(team, entries.fixed)
                status = 0
            finally:
                os._exit(status)
        run.on(team, entries.claimed)
        assert os.waitpid(child, 0)[1] == 0


PROCESS = """
import numpy as np, test_team
from cnncc.targets.cpu.team import Team
entries = test_team.load_module(test_team.ENTRIES, kind="entry")
for size in {sizes}:
    run = test_team.Run(size, 3, additions=3)
    for kind in (entries.claimed, entries.fixed, entries.mixed):
        run.on(Team({size}), kind)
print("done")
"""


def run_python(code: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_a_process_ends_while_its_teams_spin_or_sleep():
    run_python(PROCESS.format(sizes=(1, 2, 3), size="size"))


def test_unjitted_entries_run_as_a_team_of_one():
    run_python(PROCESS.format(sizes=(1,), size="4"), NUMBA_DISABLE_JIT="1")


def test_an_error_in_an_unjitted_kernel_reaches_the_caller():
    wrong = PROCESS.format(sizes=(1,), size="2").replace("job[2], job[0] * every", "job[2], 1")
    code = f"""
import test_team
test_team.ENTRIES = test_team.ENTRIES.replace("job[2], job[0] * every", "job[2], 1")
try:
    exec({wrong!r})
except IndexError:
    print("done")
"""
    run_python(code, NUMBA_DISABLE_JIT="1")
