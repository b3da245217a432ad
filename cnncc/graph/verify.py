"""Checks that a graph keeps the rules that every pass relies on. After elaboration and after every
pass; a graph that breaks one is a fault of the compiler, never of the user's.
"""

from __future__ import annotations

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Graph, Node, ShapeError, TypedGraph


def verify(graph: Graph, stage: str = "elaborate") -> TypedGraph:
    """The same graph as a TypedGraph; `stage` is what made it.

    The rules: names are unique and not empty; a node reads only nodes before it; every operator's
    shape rule, run again, gives the node's type and every known extent is at least 1; there is an
    output or an update; outputs exist and have different public names; an update gives a parameter,
    once, a value of its type; conditions divide by at least 1. Raises CompilerBug with the stage,
    the node and the rule.
    """
    known: dict[str, Node] = {}
    for node in graph.nodes:
        _check_node(node, known, stage)
        known[node.name] = node
    public: set[str] = set()
    if not graph.outputs and not graph.updates:
        raise CompilerBug(stage, graph.name, "a graph has at least one output or update")
    for name, result in graph.outputs:
        if result not in known:
            raise CompilerBug(stage, result, f"the output {name} is a node of the graph")
        if not name or name in public:
            raise CompilerBug(stage, result, f"the output name {name!r} is used once")
        public.add(name)
    for condition in graph.conditions:
        if condition.divisor < 1:
            raise CompilerBug(
                stage, condition.origin.layer, f"a condition divides by {condition.divisor}"
            )
    _check_updates(graph, known, stage)
    return TypedGraph(graph.name, graph.nodes, graph.outputs, graph.conditions, graph.updates)


def _check_updates(graph: Graph, known: dict[str, Node], stage: str) -> None:
    updated: set[str] = set()
    for parameter, value in graph.updates:
        if parameter not in known or value not in known:
            raise CompilerBug(stage, parameter, f"its update {value} and itself are nodes")
        if known[parameter].op.name != "parameter" or parameter in updated:
            raise CompilerBug(stage, parameter, "an update is of a parameter, and the only one")
        if known[parameter].type != known[value].type:
            raise CompilerBug(
                stage, parameter, f"it is {known[parameter].type}, its update {known[value].type}"
            )
        updated.add(parameter)


def _check_node(node: Node, known: dict[str, Node], stage: str) -> None:
    if not node.name:
        raise CompilerBug(stage, repr(node.op), "a node has a name")
    if node.name in known:
        raise CompilerBug(stage, node.name, "names are unique")
    for name in node.inputs:
        if name not in known:
            raise CompilerBug(stage, node.name, f"it reads {name}, which is no node before it")
    types = tuple(known[name].type for name in node.inputs)
    shown = ", ".join(map(str, types)) or "nothing"
    try:
        result = node.op.infer(types)
    except ShapeError as broken:
        raise CompilerBug(stage, node.name, f"{node.op.name} of {shown}: {broken.rule}") from broken
    except (TypeError, ValueError) as wrong:
        # Rooms unpack as many operand types as they take.
        raise CompilerBug(
            stage, node.name, f"{node.op.name} takes other operands than {shown}: {wrong}"
        ) from wrong
    if result != node.type:
        raise CompilerBug(
            stage, node.name, f"{node.op.name} of {shown} is {result}, but it says {node.type}"
        )
    if not result.shape or any(isinstance(e, int) and e < 1 for e in result.shape):
        raise CompilerBug(stage, node.name, f"every extent of {result} is at least 1")
