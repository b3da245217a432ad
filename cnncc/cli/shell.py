"""The command line as a whole: its parser is put together from the verbs' own, and `main` runs one
verb. Verbs import what they need when they run, so that `cnncc check` starts without Numba."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cnncc import __version__
from cnncc.cli import (
    benching,
    building,
    comparing,
    costs,
    learning,
    ledger,
    matrices,
    numbers,
    profiling,
    relaxing,
    texts,
    tracing,
    tuning,
    upkeep,
    using,
    verifying,
    viewing,
)
from cnncc.cli.failures import guarded
from cnncc.cli.verbs import Form, Verbs

DESCRIPTION = """\
Compiles a text description of a convolutional network (a .cnn file) into fused kernels.

A NET is a path (net.cnn), one of several nets in a file (nets.cnn:small), or the name of a
built-in network (lenet_digits).
"""

CLOSING = """\
exit codes:
  0  done
  1  a mistake in what was given: a spec, a file, an array (the message says where and why)
  2  a mistake on the command line
  3  a bug in cnncc (CNNCC_DEBUG=1 shows the traceback)

`cnncc VERB --help` has examples for each verb.
"""

GROUPS = (
    texts,
    numbers,
    costs,
    matrices,
    tracing,
    comparing,
    relaxing,
    ledger,
    building,
    using,
    learning,
    viewing,
    benching,
    profiling,
    tuning,
    verifying,
    upkeep,
)
"""The modules that add verbs, in the order in which `cnncc --help` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # never fail on a terminal without UTF-8
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message
        return stop.code if isinstance(stop.code, int) else 2
    return guarded(lambda: int(options.run(options)), as_json=options.error_format == "json")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; parsing sets `run`, the function of the verb."""
    parser = argparse.ArgumentParser(
        "cnncc", description=DESCRIPTION, epilog=CLOSING, formatter_class=Form, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"cnncc {__version__}")
    verbs = Verbs(parser)
    for group in GROUPS:
        group.add(verbs)
    return parser
