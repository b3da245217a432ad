"""`cnncc verify`: the exactness certificate of a network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cnncc.cli.failures import DONE, MISTAKE
from cnncc.cli.output import print_json, print_table
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_json,
    add_net,
    natural,
    net_arguments,
    positive,
    threads,
)
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.verify import Certificate, Verdict

ABOUT = """\
Every kernel of inference and of a training step (of the gradients, without a train block) is run by
itself, and the programs as a whole:

  bits      fused = unfused = interpreted, bit for bit, on random floats, whole numbers, real data
  oracle    the operators' NumPy definition: the same numbers on whole numbers where no step rounds,
            else within rounding
  matrix    for linear operators the dense matrix of the definition, on whole numbers likewise
  adjoint   <f(x) - f(0), y> = <x, gradient(y)>, on whole numbers: the same number on both sides
            where no step rounds, else within rounding
  slopes    for the others difference quotients in float64
  bounds    a proof for every access of what runs; of the network as it is too where its extents
            are fixed (not with --layers)

Large extents and channel counts are reduced, which the certificate states, and how many kernels of
the network as it is run the same machine code. Exit code 0 when certified, 1 when not.
"""


def add(verbs: Verbs) -> None:
    """Add `verify`."""
    parser = verbs.add(
        "verify",
        "certify that a network's kernels compute what they should",
        verify,
        [
            "cnncc verify lenet_digits",
            "cnncc verify net.cnn --json > certificate.json",
            "cnncc verify resnet18 --layers scores",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("--full", action="store_true", help="reduce nothing (slow for large nets)")
    parser.add_argument(
        "--layers", metavar="NAME", nargs="+", default=[], help="kernels and operators of these"
    )
    add_extents(parser)
    parser.add_argument("--batch", type=positive, default=2, help="samples (default: 2)")
    parser.add_argument("--seed", type=natural, default=0, help="of the random data (default: 0)")
    parser.add_argument(
        "--target",
        choices=("cpu", "interp"),
        default="cpu",
        help="run compiled kernels, or nests as they are defined (default: cpu)",
    )
    parser.add_argument("--threads", metavar="N", type=threads, help="threads to use")
    add_json(parser, "the certificate")


def verify(options: argparse.Namespace) -> int:
    """Make the certificate and print it."""
    from cnncc.verify import Settings, verify_network

    settings = Settings(
        options.full, tuple(options.layers), dict(options.extents), options.batch, options.seed,
        options.target == "cpu", options.threads,
    )  # fmt: skip
    found = verify_network(options.net, arguments=net_arguments(options), settings=settings)
    if options.json:
        print_json(found.as_json())
    else:
        _print(found)
    return DONE if found.holds else MISTAKE


def _print(found: Certificate) -> None:
    from rich.table import Table

    table = Table(title=None)
    for column in ("", "of", "verdict", "checks"):
        table.add_column(column, overflow="fold")
    table.add_column("elements", justify="right")
    for v in found.verdicts:
        more = f" and {len(v.places) - 1} more" if v.kind != "program" and len(v.places) > 1 else ""
        table.add_row(
            v.kind, printable(v.subject) + more, _verdict(v), _checks(v),
            f"{sum(c.elements for c in v.checks):_}",
        )  # fmt: skip
    print_table(table)
    for v in found.failing:
        for c in v.checks:
            if c.failed:
                print(f"differs: {v.kind} {printable(v.subject)}: {c.name}: {printable(c.note)}")
    for v in found.verdicts:
        for c in v.checks:
            if c.outcome == "skipped":
                print(f"skipped: {printable(v.subject)}: {c.name}: {c.note}")
    print(f"reduced: {printable(found.reduced) or 'nothing'}")
    word = "certified" if found.holds else "NOT certified"
    print(
        f"{printable(found.name)} is {word}: {len(found.verdicts)} verdicts, "
        f"{found.elements:_} elements compared, {found.seconds:.1f} s"
    )


def _verdict(v: Verdict) -> str:
    if not v.holds:
        return "differs"
    outcomes = {c.outcome for c in v.checks}
    return "close" if "close" in outcomes else "equal"


def _checks(v: Verdict) -> str:
    counts = {o: sum(c.outcome == o for c in v.checks) for o in ("equal", "close", "skipped")}
    return ", ".join(f"{n} {o}" for o, n in counts.items() if n)
