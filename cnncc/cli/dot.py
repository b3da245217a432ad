"""A drawing of a fused graph in the language of Graphviz: layers as boxes, kernels around them,
tensors as arrows with their shape. Names from a spec are text in quotes and nothing else."""

from __future__ import annotations

from cnncc.errors import printable
from cnncc.graph.ir import Node
from cnncc.graph.sources import Constant, Parameter
from cnncc.passes.fuse import Fused


def dot_text(fused: Fused) -> str:
    """The drawing; `dot -Tsvg` turns it into a picture. Parameters and constants are left out."""
    graph = fused.graph
    numbers = {node.name: i for i, node in enumerate(graph.nodes)}
    hidden = {n.name for n in graph.nodes if isinstance(n.op, Parameter | Constant)}
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, fontname="sans-serif", style=filled, fillcolor=white];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    for node in graph.of("input"):
        lines.append(f"  n{numbers[node.name]} [label={_label(node)}, shape=ellipse];")
    for number, kernel in enumerate(fused.kernels, 1):
        lines += [
            f"  subgraph cluster_{number} {{",
            f'    label="kernel {number}"; fontname="sans-serif"; style=filled; fillcolor=gray93;',
            *(f"    n{numbers[node.name]} [label={_label(node)}];" for node in kernel.nodes),
            "  }",
        ]
    for node in graph.nodes:
        lines += [
            f"  n{numbers[i]} -> n{numbers[node.name]} [label={_quoted(_shape(graph[i]))}];"
            for i in node.inputs
            if i not in hidden
        ]
    for public, name in graph.outputs:
        result = f"out_{numbers[name]}_{len(lines)}"
        lines.append(f"  {result} [label={_quoted(public)}, shape=ellipse];")
        lines.append(f"  n{numbers[name]} -> {result} [label={_quoted(_shape(graph[name]))}];")
    return "\n".join([*lines, "}", ""])


def _label(node: Node) -> str:
    return _quoted(f"{node.name}\n{node.op.name}")


def _shape(node: Node) -> str:
    return "x".join(map(str, node.type.shape))


def _quoted(text: str) -> str:
    shown = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{shown}"'
