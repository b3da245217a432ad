"""How a verb is declared: a name, one sentence, examples, and the function that runs it. What many
verbs take (the network, its arguments, sizes of memory) is declared here once."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence

Run = Callable[[argparse.Namespace], int]

_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_AMOUNT = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[KMGT]?)(i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
MOST_DIGITS = 18
MOST_THREADS = 1024


class Form(argparse.RawDescriptionHelpFormatter):
    """Help with the layout of our texts kept, and options in one column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class Verbs:
    """Collects the verbs of the command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(
        self, name: str, summary: str, run: Run, examples: Sequence[str], about: str = ""
    ) -> argparse.ArgumentParser:
        """A new verb; `summary` is one sentence, `about` what else there is to say."""
        return _declare(self._verbs, name, summary, run, examples, about)

    def group(self, name: str, summary: str) -> Verbs:
        """A verb that has verbs of its own, such as `cnncc cache clear`."""
        parser = self._verbs.add_parser(
            name, help=summary, description=_sentence(summary), formatter_class=Form
        )
        return Verbs(parser)


def _declare(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Run,
    examples: Sequence[str],
    about: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description="\n\n".join([_sentence(summary), *([about.strip()] if about else [])]),
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=Form,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--error-format",
        choices=("text", "json"),
        default="text",
        help="diagnostics on stderr as text, or as one JSON object per line",
    )
    parser.set_defaults(run=run, examples=tuple(examples))
    return parser


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


# --- what several verbs take -------------------------------------------------------------------


def add_net(parser: argparse.ArgumentParser) -> None:
    """The positional NET and the values of its arguments."""
    parser.add_argument("net", metavar="NET", help="a path, a path:name, or a built-in name")
    add_net_arguments(parser)


def add_net_arguments(parser: argparse.ArgumentParser) -> None:
    """`--arg classes=100`, as often as there are arguments to set."""
    parser.add_argument(
        "--arg",
        dest="arguments",
        metavar="NAME=VALUE",
        type=net_argument,
        action="append",
        default=[],
        help="set an argument of the net: true, false, or a number (repeatable)",
    )


def add_extents(parser: argparse.ArgumentParser) -> None:
    """`--extent H=64`, for every symbolic extent."""
    parser.add_argument(
        "--extent",
        dest="extents",
        metavar="NAME=N",
        type=extent,
        action="append",
        default=[],
        help="a symbolic extent, such as H=64 (repeatable)",
    )


def extent(text: str) -> tuple[str, int]:
    """`H=64` as a name and a number. Raises ArgumentTypeError."""
    name, equals, number = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=N")
    return name, positive(number)


PRECISIONS = ("default", "exact", "bf16")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """`--precision`, as `cnncc.compile` takes it."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="default",
        help="exact: every convolution directly, none by Winograd's minimal filtering; "
        "bf16: weights that are used once per sample, as in dense layers, rounded to bfloat16",
    )


def add_json(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Limits on what a compiled network may use."""
    parser.add_argument(
        "--threads", metavar="N", type=threads, help="threads to use (default: all cores)"
    )
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=memory,
        help="stop before planning more memory, e.g. 512M or 4G (default: half of the machine's)",
    )


def net_arguments(options: argparse.Namespace) -> dict[str, bool | int | float]:
    """The values of all `--arg`; of two for one name the last counts."""
    return dict(options.arguments)


def net_argument(text: str) -> tuple[str, bool | int | float]:
    """`classes=100` as a name and a value. Raises ArgumentTypeError, which argparse reports."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    if _INTEGER.fullmatch(value):
        if sum(c.isdigit() for c in value) > MOST_DIGITS:
            raise argparse.ArgumentTypeError(f"{name} has more than {MOST_DIGITS} digits")
        return name, int(value)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{name} must be true, false or a number, not {value!r}")
    return name, number


def positive(text: str) -> int:
    """A positive integer. Raises ArgumentTypeError."""
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return number


def natural(text: str) -> int:
    """An integer of at least 0. Raises ArgumentTypeError."""
    if not _INTEGER.fullmatch(text) or len(text) > MOST_DIGITS or int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def threads(text: str) -> int:
    """A number of threads that a team may have. Raises ArgumentTypeError."""
    number = positive(text)
    if number > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"there are at most {MOST_THREADS} threads")
    return number


def rate(text: str) -> float:
    """A finite number above 0. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def memory(text: str) -> int:
    """Bytes from `800`, `64K`, `512M`, `1.5G`, `2GiB`. Raises ArgumentTypeError."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None or len(found["number"]) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 4G")
    size = int(float(found["number"]) * (1 << _UNITS[found["unit"].upper()]))
    if size == 0:
        raise argparse.ArgumentTypeError("a limit of 0 bytes leaves no room for anything")
    return size
