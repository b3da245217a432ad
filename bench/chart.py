"""Bar charts of results, drawn by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLORS = {
    "cnncc": "#1b6ca8", "cnncc exact": "#8fb8d8", "PyTorch": "#b0b0b0",
    "PyTorch channels_last": "#8c8c8c", "torch.compile": "#6a6a6a", "ONNX Runtime": "#b5541c",
    "OpenVINO": "#7a8b2a", "ncnn": "#8a4b8f",
}  # fmt: skip
OTHER = "#d0d0d0"


def chart_name(batch: int) -> str:
    """The file of the chart for a batch size."""
    return f"performance_batch_{batch}.svg"


def draw_peers(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of times relative to cnncc's, with their quartiles, one group per network. `results`:
    of bench/peers.py, as they stand in the JSON, with the same batch size.
    """
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(t["contestant"] for r in results for t in r["timings"]))
    height = 0.8 / len(names)
    figure = Figure(figsize=(9, 0.8 + 0.2 * len(names) * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(names):
        places, values, below, above = [], [], [], []
        for group, r in enumerate(results):
            timings = {t["contestant"]: t for t in r["timings"]}
            if name not in timings or "cnncc" not in timings:
                continue
            t, own = timings[name], timings["cnncc"]["median"]
            places.append(group + (i - (len(names) - 1) / 2) * height)
            values.append(t["median"] / own)
            below.append((t["median"] - t["low"]) / own)
            above.append((t["high"] - t["median"]) / own)
            axes.text(t["high"] / own, places[-1], f" {t['median']:.3g} ms", va="center", size=7)
        axes.barh(
            places, values, height, xerr=(below, above), label=name,
            color=COLORS.get(name, OTHER), error_kw={"elinewidth": 0.8},
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_yticks(range(len(results)), [r["network"] for r in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel(f"time by that of cnncc, batch {results[0]['batch']}; less is better")
    figure.legend(fontsize=8, loc="outside right upper")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cnncc"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
