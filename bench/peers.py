"""How fast is cnncc beside PyTorch, ONNX Runtime, OpenVINO and ncnn?  Inference of whole networks
with the same weights and inputs, everything in one process with the same number of threads, the
contestants taking turns.

Run from the repository's root: python -m bench.peers [lenet5_modern vgg19] [--batch 1 16]

Outputs are compared before anything is timed. bench/README.md says how the numbers are made.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench import record
from bench.contestants import CNNCC, CONTESTANTS, Run, Task, model_of, of_twin
from bench.turns import Timing, interleave
from cnncc import compiler
from cnncc.targets.cpu.machine import detect
from tests.networks.distance import relative_l2
from tests.networks.twin import Twin
from tests.networks.values import inputs, parameters

BATCHES = (1, 16)
MORE_BATCHES = {"lenet5_modern": (64,)}
TOLERANCE = 2e-5  # relative L2 distance of any contestant from PyTorch in float64


@dataclass(frozen=True)
class Result:
    """Timings in milliseconds, distances of each output from float64, and seconds from the network
    and its weights to the first result; `left_out` says who cannot take part and why.
    """

    network: str
    batch: int
    threads: int
    timings: list[Timing]
    distances: dict[str, float]
    prepare_seconds: dict[str, float]
    left_out: dict[str, str]

    def of(self, contestant: str) -> Timing | None:
        return next((t for t in self.timings if t.contestant == contestant), None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__.split("\n")[0]
    )
    parser.add_argument("networks", nargs="*", help="built-in names or .cnn files (default: all)")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="default: 1 and 16, of lenet5_modern also 64"
    )
    parser.add_argument("--threads", type=int, default=detect().cores)
    parser.add_argument("--turns", type=int, default=15, help="at least 15 for a median to report")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, help="who takes part")
    parser.add_argument(
        "--without", nargs="*", choices=CONTESTANTS, default=[], help="who is left out"
    )
    parser.add_argument("--profile", action="store_true", help="show where cnncc's time goes")
    parser.add_argument("--json", type=Path, help="add the results to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    chosen = [c for c in options.only or CONTESTANTS if c not in options.without]
    correct = True
    for name in options.networks or record.NETWORKS:
        for batch in options.batch or (*BATCHES, *MORE_BATCHES.get(name, ())):
            result = measure(name, batch, options.threads, options.turns, chosen, options.profile)
            print(table(result), flush=True)
            correct = correct and max(result.distances.values()) <= TOLERANCE
            if options.json:
                facts = {"machine": record.machine_facts(options.threads)}
                found = [{**asdict(result), **facts}]
                record.update(options.json, "peers", ("network", "batch", "threads"), found)
    return 0 if correct else 1


def measure(
    name: str, batch: int, threads: int, turns: int, chosen: list[str], show_profile: bool = False
) -> Result:
    """One network at one batch size: compare outputs, then let the contestants take turns."""
    graph = compiler.front(name).graph
    task = Task(name, graph, parameters(graph), inputs(graph, batch), threads)
    expected = of_twin(Twin(graph, task.values, torch.float64), task.data)()
    taking_part: dict[str, Run] = {}
    distances, seconds, left_out = {}, {}, {}
    for contestant in chosen:
        begin = time.perf_counter()
        try:
            run = CONTESTANTS[contestant](task)
            result = run()
        except Exception as reason:  # whatever a peer fails with, the others can be measured
            if contestant.startswith(CNNCC):
                raise
            left_out[contestant] = f"{type(reason).__name__}: {reason}"[:200]
            print(f"{contestant} is left out: {left_out[contestant]}", file=sys.stderr)
            continue
        seconds[contestant] = time.perf_counter() - begin
        distances[contestant] = relative_l2(result, expected)
        taking_part[contestant] = run
    if show_profile:
        print(model_of(task).profile(**task.data).table(20))
    timings = interleave(taking_part, turns)
    return Result(name, batch, threads, timings, distances, seconds, left_out)


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


if __name__ == "__main__":
    sys.exit(main())
