"""`cnncc tune`: measure which choices are the fastest for the layers of a network on this machine,
and keep them for later compiles."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cnncc.cli.choosing import label
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import counting, print_json, print_table
from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.cli.stages import require_machine_code
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_json,
    add_machine,
    add_net,
    net_arguments,
    positive,
)
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.model.tuning import Found, Tuning
    from cnncc.model.turns import Turns

ABOUT = """\
A cost model chooses how each layer is computed: a convolution by its definition or by Winograd's
minimal filtering, and how many positions a register tile has. This verb times the other candidates
that the model does not rule out, all kernels in the order and with the threads of a call, in turns
with what the model chooses. Results are compared first: with other tiles bit by bit, with other
algorithms within rounding.

  gain   the part of its time that a layer spares, the median over the turns, and between which
         gains the middle half of the turns lies. It counts when it is at least 2 % and three turns
         of four show one, twice: what is faster is measured once more.

What is faster is kept in the cache folder, for this machine, batch and number of threads, and used
when a network with layers of the same form is compiled for such calls. Tiles change no bit of a
result; another algorithm does, within the error that precision "default" allows. With
--precision exact only tiles are chosen. `cnncc explain NET` shows what is used, CNNCC_TUNED=0
ignores it, `cnncc cache clear` removes it.
"""


def add(verbs: Verbs) -> None:
    """Add `tune`."""
    parser = verbs.add(
        "tune",
        "measure how each layer is computed fastest here, and keep the result for later compiles",
        tune,
        [
            "cnncc tune resnet18",
            "cnncc tune vgg19 --batch 16 --threads 4",
            "cnncc tune alexnet --dry-run --json",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("--batch", type=positive, default=1, help="samples per call (default: 1)")
    parser.add_argument(
        "--precision",
        choices=("default", "exact"),
        default="default",
        help="exact: every convolution by its definition",
    )
    parser.add_argument(
        "--turns",
        metavar="N",
        type=positive,
        help="how often each candidate is timed (default: 15, up to 300 in a small network)",
    )
    parser.add_argument("--dry-run", action="store_true", help="measure, but keep nothing")
    add_extents(parser)
    add_machine(parser)
    add_json(parser, "all measurements")


def tune(options: argparse.Namespace) -> int:
    """Measure, keep, print."""
    require_machine_code("tune")
    from cnncc.targets.cache import is_lasting

    if not options.dry_run and not is_lasting():
        raise UsageError(
            "tune keeps what it measures in the cache folder, which cannot be used: set "
            "CNNCC_CACHE_DIR to a folder of your own, or only measure, with --dry-run"
        )
    from cnncc.model.network import Network
    from cnncc.model.programs import Options
    from cnncc.model.tuning import tune as measured

    network = Network.read(options.net, net_arguments(options))
    graph = network.inference.graph
    shape = concrete_shape(graph, options.batch, dict(options.extents))
    with counting() as progress:
        found = measured(
            network,
            random_inputs(graph, shape),
            Options(
                threads=options.threads,
                max_memory=options.max_memory,
                exact=options.precision == "exact",
            ),
            batch=options.batch,
            extents=dict(shape.symbols),
            turns=options.turns,
            progress=progress,
        )
    path, failure = None, None
    try:
        if not options.dry_run:
            path = found.save()  # also when older choices are to be forgotten
    except OSError as error:
        failure = error  # what was measured is shown all the same
    if options.json:
        print_json({**as_json(found), "saved": None if path is None else str(path)})
    else:
        _print(found)
        if options.dry_run:
            print("nothing is kept: --dry-run")
        elif path is not None and found.choices:
            print(f"kept in {path}")
    if failure is not None:
        raise failure
    return DONE


def _print(found: Tuning) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("layers", overflow="fold")
    table.add_column("model's")
    table.add_column("ms", justify="right")
    table.add_column("measured", no_wrap=True)
    table.add_column("chosen", no_wrap=True)
    for f in found.found:
        if not f.candidates:
            continue
        seconds = f.candidates[0].turns.seconds[0]
        table.add_row(
            printable(_layers(f.group.layers)),
            label(f.group.kind, f.group.before),
            f"{1e3 * seconds:.3f}",
            "\n".join(_candidate(f, i) for i in range(len(f.candidates))),
            _outcome(f),
        )
    if table.row_count:
        print_table(table)
    changed = sum(f.chosen is not None for f in found.found)
    if found.call is None:
        print(f"{printable(found.name)}: nothing is faster than what the cost models choose")
        return
    before, after = found.call.seconds
    verdict = f"{changed} choices" if found.choices else "slower as a whole, nothing is chosen"
    print(
        f"{printable(found.name)}, batch {found.key.batch}, {found.key.threads} threads: a call "
        f"takes {1e3 * after:.3f} ms against {1e3 * before:.3f}, {_gain(found.call)}: {verdict}"
    )


def _layers(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more


def _candidate(f: Found, place: int) -> str:
    c = f.candidates[place]
    time = f"{1e3 * c.turns.seconds[1]:.3f} ms"
    return f"{label(f.group.kind, c.value):7} {time:>9} {_gain(c.turns)}"


def _outcome(f: Found) -> str:
    if f.confirmed is None:
        return ""
    if f.chosen is None:
        return f"no: {_gain(f.confirmed)}"
    return f"{label(f.group.kind, f.chosen)}: {_gain(f.confirmed)}"


def _gain(turns: Turns) -> str:
    low, high = turns.spread
    return f"{turns.gain:+.1%} ({low:+.1%}..{high:+.1%})"


def as_json(found: Tuning) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    return {
        "name": found.name,
        "batch": found.key.batch,
        "extents": dict(found.extents),
        "threads": found.key.threads,
        "precision": found.key.precision,
        "choices": [_group_json(f) for f in found.found],
        "call": None if found.call is None else _turns_json(found.call),
        "used": bool(found.choices),
    }


def _group_json(f: Found) -> dict[str, Any]:
    return {
        "kind": f.group.kind,
        "layers": list(f.group.layers),
        "form": f.group.form,
        "before": f.group.before,
        "candidates": [
            {"value": c.value, "predicted_gain": c.predicted, **_turns_json(c.turns)}
            for c in f.candidates
        ],
        "chosen": f.chosen,
        "confirmed": None if f.confirmed is None else _turns_json(f.confirmed),
    }


def _turns_json(turns: Turns) -> dict[str, Any]:
    before, after = turns.seconds
    return {"seconds": after, "seconds_before": before, "gain": turns.gain,
            "spread": list(turns.spread), "turns": len(turns.before)}  # fmt: skip
