"""The same network with smaller extents and fewer channels, so that the interpreter can run it.

Channel counts lose whole blocks of lanes (`channels.py`). An input's extent loses multiples of
STEP and of the product of all strides along its axis, so that every stride keeps its phase and its
rest. Operators stay as they are but for the attributes that name channels or extents. The shape
rules decide whether a reduction is one: where a rule refuses, the channels of that operator are
left alone; where that does not help, the extents are larger; in the end nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import lcm

from cnncc.errors import CompilerBug, Diagnostic, SpecError
from cnncc.graph.ir import Graph, Node, Operator, ShapeError
from cnncc.graph.sources import Input, Parameter, Source
from cnncc.tensor import TensorType, evaluate, product
from cnncc.verify.channels import Narrowing
from cnncc.verify.shapes import Known, adapted, parameter_shape

STEP = 16

EXTENTS = (20, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""What is tried for symbolic extents: first a full vector and a rest."""

TABLED = ("arrange", "slice_channels", "pad_channels", "row")
"""Operators whose attributes count along axes that would shrink."""


@dataclass(frozen=True)
class Reduced:
    """The smaller graph and in words what is smaller in it, "" for nothing."""

    graph: Graph
    text: str


class Refused(Exception):
    """A reduction that would not be the same network; `channels` are extents to leave alone."""

    def __init__(self, rule: str, channels: frozenset[int] = frozenset()) -> None:
        super().__init__(rule)
        self.channels = channels


def reduced(
    graph: Graph,
    symbols: Mapping[str, int],
    *,
    full: bool = False,
    columns: bool = False,
    lanes: int = 16,
) -> Reduced:
    """The smallest graph that the shape rules accept; with `full` the graph itself.

    `symbols` gives values to symbolic extents; those left out get the first of EXTENTS that
    fits. With `columns` the last axis of every input stays: on it depends how wide a tile of
    registers is. `lanes` are those of a vector of float32. Raises SpecError (E0804) for a name
    that is no extent, and where none fits.
    """
    own = sorted({s for n in graph.of("input") for s in n.type.symbols})
    for name in symbols:
        if name not in own:
            listed = f"its symbolic extents: {', '.join(own)}" if own else "all extents are fixed"
            message = f"`{graph.name}` has no symbolic extent `{name}`"
            raise SpecError(Diagnostic("E0804", message, helps=(listed,)))
    names = [name for name in own if name not in symbols]
    for wide, least in _attempts(graph, full=full):
        for extent in EXTENTS if names else (0,):
            values = {**symbols, **dict.fromkeys(names, extent)}
            plan = _Plan(values, lanes if wide else 0, least, columns)
            found = _attempted(graph, plan)
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
    """Whether channels shrink, and the least extent of an input (None: extents stay)."""
    largest = max((e for n in graph.of("input") for e in n.type.spatial if isinstance(e, int)),
                  default=0)  # fmt: skip
    if not full:
        least = [*range(STEP, largest, STEP), None]
        yield from ((wide, e) for wide in (True, False) for e in least)
    yield False, None


@dataclass(frozen=True)
class _Plan:
    """What an attempt changes: values of symbols, lanes by which channels shrink (0: they stay),
    the least extent of an input (None: extents stay), and whether the last axis stays.
    """

    symbols: Mapping[str, int]
    lanes: int
    least: int | None
    columns: bool


def _attempted(graph: Graph, plan: _Plan) -> Graph | None:
    """One attempt, repeated with more and more channel counts as they are where rules refuse."""
    kept: frozenset[int] = frozenset()
    while True:
        try:
            return _Reduction(graph, plan, kept).graph()
        except Refused as refusal:
            if not plan.lanes or refusal.channels <= kept:
                return None
            kept |= refusal.channels


def steps(graph: Graph) -> dict[int, int]:
    """By spatial axis the product of all strides on a path from an input, or a multiple of it."""
    reached: dict[str, tuple[int, ...]] = {}
    found: dict[int, int] = {}
    for node in graph.nodes:
        if not node.type.batched:
            continue
        strides = [1] * len(node.type.spatial)
        for name in node.inputs:
            own = reached.get(name, ())
            if len(own) == len(strides):
                strides = list(map(lcm, strides, own))
        window = getattr(node.op, "window", ())
        if len(window) == len(strides) and node.op.name != "conv_dx":
            strides = [s * axis.stride for s, axis in zip(strides, window, strict=True)]
        reached[node.name] = tuple(strides)
        for k, stride in enumerate(strides):
            found[k] = lcm(found.get(k, 1), stride)
    return found


