"""A program bound to a batch size and extents: offsets, run-time integers, the memory check; then
it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnncc.errors import Diagnostic, SpecError
from cnncc.graph.sources import Constant
from cnncc.passes.plan import Plan
from cnncc.targets.arrays import NUMPY, Array
from cnncc.targets.cpu.arena import ArenaPool, address_of, aligned_bytes
from cnncc.targets.cpu.arrangement import Arrangement
from cnncc.targets.cpu.layout import Placement
from cnncc.targets.cpu.memory import lasting
from cnncc.targets.cpu.portions import at_a_time
from cnncc.targets.cpu.program import Program
from cnncc.targets.cpu.store import Store
from cnncc.targets.cpu.table import table_of
from cnncc.targets.cpu.team import Team
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Form:
    """What an array must be for a kernel to work on its memory."""

    type: TensorType
    dims: tuple[int, ...]
    dtype: np.dtype[Any]

    def accepts(self, array: Array) -> bool:
        return array.dtype == self.dtype and array.shape == self.dims and array.flags.c_contiguous

    def wrong(self, array: Array | None) -> str:
        """Why an array is not accepted."""
        if array is None:
            return f"this phase needs an array of {self.type}"
        if array.dtype != self.dtype or array.shape != self.dims:
            return (
                f"expected {self.type} of shape {self.dims}, got {array.dtype} of shape "
                f"{array.shape}"
            )
        return "expected a C-contiguous array"


@dataclass(frozen=True)
class Exchange:
    """The caller's arrays that a phase reads and writes: name, place in the job table, form."""

    inputs: tuple[tuple[str, int, Form], ...]
    outputs: tuple[tuple[str, int, Form], ...]


