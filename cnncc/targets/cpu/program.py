"""A fused graph as machine code: kernels emitted and compiled, one entry per phase, memory laid
out.

Nothing here depends on batch size or symbolic extents; `binding.py` adds those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Buffer, Index, Nest, Store, Var, statements, subindices
from cnncc.loops.transform import accesses
from cnncc.ops.base import Op, axis_names
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel
from cnncc.passes.plan import Life, lives
from cnncc.targets.ahead import load_kernels
from cnncc.targets.cpu.border import border_text
from cnncc.targets.cpu.compiled import CompiledFunction
from cnncc.targets.cpu.emit import Emitted, Memory, emit
from cnncc.targets.cpu.entry import Call, Slot, entry_text
from cnncc.targets.cpu.halo import Border, borders
from cnncc.targets.cpu.layout import innermost_axis
from cnncc.targets.cpu.schedule import Schedule, block_lanes, strided_parameters
from cnncc.targets.load import load_module, module_name
from cnncc.tensor import DType, TensorType


@dataclass(frozen=True)
class Tensor:
    """One tensor of the job table, before its extents are known.

    space: `outside` (an array of the caller, row-major), `store` (parameters and prepared values),
    `constant`, or `arena`.
    """

    name: str
    type: TensorType
    space: str
    innermost: int | None = None
    border: Border | None = None
    panels: bool = False  # laid out in panels of a block of lanes
    slice_of: str = ""  # these are channels of another tensor, from `first_channel` on
    first_channel: int = 0
    alias: str = ""  # shares the memory of this tensor (an update in place)


@dataclass(frozen=True)
class Step:
    """One call of an entry: a kernel with its tensors, or the border of one tensor."""

    phase: int
    tensors: tuple[str, ...]
    emitted: Emitted | None  # None: a border fill
    nest: Nest | None
    text: str
    comment: tuple[str, ...]
    kernel: Kernel | None = None


@dataclass(frozen=True)
class Program:
    """Everything that is compiled once per network."""

    graph: Graph
    dtype: DType
    lanes: int
    tensors: Mapping[str, Tensor]
    steps: tuple[Step, ...]
    entries: Mapping[int, CompiledFunction]  # by phase
    entry_texts: Mapping[int, str]
    lives: Mapping[str, Life]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    phases: Mapping[str, int] = field(default_factory=dict)

    def phase_of(self, node: str) -> int:
        return self.phases.get(node, 0)

    @cached_property
    def slots(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.tensors)}

    @cached_property
    def given(self) -> dict[int, tuple[str, ...]]:
        """For every phase the tensors that lie in arrays of the caller, its results among them."""
        found: dict[int, dict[str, None]] = {}
        for step in self.steps:
            names = [t for t in step.tensors if self.tensors[t].space == "outside"]
            found.setdefault(step.phase, {}).update(dict.fromkeys(names))
        return {phase: tuple(names) for phase, names in found.items()}


PREPARE = -1  # the phase of what depends on parameters only: run after they change


def compile_program(
    fused: Fused, *, dtype: DType, lanes: int, phases: Mapping[str, int], panels: bool = True
) -> Program:
    """Emit and compile every kernel of a fused graph.

    `phases`: the phase of each node (0 when missing). Phases run in order, each by its own entry.
    With `panels` parameters that are only read in blocks of lanes are stored block by block.
    Programs that share parameters must agree on it.
    """
    return _Compiler(fused, dtype, lanes, phases, panels).program()


class _Compiler:
    def __init__(
        self, fused: Fused, dtype: DType, lanes: int, phases: Mapping[str, int], panels: bool
    ) -> None:
        self.panels = panels
        self.fused, self.graph, self.dtype, self.lanes, self.phases = (
            fused,
            fused.graph,
            dtype,
            lanes,
            phases,
        )
        self.training = any(phase > 0 for phase in phases.values())
        self.tensors: dict[str, Tensor] = {}
        self.bordered: set[str] = set()

    def program(self) -> Program:
        kernels = self._with_copies()
        self._declare(kernels)
        kernels = self._relaid(kernels)
        steps: list[Step] = []
        for phase, kernel in kernels:
            steps += self._steps(phase, kernel)
        steps.sort(key=lambda s: s.phase)  # stable: kernels keep their order inside a phase
        if self.panels and self.lanes > 1:
            self._declare_panels(steps)
        load_kernels([s.text for s in steps])
        texts = {phase: self._entry(steps, phase) for phase in sorted({s.phase for s in steps})}
        entries = {phase: load_module(text, kind="entry").run for phase, text in texts.items()}
        outside = [n for n, t in self.tensors.items() if t.space != "arena"]
        results = {f"out:{name}" for name, _ in self.graph.outputs}
        touched = [tuple(self._root(t) for t in s.tensors) for s in steps]
        return Program(
            self.graph, self.dtype, self.lanes, self.tensors, tuple(steps), entries, texts,
            lives(touched, outside, results),
            tuple(n.name for n in self.graph.of("input")),
            self.graph.outputs,
            dict(self.phases),
        )  # fmt: skip

    # --- tensors ---

    def _with_copies(self) -> list[tuple[int, Kernel]]:
        """The kernels with their phases, and copies between the caller's arrays and channels-last
        tensors.
        """
        kernels: list[tuple[int, Kernel]] = []
        consumers = self.graph.consumers()
        for node in self.graph.of("input"):
            if _copied(
                node.type
            ):  # when it is first needed: the gradient of an output arrives after forward
                phase = min(
                    (max(self.phases.get(c.name, 0), 0) for c in consumers[node.name]), default=0
                )
                kernels.append((phase, _copy(f"in:{node.name}", node.name, node.type)))
        kernels += [(self.phases.get(k.sink.name, 0), k) for k in self.fused.kernels]
        for public, name in self.graph.outputs:
            phase = max(self.phases.get(name, 0), 0)
            kernels.append((phase, _copy(name, f"out:{public}", self.graph[name].type)))
        return kernels

    def _declare(self, kernels: Sequence[tuple[int, Kernel]]) -> None:
        wanted: dict[str, Border | None] = {}
        for _, kernel in kernels:
            found = borders(kernel.nest)
            for buffer, tensor in zip(kernel.nest.buffers, kernel.tensors, strict=True):
                if buffer.name in found:
                    known = wanted.get(tensor)
                    new = found[buffer.name]
                    wanted[tensor] = (
                        known.joined(new) if known and known.same_fill(new) else known or new
                    )
        slices = self.fused.slices
        for piece, part in slices.items():
            mine, whole = wanted.get(piece), wanted.get(part.whole)
            if mine:  # the border of a part is that of the whole
                agree = whole and whole.same_fill(mine)
                wanted[part.whole] = whole.joined(mine) if whole and agree else whole or mine
        updated = {new: old for old, new in self.graph.updates}
        for _, kernel in kernels:
            for buffer, name in zip(kernel.nest.buffers, kernel.tensors, strict=True):
                if name not in self.tensors and name not in slices:
                    made = self._tensor(name, wanted.get(name), updated)
                    # a border goes with the channels innermost
                    if buffer.role == "out" and made.space != "outside" and not made.border:
                        fastest = _fastest_axis(kernel.nest, buffer, made.innermost or 0)
                        made = replace(made, innermost=fastest)
                    self.tensors[name] = made
        for piece, part in slices.items():
            if part.whole not in self.tensors:
                self.tensors[part.whole] = self._tensor(part.whole, wanted.get(part.whole), updated)
            self.tensors[piece] = replace(
                self.tensors[part.whole],
                name=piece,
                type=self.graph[piece].type,
                slice_of=part.whole,
                first_channel=part.start,
            )

    def _relaid(self, kernels: Sequence[tuple[int, Kernel]]) -> list[tuple[int, Kernel]]:
        """Copies of parameters along other axes, in front of the kernels whose lanes run there.

        The input gradient of a convolution has its lanes on the input channels, and would
        gather each vector of weights from as many places.
        """
        result: list[tuple[int, Kernel]] = []
        for phase, kernel in kernels:
            inner = {
                b.name: self.tensors[t].innermost or 0
                for b, t in zip(kernel.nest.buffers, kernel.tensors, strict=True)
            }
            tensors = list(kernel.tensors)
            for number, axis in strided_parameters(kernel.nest, inner, self.lanes):
                source = self.tensors[tensors[number]]
                name = f"{source.name}@{axis}"
                if name not in self.tensors:
                    space = "store" if phase == PREPARE or self._fixed(source) else "arena"
                    self.tensors[name] = Tensor(name, source.type, space, axis)
                    first = PREPARE if space == "store" else phase
                    result.append((first, _copy(source.name, name, source.type)))
                tensors[number] = name
            result.append((phase, replace(kernel, tensors=tuple(tensors))))
        return result

    def _fixed(self, tensor: Tensor) -> bool:
        """Whether a tensor changes only when parameters are set: it may be relaid once for all."""
        return tensor.space == "store" and not self.graph.updates and not self.training

    def _root(self, name: str) -> str:
        """The tensor whose memory it is."""
        return self.fused.slices[name].whole if name in self.fused.slices else name

    def _declare_panels(self, steps: Sequence[Step]) -> None:
        """Parameters that every kernel touches by whole blocks of its lanes alone."""
        other: set[str] = set()
        for step in steps:
            for nest, schedule in step.emitted.segments if step.emitted else ():
                tensors = dict(zip((b.name for b in nest.buffers), step.tensors, strict=True))
                for buffer, index in accesses(nest.body):
                    tensor = self.tensors[tensors[buffer]]
                    if not self._by_block(tensor, index, schedule):
                        other.add(tensor.alias or tensor.name)
        for name, tensor in self.tensors.items():
            if not tensor.type.batched and (tensor.alias or name) not in other:
                self.tensors[name] = replace(tensor, panels=True)

    def _by_block(self, tensor: Tensor, index: tuple[Index, ...], s: Schedule) -> bool:
        if tensor.type.batched or not index:
            return True
        axis = tensor.innermost or 0
        own = block_lanes(tensor.type.shape[axis], self.lanes)
        return s.lanes > 1 and s.block == own and index[axis] == Var(s.vector)

    def _tensor(self, name: str, border: Border | None, updated: Mapping[str, str]) -> Tensor:
        if name.startswith("out:"):
            node = self.graph[dict(self.graph.outputs)[name[4:]]]
            return Tensor(name, node.type, "outside", node.type.axes - 1)
        if name.startswith("in:"):
            node = self.graph[name[3:]]
            return Tensor(name, node.type, "outside", node.type.axes - 1)
        node = self.graph[name]
        match node.op:
            case Input():
                if _copied(node.type):
                    return Tensor(name, node.type, "arena", 1, border)
                return Tensor(name, node.type, "outside", node.type.axes - 1)
            case Parameter():
                return Tensor(name, node.type, "store", innermost_axis(node.type))
            case Constant():
                return Tensor(name, node.type, "constant", innermost_axis(node.type), border)
        assert isinstance(node.op, Op)
        inner = innermost_axis(node.type)
        if name in updated:
            return Tensor(name, node.type, "store", inner, alias=updated[name])
        if self.phases.get(name, 0) == PREPARE:
            return Tensor(name, node.type, "store", inner)
        return Tensor(name, node.type, "arena", inner, border)

    # --- steps ---

    def _steps(self, phase: int, kernel: Kernel) -> list[Step]:
        nest = kernel.nest
        tensors = dict(zip((b.name for b in nest.buffers), kernel.tensors, strict=True))
        own = borders(nest)
        haloed = {b for b, border in own.items() if self._covers(self.tensors[tensors[b]], border)}
        padded = {b for b, t in tensors.items() if self._padded(self.tensors[t])}
        inner = {b: self.tensors[t].innermost or 0 for b, t in tensors.items()}
        emitted = emit(
            nest, Memory(inner, frozenset(haloed), frozenset(padded)), self.dtype, self.lanes
        )
        steps = []
        for name in map(self._root, kernel.writes):
            tensor = self.tensors[name]
            if name in self.bordered:
                continue  # an earlier part's kernel has seen to it
            self.bordered.add(name)
            if tensor.border and any(sum(pair) for pair in tensor.border.halo):
                text = border_text(tensor.type.dtype.value, tensor.border.fill)
                comment = (f"border of {name}: {tensor.border.fill}",)
                steps.append(Step(phase, (name,), None, None, text, comment))
        steps.append(
            Step(phase, kernel.tensors, emitted, nest, emitted.text, self._comment(kernel), kernel)
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
        numbers = {name: i for i, name in enumerate(self.tensors)}
        slots = [Slot(t.name, t.type, t.space) for t in self.tensors.values()]
        calls, first = [], 0
        for step in steps:
            count = len(step.emitted.arguments) if step.emitted else BORDER_INTEGERS
            if step.phase == phase:
                name = module_name(step.text, kind="kernel")
                calls.append(
                    Call(name, tuple(numbers[t] for t in step.tensors), first, step.comment)
                )
            first += count
        return entry_text(f"{self.graph.name}, phase {phase}.", slots, calls)


BORDER_INTEGERS = 10


def _fastest_axis(nest: Nest, buffer: Buffer, usual: int) -> int:
    """The usual axis if the loops of a kernel that writes the buffer move along it, else the last
    along which they do.
    """
    stores = [s for s in statements(nest.body) if isinstance(s, Store) and s.buffer == buffer.name]
    moving = [
        axis
        for axis in range(len(buffer.extents))
        if any(isinstance(i, Var) for s in stores for i in subindices(s.index[axis]))
    ]
    return usual if usual in moving or not moving else moving[-1]


def _copied(t: TensorType) -> bool:
    """Whether an input is brought into channels-last memory first."""
    return t.batched and len(t.shape) > 1 and t.dtype in (DType.F32, DType.F64, DType.U8)


def _copy(source: str, target: str, t: TensorType) -> Kernel:
    """A kernel that copies element by element; the layouts on both sides do the rest."""
    n = NestBuilder()
    axes = axis_names(t)
    x, y = n.input("x", t, " ".join(axes)), n.output("y", t, " ".join(axes))
    index = tuple(Var(f"i_{a}") for a in axes)
    extents = n.buffers[-1].extents
    nest = n.nest(
        parallel(
            [(v.name, e) for v, e in zip(index, extents, strict=True)], y.store(index, x[index])
        )
    )
    return Kernel((), nest, (source, target))
