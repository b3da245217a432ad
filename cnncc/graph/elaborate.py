"""From tree to graph: `elaborate` reads one net of a program, expands its blocks and repeats, and
returns the graph with what the net says beside it (`Module`). All mistakes of the net are reported
at once. What names layers get is a promise to weight files; README.md in this folder states the
rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from cnncc.errors import Diagnostics, SpecError, did_you_mean
from cnncc.graph.body import Body, assigned
from cnncc.graph.declarations import check_declarations
from cnncc.graph.ensemble import average_draws
from cnncc.graph.faults import Faults
from cnncc.graph.imports import Program
from cnncc.graph.ir import Graph, Node, Origin, ShapeError
from cnncc.graph.layer import Layer
from cnncc.graph.limits import INTEGER, BoundedBuilder
from cnncc.graph.module import Expectation, Module, Requirement, Training
from cnncc.graph.session import Session
from cnncc.graph.sources import Input
from cnncc.graph.training import TrainBody
from cnncc.graph.types import declared_type
from cnncc.graph.values import POISON, Value, is_poisoned, kind, show
from cnncc.syntax import tree as t

Arguments = Mapping[str, "bool | int | float"]


def elaborate(
    program: Program,
    layers: Mapping[str, Layer],
    *,
    net: str | None = None,
    arguments: Arguments | None = None,
    train: bool = False,
    loss: bool = False,
) -> tuple[Graph, Module]:
    """Build the graph of a net (`net`, or the last of the file), with `arguments` for its
    parameters.

    With `train` layers behave as in training (dropout, statistics of the batch), and the graph also
    computes the loss of the net's `train` block: its targets are further inputs and its last output
    is `loss`. With `loss` alone it computes the loss while layers behave as at inference.

    Raises SpecError with every mistake, in the order of the text: E012x limits, E02xx shapes, E03xx
    names and arguments, E06xx training.
    """
    faults = Faults()
    check_declarations(program, faults)
    chosen = _choose(program, net)
    block = _train_block(program, chosen)
    session = Session(BoundedBuilder(chosen.name), layers, faults, train=train)
    body = NetBody(session, program.top, {})
    body.bind(chosen, dict(arguments or {}))
    session.naming.reserve(assigned(chosen.body))
    body.run(chosen.body)
    body.finish(chosen)
    body.average(chosen)
    training: Training | None = None
    loss_node: Node | None = None
    if block is not None:
        reader = TrainBody(body)
        training, loss_node = reader.read(block, with_loss=train or loss)
    elif train or loss:
        faults.error(
            "E0601",
            f"the net `{chosen.name}` cannot be trained: the file has no block for it",
            chosen.name_span,
            helps=(f"add `train {chosen.name} {{ target ... loss = ... optimizer = ... }}`",),
        )
    faults.found.raise_if_any()
    session.drop_unused_key()
    outputs = [*body.outputs.items(), *([("loss", loss_node)] if loss_node is not None else [])]
    graph = session.builder.graph(outputs, session.conditions)
    return graph, body.module(chosen, training)


class NetBody(Body):
    """The body of the net itself: it has inputs and outputs."""

    inputs: list[str]
    outputs: dict[str, Node]
    arguments: dict[str, Value]

    def bind(self, net: t.Net, given: dict[str, bool | int | float]) -> None:
        """Give the net's parameters their values."""
        self.inputs, self.outputs, self.arguments = [], {}, {}
        names = [p.name for p in net.parameters]
        for name in given:
            if name not in names:
                close = did_you_mean(name, names)
                self.faults.error(
                    "E0312",
                    f"the net `{net.name}` has no argument `{name}`",
                    net.name_span,
                    helps=[f"did you mean `{n}`?" for n in close]
                    or [f"it takes {', '.join(names) or 'none'}"],
                )
        for parameter in net.parameters:
            if parameter.name in given:
                value: Value = given[parameter.name]
                if not isinstance(value, bool | int | float):
                    raise TypeError(
                        f"the net argument {parameter.name} must be a number or a truth value, "
                        f"but got {type(value).__name__}"
                    )
                if abs(value) >= INTEGER or value != value:
                    value = self.faults.error(
                        "E0125",
                        f"a number lies below 2^63, but `{parameter.name}` is {value:.6g}",
                        parameter.span,
                    )
            elif parameter.default is not None:
                value = self.value(parameter.default)
            else:
                value = self.faults.error(
                    "E0312",
                    f"the net `{net.name}` needs a value for `{parameter.name}`",
                    parameter.span,
                    helps=(f"give it a default, or compile with {parameter.name}=...",),
                )
            self.names[parameter.name] = self.arguments[parameter.name] = value

    def statement(self, s: t.Statement) -> None:
        match s:
            case t.Input():
                self._input(s)
            case t.Output():
                self._output(s)
            case _:
                super().statement(s)

    def _input(self, s: t.Input) -> None:
        type = declared_type(self, s.type, f"the input `{s.name}`")
        if type is None:
            self.names[s.name] = POISON
            return
        name = self.session.naming.take(s.name)
        try:
            node = self.session.builder.add(Input(type), name=name, origin=Origin(s.span, name))
        except ShapeError as broken:
            self.names[s.name] = self.faults.error(broken.code, broken.rule, s.type.span)
            return
        self.inputs.append(node.name)
        self.layers[s.name] = (node.name,)
        self.names[s.name] = node
        if s.arguments or not type.dtype.is_float:
            self.names[s.name] = self._normalized(s, node)

    def _normalized(self, s: t.Input, node: Node) -> Value:
        """An input of pixels as numbers: (x * scale - mean) / std per channel, in f32."""
        if not s.arguments and node.type.dtype.value in ("i32", "i64"):
            return node  # indices, for `embed`
        name = s.name_span if s.name_span.known else s.span
        call = t.Call("normalize", s.arguments, span=s.span, name_span=name)
        with self.group(None) as group:
            group.assigned = node.name
            return self.call(call, (node, name), False)

    def _output(self, s: t.Output) -> None:
        if s.name is not None:
            value = self.named(s.name, s.value)
            self.names[s.name] = value
            public, span = s.name, s.name_span if s.name_span.known else s.span
        else:
            value = self.unnamed(s.value)
            public = s.value.name if isinstance(s.value, t.Name) else "output"
            span = s.value.span
        if is_poisoned(value):
            return
        if not isinstance(value, Node):
            self.faults.error(
                "E0308", f"an output is a tensor, but this is {show(value)}, {kind(value)}", span
            )
            return
        if public in self.outputs:
            self.faults.error(
                "E0305",
                f"two outputs are named `{public}`",
                span,
                helps=("name it: `output name = ...`",),
            )
            return
        self.outputs[public] = value

    def finish(self, net: t.Net) -> None:
        """Report what the net lacks as a whole."""
        span = net.name_span if net.name_span.known else net.span
        kinds = {type(s) for s in net.body}
        if t.Input not in kinds:
            self.faults.error(
                "E0310",
                f"the net `{net.name}` has no input",
                span,
                helps=("begin it with `input x: f32[channels, height, width]`",),
            )
        if t.Output not in kinds:
            self.faults.error(
                "E0310",
                f"the net `{net.name}` has no output",
                span,
                helps=("end it with `output name = ...`",),
            )

    def average(self, net: t.Net) -> None:
        """Let outputs be means over draws where layers ask for it; a loss then reads the means."""
        try:
            means = average_draws(self.session.builder, self.outputs)
        except ShapeError as broken:
            self.faults.error(broken.code, broken.rule, net.name_span)
            return
        known = {id(node): means[public] for public, node in self.outputs.items()}
        for name, value in self.names.items():
            self.names[name] = known.get(id(value), value)
        self.outputs = means

    def module(self, net: t.Net, training: Training | None) -> Module:
        """The record of the net, with every node under its final name."""
        final = self.session.naming.final

        def nodes(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(final(name) for name in names)

        def resolved(value: Value) -> Value:
            return self.session.builder[final(value.name)] if isinstance(value, Node) else value

        expectations = tuple(
            Expectation(
                e.condition,
                {name: resolved(value) for name, value in e.scope.items()},
                {name: nodes(layers) for name, layers in e.layers.items()},
            )
            for e in self.expectations
        )
        requirements = tuple(
            Requirement(r.fact, tuple((n, nodes(x)) for n, x in r.layers), r.span)
            for r in self.requirements
        )
        return Module(
            net.name,
            self.unit.name,
            tuple(self.arguments.items()),
            tuple(self.inputs),
            {name: nodes(layers) for name, layers in self.layers.items()},
            expectations,
            requirements,
            nodes(tuple(self.nofuse)),
            training,
            tuple((final(old.name), final(new.name)) for old, new in self.session.state_updates),
            net.name_span if net.name_span.known else net.span,
        )


def _choose(program: Program, name: str | None) -> t.Net:
    """The net that was asked for. Raises SpecError (E0311)."""
    nets = {net.name: net for net in program.nets}
    found = Diagnostics()
    if not nets:
        found.error(
            "E0311",
            f"`{program.top.name}` has no net, only blocks"
            if program.top.blocks
            else f"`{program.top.name}` has no net",
            program.top.tree.span,
        )
        raise SpecError(found.sorted())
    if name is None:
        return program.nets[-1]
    if name in nets:
        return nets[name]
    close = did_you_mean(name, nets) or list(nets)
    found.error(
        "E0311",
        f"`{program.top.name}` has no net `{name}`",
        program.top.tree.span,
        helps=(f"it has {', '.join(f'`{n}`' for n in close)}",),
    )
    raise SpecError(found.sorted())


def _train_block(program: Program, net: t.Net) -> t.Train | None:
    """The `train` block of the net, if the file has one."""
    blocks = [train for train in program.top.tree.trains if train.net == net.name]
    return blocks[0] if blocks else None
