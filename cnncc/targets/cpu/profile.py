"""Where the time of a bound network goes: every step of its entries timed by itself, in the order
and with the threads of a real run, so that each finds in the caches what the step before left.

Each step runs by an entry of one step, on the team as the whole entry would; the time of an empty
entry is taken off. What is not seen is what steps cost together, such as threads that arrive
at different times; borders, which an entry fills beside the kernels, have steps of their own here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.binding import Binding
from cnncc.targets.cpu.entry import Call, Slot, entry_text
from cnncc.targets.cpu.program import Program
from cnncc.targets.cpu.program_step import Step
from cnncc.targets.cpu.schedule import Schedule
from cnncc.targets.cpu.team import Team
from cnncc.targets.cpu.work import macs_of, traffic_of
from cnncc.targets.load import load_module, module_name
from cnncc.tensor import TensorType

Timer = Callable[["Step | None", Callable[[], object]], float]
"""Runs a step of an entry, or (None) something else, and says how many seconds it took."""

LEAST = 1e-9  # seconds of a step that takes less than the clock can tell from an empty one


def stopwatch(step: Step | None, run: Callable[[], object]) -> float:
    """The timer that measures."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@dataclass(frozen=True)
class StepTime:
    """One step of an entry.

    layers: names of the nodes that the kernel computes, none for borders and changes of layout.
    milliseconds: median over the repeats. macs: multiply-accumulates of all samples of the
    binding, as the operators count them. schedules: one per segment of the kernel, none for
    borders. traffic: bytes of the tensors that the step reads and writes, each once; of a border
    only what it fills. parameters: those of them that do not depend on the input.
    """

    phase: int
    layers: tuple[str, ...]
    comment: tuple[str, ...]
    milliseconds: float
    macs: int
    schedules: tuple[Schedule, ...]
    traffic: int = 0
    parameters: int = 0

    @property
    def tiles(self) -> tuple[str, ...]:
        """The register tile of each segment, as `positions x vectors x lanes`."""
        return tuple(map(_tile, self.schedules))


class Stepwise:
    """The steps of some phases of a binding, each an entry of its own that the team runs in the
    order of a call. It has an arena of the binding until it is closed.

    inputs: C-contiguous arrays of the input nodes' dtypes, by node name, as for a run. Raises
    KeyError for one that is missing.
    """

    def __init__(
        self,
        binding: Binding,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        phases: Collection[int] | None = None,
    ) -> None:
        steps = binding.program.steps
        wanted = {s.phase for s in steps} if phases is None else phases
        located = [(first, s) for first, s in _located(steps) if s.phase in wanted]
        self.steps = tuple(s for _, s in located)
        self._team = Team.shared(threads)
        self._entries = [_entry(binding.program, s) for s in self.steps]
        self._nothing = load_module(entry_text("Nothing.", [], []), kind="entry").run.address
        self._held = ExitStack()
        arena = self._held.enter_context(binding.pool.acquire())
        self._whole, self._results = _job(binding, inputs, arena)  # kernels write to the results
        self._jobs = [_own_job(binding.program, self._whole, n, s) for n, s in located]

    def __enter__(self) -> Stepwise:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def run(self, timer: Timer = stopwatch) -> tuple[float, list[float]]:
        """All steps once: the seconds of an empty entry, and of every step with that overhead."""
        run = self._team.run
        empty = timer(None, lambda: run(self._nothing, self._whole))
        ready = zip(self.steps, self._entries, self._jobs, strict=True)
        return empty, [timer(step, partial(run, entry, job)) for step, entry, job in ready]


def profile(
    binding: Binding,
    inputs: Mapping[str, Array],
    *,
    threads: int = 1,
    repeats: int = 9,
    phases: Collection[int] | None = None,
    symbols: Mapping[str, int] | None = None,
) -> tuple[StepTime, ...]:
    """Time every step of the phases (all of them unless given), in execution order.

    inputs: C-contiguous arrays of the input nodes' dtypes, by node name, as for a run. All phases
    run `repeats` + 1 times, the first to warm up: a phase that updates parameters updates them as
    often. Raises KeyError for a missing input or a symbolic extent without its value in `symbols`,
    ValueError unless repeats >= 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, but got {repeats}")
    with Stepwise(binding, inputs, threads=threads, phases=phases) as stepwise:
        rounds = [stepwise.run() for _ in range(repeats + 1)]
    overhead = min(empty for empty, _ in rounds)
    times = zip(*(seconds for _, seconds in rounds[1:]), strict=True)
    return tuple(
        _step_time(binding, step, symbols or {}, max(statistics.median(own) - overhead, LEAST))
        for step, own in zip(stepwise.steps, times, strict=True)
    )


def _tile(s: Schedule) -> str:
    if s.lanes == 1:
        return "one by one"
    rest = "" if s.whole_blocks and s.whole_tiles else ", rest"
    width = f"{s.width} and {s.rest}" if s.rest else f"{s.width}"
    return f"{width} x {s.vectors} x {s.lanes}{rest}"


def _located(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    """Each step with the place where its integers begin in the table."""
    located, first = [], 0
    for step in steps:
        located.append((first, step))
        first += step.places
    return located


def _entry(program: Program, step: Step) -> int:
    """The address of an entry that consists of one step. Its tensors are numbered as the kernel's
    arguments and have no shapes, so that all steps with this kernel share it.
    """
    slots = [Slot("", TensorType(program.tensors[t].type.dtype, ())) for t in step.tensors]
    name = module_name(step.text, kind="kernel")
    load_module(step.text, kind="kernel")
    text = entry_text("One step.", slots, [Call(name, tuple(range(len(slots))), 0, ())])
    address: int = load_module(text, kind="entry").run.address
    return address


def _job(binding: Binding, inputs: Mapping[str, Array], arena: Array) -> tuple[Array, list[Array]]:
    """The job table for an arena, and the arrays for results that it points to."""
    program = binding.program
    job = binding.job_in(arena)
    results = []
    for name, slot in program.slots.items():
        tensor = program.tensors[name]
        if tensor.space != "outside":
            continue
        if name.startswith("out:"):
            placement = binding.placements[name]
            array = np.empty(placement.dims, NUMPY[tensor.type.dtype])
            results.append(array)
        else:
            array = inputs[name.removeprefix("in:")]
        job[2 * slot + 2] = array.ctypes.data
    return job, results


def _own_job(program: Program, job: Array, first: int, step: Step) -> Array:
    """The job table of one step: its integers, which begin at `first`, and its tensors."""
    numbers = [program.slots[t] for t in step.tensors]
    pairs = [(job[2 * n + 2], job[2 * n + 3]) for n in numbers]
    integers = (job[0] + first * job.itemsize, job[1] - first)
    return np.array([integers, *pairs], np.int64).ravel()


def _step_time(
    binding: Binding, step: Step, symbols: Mapping[str, int], seconds: float
) -> StepTime:
    program = binding.program
    macs = macs_of(program, step, binding.batch, symbols)
    schedules = tuple(
        s.schedule for part in step.kernels if part.emitted for s in part.emitted.segments
    )
    names = tuple(n.name for n in step.nodes)
    traffic, fixed = traffic_of(program, step, binding.placements)
    return StepTime(step.phase, names, step.comment, 1e3 * seconds, macs, schedules, traffic, fixed)
