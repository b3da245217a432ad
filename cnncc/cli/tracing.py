"""`cnncc trace`: what feeds one unit of a network, and what it feeds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnncc.cli.failures import DONE
from cnncc.cli.output import print_json
from cnncc.cli.verbs import Verbs, add_json, add_net, net_arguments
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.graph.ir import Graph
    from cnncc.passes.cone import Box

ABOUT = """\
A unit is a layer with one index per axis, channels first, in quotes for the shell. For every layer
the units are listed as ranges per axis, both ends included: [0..5, 3..7] are channels 0 to 5 at
positions 3 to 7. Behind a flatten the ranges are the smallest that hold all.
"""


def add(verbs: Verbs) -> None:
    """Add `trace`."""
    parser = verbs.add(
        "trace",
        "show which units feed a unit, and which it feeds",
        trace,
        [
            "cnncc trace lenet5_modern 'c3[4, 5, 7]'",
            "cnncc trace resnet18 'stem1[0, 0, 0]' --json",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("unit", metavar="UNIT", help="such as 'c3[4, 5, 7]'")
    add_json(parser, "the indices")


def trace(options: argparse.Namespace) -> int:
    """Print both cones."""
    from cnncc import compiler
    from cnncc.passes.cone import cone

    graph = compiler.front(options.net, arguments=net_arguments(options)).graph
    found = cone(graph, options.unit)
    layer = found.node.origin.layer or found.node.name
    unit = f"{layer}[{', '.join(map(str, found.index))}]"
    fed_by = _by_layer(graph, found.backward, layer)
    feeds = _by_layer(graph, found.forward, layer)
    if options.json:
        print_json(
            {
                "unit": unit,
                "layer": layer,
                "index": list(found.index),
                "fed_by": [_as_json(name, box) for name, box in fed_by.items()],
                "feeds": [_as_json(name, box) for name, box in feeds.items()],
            }
        )
        return DONE
    print(f"{printable(unit)} of {printable(graph.name)}")
    for title, boxes in (("is fed by", fed_by), ("feeds", feeds)):
        print(f"{title}{'' if boxes else ' nothing'}")
        wide = max((len(printable(name)) for name in boxes), default=0)
        for name, box in boxes.items():
            print(_line(printable(name), wide, box))
    return DONE


def _by_layer(graph: Graph, boxes: Mapping[str, Box], own: str) -> dict[str, Box]:
    """The cone at the result of every other layer, and at the inputs."""
    results = {n.origin.layer or n.name: n.name for n in graph.nodes if n.type.batched}
    return {layer: boxes[name] for layer, name in results.items() if name in boxes and layer != own}


def _line(name: str, wide: int, box: Box) -> str:
    from cnncc.passes.cone import ranges_text

    return f"  {name:{wide}}  {ranges_text(box)}  {_count(box)} unit{'s' * (_count(box) != 1)}"


def _count(box: Box) -> int:
    number = 1
    for axis in box:
        number *= len(axis)
    return number


def _as_json(name: str, box: Box) -> dict[str, Any]:
    from cnncc.passes.cone import ranges_text

    return {
        "layer": name,
        "indices": [list(axis) for axis in box],
        "text": ranges_text(box),
        "units": _count(box),
    }
