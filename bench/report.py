"""docs/performance.md from the JSON that the other scripts of this folder have written.

Run from the repository's root: python -m bench.report [--check] [--charts]

--check compares and writes nothing; --charts draws the bar charts too, which needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.chart import chart_name, draw_peers
from bench.record import NETWORKS

ROOT = Path(__file__).parents[1]
DATA, PAGE, PICTURES = (
    ROOT / "docs" / n for n in ("performance.json", "performance.md", "pictures")
)
OWN, OWN_EXACT = "cnncc", "cnncc exact"
Results = list[dict[str, Any]]

INTRODUCTION = """\
# Performance

This page is made from [performance.json](performance.json) by `python -m bench.report --charts`;
[bench/README.md](../bench/README.md) says how the figures are measured and how to measure them on
another machine. Times are of one machine and one day. What carries over is who is faster by how
much, and even that only between processors of one kind.
"""

PEERS = """\
## Whole networks

Inference in float32, the same weights, inputs and number of threads, all contestants in one process
and in turns. Milliseconds per call: the median of the turns, and their quartiles. Before anything
was timed, all outputs were compared with PyTorch in float64; the largest relative L2 distance was
{distance:.1e}. `gain` is the time of the fastest peer by the time of cnncc: above 1 cnncc is
faster. `cnncc` is what `cnncc.compile` gives; `cnncc exact` is with `precision="exact"`, without
Winograd's minimal filtering, and not part of the comparison.
"""

LAYERS = """\
## Single layers

The kernels of a layer by themselves, and oneDNN's through PyTorch on tensors in channels_last.
GFLOP/s count the operations of the definition. `share` is of the multiply-add peak measured in the
same run, of dense layers of the bandwidth of reading memory. `exact` has direct kernels only; where
`default` uses Winograd's minimal filtering its rate may be above the peak.
"""

ERRORS = """\
## Errors

Every convolution by itself: standard normal inputs, weights of variance 1 / fan-in, relative L2
distance from float64. `ratio` is the default precision by PyTorch's direct kernel. Layers of the
same sizes are shown once.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is old")
    parser.add_argument("--charts", action="store_true", help="draw the charts too")
    options = parser.parse_args(arguments)
    record = json.loads(DATA.read_text())
    text = page(record)
    if options.check:
        return 0 if PAGE.read_text() == text else 1
    PAGE.write_text(text)
    if options.charts:
        PICTURES.mkdir(exist_ok=True)
        for batch, results in by_batch(record.get("peers", [])).items():
            draw_peers(results, PICTURES / chart_name(batch))
    return 0


def page(record: dict[str, Results]) -> str:
    """The whole page."""
    peers, layers, errors = (record.get(s, []) for s in ("peers", "layers", "errors"))
    parts = [INTRODUCTION, facts([*peers, *layers, *errors])]
    if peers:
        distance = max(d for r in peers for d in r["distances"].values())
        parts.append(PEERS.format(distance=distance))
        parts += [peer_table(batch, results) for batch, results in by_batch(peers).items()]
    if layers:
        parts += [LAYERS, layer_table(layers)]
    if errors:
        parts += [ERRORS, error_table(errors)]
    return "\n".join(parts)


def by_batch(peers: Results) -> dict[int, Results]:
    """Results of whole networks by batch size."""
    place = {name: i for i, name in enumerate(NETWORKS)}
    ordered = sorted(peers, key=lambda r: place.get(r["network"], len(place)))
    batches = sorted({r["batch"] for r in peers})
    return {b: [r for r in ordered if r["batch"] == b] for b in batches}


def facts(results: Results) -> str:
    """What the figures depend on; where results were made on different machines, all of them."""
    found: dict[str, list[Any]] = {}
    for r in results:
        for name, value in r["machine"].items():
            values = found.setdefault(name, [])
            if value is not None and value not in values:
                values.append(value)
    loads = [v for v in found.pop("load", []) if v is not None]
    rows = [(name, ", ".join(map(str, values))) for name, values in found.items() if values]
    if loads:
        rows.append(("load while measuring", f"{min(loads):.1f} to {max(loads):.1f}"))
    return markdown(("machine", ""), rows, "ll")


