"""`cnncc report`: what a network is made of, in numbers, without compiling it."""

from __future__ import annotations

import argparse

from cnncc.cli.failures import DONE
from cnncc.cli.output import print_json, print_table
from cnncc.cli.verbs import Verbs, add_json, add_net, add_precision, net_arguments
from cnncc.tensor import Extent

ABOUT = """\
Nothing is compiled or allocated. macs are multiply-accumulates of one sample,
connections count biases too, field is the receptive field in input positions, memory
is what the compiled network will plan for on this machine, to the byte.
The tables:
  counts      the usual one
  storage     stored floats of each layer as it is, with a weight for every connection (local),
              as a sparse matrix and as a dense one
  operations  multiplications and additions, and both for the matrices, without biases
  fields      receptive fields in positions of the input: size, jump from one result to the next,
              centre of the first (start), and how far that reaches before the input (padding)
  shifts      by how many positions the input and the results move together (equivariance), which
              results see no border (inside), and how far a maximum may move within its pool, in
              positions of the input
  traffic     bytes that are read and written, with one kernel for every operator
"""

TABLES = ("counts", "storage", "operations", "fields", "shifts", "traffic")

UNITS = {
    "hidden": ("units",),
    "input": ("input_units", "units"),
    "output": ("units", "output_units"),
    "all": ("input_units", "units", "output_units"),
}
"""Conventions of counting units, and the counts that each of them adds up."""

NAMED = {"input": "the input", "output": "the output", "all": "input and output"}


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
            "cnncc report alexnet --units all",
            "cnncc report lenet_digits --table storage --table fields",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument(
        "--table",
        dest="tables",
        metavar="TABLE",
        action="append",
        choices=TABLES,
        default=[],
        help=f"a table instead of the usual one: {', '.join(TABLES)} (repeatable)",
    )
    parser.add_argument(
        "--units",
        choices=tuple(UNITS),
        default="hidden",
        help="which units to count: hidden (default), with those of the input, of the output, all",
    )
    add_precision(parser)
    add_json(parser)


def report(options: argparse.Namespace) -> int:
    """Print the table, the totals, and the conditions on symbolic extents."""
    from cnncc.cli.memory import memory_lines, planned_memory
    from cnncc.cli.stages import Request
    from cnncc.passes import report as numbers
    from cnncc.passes.check import number
    from cnncc.passes.count import count, total
    from cnncc.passes.report_tables import TABLES as FURTHER
    from cnncc.passes.report_tables import fused_traffic, shift_lines, shift_table

    request = Request(options.net, net_arguments(options), precision=options.precision)
    graph = request.checked.graph
    memory = planned_memory(options.net, net_arguments(options), options.precision)
    counts = count(graph)
    units = total(getattr(counts, name) for name in UNITS[options.units])
    if options.json:
        fused = fused_traffic(request.fused())
        print_json(
            {
                **numbers.report(graph),
                "memory": memory,
                "fused_traffic_bytes": _plain(fused),
                "counted_units": {"which": options.units, "units": _plain(units)},
            }
        )
        return DONE
    for name in dict.fromkeys(options.tables or ["counts"]):
        match name:
            case "counts":
                print_table(numbers.table(graph))
            case "shifts":
                print_table(shift_table(graph))
            case _:
                print_table(FURTHER[name](counts))
    print(numbers.summary(counts))
    if options.units != "hidden":
        print(f"units        {number(units)}, those of {NAMED[options.units]} among them")
    for line in memory_lines(memory):
        print(line)
    for line in shift_lines(graph):
        print(f"shifts       {line}")
    if "traffic" in options.tables:
        fused = fused_traffic(request.fused())
        print(f"traffic      {number(counts.traffic)}, and {number(fused)} with fused kernels")
    for condition in graph.conditions:
        print(
            f"condition    {condition.divisor} divides {condition.extent} ({condition.text}, "
            f"{condition.origin.layer})"
        )
    return DONE


def _plain(extent: Extent) -> int | str:
    return extent if isinstance(extent, int) else str(extent)
