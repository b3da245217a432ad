"""The same network with smaller extents and fewer channels, so that the interpreter can run it.

A channel count c above WIDE becomes WIDE + c % WIDE, so full vectors and their rest stay what they
were; inputs lose multiples of STEP per axis, so that strides which divided still divide. Operators
stay as they are but for the attributes that name channels; the shape rules decide whether a
reduction is one: where a rule refuses, a milder one is tried, and in the end none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from cnncc.errors import CompilerBug, Diagnostic, SpecError
from cnncc.graph.ir import Graph, Node, Operator, ShapeError
from cnncc.graph.sources import Input, Parameter, Source
from cnncc.tensor import Extent, TensorType, evaluate, product

WIDE = 16
STEP = 32
MOST_STEPS = 12
EXTENTS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""What is tried for symbolic extents."""

TABLED = ("arrange", "slice_channels", "pad_channels", "row")
"""Operators whose attributes count along axes that would shrink."""


@dataclass(frozen=True)
class Reduced:
    """The smaller graph and in words what is smaller in it, "" for nothing."""

    graph: Graph
    text: str


def reduced(graph: Graph, symbols: Mapping[str, int], *, full: bool = False) -> Reduced:
    """The smallest graph that the shape rules accept; with `full` the graph itself.

    `symbols` gives values to symbolic extents; those left out get the smallest of EXTENTS that
    fits. Raises SpecError (E0804) for a name that is no extent, and where none fits.
    """
    own = sorted({s for n in graph.of("input") for s in n.type.symbols})
    for name in symbols:
        if name not in own:
            listed = f"its symbolic extents: {', '.join(own)}" if own else "all extents are fixed"
            message = f"`{graph.name}` has no symbolic extent `{name}`"
            raise SpecError(Diagnostic("E0804", message, helps=(listed,)))
    names = [name for name in own if name not in symbols]
    for wide, steps in _attempts(graph, full=full):
        for extent in EXTENTS if names else (0,):
            values = {**symbols, **dict.fromkeys(names, extent)}
            found = _Reduction(graph, values, wide, steps).graph_or_none()
            if found is not None:
                return Reduced(found, _text(graph, found, {n: values[n] for n in names}))
    if not own:
        raise CompilerBug("verify", graph.name, "the shape rules accept the network as it is")
    given = ", ".join(f"{name} = {value}" for name, value in symbols.items())
    message = (
        f"`{graph.name}` takes no input with {given}"
        if given
        else (f"no extent that was tried fits `{graph.name}`: {', '.join(map(str, EXTENTS))}")
    )
    example = " ".join(f"--extent {name}=N" for name in own)
    raise SpecError(
        Diagnostic("E0804", message, helps=(f"give extents of an input that fits: {example}",))
    )


def _attempts(graph: Graph, *, full: bool) -> Iterator[tuple[bool, int | None]]:
    largest = max((e for n in graph.of("input") for e in n.type.spatial if isinstance(e, int)),
                  default=0)  # fmt: skip
    if not full:
        # from one step on: on an input of one position every window would see its centre only
        steps = [s for s in range(1, MOST_STEPS) if s * STEP < largest]
        yield from ((True, s) for s in steps)
        yield True, None
        yield from ((False, s) for s in steps)
    yield False, None


