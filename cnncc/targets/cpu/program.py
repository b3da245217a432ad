"""A fused graph as machine code: kernels emitted and compiled, one entry per phase, memory laid
out.

Nothing here depends on batch size or symbolic extents; `binding.py` adds those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Graph
from cnncc.loops.ir import Add, Index, Mul, Var
from cnncc.loops.transform import accesses
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel
from cnncc.passes.plan import Life
from cnncc.targets.ahead import load_kernels
from cnncc.targets.cpu.bands import Cut
from cnncc.targets.cpu.border import border_text
from cnncc.targets.cpu.caller import band_text, strip_text
from cnncc.targets.cpu.compiled import CompiledFunction
from cnncc.targets.cpu.declare import PREPARE, WHOLE, declare, tensors_of
from cnncc.targets.cpu.emit import emit
from cnncc.targets.cpu.emitted import Memory
from cnncc.targets.cpu.entry import Call, Guarded, Slot, entry_text
from cnncc.targets.cpu.grouping import Run
from cnncc.targets.cpu.halo import Border, borders
from cnncc.targets.cpu.memory import Outline, Touch
from cnncc.targets.cpu.program_step import Step
from cnncc.targets.cpu.schedule import Schedule, block_lanes
from cnncc.targets.cpu.strips import Strip, goes_by_rows
from cnncc.targets.cpu.tensors import Tensor
from cnncc.targets.load import load_module, module_name
from cnncc.tensor import DType


@dataclass(frozen=True)
class Program:
    """Everything that is compiled once per network."""

    graph: Graph
    dtype: DType
    lanes: int
    tensors: Mapping[str, Tensor]
    steps: tuple[Step, ...]
    entry_texts: Mapping[int, str]  # by phase
    lives: Mapping[str, Life]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    phases: Mapping[str, int] = field(default_factory=dict)
    guard: str = ""

    @cached_property
    def entries(self) -> dict[int, CompiledFunction]:
        """The compiled entries by phase: nothing else needs them but a run of a whole phase."""
        return {
            phase: load_module(text, kind="entry").run for phase, text in self.entry_texts.items()
        }

    def entry_of(self, node: str) -> int:
        """The key of the entry that computes a node."""
        phase = max(self.phase_of(node), 0)
        return WHOLE if self.guard else phase

    def phase_of(self, node: str) -> int:
        return self.phases.get(node, 0)

    @cached_property
    def slots(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.tensors)}

    @cached_property
    def given(self) -> dict[int, tuple[str, ...]]:
        """For every entry the tensors that lie in arrays of the caller, its results among them."""
        found: dict[int, dict[str, None]] = {}
        for step in self.steps:
            names = [t for t in step.tensors if self.tensors[t].space == "outside"]
            key = WHOLE if self.guard and step.phase >= 0 else step.phase
            found.setdefault(key, {}).update(dict.fromkeys(names))
        return {phase: tuple(names) for phase, names in found.items()}

    @cached_property
    def outline(self) -> Outline:
        """What decides memory."""
        touched = tuple(Touch(s.phase, s.nodes, s.tensors) for s in self.steps if s.kernels)
        return Outline(self.graph, self.tensors, self.lives, touched, self.lanes)


def compile_program(
    fused: Fused,
    *,
    dtype: DType,
    lanes: int,
    phases: Mapping[str, int],
    panels: bool = True,
    guard: str = "",
    widths: Mapping[str, int] | None = None,
) -> Program:
    """Emit and compile every kernel of a fused graph.

    `phases`: the phase of each node (0 when missing). Phases run in order, each by its own entry.
    With `panels` parameters that are only read in blocks of lanes are stored block by block.
    Programs that share parameters must agree on it. With `guard`, the public name of an output of
    one number, all phases are one entry, WHOLE, whose last phase runs only when it is finite.
    `widths`: positions of the register tiles of the kernels that compute these nodes, where the
    schedule's own are not wanted.
    """
    return _Compiler(fused, dtype, lanes, phases, panels, guard, widths or {}).program()


def program_texts(
    fused: Fused,
    *,
    dtype: DType,
    lanes: int,
    phases: Mapping[str, int],
    panels: bool = True,
    guard: str = "",
) -> tuple[list[str], list[str]]:
    """What `compile_program` would compile: the text of each call's kernel, and the entries'."""
    found = _Compiler(fused, dtype, lanes, phases, panels, guard, {})
    steps = found.steps()
    return [t for s in steps for t in s.texts], list(found.entry_texts(steps).values())


class _Compiler:
    def __init__(
        self,
        fused: Fused,
        dtype: DType,
        lanes: int,
        phases: Mapping[str, int],
        panels: bool,
        guard: str,
        widths: Mapping[str, int],
    ) -> None:
        self.panels, self.guard, self.widths = panels, guard, widths
        self.fused, self.graph, self.dtype, self.lanes, self.phases = (
            fused,
            fused.graph,
            dtype,
            lanes,
            phases,
        )
        self.declared = declare(fused, lanes=lanes, phases=phases)
        self.tensors = self.declared.tensors
        self.bordered: set[str] = set()

    def steps(self) -> list[Step]:
        """Every call in order, with the text of its kernel."""
        steps: list[Step] = []
        for run in self.declared.runs:
            steps += self._run(run)
        if self.panels and self.lanes > 1:
            self._declare_panels(steps)
        return steps

    def entry_texts(self, steps: Sequence[Step]) -> dict[int, str]:
        """By phase the text that makes the calls."""
        if self.guard:
            return {WHOLE: self._whole(steps)}
        return {phase: self._entry(steps, phase) for phase in sorted({s.phase for s in steps})}

    def program(self) -> Program:
        steps = self.steps()
        load_kernels([t for s in steps for t in s.texts])
        texts = self.entry_texts(steps)
        return Program(
            self.graph, self.dtype, self.lanes, self.tensors, tuple(steps), texts,
            self.declared.lives([s.tensors for s in steps]),
            tuple(n.name for n in self.graph.of("input")),
            self.graph.outputs,
            dict(self.phases),
            self.guard,
        )  # fmt: skip

    def _declare_panels(self, steps: Sequence[Step]) -> None:
        """Parameters that every kernel touches by whole blocks of its lanes alone."""
        other: set[str] = set()
        found: dict[int, list[tuple[str, tuple[Index, ...]]]] = {}  # many steps share a nest
        for step in (part for s in steps for part in s.kernels):
            for segment in step.emitted.segments if step.emitted else ():
                nest, group = segment.nest, segment.group
                tensors = dict(zip((b.name for b in nest.buffers), step.tensors, strict=True))
                if id(nest) not in found:
                    found[id(nest)] = list(dict.fromkeys(accesses(nest.body)))
                for buffer, index in found[id(nest)]:
                    tensor = self.tensors[tensors[buffer]]
                    if not self._by_block(tensor, index, segment.schedule, group):
                        other.add(tensor.alias or tensor.name)
        for name, tensor in self.tensors.items():
            if not tensor.type.batched and (tensor.alias or name) not in other:
                self.tensors[name] = replace(tensor, panels=True)

    def _by_block(
        self, tensor: Tensor, index: tuple[Index, ...], s: Schedule, group: Index | None
    ) -> bool:
        if tensor.type.batched or not index:
            return True
        axis = tensor.innermost or 0
        own = block_lanes(tensor.type.shape[axis], self.lanes)
        channel = index[axis]
        match channel:
            case Add(Mul(_, extent), lane) if extent == group:  # a group begins with a block
                channel = lane
        return s.lanes > 1 and s.block == own and channel == Var(s.vector)

    # --- steps ---

    def _run(self, run: Run) -> list[Step]:
        """The steps of kernels that run as one: borders, then the kernels."""
        # bands are whole register tiles as the model chooses them
        widths = {} if isinstance(run.cut, Cut) else self.widths
        steps: list[Step] = []
        for kernel in run.kernels:
            ahead = run.ahead if steps else ""  # the first kernel reads it
            steps += self._steps(run.phase, kernel, widths, ahead)
        if run.cut is None:
            return steps
        parts, tensors = tuple(s for s in steps if s.emitted), tensors_of(run.kernels)
        if isinstance(run.cut, Strip) and not all(
            goes_by_rows(segment.schedule)
            for s in parts
            if s.emitted
            for segment in s.emitted.segments
        ):
            raise CompilerBug("program", run.kernels[-1].sink.name, "a strip is some rows")
        dtypes = {t: self.tensors[t].type.dtype.value for t in tensors}
        text = (band_text if isinstance(run.cut, Cut) else strip_text)(
            [s.callee for s in parts], dtypes
        )
        comment = tuple(line for s in parts for line in s.comment)
        whole = Step(
            run.phase,
            tensors,
            None,
            None,
            text,
            comment,
            parts=parts,
            cut=run.cut,
            within=run.within,
        )
        return [*(s for s in steps if not s.emitted), whole]

    def _steps(
        self, phase: int, kernel: Kernel, widths: Mapping[str, int], ahead: str
    ) -> list[Step]:
        nest = kernel.nest
        tensors = dict(zip((b.name for b in nest.buffers), kernel.tensors, strict=True))
        own = borders(nest)
        haloed = {b for b, border in own.items() if self._covers(self.tensors[tensors[b]], border)}
        padded = {b for b, t in tensors.items() if self._padded(self.tensors[t])}
        inner = {b: self.tensors[t].innermost or 0 for b, t in tensors.items()}
        changed = {self.tensors[t].alias for t in kernel.writes}
        memory = Memory(
            inner,
            frozenset(haloed),
            frozenset(padded),
            not changed.isdisjoint(kernel.reads),
            self.tensors[ahead].type.dtype if ahead else None,
        )
        width = next((widths[n.name] for n in kernel.nodes if n.name in widths), 0)
        emitted = emit(nest, memory, self.dtype, self.lanes, width)
        steps = []
        for name in map(self.declared.root, kernel.writes):
            tensor = self.tensors[name]
            if name in self.bordered:
                continue  # an earlier part's kernel has seen to it
            self.bordered.add(name)
            if tensor.border and any(sum(pair) for pair in tensor.border.halo):
                text = border_text(tensor.type.dtype.value, tensor.border.fill)
                comment = (f"border of {name}: {tensor.border.fill}",)
                steps.append(Step(phase, (name,), None, None, text, comment))
        steps.append(
            Step(
                phase,
                kernel.tensors,
                emitted,
                nest,
                emitted.text,
                self._comment(kernel),
                kernel,
                ahead,
            )
        )
        return steps

    def _covers(self, tensor: Tensor, wanted: Border) -> bool:
        """Whether the tensor's border holds what a kernel reads outside it."""
        return tensor.border is not None and tensor.border.covers(wanted)

    def _padded(self, tensor: Tensor) -> bool:
        """Whether a whole vector may be read at the end of the fastest axis: the caller's arrays
        have no room.
        """
        return not tensor.type.batched and tensor.space != "outside"

    def _comment(self, kernel: Kernel) -> tuple[str, ...]:
        if not kernel.nodes:
            return (f"{kernel.tensors[0]} -> {kernel.tensors[1]}: layout",)
        lines = []
        for n in kernel.nodes:
            span = n.origin.span
            where = f"  [{span.file}:{span.line}]" if span else ""
            lines.append(f"{n.name} = {n.op.name}({', '.join(n.inputs)}) : {n.type}{where}")
        return tuple(lines)

    def _entry(self, steps: Sequence[Step], phase: int) -> str:
        calls = [call for p, call in self._calls(steps) if p == phase]
        title = f"{self.graph.name}, phase {phase}."
        # what is prepared is little, and rarely: its entry is for one thread
        return entry_text(title, self._slots(), calls, alone=phase == PREPARE)

    def _whole(self, steps: Sequence[Step]) -> str:
        """One entry of all phases, of which the last is guarded if it is not the one that computes
        the guard.
        """
        calls = self._calls(steps)
        own = self.phases.get(dict(self.graph.outputs)[self.guard], 0)
        last = max(own + 1, *(phase for phase, _ in calls))
        later = [call for phase, call in calls if phase == last]
        guard = list(self.tensors).index(f"out:{self.guard}")
        before = [call for phase, call in calls if phase < last]
        title = f"{self.graph.name}, a whole step; updates only if {self.guard} is finite."
        return entry_text(title, self._slots(), before, Guarded(guard, later) if later else None)

    def _slots(self) -> list[Slot]:
        return [Slot(t.name, t.type, t.space) for t in self.tensors.values()]

    def _calls(self, steps: Sequence[Step]) -> list[tuple[int, Call]]:
        """The calls of all steps with their phases."""
        numbers = {name: i for i, name in enumerate(self.tensors)}
        calls, first = [], 0
        for step in steps:
            name = module_name(step.text, kind="kernel")
            tensors = tuple(numbers[t] for t in step.tensors)
            # a border lies beside what the kernel behind it writes, and is not read by it
            border = not step.kernels
            call = Call(name, tensors, first, step.comment, with_next=border)
            calls.append((step.phase, call))
            first += step.places
        return calls
