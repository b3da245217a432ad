"""How near are single layers to what the machine can do, and to oneDNN (PyTorch, channels_last)?

Run from the repository's root: python -m bench.layers [--batch 1] [--json FILE]

cnncc's time is that of the layer's kernels (borders included, changes of the layout of the
caller's arrays not), PyTorch's that of the call on tensors in channels_last. GFLOP/s count the
operations of the definition, so Winograd's minimal filtering (precision "default") may exceed the
peak; `share` is of the multiply-add peak that is measured in the same run, for a dense layer of the
read bandwidth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cnncc
from bench import record
from bench.single import Array, Layer
from bench.turns import turn
from cnncc.model.profile import first_samples
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.peaks import Peaks, measure_peaks
from cnncc.targets.cpu.profile import profile
from cnncc.targets.runtime import Runtime, shape_of
from tests.networks.distance import relative_l2

TOLERANCE = 2e-5
REPEATS = 9  # of the kernels in a turn
LAYERS = (
    Layer(256, 64, 56),
    Layer(64, 256, 56),
    Layer(512, 128, 28),
    Layer(1024, 256, 14),
    Layer(64, 64, 56, 3, 1, 1),
    Layer(128, 128, 28, 3, 1, 1),
    Layer(256, 256, 14, 3, 1, 1),
    Layer(512, 512, 7, 3, 1, 1),
    Layer(128, 128, 56, 3, 2, 1),
    Layer(32, 96, 28, 5, 1, 2),
    Layer(3, 64, 224, 7, 2, 3),
    Layer(4096, 4096),
)


@dataclass(frozen=True)
class Contestant:
    """`seconds` measures one turn, `result` is compared before."""

    name: str
    seconds: Callable[[], float]
    result: Array


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=detect().cores)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--like", default="", help="only layers whose name contains this")
    parser.add_argument("--json", type=Path, help="add the results to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    chosen = [layer for layer in LAYERS if options.like in layer.name]
    fields = [field(layer, options.batch, options.threads) for layer in chosen]
    times, peaks = timed(fields, options.turns, options.threads)
    results = [
        result(layer, options.batch, f, t, peaks)
        for layer, f, t in zip(chosen, fields, times, strict=True)
    ]
    print(table(results, peaks))
    if options.json:
        facts = {"machine": record.machine_facts(options.threads)}
        key = ("layer", "batch", "threads")
        record.update(options.json, "layers", key, [{**r, **facts} for r in results])
    return 0 if all(r["largest_distance"] <= TOLERANCE for r in results) else 1


def timed(
    fields: list[list[Contestant]], turns: int, threads: int
) -> tuple[list[dict[str, list[float]]], Peaks]:
    """Seconds of every contestant of every layer in each turn, and the peaks around them."""
    before = measure_peaks(threads)
    times: list[dict[str, list[float]]] = [{c.name: [] for c in f} for f in fields]
    for _ in range(turns):
        for contestants, own in zip(fields, times, strict=True):
            for c in contestants:
                own[c.name].append(c.seconds())
    both = before, measure_peaks(threads)
    return times, Peaks(max(p.flops for p in both), max(p.bandwidth for p in both), threads)


def field(layer: Layer, batch: int, threads: int) -> list[Contestant]:
    """Who takes part, each with its result."""
    x, w = layer.numbers(batch)
    exact = own("exact", layer, x, w, threads)
    default = own("default", layer, x, w, threads)
    return [exact, default, onednn(layer, x, w)]


def own(precision: str, layer: Layer, x: Array, w: Array, threads: int) -> Contestant:
    model = layer.compiled(w, precision, len(x), threads)
    y = model(x)
    return Contestant(precision, lambda: kernel_seconds(model, x), y)


def kernel_seconds(model: cnncc.Model, x: Array) -> float:
    """The time of all steps of a call that do not change the layout of the caller's arrays: that of
    a portion, where the batch runs in portions, times the portions.
    """
    runtime = model._programs.inference
    assert isinstance(runtime, Runtime)
    data = {"x": x}
    shape = shape_of(runtime.graph, data)
    binding = runtime.planned(shape)
    first = first_samples(data, shape, binding.batch)
    steps = profile(binding, first, threads=runtime.threads, repeats=REPEATS, phases=[0])
    own = (s.milliseconds for s in steps if s.layers or "layout" not in s.comment[0])
    return 1e-3 * sum(own) * shape.batch / binding.batch


def onednn(layer: Layer, x: Array, w: Array) -> Contestant:
    tensors = [torch.from_numpy(a) for a in (x, w)]
    if layer.size:
        tensors = [t.contiguous(memory_format=torch.channels_last) for t in tensors]

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return layer.torch(*tensors)

    return Contestant("oneDNN", lambda: turn(run), run().numpy())


def result(
    layer: Layer, batch: int, contestants: list[Contestant], times: dict[str, list[float]],
    peaks: Peaks,
) -> dict[str, Any]:  # fmt: skip
    """One layer, ready for JSON."""
    expected = layer.exactly(*layer.numbers(batch))
    operations = 2 * layer.macs * batch
    weights = 4 * layer.inputs * layer.outputs  # of a dense layer, each read once
    found = {}
    for c in contestants:
        low, median, high = np.percentile(times[c.name], [25, 50, 75])
        share = operations / median / peaks.flops
        if not layer.size:
            share = weights / median / peaks.bandwidth
        found[c.name] = {
            "seconds": median, "low": low, "high": high, "flops_per_second": operations / median,
            "share": share, "distance": relative_l2(c.result, expected),
        }  # fmt: skip
    return {
        "layer": layer.name,
        "batch": batch,
        "threads": peaks.threads,
        "macs": layer.macs * batch,
        "peak_flops_per_second": peaks.flops,
        "bandwidth_bytes_per_second": peaks.bandwidth,
        "largest_distance": max(v["distance"] for v in found.values()),
        "contestants": found,
    }


def table(results: list[dict[str, Any]], peaks: Peaks) -> str:
    lines = [
        f"{peaks.threads} threads, peaks {peaks.flops / 1e9:.0f} GFLOP/s, "
        f"{peaks.bandwidth / 1e9:.1f} GB/s",
        f"{'':24}{'exact ms':>9} {'GFLOP/s':>8} {'share':>6} {'default':>8} {'GFLOP/s':>8} "
        f"{'oneDNN':>8} {'GFLOP/s':>8} {'share':>6} {'exact/it':>8}",
    ]
    for r in results:
        exact, default, other = (r["contestants"][n] for n in ("exact", "default", "oneDNN"))
        lines.append(
            f"{r['layer']:24}{1e3 * exact['seconds']:9.4f} {exact['flops_per_second'] / 1e9:8.1f} "
            f"{exact['share']:6.1%} {1e3 * default['seconds']:8.4f} "
            f"{default['flops_per_second'] / 1e9:8.1f} {1e3 * other['seconds']:8.4f} "
            f"{other['flops_per_second'] / 1e9:8.1f} {other['share']:6.1%} "
            f"{exact['seconds'] / other['seconds']:8.2f}"
            + ("  WRONG" if r["largest_distance"] > TOLERANCE else "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
