"""How fast is cnncc beside PyTorch and ONNX Runtime?  Inference of whole networks with the same
weights and inputs, everything in one process with the same number of threads, the contestants
taking turns.

Run from the repository's root: python -m bench.peers lenet5_modern vgg19 [--batch 1 16]

Outputs are compared before anything is timed. bench/README.md says how the numbers are made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnncc import compiler
from cnncc.passes.fuse import fuse
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.profile import profile, profile_table
from cnncc.targets.cpu.store import Store
from cnncc.targets.runtime import Runtime, shape_of
from tests.networks.distance import relative_l2
from tests.networks.twin import Twin
from tests.networks.values import inputs, parameters

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[], Array]

TOLERANCE = 2e-5  # relative L2 distance of any contestant from PyTorch in float64
LEAST_SECONDS = 0.005  # a turn: warm up this long, then time calls for this long, each time
CNNCC = "cnncc"


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call over the turns of one contestant."""

    contestant: str
    median: float
    fastest: float
    low: float  # quartiles
    high: float
    turns: int


@dataclass(frozen=True)
class Result:
    network: str
    batch: int
    timings: list[Timing]
    distances: dict[str, float]  # of each contestant's output from float64
    prepare_seconds: dict[str, float]  # from graph or weights to the first result

    def of(self, contestant: str) -> Timing | None:
        return next((t for t in self.timings if t.contestant == contestant), None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__.split("\n")[0]
    )
    parser.add_argument("networks", nargs="+", help="built-in names or .cnn files")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=detect().cores)
    parser.add_argument("--turns", type=int, default=15, help="at least 15 for a median to report")
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--profile", action="store_true", help="show where cnncc's time goes")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = []
    for name in options.networks:
        for batch in options.batch:
            result = measure(
                name, batch, options.threads, options.turns, options.without, options.profile
            )
            results.append(result)
            print(table(result), flush=True)
    if options.json:
        record = {
            "machine": machine_facts(options.threads),
            "results": [asdict(r) for r in results],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(max(r.distances.values()) <= TOLERANCE for r in results) else 1


def measure(
    name: str, batch: int, threads: int, turns: int, without: list[str], show_profile: bool
) -> Result:
    """One network at one batch size: compare outputs, then let the contestants take turns."""
    graph = compiler.front(name).graph
    values, data = parameters(graph), inputs(graph, batch)
    expected = _output(Twin(graph, values, torch.float64), data)()
    contestants: dict[str, Run] = {}
    distances, seconds = {}, {}
    makers: dict[str, Callable[[], Run]] = {
        CNNCC: lambda: cnncc(name, values, data, threads, show_profile),
        "PyTorch": lambda: _output(Twin(graph, values), data),
        "PyTorch channels_last": lambda: _output(Twin(graph, values, channels_last=True), data),
        "ONNX Runtime": lambda: onnx_runtime(graph, values, data, threads),
    }
    for contestant, make in makers.items():
        if contestant in without:
            continue
        begin = time.perf_counter()
        try:
            run = make()
        except (ImportError, NotImplementedError) as missing:
            print(f"{contestant} is left out: {missing}", file=sys.stderr)
            continue
        result = run()
        seconds[contestant] = time.perf_counter() - begin
        distances[contestant] = relative_l2(result, expected)
        contestants[contestant] = run
    times: dict[str, list[float]] = {c: [] for c in contestants}
    for _ in range(turns):
        for contestant, run in contestants.items():
            times[contestant].append(1e3 * turn(run))
    timings = [_timing(c, t) for c, t in times.items()]
    return Result(name, batch, timings, distances, seconds)


def turn(run: Run) -> float:
    """Seconds per call: warm up until the others' threads have gone to sleep, then time."""
    end = time.perf_counter() + LEAST_SECONDS
    run()
    while time.perf_counter() < end:
        run()
    samples: list[float] = []
    begin = time.perf_counter()
    while not samples or time.perf_counter() - begin < LEAST_SECONDS:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def _timing(contestant: str, times: list[float]) -> Timing:
    low, median, high = np.percentile(times, [25, 50, 75])
    return Timing(contestant, float(median), min(times), float(low), float(high), len(times))


# --- contestants ----------------------------------------------------------------------------------


def cnncc(
    name: str, values: Mapping[str, Array], data: Mapping[str, Array], threads: int, show: bool
) -> Run:
    graph, store = compiler.front(name).graph, Store()
    for parameter, value in values.items():
        store.write(parameter, value)
    runtime = Runtime(fuse(graph), store=store, threads=threads)
    ((public, _),) = graph.outputs
    if show:
        runtime.run(data)
        binding = runtime.bind(shape_of(graph, data))
        steps = profile(binding, data, threads=threads, phases=[0])
        print(f"cnncc's steps of {name}, {threads} threads\n{profile_table(steps, 20)}")
    return lambda: runtime.run(data)[public]


def _output(twin: Twin, data: Mapping[str, Array]) -> Run:
    tensors = {name: twin.tensor(array) for name, array in data.items()}
    ((public, _),) = twin.graph.outputs

    def run() -> Array:
        with torch.inference_mode():
            return twin.run(tensors)[public].numpy()

    return run


def onnx_runtime(
    graph: Any, values: Mapping[str, Array], data: Mapping[str, Array], threads: int
) -> Run:
    import onnxruntime

    from bench.onnx_model import onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_model(graph, values).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = dict(data)
    return lambda: np.asarray(session.run(None, feed)[0])


# --- what is shown --------------------------------------------------------------------------------


def table(result: Result) -> str:
    own = result.of(CNNCC)
    lines = [
        f"{result.network}, batch {result.batch}",
        f"  {'':24}{'median ms':>10} {'quartiles':>19} {'fastest':>9} {'cnncc/it':>9} "
        f"{'fastest':>8} {'from f64':>9} {'ready s':>8}",
    ]
    for t in result.timings:
        ratio = f"{own.median / t.median:9.2f} {own.fastest / t.fastest:8.2f}" if own else ""
        far = result.distances[t.contestant]
        lines.append(
            f"  {t.contestant:24}{t.median:10.3f} {t.low:9.3f}-{t.high:9.3f} {t.fastest:9.3f} "
            f"{ratio} {far:9.1e} {result.prepare_seconds[t.contestant]:8.2f}"
            + ("  WRONG" if far > TOLERANCE else "")
        )
    return "\n".join(lines)


def machine_facts(threads: int) -> dict[str, Any]:
    machine = detect()
    facts: dict[str, Any] = {
        "processor": machine.cpu_name,
        "isa": machine.isa,
        "l2": machine.l2,
        "l3": machine.l3,
        "cores": machine.cores,
        "threads": threads,
        "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    if "onnxruntime" in sys.modules:
        facts["onnxruntime"] = sys.modules["onnxruntime"].__version__
    return facts


if __name__ == "__main__":
    sys.exit(main())
