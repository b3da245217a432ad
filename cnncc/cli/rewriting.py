"""The text of a network with other priors: convolutions become tiled, local or dense layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnncc.errors import Diagnostic, Span, SpecError, did_you_mean
from cnncc.graph.elaborate import elaborate
from cnncc.graph.imports import read_program
from cnncc.graph.ir import Graph, Node, TypedGraph
from cnncc.graph.locate import locate
from cnncc.ops import LAYERS
from cnncc.ops.conv import Conv, ConvDx
from cnncc.passes.check import check
from cnncc.syntax import tree as t
from cnncc.syntax.format import format_text

PRIORS = re.compile(r"local|dense|tiled\([1-9][0-9]{0,8}\)")
"""What `--to` takes."""

SHARES = {"local": "none"}
"""Values of `share`; the others are called as in the language."""


@dataclass(frozen=True)
class Relaxed:
    """The new text, its graph, and the `expect` statements that only the old one fulfilled."""

    text: str
    graph: TypedGraph
    dropped: tuple[str, ...]


def relaxed(
    net: str,
    prior: str,
    layers: Collection[str],
    arguments: Mapping[str, bool | int | float],
) -> Relaxed:
    """The network with the convolutions `layers` (all when there are none) relaxed to `prior`.

    Raises SpecError: E0810 for a layer that does not exist, E0813 for one that cannot be rewritten,
    and whatever is wrong with the new text.
    """
    found = locate(net)
    program = read_program(found.text, found.file, found.path)
    graph, module = elaborate(program, LAYERS, net=found.net, arguments=dict(arguments))
    chosen = _convolutions(graph, layers)
    stages = {(s.span.start, s.span.end): piped for s, piped in _calls(program.top.tree)}
    edits: dict[tuple[int, int], str] = {}
    for node in chosen:
        span = node.origin.span
        if span is None or span.file != found.file or (span.start, span.end) not in stages:
            raise _cannot(node, "it does not stand in the file itself", "copy the import into it")
        place = (span.start, span.end)
        text = _rewritten(node, span, prior, piped=stages[place])
        if edits.setdefault(place, text) != text:
            raise _cannot(node, "the block that it stands in is used with other extents too")
    text = _edited(found.text, edits)
    return _checked(text, found.file, found.path, found.net or module.name, arguments)


def _convolutions(graph: Graph, layers: Collection[str]) -> list[Node]:
    nodes = {n.origin.layer or n.name: n for n in graph.nodes if isinstance(n.op, Conv | ConvDx)}
    for layer in layers:
        if layer not in nodes:
            near = did_you_mean(layer, nodes)
            raise SpecError(
                Diagnostic(
                    "E0810",
                    f"`{graph.name}` has no convolution `{layer}`",
                    helps=tuple(f"did you mean `{n}`?" for n in near)
                    or (f"it has {', '.join(list(nodes)[:12])}",),
                )
            )
    return [n for name, n in nodes.items() if not layers or name in layers]


def _calls(tree: t.File) -> Iterable[tuple[t.Call, bool]]:
    """Every call of a text, and whether it is a stage of a pipeline."""
    for node in t.walk(tree):
        if isinstance(node, t.Pipeline):
            yield from ((stage, True) for stage in node.stages)
    staged = {id(s) for n in t.walk(tree) if isinstance(n, t.Pipeline) for s in n.stages}
    for node in t.walk(tree):
        if isinstance(node, t.Call) and id(node) not in staged:
            yield node, False


def _cannot(node: Node, why: str, *helps: str) -> SpecError:
    layer = node.origin.layer or node.name
    return SpecError(
        Diagnostic("E0813", f"`{layer}` cannot be rewritten: {why}", node.origin.span, helps=helps)
    )


def _rewritten(node: Node, span: Span, prior: str, *, piped: bool) -> str:
    """The call of a layer with another prior."""
    if prior != "dense":
        share = f"share = {SHARES.get(prior, prior)}"
        text, count = re.subn(r"\bshare\s*=\s*\w+(\([^()]*\))?", share, span.text)
        return text if count else f"{span.text.rstrip()[:-1].rstrip().rstrip(',')}, {share})"
    if not piped:
        raise _cannot(node, "it is no stage of a pipeline", "write `x -> conv(...)`")
    if node.type.symbols:
        raise _cannot(node, "it has symbolic extents", "give the input fixed extents")
    outputs = node.type.elements
    shape = ", ".join(map(str, node.type.shape))
    bias = ", bias = none" if re.search(r"\bbias\s*=\s*none\b", span.text) else ""
    return f"flatten -> dense({outputs}{bias}) -> reshape(({shape}))"


def _edited(text: str, edits: Mapping[tuple[int, int], str]) -> str:
    for (start, end), new in sorted(edits.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _checked(
    text: str,
    file: str,
    path: Path | None,
    net: str,
    arguments: Mapping[str, bool | int | float],
) -> Relaxed:
    """The graph of the new text, without expectations that no longer hold."""
    dropped: list[str] = []
    while True:
        program = read_program(text, file, path)
        graph, module = elaborate(program, LAYERS, net=net, arguments=dict(arguments))
        try:
            return Relaxed(format_text(text, file), check(graph, module), tuple(dropped))
        except SpecError as error:
            failing = [
                d.span for d in error.diagnostics if d.code == "E0501" and d.span is not None
            ]
            gone = _statements(program.top.tree, failing)
            if len(failing) < len(error.diagnostics) or not gone:
                raise
        dropped += [text[start:end] for start, end in gone]
        text = _edited(text, dict.fromkeys(gone, ""))


def _statements(tree: t.File, failing: Iterable[Span]) -> list[tuple[int, int]]:
    """The `expect` statements that some of the conditions stand in."""
    wanted = list(failing)
    return [
        (node.span.start, node.span.end)
        for node in t.walk(tree)
        if isinstance(node, t.Expect)
        and any(node.span.start <= s.start < node.span.end for s in wanted)
    ]
