"""Where the time of a bound network goes: every step of its entries timed by itself, in the order
and with the threads of a real run, so that each finds in the caches what the step before left.

Each step becomes an entry of its own, run by the team as the whole entry would be; the time of an
empty entry is taken off. What is not seen is what steps cost together, such as threads that arrive
at different times.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnncc.ops.base import Op
from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.binding import Binding
from cnncc.targets.cpu.entry import Call, Slot, entry_text
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.cpu.program import Program, Step
from cnncc.targets.cpu.schedule import Schedule
from cnncc.targets.cpu.team import Team
from cnncc.targets.load import load_module, module_name
from cnncc.tensor import evaluate


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
    program, team = binding.program, Team.shared(threads)
    wanted = {s.phase for s in program.steps} if phases is None else phases
    chosen = [(first, s) for first, s in _located(program.steps) if s.phase in wanted]
    slots = [Slot(t.name, t.type, t.space) for t in program.tensors.values()]
    entries = [_entry(program, slots, first, step) for first, step in chosen]
    nothing = load_module(entry_text("Nothing.", slots, []), kind="entry").run.address
    with binding.pool.acquire() as arena:
        job, results = _job(binding, inputs, arena)
        times: list[list[float]] = [[] for _ in entries]
        empty: list[float] = []
        for _ in range(repeats + 1):
            empty.append(_seconds(team, nothing, job))
            for address, samples in zip(entries, times, strict=True):
                samples.append(_seconds(team, address, job))
        del results  # the kernels have written to them until here
    overhead = min(empty)
    return tuple(
        _step_time(
            binding, step, symbols or {}, max(statistics.median(samples[1:]) - overhead, 0.0)
        )
        for (_, step), samples in zip(chosen, times, strict=True)
    )


def _tile(s: Schedule) -> str:
    if s.lanes == 1:
        return "one by one"
    rest = "" if s.whole_blocks and s.whole_tiles else ", rest"
    return f"{s.width} x {s.vectors} x {s.lanes}{rest}"


def _located(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    """Each step with the place where its integers begin in the table."""
    located, first = [], 0
    for step in steps:
        located.append((first, step))
        first += step.integers
    return located


def _entry(program: Program, slots: Sequence[Slot], first: int, step: Step) -> int:
    """The address of an entry that consists of one step."""
    numbers = program.slots
    tensors = tuple(numbers[t] for t in step.tensors)
    call = Call(module_name(step.text, kind="kernel"), tensors, first, step.comment)
    load_module(step.text, kind="kernel")
    address: int = load_module(entry_text("One step.", slots, [call]), kind="entry").run.address
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


def _seconds(team: Team, address: int, job: Array) -> float:
    begin = time.perf_counter()
    team.run(address, job)
    return time.perf_counter() - begin


def _step_time(
    binding: Binding, step: Step, symbols: Mapping[str, int], seconds: float
) -> StepTime:
    program, macs = binding.program, 0
    for node in step.nodes:
        assert isinstance(node.op, Op)
        of_sample = evaluate(node.op.cost(program.graph.types(node), node.type).macs, symbols)
        macs += of_sample * binding.batch
    schedules = tuple(
        s.schedule for part in step.kernels if part.emitted for s in part.emitted.segments
    )
    names = tuple(n.name for n in step.nodes)
    traffic, fixed = _traffic(binding, step)
    return StepTime(step.phase, names, step.comment, 1e3 * seconds, macs, schedules, traffic, fixed)


def _traffic(binding: Binding, step: Step) -> tuple[int, int]:
    """Bytes that a step reads and writes, and how many of them are of parameters. Borders count
    where they are filled, not where they are read.
    """
    traffic = parameters = 0
    for name in dict.fromkeys(step.tensors):
        p = binding.placements[name]
        if binding.program.tensors[name].cut:
            continue  # it stays in the cache
        inside = math.prod(p.dims)
        numbers = inside if step.kernels else _bordered(p) - inside
        traffic += numbers * p.type.dtype.bytes
        parameters += 0 if p.type.batched else numbers * p.type.dtype.bytes
    return traffic, parameters


def _bordered(p: Placement) -> int:
    """Elements of an activation with its border."""
    spatial = zip(p.dims[2:], p.halo, strict=True)
    return math.prod(p.dims[:2]) * math.prod(n + lo + hi for n, (lo, hi) in spatial)
