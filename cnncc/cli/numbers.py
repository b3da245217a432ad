"""`cnncc report`: what a network is made of, in numbers, without compiling it."""

from __future__ import annotations

import argparse

from cnncc.cli.failures import DONE
from cnncc.cli.output import print_json, print_table
from cnncc.cli.verbs import Verbs, add_json, add_net, net_arguments


def add(verbs: Verbs) -> None:
    """Add `report`."""
    parser = verbs.add(
        "report",
        "show the shapes, parameters, work and receptive fields of a network",
        report,
        [
            "cnncc report lenet_digits",
            "cnncc report resnet50 --json",
            "cnncc report vgg16 --arg classes=100",
        ],
        "Nothing is compiled or allocated. macs are multiply-accumulates of one sample,\n"
        "connections count biases too, field is the receptive field in input positions.",
    )
    add_net(parser)
    add_json(parser)


def report(options: argparse.Namespace) -> int:
    """Print the table, the totals, and the conditions on symbolic extents."""
    from cnncc import compiler
    from cnncc.passes import report as numbers
    from cnncc.passes.count import count

    graph = compiler.front(options.net, arguments=net_arguments(options)).graph
    if options.json:
        print_json(numbers.report(graph))
        return DONE
    print_table(numbers.table(graph))
    print(numbers.summary(count(graph)))
    for condition in graph.conditions:
        print(
            f"condition    {condition.divisor} divides {condition.extent} ({condition.text}, "
            f"{condition.origin.layer})"
        )
    return DONE
