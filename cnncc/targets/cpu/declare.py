"""The tensors of a network: which there are, in which kind of memory, with which border. From them
follow the memory plan and, later, machine code; nothing here needs Numba.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant, Input, Parameter
from cnncc.loops.build import NestBuilder, parallel
from cnncc.loops.ir import Buffer, Nest, Store, Var
from cnncc.loops.walk import statements, subindices
from cnncc.ops.base import Op, axis_names
from cnncc.ops.winograd import WinogradInput, WinogradProduct
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel
from cnncc.passes.plan import Life, lives, prepared
from cnncc.targets.cpu.grouping import Run, grouped
from cnncc.targets.cpu.halo import Border, borders
from cnncc.targets.cpu.layout import innermost_axis
from cnncc.targets.cpu.orientation import by_columns
from cnncc.targets.cpu.schedule import strided_parameters
from cnncc.targets.cpu.tensors import Tensor
from cnncc.tensor import DType, TensorType

WHOLE = -2  # not a phase of nodes: all phases from 0 on, run by one entry
PREPARE = -1  # the phase of what depends on parameters only: run after they change


@dataclass(frozen=True)
class Declared:
    """The tensors of a fused graph, and its kernels with their phases, copies between layouts
    among them, in the order in which they run: one by one, or some as one.
    """

    fused: Fused
    phases: Mapping[str, int]
    tensors: dict[str, Tensor]
    runs: Sequence[Run]

    def root(self, name: str) -> str:
        """The tensor whose memory it is."""
        return self.fused.slices[name].whole if name in self.fused.slices else name

    def lives(self, touched: Sequence[Sequence[str]]) -> dict[str, Life]:
        """When each tensor of the arena is alive. `touched`: the tensors of each step of a run; the
        steps that fill borders, which stand right in front of the kernel that writes the same
        tensor, change no plan.
        """
        outside = [n for n, t in self.tensors.items() if t.space != "arena"]
        results = {f"out:{name}" for name, _ in self.fused.graph.outputs}
        return lives([tuple(map(self.root, names)) for names in touched], outside, results)


def declare(fused: Fused, *, lanes: int, phases: Mapping[str, int]) -> Declared:
    """The tensors of a fused graph.

    `phases`: the phase of each node (0 when missing), as `with_prepared` completes them.
    """
    return _Declaration(fused, lanes, phases).declared()


def tensors_of(kernels: Sequence[Kernel]) -> tuple[str, ...]:
    """The tensors of kernels that run as one, each once where there are several."""
    if len(kernels) == 1:
        return kernels[0].tensors
    return tuple(dict.fromkeys(t for kernel in kernels for t in kernel.tensors))


def with_prepared(graph: Graph, phases: Mapping[str, int]) -> dict[str, int]:
    """The phases, and PREPARE for what depends on parameters only, unless the graph has phases of
    its own.
    """
    if phases:
        return dict(phases)
    return dict.fromkeys(prepared(graph), PREPARE)


class _Declaration:
    def __init__(self, fused: Fused, lanes: int, phases: Mapping[str, int]) -> None:
        self.fused, self.graph, self.lanes, self.phases = fused, fused.graph, lanes, phases
        self.training = any(phase > 0 for phase in phases.values())
        self.tensors: dict[str, Tensor] = {}

    def declared(self) -> Declared:
        kernels = self._with_copies()
        self._declare(kernels)
        self._turn(kernels)
        kernels = self._relaid(kernels)
        kernels.sort(key=lambda k: k[0])  # stable: kernels keep their order inside a phase
        runs = grouped(kernels, self.tensors, self._innermost, self.lanes, self.fused.batch)
        for run in runs:
            for name in run.within:
                self.tensors[name] = replace(self.tensors[name], cut=run.cut)
        return Declared(self.fused, self.phases, self.tensors, runs)

    def _innermost(self, kernel: Kernel) -> dict[str, int]:
        """For every buffer the axis that runs fastest."""
        pairs = zip(kernel.nest.buffers, kernel.tensors, strict=True)
        return {b.name: self.tensors[t].innermost or 0 for b, t in pairs}

    def _with_copies(self) -> list[tuple[int, Kernel]]:
        """The kernels with their phases, and copies between the caller's arrays and channels-last
        tensors. A result that lies in the caller's array as in ours is written there at once.
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
        direct = {n: f"out:{public}" for public, n in self.graph.outputs if self._is_result(n)}
        for k in self.fused.kernels:
            tensors = tuple(direct.get(t, t) for t in k.tensors)
            kernels.append((self.phases.get(k.sink.name, 0), replace(k, tensors=tensors)))
        for public, name in self.graph.outputs:
            if name in direct:
                continue
            phase = max(self.phases.get(name, 0), 0)
            t = self.graph[name].type
            kernels.append((phase, _copy(name, f"out:{public}", t, _given(t))))
        return kernels

    def _is_result(self, name: str) -> bool:
        """Whether a tensor is one result and nothing else, of features without positions."""
        node = self.graph[name]
        t, kernels, slices = node.type, self.fused.kernels, self.fused.slices
        return (
            isinstance(node.op, Op)
            and t.batched
            and t.axes == 2
            and t == _given(t)
            and self.phases.get(name, 0) >= 0
            and [n for _, n in self.graph.outputs].count(name) == 1
            and not any(name in k.reads for k in kernels)
            and name not in slices
            and all(name != part.whole for part in slices.values())
            and all(name not in pair for pair in self.graph.updates)
        )

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
                    # a border lies around rows of channels or of columns
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

    def _turn(self, kernels: Sequence[tuple[int, Kernel]]) -> None:
        """Lay activations of few channels row by row. Training does not: the gradients of weights
        are sums over positions, with the channels in the lanes.
        """
        if self.training or self.graph.updates:
            return
        for name in by_columns([k for _, k in kernels], self.tensors, self.lanes):
            tensor = self.tensors[name]
            self.tensors[name] = replace(tensor, innermost=tensor.type.axes - 1)

    def _relaid(self, kernels: Sequence[tuple[int, Kernel]]) -> list[tuple[int, Kernel]]:
        """Copies of parameters along other axes, in front of the kernels whose lanes run there.

        The input gradient of a convolution has its lanes on the input channels, and would
        gather each vector of weights from as many places.
        """
        result: list[tuple[int, Kernel]] = []
        for phase, kernel in kernels:
            inner = self._innermost(kernel)
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

    def _tensor(self, name: str, border: Border | None, updated: Mapping[str, str]) -> Tensor:
        if name.startswith("out:"):
            node = self.graph[dict(self.graph.outputs)[name[4:]]]
            return Tensor(name, _given(node.type), "outside", node.type.axes - 1)
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
        planes = isinstance(node.op, (WinogradInput, WinogradProduct))
        return Tensor(name, node.type, "arena", inner, border, planes=planes)


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


def _given(t: TensorType) -> TensorType:
    """The type in which the caller gets a result: NumPy has no bf16."""
    return t.with_dtype(DType.F32) if t.dtype is DType.BF16 else t


def _copy(source: str, target: str, t: TensorType, to: TensorType | None = None) -> Kernel:
    """A kernel that copies element by element, `to` another type if given; the layouts on both
    sides do the rest.
    """
    n = NestBuilder()
    axes = axis_names(t)
    x, y = n.input("x", t, " ".join(axes)), n.output("y", to or t, " ".join(axes))
    index = tuple(Var(f"i_{a}") for a in axes)
    extents = n.buffers[-1].extents
    nest = n.nest(
        parallel(
            [(v.name, e) for v, e in zip(index, extents, strict=True)], y.store(index, x[index])
        )
    )
    return Kernel((), nest, (source, target))
