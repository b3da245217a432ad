"""What connectivity costs: tiled, symmetric, tabled and local layers beside an ordinary convolution
of the same window, forward and backward.

Run from the repository's root: python -m bench.connectivity [--batch 1 16] [--turns 15]

Inputs of 32 x 64 x 64, 32 outputs, 3x3, pad same.  All variants take turns in one process.  What
counts is the time of the kernels of the layer (`forward`; gradients of `input` and `weight`), each
the median over the turns, as a ratio to the convolution's; changes of layout at the caller's arrays
are the same for all and left out.  For a local layer at batch 1 the figure is bytes of weights per
second beside the measured read bandwidth.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cnncc
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.peaks import measure_peaks
from cnncc.targets.cpu.profile import StepTime, profile
from cnncc.targets.runtime import Runtime, shape_of

CHANNELS, EXTENT = 32, 64
NET = """
{table}
net layer {{
  input x: f32[{c}, {e}, {e}]
  output y = x -> conv({c}, 3x3, pad = same{arguments})
}}
train layer {{
  target wanted: f32[{c}, {e}, {e}]
  loss = mse(y, wanted)
  optimizer = sgd(lr = 0.1)
}}
"""


def half_table() -> str:
    """A random half of all connections, the same in every run."""
    rng = np.random.default_rng(0)
    rows = [sorted(rng.choice(CHANNELS, CHANNELS // 2, replace=False)) for _ in range(CHANNELS)]
    return f"table T {{ {', '.join(str([int(i) for i in row]) for row in rows)} }}"


def block_table(blocks: int) -> str:
    """Outputs and inputs in so many blocks, connected within a block."""
    size = CHANNELS // blocks
    rows = [[k // size * size + i for i in range(size)] for k in range(CHANNELS)]
    return f"table T {{ {', '.join(map(str, rows))} }}"


VARIANTS: dict[str, tuple[str, str]] = {
    "conv": ("", ""),
    "tiled(2)": ("", ", share = tiled(2)"),
    "symmetric": ("", ", share = symmetric"),
    "table, random half": (half_table(), ", connect = table(T)"),
    "table, 2 blocks": (block_table(2), ", connect = table(T)"),
    "table, 4 blocks": (block_table(4), ", connect = table(T)"),
    "local": ("", ", share = none"),
}
PARTS = {"forward": ("y",), "input": ("y.dx",), "weight": ("y.dw",)}


@dataclass
class Contestant:
    name: str
    runtime: Runtime
    data: dict[str, Any]

    def turn(self, threads: int) -> dict[str, float]:
        """Milliseconds of the layer's own kernels, by part."""
        binding = self.runtime.bind(shape_of(self.runtime.graph, self.data))
        steps = profile(binding, self.data, threads=threads, repeats=1)
        return {part: sum(_own(steps, names)) for part, names in PARTS.items()}


def _own(steps: tuple[StepTime, ...], names: tuple[str, ...]) -> list[float]:
    return [s.milliseconds for s in steps if set(names) & set(s.layers)]


def contestant(name: str, batch: int, threads: int) -> Contestant:
    table, arguments = VARIANTS[name]
    text = NET.format(table=table, arguments=arguments, c=CHANNELS, e=EXTENT)
    model = cnncc.compile(text, batch=batch, train=True, num_threads=threads)
    runtime = model._programs.seeded.runtime
    rng = np.random.default_rng(1)
    data = {
        n.name: rng.standard_normal((batch, *n.type.shape)).astype(np.float32)
        for n in runtime.graph.of("input")
    }
    return Contestant(name, runtime, data)


def main() -> None:
    parser = argparse.ArgumentParser(description="time connectivity kinds beside a convolution")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=detect().cores)
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args()
    results = []
    for batch in options.batch:
        field = [contestant(name, batch, options.threads) for name in VARIANTS]
        times: dict[str, dict[str, list[float]]] = {c.name: {p: [] for p in PARTS} for c in field}
        for turn in range(options.turns + 1):
            for c in field:
                for part, ms in c.turn(options.threads).items():
                    if turn:  # the first warms up
                        times[c.name][part].append(ms)
        peaks = measure_peaks(options.threads)
        print(f"batch {batch}, {options.threads} threads: ms (ratio to conv)")
        print(f"{'':20}" + "".join(f"{p:>20}" for p in PARTS))
        for name, parts in times.items():
            cells = ""
            for part, samples in parts.items():
                ms = statistics.median(samples)
                ratio = ms / statistics.median(times["conv"][part])
                cells += f"{ms:12.3f} ({ratio:5.2f})"
                results.append(
                    {"batch": batch, "kind": name, "part": part, "ms": ms, "ratio": ratio}
                )
            print(f"{name:20}{cells}")
        weights = 4.0 * (CHANNELS * EXTENT * 3) ** 2
        rate = weights / statistics.median(times["local"]["forward"]) / 1e6
        share = 1e9 * rate / peaks.bandwidth
        print(
            f"local: weights at {rate:.1f} GB/s, "
            f"{share:.0%} of the {peaks.bandwidth / 1e9:.1f} GB/s that can be read"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
