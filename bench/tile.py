"""How fast are emitted register tiles?  A 1x1 convolution with bias and relu, on one core, for
several tiles.

Run: python bench/tile.py [--json FILE] Prints compile seconds, GFLOP/s (median and best of 60
runs) and the number of fused multiply-add instructions on full-width registers.  The result is
compared with NumPy before it is timed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from pathlib import Path

import numpy as np

from cnncc.targets.cpu.machine import detect
from cnncc.targets.load import load_module

PIXELS, CHANNELS = 3136, 64
TILES = ((8, 3), (6, 4), (14, 2), (12, 2))  # of two or more vectors


KERNEL = """\
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *

TILE, VECTORS = shape({rows}, {vectors}, {lanes}), shape(1, {vectors}, {lanes})
NUMBERS = shape({rows}, 1, 1)


@compiled("void(f32*, f32*, f32*, f32*, i64, i64, i64)")
def conv1x1(x, w, b, y, channels, outputs, pixels):
    for m in range(0, pixels, {rows}):
        for k in range(0, outputs, {block}):
            acc = load_tile(TILE, b, k, 0, {lanes})
            for c in range(channels):
                w_v = load_tile(VECTORS, w, k * channels + c * {block}, 0, {lanes})
                acc = fma(load_tile(NUMBERS, x, m * channels + c, channels, 0), w_v, acc)
                keep_rolled()
            store_tile(y, m * outputs + k, outputs, {lanes}, relu(acc))
"""


def kernel_text(rows: int, vectors: int, lanes: int) -> str:
    """`rows` pixels by `vectors` * `lanes` output channels in registers; weights packed [k
    block][c][k in block]."""
    return KERNEL.format(rows=rows, vectors=vectors, lanes=lanes, block=lanes * vectors)


def measure(rows: int, vectors: int, lanes: int) -> dict[str, object]:
    """Compile, check and time one tile."""
    outputs = 256 // (lanes * vectors) * lanes * vectors
    pixels = PIXELS // rows * rows
    rng = np.random.default_rng(0)
    x = rng.standard_normal((pixels, CHANNELS)).astype(np.float32)
    w = rng.standard_normal((CHANNELS, outputs)).astype(np.float32)
    packed = np.ascontiguousarray(w.reshape(CHANNELS, -1, lanes * vectors).transpose(1, 0, 2))
    bias, y = np.zeros(outputs, np.float32), np.empty((pixels, outputs), np.float32)

    start = time.perf_counter()
    kernel = load_module(
        kernel_text(rows, vectors, lanes), kind="kernel", key_extra="bench"
    ).conv1x1
    seconds = time.perf_counter() - start
    arguments = (x, packed, bias, y, CHANNELS, outputs, pixels)
    kernel(*arguments)
    error = float(np.abs(y - np.maximum(x @ w, 0)).max())
    if error > 1e-3:
        raise SystemExit(f"{rows} x {vectors}: wrong result, largest difference {error}")
    times = []
    for _ in range(60):
        start = time.perf_counter()
        kernel(*arguments)
        times.append(time.perf_counter() - start)
    flops = 2 * pixels * CHANNELS * outputs / 1e9
    register = {16: "zmm", 8: "ymm"}.get(lanes, "xmm")
    return {
        "tile": f"{rows}x{vectors}",
        "from_cache": kernel.was_cached,
        "load_s": round(seconds, 3),
        "gflops_median": round(flops / statistics.median(times), 1),
        "gflops_best": round(flops / min(times), 1),
        "fma_instructions": len(re.findall(rf"vfmadd\w+\s+[^\n]*{register}", kernel.assembly())),
        "max_error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, help="write the figures and the machine's facts to this file"
    )
    options = parser.parse_args()
    machine = detect()
    rows = [measure(*tile, machine.lanes_f32) for tile in TILES]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        facts = {"cpu": machine.cpu_name, "isa": machine.isa, "tiles": rows}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