class _Reduction:
    """One attempt. `kept` are channel counts that stay."""

    def __init__(self, graph: Graph, plan: _Plan, kept: frozenset[int]) -> None:
        self.old, self.plan, self.symbols = graph, plan, plan.symbols
        self.steps = steps(graph)
        self.narrow = Narrowing(graph, self.symbols, plan.lanes, kept)
        self.known = Known()
        self.types: dict[str, TensorType] = {}
        self.nodes: dict[str, Node] = {}

    def graph(self) -> Graph:
        """The graph. Raises Refused."""
        for node in self.old.nodes:
            if isinstance(node.op, Input) and node.op.role == "data":
                self._source(node, self._smaller_input(node))
            elif not isinstance(node.op, (Input, Parameter)):
                if isinstance(node.op, Source):
                    self._source(node, self._was(node.name))
                else:
                    self._operator(node)
        for node in self.old.nodes:  # that nothing reads
            if node.name not in self.nodes:
                self._source(node, self._was(node.name))
        for old, new in self.old.updates:
            if self.types[old] != self.types[new]:
                raise Refused(f"{old} and its new value are of one type")
        found = self.old.with_nodes(self.nodes[n.name] for n in self.old.nodes)
        return replace(found, conditions=())

    def _was(self, name: str) -> TensorType:
        return self.old[name].type.concrete(self.symbols)

    def _smaller_input(self, node: Node) -> TensorType:
        t = self._was(node.name)
        if self.plan.least is None or not t.batched:
            return t
        spatial = []
        for k, (given, e) in enumerate(zip(node.type.spatial, t.spatial, strict=True)):
            own, last = evaluate(e, {}), k == len(t.spatial) - 1
            # of three axes the first two are an affair of windows only
            share = 2 if not last and len(t.spatial) > 2 else 1
            step = lcm(STEP // share, self.steps.get(k, 1))
            lost = max(0, own - self.plan.least // share) // step * step
            stays = not isinstance(given, int) or (last and self.plan.columns)
            spatial.append(own if stays else own - lost)
        return t.with_shape([*t.shape[:1], *spatial])

    def _source(self, node: Node, t: TensorType) -> None:
        assert isinstance(node.op, Source)
        was = self._was(node.name)
        literal = isinstance(node.op, Parameter) and node.op.init.literal is not None
        if literal and t != was:
            raise Refused(f"the text gives the numbers of {node.name}", _channels(was))
        op = node.op if node.op.type == t else replace(node.op, type=t)
        self._type(node, op, t)

    def _operator(self, node: Node) -> None:
        """Type what the node reads for the first time, adapt its attributes, infer."""
        was = tuple(map(self._was, node.inputs))
        channels = frozenset(c for t in was for c in _channels(t))
        for position, name in enumerate(node.inputs):
            if name not in self.types:
                so_far = [self.types.get(i) for i in node.inputs]
                shape = parameter_shape(node.op, position, was, so_far, self.narrow)
                self._source(self.old[name], was[position].with_shape(shape))
        types = tuple(self.types[i] for i in node.inputs)
        if node.op.name in TABLED and types != was:
            raise Refused(f"the table of {node.name} names entries by number", channels)
        op = adapted(node.op, was, types, self.known, self.symbols)
        try:
            out = op.infer(types)
        except ShapeError as error:
            raise Refused(error.rule, channels) from error
        self._type(node, op, out)
        self._check_window(node, op)

    def _type(self, node: Node, op: Operator, t: TensorType) -> None:
        if any(evaluate(e, {}) < 1 for e in t.shape):
            raise Refused(f"{node.name} has elements")
        self.nodes[node.name] = replace(node, op=op, type=t)
        self.types[node.name] = t
        self.known.learn(self._was(node.name), t)

    def _check_window(self, node: Node, op: Operator) -> None:
        """A window that saw more than its centre still does: taps are `dilation` apart."""
        window = getattr(op, "window", ())
        if not node.inputs:
            return
        was, now = self._was(node.inputs[0]).spatial, self.types[node.inputs[0]].spatial
        if len(was) != len(window):
            return
        for axis, a, b in zip(window, was, now, strict=True):
            if axis.size > 1 and evaluate(b, {}) <= axis.dilation < evaluate(a, {}):
                raise Refused(f"the windows of {node.name} see more than their centre")


def _channels(t: TensorType) -> frozenset[int]:
    return frozenset(evaluate(e, {}) for e in t.shape[: 1 if t.batched else 2])


def _text(old: Graph, new: Graph, symbols: Mapping[str, int]) -> str:
    parts = [f"{name} = {value}" for name, value in symbols.items()]
    for a in old.of("input"):
        if a.type.concrete(symbols) != new[a.name].type:
            parts.append(f"`{a.name}` {a.type} -> {new[a.name].type}")
    before = sum(evaluate(product(n.type.shape), symbols) for n in old.of("parameter"))
    after = sum(evaluate(n.type.elements, {}) for n in new.of("parameter"))
    if before != after:
        parts.append(f"{before:_} parameters -> {after:_}")
    changed = {
        (a, b)
        for n in old.of("parameter")
        for a, b in zip(_axes(n.type, symbols), _axes(new[n.name].type, symbols), strict=True)
        if a != b
    }
    if changed:
        listed = ", ".join(f"{a} -> {b}" for a, b in sorted(changed))
        parts.append(f"channels {listed}")
    return "; ".join(parts)


def _axes(t: TensorType, symbols: Mapping[str, int]) -> list[int]:
    """The output channels of a weight."""
    return [evaluate(e, symbols) for e in t.shape[:1]] if len(t.shape) > 1 else []