class _Reduction:
    """One attempt."""

    def __init__(
        self, graph: Graph, symbols: Mapping[str, int], wide: bool, steps: int | None
    ) -> None:
        self.graph, self.symbols, self.wide, self.steps = graph, symbols, wide, steps
        self.types: dict[str, TensorType] = {}
        self.nodes: dict[str, Node] = {}

    def graph_or_none(self) -> Graph | None:
        """The graph, None where a shape rule refuses."""
        try:
            for node in self.graph.nodes:
                if isinstance(node.op, Source):
                    if not isinstance(node.op, Parameter):
                        self._source(node, self._outer(node))
                    continue
                self._operator(node)
        except (ShapeError, AssertionError, ValueError, IndexError):
            return None  # the attempt is refused; the last one changes nothing and is accepted
        for node in self.graph.of("parameter"):  # that nothing reads
            if node.name not in self.nodes:
                self._source(node, node.type)
        for old, new in self.graph.updates:
            if self.types[old] != self.types[new]:
                return None
        found = self.graph.with_nodes(self.nodes[n.name] for n in self.graph.nodes)
        return replace(found, conditions=())

    def _outer(self, node: Node) -> TensorType:
        """The type of an input or a constant."""
        t = node.type.concrete(self.symbols)
        if not isinstance(node.op, Input) or self.steps is None or not t.batched:
            return t
        return t.with_shape([*t.shape[:1], *(self._shorter(e) for e in t.shape[1:])])

    def _shorter(self, extent: Extent) -> int:
        e = evaluate(extent, {})
        assert self.steps is not None
        return max(1, min(e, e % STEP + self.steps * STEP))

    def _narrow(self, extent: Extent) -> int:
        e = evaluate(extent, {})
        return WIDE + e % WIDE if self.wide and e > 2 * WIDE else e

    def _source(self, node: Node, t: TensorType) -> None:
        assert isinstance(node.op, Source)
        literal = isinstance(node.op, Parameter) and node.op.init.literal is not None
        if literal and t != node.type.concrete(self.symbols):
            raise ValueError(f"the text gives the numbers of {node.name}")
        op = node.op if node.op.type == t else replace(node.op, type=t)
        self.nodes[node.name] = replace(node, op=op, type=t)
        self.types[node.name] = t

    def _operator(self, node: Node) -> None:
        """Type what the node reads for the first time, adapt its attributes, infer."""
        known: dict[int, int] = {}
        for name in node.inputs:
            if name in self.types:
                old = self.graph[name].type.concrete(self.symbols)
                pairs = zip(old.shape, self.types[name].shape, strict=True)
                known |= {evaluate(a, {}): evaluate(b, {}) for a, b in pairs}
        for name in node.inputs:
            if name in self.types:
                continue
            shape = [known.get(evaluate(e, {})) or self._narrow(e)
                     for e in self.graph[name].type.shape]  # fmt: skip
            self._source(self.graph[name], self.graph[name].type.with_shape(shape))
        types = tuple(self.types[i] for i in node.inputs)
        if node.op.name in TABLED and types != tuple(
            t.concrete(self.symbols) for t in self.graph.types(node)
        ):
            raise ValueError(f"the table of {node.name} names entries by number")
        op = self._adapted(node.op, types, known)
        out = op.infer(types)
        self.nodes[node.name] = replace(node, op=op, type=out)
        self.types[node.name] = out

    def _adapted(
        self, op: Operator, types: tuple[TensorType, ...], known: Mapping[int, int]
    ) -> Operator:
        """The operator with attributes that name extents changed as its operands are."""
        own = {f.name for f in fields(op)}  # type: ignore[arg-type]
        changes: dict[str, object] = {}
        if op.name == "reshape":
            shape = [evaluate(e, self.symbols) for e in getattr(op, "shape")]  # noqa: B009
            new = [known.get(e) or self._narrow(e) for e in shape]
            if product(new) != types[0].elements:  # the first axis takes what the others leave
                rest = evaluate(product(new[1:]), {})
                new[0] = evaluate(types[0].elements, {}) // rest
            changes["shape"] = tuple(new)
        for name in own & {"groups", "positions", "vocabulary"}:
            value = evaluate(getattr(op, name), self.symbols)
            if name == "groups" and value > 1:
                changes[name] = known.get(value, value) if value > WIDE else value
            elif name == "positions" and value > 1:
                changes[name] = evaluate(product(types[0].spatial), {})
        return replace(op, **changes) if changes else op  # type: ignore[type-var]


def _text(old: Graph, new: Graph, symbols: Mapping[str, int]) -> str:
    parts = [f"{name} = {value}" for name, value in symbols.items()]
    for a in old.of("input"):
        if a.type.concrete(symbols) != new[a.name].type:
            parts.append(f"`{a.name}` {a.type} -> {new[a.name].type}")
    before = sum(evaluate(n.type.elements, {}) for n in old.of("parameter"))
    after = sum(evaluate(n.type.elements, {}) for n in new.of("parameter"))
    if before != after:
        parts.append(f"{before:_} parameters -> {after:_}, channels above {2 * WIDE} become "
                     f"{WIDE} + c % {WIDE}")  # fmt: skip
    return "; ".join(parts)
