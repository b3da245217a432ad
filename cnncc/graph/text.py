"""Graph text: `print_graph` shows a graph, `parse_graph` reads it back, and the two agree exactly.

    graph lenet5 {
      %image = input() : f32[*, 1, 32, 32]
      %c1.weight = parameter(init=Init(kind='he')) : f32[6, 1, 5, 5] @ c1
      %c1 = conv(window=(Axis(size=5), Axis(size=5))) %image, %c1.weight : f32[*, 6, 28, 28]
      require (H + 1) % 2 == 0 'the windows of s2 fit' @ s2
      update %s2.running_mean = %s2.next_mean
      return scores = %f7
    }

A line is a node, a condition on symbolic extents, an update of a parameter, or a result. `@` names
the layer that a node belongs to where that is not the node's own name. What follows ` # ` is a
remark: the place in the `.cnn` text, which reading does not restore.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cnncc.graph.ir import Condition, Graph, Node, Operator, Origin
from cnncc.graph.sources import SOURCES
from cnncc.graph.terms import (
    TextError,
    parse_expression,
    parse_type,
    print_operator,
    print_value,
    read_extent,
    read_operator,
    read_value,
)

_LAYER = re.compile(r"^(?P<rest>.*?)(?: @ ?(?P<layer>[\w.\-]*))?$")
_NODE = re.compile(
    r"^%(?P<name>\S+) = (?P<op>\w+\(.*\))(?P<inputs>(?: %[^\s,]+,?)*) : (?P<type>.+)$"
)
_CONDITION = re.compile(r"^require \((?P<extent>.+)\) % (?P<divisor>\d+) == 0 (?P<text>.+)$")
_UPDATE = re.compile(r"^update %(?P<parameter>\S+) = %(?P<value>\S+)$")
_RESULT = re.compile(r"^return (?P<public>\S+) = %(?P<node>\S+)$")


def print_graph(graph: Graph, *, places: bool = False) -> str:
    """The text of a graph, a line per node; with `places` also where each node stands in the text.

    Raises TypeError when an operator has an attribute without a text form.
    """
    lines = [f"graph {graph.name} {{"]
    for node in graph.nodes:
        operands = ", ".join(f"%{name}" for name in node.inputs)
        text = f"  %{node.name} = {print_operator(node.op)}"
        text += f" {operands} : {node.type}" if operands else f" : {node.type}"
        text += _layer(node.origin, node.name)
        if places and node.origin.span is not None and node.origin.span.known:
            text += f"  # {node.origin.span}"
        lines.append(text)
    for c in graph.conditions:
        text = f"  require ({c.extent}) % {c.divisor} == 0 {print_value(c.text)}"
        lines.append(text + _layer(c.origin, None))
    lines += [f"  update %{parameter} = %{value}" for parameter, value in graph.updates]
    lines += [f"  return {public} = %{node}" for public, node in graph.outputs]
    return "\n".join([*lines, "}\n"])


def _layer(origin: Origin, name: str | None) -> str:
    return "" if origin.layer == name else f" @ {origin.layer}".rstrip()


def parse_graph(text: str, operators: Mapping[str, type[Operator]]) -> Graph:
    """The graph of a text; types are taken as they stand, `verify` checks them.

    `operators` are known besides inputs, parameters and constants. Raises TextError, a ValueError
    with the number of the line.
    """
    table = {**SOURCES, **operators}
    lines = text.rstrip("\n").split("\n")
    head = re.fullmatch(r"graph (\S+) \{", lines[0].strip())
    if head is None or lines[-1].strip() != "}":
        raise TextError(1, "a graph is `graph NAME {`, lines, `}`")
    nodes: list[Node] = []
    conditions: list[Condition] = []
    outputs: list[tuple[str, str]] = []
    updates: list[tuple[str, str]] = []
    for number, line in enumerate(lines[1:-1], 2):
        line = _without_remark(line).strip()
        if update := _UPDATE.match(line):
            updates.append((update["parameter"], update["value"]))
            continue
        try:
            match _read_line(line, table):
                case Node() as node:
                    nodes.append(node)
                case Condition() as condition:
                    conditions.append(condition)
                case tuple() as output:
                    outputs.append(output)
        except TextError as error:
            raise TextError(number, error.message) from None
    return Graph(head[1], tuple(nodes), tuple(outputs), tuple(conditions), tuple(updates))


def _without_remark(line: str) -> str:
    """The line up to a ` # ` that is not inside a quoted text."""
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote and line[i - 1] != "\\" else quote
        elif c in "'\"":
            quote = c
        elif c == "#":
            return line[:i]
    return line


def _read_line(
    line: str, operators: Mapping[str, type[Operator]]
) -> Node | Condition | tuple[str, str] | None:
    if not line:
        return None
    if result := _RESULT.match(line):
        return result["public"], result["node"]
    split = _LAYER.match(line)
    assert split is not None
    rest, layer = split["rest"], split["layer"]
    if node := _NODE.match(rest):
        name = node["name"]
        inputs = tuple(n.strip(" %") for n in node["inputs"].split(",") if n.strip())
        type = parse_type(node["type"])
        call = parse_expression(node["op"])
        is_source = node["op"].partition("(")[0] in SOURCES
        op = read_operator(call, operators, **({"type": type} if is_source else {}))
        return Node(name, op, inputs, type, Origin(None, name if layer is None else layer))
    if condition := _CONDITION.match(rest):
        extent = read_extent(parse_expression(condition["extent"]))
        text = read_value(parse_expression(condition["text"]), {})
        return Condition(extent, int(condition["divisor"]), text, Origin(None, layer or ""))
    raise TextError(0, f"`{line[:60]}` is no node, condition or result")