def peer_table(batch: int, results: Results) -> str:
    """One row per network, one column per contestant."""
    names = list(dict.fromkeys(t["contestant"] for r in results for t in r["timings"]))
    rows = []
    for r in results:
        timings = {t["contestant"]: t for t in r["timings"]}
        peers = [t["median"] for n, t in timings.items() if n not in (OWN, OWN_EXACT)]
        gain = f"{min(peers) / timings[OWN]['median']:.2f}" if peers and OWN in timings else ""
        cells = [spread(timings[n]) if n in timings else "left out" for n in names]
        rows.append((r["network"], *cells, gain))
    turns = sorted({t["turns"] for r in results for t in r["timings"]})
    return (
        f"### Batch {batch}\n\n"
        f"![bars](pictures/{chart_name(batch)})\n\n"
        + markdown(("network", *names, "gain"), rows, "l" + "r" * (len(names) + 1))
        + f"\nMedians of {' to '.join(map(str, dict.fromkeys((turns[0], turns[-1]))))} turns.\n"
        + left_out(results)
    )


def left_out(results: Results) -> str:
    """Who did not take part, and why."""
    lines = [
        f"- {r['network']}: {name} is left out: {' '.join(reason.split())}\n"
        for r in results
        for name, reason in r["left_out"].items()
    ]
    return "".join(["\n", *lines]) if lines else ""


def spread(timing: dict[str, Any]) -> str:
    return f"{number(timing['median'])} ({number(timing['low'])} to {number(timing['high'])})"


def layer_table(layers: Results) -> str:
    rows = []
    for r in layers:
        exact, default, other = (r["contestants"][n] for n in ("exact", "default", "oneDNN"))
        rows.append(
            (
                r["layer"], str(r["batch"]),
                number(1e3 * exact["seconds"]), rate(exact), f"{exact['share']:.0%}",
                number(1e3 * default["seconds"]), rate(default),
                number(1e3 * other["seconds"]), rate(other), f"{other['share']:.0%}",
            )
        )  # fmt: skip
    header = (
        "layer", "batch", "exact ms", "GFLOP/s", "share", "default ms", "GFLOP/s", "oneDNN ms",
        "GFLOP/s", "share",
    )  # fmt: skip
    flops = sorted(r["peak_flops_per_second"] / 1e9 for r in layers)
    bytes_ = sorted(r["bandwidth_bytes_per_second"] / 1e9 for r in layers)
    return (
        markdown(header, rows, "l" + "r" * 9)
        + f"\nPeaks: {flops[0]:.0f} to {flops[-1]:.0f} GFLOP/s, "
        + f"{bytes_[0]:.1f} to {bytes_[-1]:.1f} GB/s.\n"
    )


def error_table(errors: Results) -> str:
    rows = {
        (r["network"], r["sizes"]): (
            r["network"], r["sizes"], r["algorithm"], f"{r['default']:.1e}", f"{r['exact']:.1e}",
            f"{r['pytorch']:.1e}", f"{r['ratio']:.2f}",
        )
        for r in errors
    }  # fmt: skip
    header = ("network", "layer", "by", "default", "exact", "PyTorch", "ratio")
    worst = max(errors, key=lambda r: r["ratio"])
    return (
        markdown(header, rows.values(), "lllrrrr")
        + f"\nThe largest ratio is {worst['ratio']:.2f}, at {worst['layer']} of "
        + f"{worst['network']}.\n"
    )


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def rate(contestant: dict[str, Any]) -> str:
    return f"{contestant['flops_per_second'] / 1e9:.0f}"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]], align: str) -> str:
    """A table; `align` has a letter for each column."""
    rule = [{"l": ":--", "r": "--:"}[a] for a in align]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


if __name__ == "__main__":
    sys.exit(main())
