"""`cnncc profile`: where the time of a network's inference goes, kernel by kernel, as a table, as
JSON and as a chart."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnncc.cli.arrays import writable
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import is_terminal, print_json, print_table, remark
from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.cli.stages import require_machine_code
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_json,
    add_machine,
    add_net,
    add_precision,
    net_arguments,
    positive,
)

if TYPE_CHECKING:
    from cnncc.model.profile import Profile

TOP = 20

ABOUT = """\
Every kernel of inference is timed by itself, in the order and with the threads of a call, on random
parameters and inputs.

  GFLOP/s   two operations for each multiply-accumulate that the kernel carries out; Winograd's
            minimal filtering carries out fewer than the convolution has
  GB/s      bytes of the tensors that the kernel reads and writes, each once
  roofline  the least time that the measured peaks allow, by the time: for the operations; for the
            bytes, out of the nearest cache that holds the kernel's tensors; and for its parameters
            out of memory, when the network does not fit the last cache
  bound by  which of these is the least time; the full part of a bar is that time

A large batch may run in portions, some samples at a time; kernels then speak of one portion.
"""


def add(verbs: Verbs) -> None:
    """Add `profile`."""
    parser = verbs.add(
        "profile",
        "show where the time of inference goes, kernel by kernel",
        profile,
        [
            "cnncc profile resnet18",
            "cnncc profile vgg19 --batch 16 --precision exact --top 40",
            "cnncc profile mobilenet --json > mobilenet.json",
            "cnncc profile googlenet -o googlenet.svg",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("--batch", type=positive, default=1, help="samples per call (default: 1)")
    add_precision(parser)
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=positive,
        help="how often to time each kernel (default: for half a second)",
    )
    parser.add_argument(
        "--top", metavar="N", type=positive, default=TOP, help=f"kernels to show (default: {TOP})"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="a chart, as .svg, .png or .pdf"
    )
    add_extents(parser)
    add_machine(parser)
    add_json(parser, "all kernels")


def profile(options: argparse.Namespace) -> int:
    """Compile, measure, print, draw."""
    require_machine_code("profile")
    if options.output is not None:
        from cnncc.model.profile_chart import SUFFIXES

        if options.output.suffix not in SUFFIXES:
            raise UsageError(f"--output is one of {', '.join(SUFFIXES)}, but got {options.output}")
        writable(options.output)
    found = _measured(options)
    if options.output is not None:
        found.chart(options.output, options.top)
        remark(f"the chart is in {options.output}")
    if options.json:
        print_json(found.as_dict())
    elif is_terminal(sys.stdout):
        print_table(found.rich_table(options.top))
        print(found.totals())
    else:
        print(found.table(options.top), end="")
    return DONE


def _measured(options: argparse.Namespace) -> Profile:
    from cnncc.model import Model, Network

    network = Network.read(options.net, net_arguments(options))
    graph = network.inference.graph
    shape = concrete_shape(graph, options.batch, dict(options.extents))
    model = Model.of(
        network,
        batch=options.batch,
        precision=options.precision,
        num_threads=options.threads,
        max_memory=options.max_memory,
    )
    inputs = random_inputs(graph, shape)
    return model.profile(
        repeats=options.repeats, **{n: inputs[n] for n in network.inference.module.inputs}
    )