@dataclass
class Binding:
    """Ready to run for one batch size and one set of extents."""

    program: Program
    batch: int
    arrangement: Arrangement
    table: Array
    job: Array  # (address, length) pairs; arena tensors hold offsets until an arena is known
    arena_slots: Array
    constants: dict[str, Array]
    pool: ArenaPool
    jobs: dict[int, tuple[Array, int]] = field(default_factory=dict)
    """Job tables with their addresses, by the identity of the arena."""
    _arenas: list[Array] = field(default_factory=list)  # whose identity stays theirs meanwhile
    _exchanges: dict[int, Exchange] = field(default_factory=dict)  # by phase

    @property
    def plan(self) -> Plan:
        """The arena."""
        return self.arrangement.plan

    @property
    def placements(self) -> Mapping[str, Placement]:
        """Where the elements of every tensor lie."""
        return self.arrangement.places

    def run(
        self,
        phase: int,
        inputs: Mapping[str, Array],
        team: Team,
        arena: Array,
        results: dict[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Run one phase on an arena, which is the caller's alone meanwhile: its results by public
        name, as logical arrays, new unless they are given. `inputs`: C-contiguous arrays by the
        names of input nodes. Raises ValueError for one that is missing or of another type.
        """
        entry = self.program.entries.get(phase)
        if entry is None:
            return {}
        exchange = self.exchange(phase)
        results = self.results(phase, self.batch) if results is None else results
        job, place = self.placed_job(arena)
        for name, word, expected in exchange.inputs:
            array = inputs.get(name)
            if array is None or not expected.accepts(array):
                raise ValueError(f"{name}: {expected.wrong(array)}")
            job[word] = address_of(array)
        for public, word, _ in exchange.outputs:
            job[word] = address_of(results[public])
        team.run(entry.address, job, place)
        return results

    def results(self, phase: int, batch: int) -> dict[str, Array]:
        """New arrays for the results of a phase, with so many samples."""
        return {
            public: np.empty(
                (batch, *form.dims[1:]) if form.type.batched else form.dims, form.dtype
            )
            for public, _, form in self.exchange(phase).outputs
        }

    def job_in(self, arena: Array) -> Array:
        """The job table whose arena tensors lie in this arena; the caller's arrays are still to
        come. It belongs to whoever has the arena.
        """
        return self.placed_job(arena)[0]

    def placed_job(self, arena: Array) -> tuple[Array, int]:
        """The job table of an arena, as `job_in`, and its address."""
        known = self.jobs.get(id(arena))  # in a quarter of the time that an address takes
        if known is None:
            job = self.job.copy()
            job[self.arena_slots] += address_of(arena)
            self._arenas.append(arena)
            known = self.jobs[id(arena)] = job, address_of(job)
        return known

    def exchange(self, phase: int) -> Exchange:
        """The caller's arrays of a phase."""
        found = self._exchanges.get(phase)
        if found is None:
            found = self._exchanges[phase] = self._new_exchange(phase)
        return found

    def _new_exchange(self, phase: int) -> Exchange:
        program = self.program

        def form(name: str) -> tuple[int, Form]:
            p = self.placements[name]
            return 2 * program.slots[name] + 2, Form(p.type, p.dims, np.dtype(NUMPY[p.type.dtype]))

        given = [n for n in program.given.get(phase, ()) if not n.startswith("out:")]
        public = [o for o, name in program.outputs if program.entry_of(name) == phase]
        return Exchange(
            tuple((n.removeprefix("in:"), *form(n)) for n in given),
            tuple((o, *form(f"out:{o}")) for o in public),
        )


def bind(
    program: Program,
    batch: int,
    symbols: Mapping[str, int],
    store: Store,
    *,
    limit: int,
    threads: int,
    arenas: int = 1,
    whole: int | None = None,
) -> Binding:
    """Compute offsets and integers for `batch` samples, which may be a portion of `whole`.
    Afterwards the store has a block for every parameter, whose values may still be missing. Raises
    SpecError when the plan exceeds the memory limit, before allocating.
    """
    values = {**symbols, "*": batch}
    found = program.outline.arranged(batch, symbols)
    arena, places = found.plan, found.places
    sizes = {n: places[n].bytes for n in program.lives}
    kept = lasting(program.tensors, places)
    held = sum(kept.values()) + store.bytes_besides(kept)
    if arena.size + held > limit:
        raise SpecError(_too_large(arena.size, held, limit, sizes, batch, whole or batch))
    arenas = max(1, min(arenas, (limit - held) // max(arena.size, 64)))
    constants = {
        n: _constant(program, n, places[n])
        for n, t in program.tensors.items()
        if t.space == "constant"
    }
    table = table_of(program, places, values, threads)
    slots = program.slots
    job = np.zeros(2 + 2 * len(slots), np.int64)
    job[:2] = table.ctypes.data, len(table)
    arena_slots = []
    for name, slot in slots.items():
        p, tensor = places[name], program.tensors[name]
        job[2 * slot + 3] = p.elements
        match tensor.space:
            case "store":
                flat = store.allocate(tensor.alias or name, p)
                job[2 * slot + 2] = flat.ctypes.data
            case "constant":
                job[2 * slot + 2] = constants[name].ctypes.data
            case "arena":
                job[2 * slot + 2] = arena.offsets[tensor.slice_of or name]
                arena_slots.append(2 * slot + 2)
    return Binding(
        program, batch, found, table, job, np.array(arena_slots, np.int64), constants,
        ArenaPool(max(arena.size, 64), arenas),
    )  # fmt: skip


def _constant(program: Program, name: str, p: Placement) -> Array:
    op = program.graph[name].op
    assert isinstance(op, Constant)
    flat = aligned_bytes(max(p.bytes, 64)).view(NUMPY[p.type.dtype])
    tensor = program.tensors[name]
    if tensor.border:
        flat[:] = tensor.border.fill
    p.pack(np.full(p.dims, op.value, flat.dtype), flat)
    return flat


def _too_large(
    arena: int, parameters: int, limit: int, sizes: Mapping[str, int], batch: int, whole: int
) -> Diagnostic:
    largest = sorted(sizes, key=lambda n: -sizes[n])[:3]
    from cnncc.errors import Note

    def mib(n: int) -> str:
        return f"{n / 2**20:.1f} MiB"

    return Diagnostic(
        "E0801",
        f"the plan needs {mib(arena + parameters)}, but the limit is {mib(limit)}",
        notes=(
            Note(
                f"activations at batch {whole}{at_a_time(batch, whole)}: {mib(arena)}, "
                f"parameters: {mib(parameters)}"
            ),
            Note("largest tensors: " + ", ".join(f"{n} {mib(sizes[n])}" for n in largest)),
        ),
        helps=("use a smaller batch or smaller extents", "raise the limit with max_memory"),
    )
