"""`cnncc cost`: the operations of a whole training, counted as papers of classic networks do."""

from __future__ import annotations

import argparse

from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import print_json
from cnncc.cli.verbs import Verbs, add_json, add_net, net_arguments, positive
from cnncc.errors import printable

BACKWARD = {"no": 1, "x3": 3}
"""Passes over the network for each example: forward alone, or forward and two backward (one for
the inputs, one for the weights)."""

COUNTS = ("connections", "macs", "operations")

ABOUT = """\
Operations = count * examples * epochs, times 3 with --backward x3: the backward pass takes about
twice the work of the forward pass, once for the gradients of the inputs and once for those of the
weights. What is counted for one example:
  connections  multiply-accumulates and biases (the usual count of papers)
  macs         multiply-accumulates
  operations   multiplications and additions
--count also takes a number, for example one from a paper; --layers counts one operator only.
"""


def add(verbs: Verbs) -> None:
    """Add `cost`."""
    parser = verbs.add(
        "cost",
        "estimate the operations of a training",
        cost,
        [
            "cnncc cost alexnet --epochs 90 --examples 1_200_000 --backward x3",
            "cnncc cost alexnet --epochs 90 --examples 1_200_000 --count macs --layers conv",
            "cnncc cost lenet_digits --examples 1438",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument(
        "--examples", metavar="N", type=positive, required=True, help="examples of one epoch"
    )
    parser.add_argument(
        "--epochs", metavar="N", type=positive, help="default: those of the train block"
    )
    parser.add_argument(
        "--backward",
        choices=tuple(BACKWARD),
        default="x3",
        help="count the forward pass alone (no), or three times its work (x3, the default)",
    )
    parser.add_argument(
        "--count",
        metavar="COUNT",
        type=counted,
        default="connections",
        help=f"{', '.join(COUNTS)}, or a number (default: connections)",
    )
    parser.add_argument("--layers", metavar="OPERATOR", help="only these layers, such as conv")
    add_json(parser)


def counted(text: str) -> str | int:
    """A count by name, or a number. Raises ArgumentTypeError."""
    if text in COUNTS:
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither {', '.join(COUNTS)} nor a positive integer"
        ) from None


def training_operations(per_example: int, examples: int, epochs: int, backward: str) -> int:
    """Operations of a training: per example and pass, times examples, epochs and passes."""
    return per_example * examples * epochs * BACKWARD[backward]


def cost(options: argparse.Namespace) -> int:
    """Print the operations and what they are made of."""
    from cnncc import compiler
    from cnncc.passes.check import number
    from cnncc.passes.count import count
    from cnncc.passes.countable import Selection

    checked = compiler.front(options.net, arguments=net_arguments(options))
    counts = count(checked.graph)
    training = checked.module.training
    epochs = options.epochs or (training.epochs if training else None)
    if epochs is None:
        raise UsageError("say how many --epochs: the network has no train block")
    if isinstance(options.count, int):
        if options.layers is not None:
            raise UsageError("--layers chooses what is counted, but --count gives the number")
        what, each = "given", options.count
    else:
        operators = dict.fromkeys(x.operator for x in counts.layers if x.connections != 0)
        if options.layers is not None and options.layers not in operators:
            raise UsageError(f"--layers is one of {', '.join(operators)}, not {options.layers}")
        what = options.count
        found = Selection(options.layers).total(counts, what)
        if not isinstance(found, int):
            raise UsageError(f"{what} depend on symbolic extents: {found}; give them by --count")
        each = found
    whole = training_operations(each, options.examples, epochs, options.backward)
    if options.json:
        print_json(
            {
                "name": counts.name,
                "count": what,
                "layers": options.layers,
                "per_example": each,
                "examples": options.examples,
                "epochs": epochs,
                "backward": options.backward,
                "operations": whole,
            }
        )
        return DONE
    of = f" of {options.layers} layers" if options.layers else ""
    print(f"{printable(counts.name)}: {number(whole)} operations, {whole:.3g}")
    print(f"  {number(each):>20}  {what}{of} for one example, forward")
    print(f"x {number(options.examples):>20}  examples")
    print(f"x {number(epochs):>20}  epochs")
    if options.backward != "no":
        print(f"x {BACKWARD[options.backward]:>20}  forward, and two backward")
    return DONE
