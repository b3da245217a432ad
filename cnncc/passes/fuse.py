"""Fusion: which nodes run as one kernel, and for every edge of the graph the reason.

One kernel per complex layer: an anchor (convolution, pool, dense, ...), then the pointwise
operators and the non-overlapping pool that read it. A node joins the kernel of a producer when it
reads each of the producer's elements once:
then nothing is computed twice and the tensor between them never goes through memory. `Ledger` keeps
one `Verdict` per edge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cnncc.graph.ir import Graph, Node
from cnncc.loops.producer import CannotInline
from cnncc.ops.base import Op, operand_axes
from cnncc.passes.flattened import is_short, shares_lines
from cnncc.passes.lower import Kernel, lower
from cnncc.tensor import Extent

LONGEST = 16  # nodes of a kernel: longer ones gain little and take long to compile
FEW = (
    1024  # elements of a sample that a dense layer may read one by one: the nearest cache has them
)
WIDE = 64  # positions of a map of which each channel, one behind the other, has lines of its own


@dataclass(frozen=True)
class Verdict:
    """What became of one edge: fused or not, by which rule, why, and the bytes per sample that it
    keeps out of memory.
    """

    producer: str
    consumer: str
    fused: bool
    rule: str
    reason: str
    bytes_saved: Extent = 0


@dataclass(frozen=True)
class Slice:
    """The channels of `whole` from `start` on: a concat's input, written where the concat would
    copy it.
    """

    whole: str
    start: int


@dataclass(frozen=True)
class Fused:
    """The kernels in execution order, and the ledger. `batch`: samples of the calls that they are
    made for, which targets may use (they serve others too); 1 where the text claims
    something of a kernel or of memory, which has to hold for any.
    """

    graph: Graph
    kernels: tuple[Kernel, ...]
    ledger: tuple[Verdict, ...]
    slices: Mapping[str, Slice] = field(
        default_factory=dict
    )  # tensors that are written into a part of another
    batch: int = 1

    def kernel_of(self, node: str) -> Kernel:
        return next(k for k in self.kernels if any(n.name == node for n in k.nodes))


def fuse(
    graph: Graph,
    *,
    enabled: bool = True,
    apart: Collection[frozenset[str]] = (),
    phases: dict[str, int] | None = None,
) -> Fused:
    """Group the operators of a graph into kernels.

    Requires: a verified graph. `apart`: pairs of nodes that the spec forbids to fuse. `phases`:
    nodes of different phases (forward, backward, update) never share a kernel. With `enabled` off
    every node is a kernel of its own.
    Ensures: executing the kernels in order gives every output and update of the graph; each edge
    has a verdict.
    """
    return _Fusion(graph, enabled, apart, phases or {}).run()


@dataclass
class _Group:
    nodes: list[Node]
    kernel: Kernel | None  # None: a concat whose inputs are written in place

    @property
    def heavy(self) -> bool:
        return any(not _op(n).pointwise for n in self.nodes)


def _op(node: Node) -> Op:
    assert isinstance(node.op, Op)
    return node.op


class _Fusion:
    def __init__(
        self, graph: Graph, enabled: bool, apart: Collection[frozenset[str]], phases: dict[str, int]
    ) -> None:
        self.graph, self.enabled, self.apart, self.phases = graph, enabled, apart, phases
        self.order = {n.name: i for i, n in enumerate(graph.nodes)}
        self.consumers = graph.consumers()
        self.results = {n for _, n in graph.outputs} | {n for pair in graph.updates for n in pair}
        self.group: dict[str, _Group] = {}
        self.ledger: list[Verdict] = []
        self.slices: dict[str, Slice] = {}

    def run(self) -> Fused:
        for node in self.graph.nodes:
            if not isinstance(node.op, Op):
                continue  # inputs and parameters
            if self.enabled and self._in_place(node):
                self.group[node.name] = _Group([node], None)
                continue
            self.group[node.name] = _Group([node], self._lower([node]))
            if self.enabled and node.op.name == "concat":
                continue  # its edges have their verdicts
            for name in self._producers(node):
                self.ledger.append(self._edge(self.graph[name], node))
        return Fused(self.graph, self._ordered(), tuple(self.ledger), self.slices)

    def _producers(self, node: Node) -> list[str]:
        """What a node reads, in the order in which their kernels are tried.

        The latest first: the others are then complete when the kernel runs. But of two convolutions
        the one that does less for an element, as the second one of a residual block beside a
        strided one: measured, it bears an addition better.
        """
        names = sorted(set(node.inputs), key=lambda i: -self.order[i])
        if sum(name in self.group for name in names) > 1:
            names.sort(key=self._macs_of_element)
        return names

    def _macs_of_element(self, name: str) -> int:
        """Multiply-accumulates of a node's kernel for one of its elements; 0 of what depends on
        symbolic extents.
        """
        group = self.group.get(name)
        macs = 0
        for node in group.nodes if group else ():
            own = _op(node).cost(self.graph.types(node), node.type).macs
            if isinstance(own, int) and isinstance(node.type.elements, int):
                macs += own // node.type.elements
        return macs

    def _in_place(self, node: Node) -> bool:
        """Let the kernels of a concat's inputs write into its result, if every input allows it."""
        if node.op.name != "concat":
            return False
        parts = [self.graph[i] for i in node.inputs]
        against = next((r for r in (self._copied(p, node) for p in parts) if r), "")
        if len(set(node.inputs)) != len(node.inputs):
            against = "one tensor is joined twice"
        if against:
            for part in dict.fromkeys(parts):
                forbidden = frozenset((part.name, node.name)) in self.apart
                rule = "nofuse" if forbidden else "concat"
                why = "the spec says nofuse" if forbidden else f"copied: {against}"
                self.ledger.append(Verdict(part.name, node.name, False, rule, why))
            return False
        start = 0
        for part in parts:
            assert isinstance(part.type.channels, int)
            self.slices[part.name] = Slice(node.name, start)
            start += part.type.channels
            size = 2 * part.type.elements * part.type.dtype.bytes
            reason = "its kernel writes into its channels of the result"
            self.ledger.append(Verdict(part.name, node.name, True, "concat in place", reason, size))
        return True

    def _copied(self, part: Node, node: Node) -> str:
        """Why a concat cannot have this input written in place, "" if it can."""
        group = self.group.get(part.name)
        if part.name in self.slices:
            return f"{part.name} is written into another concat"
        if part.name in self.results:
            return f"{part.name} is a result of its own"
        if group is None:
            return f"{part.name} is not computed here"
        if group.kernel is None:
            return f"{part.name} is a concat itself"
        if not part.type.batched or not isinstance(part.type.channels, int):
            return f"the channels of {part.name} are not known"
        if frozenset((part.name, node.name)) in self.apart:
            return "the spec says nofuse"
        if self.phases.get(part.name) != self.phases.get(node.name):
            return "forward, backward and update can be called apart"
        return ""

    def _lower(self, nodes: list[Node]) -> Kernel:
        inside = {n.name for n in nodes}

        def needed(name: str) -> bool:
            return name in self.results or any(c.name not in inside for c in self.consumers[name])

        return lower(self.graph, nodes, needed)

    def _edge(self, producer: Node, consumer: Node) -> Verdict:
        """Try to merge the producer's group into the consumer's."""

        def apart(rule: str, reason: str) -> Verdict:
            return Verdict(producer.name, consumer.name, False, rule, reason)

        if not isinstance(producer.op, Op):
            kind = "an input" if producer.op.name == "input" else f"a {producer.op.name}"
            return apart("source", f"{producer.name} is {kind}: there is nothing to compute")
        if not self.enabled:
            return apart("off", "fusion is switched off: one kernel per node")
        if frozenset((producer.name, consumer.name)) in self.apart:
            return apart("nofuse", "the spec says nofuse")
        if self.phases.get(producer.name) != self.phases.get(consumer.name):
            return apart("phase", "forward, backward and update can be called apart")
        reader = self._reader_in_place(consumer)
        if reader:
            return apart("view", f"{reader} reads the elements where they lie")
        theirs, mine = self.group[producer.name], self.group[consumer.name]
        if theirs is mine:
            return self._fused(producer, consumer, "same kernel")
        if theirs.kernel is None:
            return apart(
                "concat", f"{producer.name} is written in parts by the kernels of its inputs"
            )
        if theirs.nodes[-1] is not producer:
            return apart(
                "inner",
                f"{producer.name} is computed inside the kernel of {theirs.nodes[-1].name}, which "
                "stores it",
            )
        view = self._reader_in_place(producer) == consumer.name
        refusal = None if view else self._refusal(producer, consumer, theirs, mine)
        if refusal:
            return apart(*refusal)
        merged = sorted([*theirs.nodes, *mine.nodes], key=lambda n: self.order[n.name])
        try:
            kernel = self._lower(merged)
        except CannotInline as reason:
            return apart("form", str(reason))
        group = _Group(merged, kernel)
        for n in merged:
            self.group[n.name] = group
        if view:
            how = "the elements of its input are read where they lie"
            return self._fused(producer, consumer, "view", how)
        flat = "flatten" if consumer.op.name == "reshape" else "pool epilogue"
        rule = "pointwise epilogue" if _op(consumer).pointwise else flat
        return self._fused(producer, consumer, rule)

    def _reader_in_place(self, node: Node) -> str:
        """The dense layer that reads a short flattened tensor where it lies, "" if none does: all
        others need the vector itself.
        """
        readers = self.consumers[node.name]
        if node.op.name != "reshape" or not _op(node).reads_once or len(readers) != 1:
            return ""
        (reader,) = readers
        if (
            reader.op.name != "dense"
            or node.name in reader.inputs[1:]
            or node.name in self.results
            or not is_short(node.type)
            or frozenset((node.name, reader.name)) in self.apart
            or self.phases.get(node.name) != self.phases.get(reader.name)
        ):
            return ""
        return reader.name

    def _fused(
        self,
        producer: Node,
        consumer: Node,
        rule: str,
        how: str = "each element is read once, where it is computed",
    ) -> Verdict:
        kernel = self.group[consumer.name].kernel
        kept = kernel is not None and producer.name in kernel.writes
        size = producer.type.elements * producer.type.dtype.bytes
        saved = size if kept else 2 * size  # the read, and the write unless others need the tensor
        reason = how + (", and stored for others" if kept else "")
        return Verdict(producer.name, consumer.name, True, rule, reason, saved)

    def _refusal(
        self, producer: Node, consumer: Node, theirs: _Group, mine: _Group
    ) -> tuple[str, str] | None:
        op = _op(consumer)
        if op.pointwise:
            if (
                operand_axes(producer.type, consumer.type) is None
                or producer.type.shape != consumer.type.shape
            ):
                return "broadcast", f"{producer.name} is computed once and read for many elements"
            if producer.type.batched != consumer.type.batched:
                return "broadcast", f"{producer.name} is shared by all samples"
        elif not op.reads_once:
            return "reuse", f"{op.name} reads elements of {producer.name} more than once"
        elif op.name == "reshape" and shares_lines(producer.type):
            return (
                "lines",
                f"in a vector the channels of {producer.name} lie so close that rows share lines",
            )
        elif not theirs.heavy:
            return (
                "cheap",
                f"{producer.name} is pointwise, and {op.name} reads it with better locality from "
                "memory",
            )
        if (
            theirs.heavy
            and mine.heavy
            and any(not _op(n).pointwise and not _op(n).reads_once for n in mine.nodes)
        ):
            return "anchor", "the kernel has an anchor already, and one kernel has one"
        if len(theirs.nodes) + len(mine.nodes) > LONGEST:
            return "length", f"a kernel has at most {LONGEST} nodes"
        if self._cycle(theirs, mine):
            return (
                "order",
                f"another input of {consumer.name} depends on {producer.name} through other "
                "kernels",
            )
        return None

    def _cycle(self, theirs: _Group, mine: _Group) -> bool:
        """Whether an input of `mine` from outside both groups depends on `theirs`."""
        inside = {n.name for n in (*theirs.nodes, *mine.nodes)}
        stack = [i for n in mine.nodes for i in n.inputs if i not in inside]
        stack += [i for n in theirs.nodes for i in n.inputs if i not in inside]
        roots, seen = inside, set[str]()
        first = min(self.order[name] for name in roots)
        while stack:
            name = stack.pop()
            if name in roots:
                return True
            if name in seen or self._latest(name) < first:
                continue  # nothing that early depends on the groups
            seen.add(name)
            group = self.group.get(name)
            members = group.nodes if group else [self.graph[name]]
            stack.extend(i for n in members for i in n.inputs if n.name not in roots)
        return False

    def _latest(self, name: str) -> int:
        """The place of the last node in the kernel of a node."""
        group = self.group.get(name)
        return self.order[group.nodes[-1].name if group else name]

    def _ordered(self) -> tuple[Kernel, ...]:
        """Kernels in an order in which each follows what it reads."""
        done: set[int] = set()
        order: list[Kernel] = []

        def visit(group: _Group) -> None:
            stack = [(group, False)]
            while stack:
                g, ready = stack.pop()
                if id(g) in done:
                    continue
                if ready:
                    done.add(id(g))
                    if g.kernel is not None:
                        order.append(g.kernel)
                    continue
                stack.append((g, True))
                below = [self.group[i] for n in g.nodes for i in n.inputs if i in self.group]
                stack.extend((b, False) for b in below if b is not g and id(b) not in done)

        for node in self.graph.nodes:
            if node.name in self.group:
                visit(self.group[node.name])
        return tuple(order)
