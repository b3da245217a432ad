"""For `cnncc explain --measure`: what each fusion of a network gains on this machine, and what the
roofline predicts."""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING, Any

from cnncc.cli.output import counting, print_table
from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.cli.stages import Request
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.model.gains import Gain, Gains


def measured(options: argparse.Namespace, request: Request) -> Gains:
    """Measure the fusions of a call of inference as the options describe it."""
    from cnncc.model.gains import measure_gains
    from cnncc.model.network import Network
    from cnncc.model.programs import Options

    network = Network.read(request.net, dict(request.arguments))
    graph = network.inference.graph
    shape = concrete_shape(graph, request.batch, request.extents)
    compiled = Options(
        threads=request.threads, max_memory=request.max_memory, exact=request.exact,
        bf16=request.bf16, choices=request.choices,
    )  # fmt: skip
    with counting() as progress:
        inputs = random_inputs(graph, shape)
        return measure_gains(network, inputs, compiled, turns=options.turns, progress=progress)


def print_gains(gains: Gains) -> None:
    """A line for every fusion, in the order of the ledger, and the whole in one."""
    from rich.table import Table

    extents = "".join(f", {name} = {n}" for name, n in gains.shape.symbols)
    print(
        f"\nwhat each fusion gains, batch {gains.shape.batch}{extents}, {gains.threads} threads:\n"
        "the time of the kernels at its ends without it, by their time with it"
    )
    if not gains.found:
        print("nothing is fused that runs in a call")
        return
    table = Table()
    for column in ("gain", "middle half", "two copies", "by the roofline", "ms without", "ms with"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("edge", overflow="fold")
    for g in gains.found:
        without, with_ = (f"{1e3 * seconds:.4f}" for seconds in g.turns.seconds)
        middle, noise = ("{:.2f}..{:.2f}".format(*spread) for spread in (g.spread, g.noise))
        predicted = f"{g.predicted:.2f}"
        table.add_row(f"{g.measured:.2f}", middle, noise, predicted, without, with_, _edges(g))
    print_table(table)
    ordered = sorted(gains.found, key=lambda g: g.measured)
    median = statistics.median(g.measured for g in ordered)
    losing = [_edges(g) for g in gains.losing]
    print(
        f"{len(ordered)} fusions: from {ordered[0].measured:.2f} to {ordered[-1].measured:.2f}, "
        f"median {median:.2f}; "
        + (f"time is lost by {'; '.join(losing)}" if losing else "none loses time beyond the noise")
    )


def _edges(gain: Gain) -> str:
    """`a, b -> c`: producers with the same consumer together."""
    producers: dict[str, list[str]] = {}
    for producer, consumer in gain.edges:
        producers.setdefault(consumer, []).append(producer)
    return printable(", ".join(f"{' + '.join(p)} -> {c}" for c, p in producers.items()))


def gains_json(gains: Gains) -> dict[str, Any]:
    """The measurements, ready for JSON; seconds are those of a call."""
    return {
        "batch": gains.shape.batch,
        "extents": dict(gains.shape.symbols),
        "threads": gains.threads,
        "gains": [
            {
                "edges": [list(edge) for edge in g.edges],
                "gain": g.measured,
                "spread": list(g.spread),
                "spread_of_two_copies": list(g.noise),
                "predicted": g.predicted,
                "seconds_without": g.turns.seconds[0],
                "seconds_with": g.turns.seconds[1],
                "turns": len(g.turns.before),
                "loses": g.loses,
            }
            for g in gains.found
        ],
    }
