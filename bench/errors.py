"""How far from float64 is the default precision, beside PyTorch's direct kernel?  Every convolution
of a network by itself, on standard normal inputs and weights of variance 1 / fan-in.

Run from the repository's root: python -m bench.errors [vgg19 resnet50] [--json FILE]

Errors are relative L2 distances per tensor. Layers of the same sizes are measured once. The exit
code is 1 when a layer is more than 4 times as far as PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import record
from bench.single import Layer, convolutions
from cnncc import compiler
from cnncc.ops.strided_phases import taps_of
from cnncc.passes.winograd import algorithms
from cnncc.targets.cpu.machine import detect
from tests.networks.distance import relative_l2

NETWORKS = ("vgg19", "resnet50")
MOST = 4.0  # times PyTorch's error


@dataclass(frozen=True)
class Error:
    """Relative L2 distances from float64: of the default precision, of the exact one, and of
    PyTorch's convolution."""

    algorithm: str
    default: float
    exact: float
    pytorch: float

    @property
    def ratio(self) -> float:
        return self.default / self.pytorch


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.errors", description=__doc__.split("\n")[0]
    )
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=detect().cores)
    parser.add_argument("--json", type=Path, help="add the results to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    known: dict[Layer, Error] = {}
    results: list[dict[str, Any]] = []
    for network in options.networks or NETWORKS:
        print(f"{network:32}{'':24} {'by':10} {'default':>9} {'exact':>9} {'PyTorch':>9} ratio")
        for name, layer in convolutions(compiler.front(network).graph).items():
            if layer not in known:
                known[layer] = error(layer, options.threads)
            e = known[layer]
            print(
                f"{name:32}{layer.name:24} {e.algorithm:10} {e.default:9.2e} {e.exact:9.2e} "
                f"{e.pytorch:9.2e} {e.ratio:5.2f}",
                flush=True,
            )
            results.append(
                {
                    "network": network, "layer": name, "sizes": layer.name,
                    "algorithm": e.algorithm, "default": e.default, "exact": e.exact,
                    "pytorch": e.pytorch, "ratio": e.ratio,
                }
            )  # fmt: skip
    worst = max(results, key=lambda r: r["ratio"])
    print(f"the largest ratio is {worst['ratio']:.2f}, at {worst['layer']} of {worst['network']}")
    if options.json:
        facts = {"machine": record.machine_facts(options.threads)}
        record.update(
            options.json, "errors", ("network", "layer"), [{**r, **facts} for r in results]
        )
    return 0 if worst["ratio"] <= MOST else 1


def error(layer: Layer, threads: int = 1) -> Error:
    """The errors of one layer."""
    x, w = layer.numbers(1)
    expected = layer.exactly(x, w)
    with torch.inference_mode():
        theirs = layer.torch(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    default, exact = (layer.compiled(w, p, 1, threads)(x) for p in ("default", "exact"))
    chosen = algorithms(compiler.front(layer.text).graph)
    taps = taps_of(layer.window, layer.stride)
    algorithm = "".join(f"F({m}x{m},{taps}x{taps})" for m in chosen.values()) or "direct"
    return Error(algorithm, *(relative_l2(y, expected) for y in (default, exact, theirs)))


if __name__ == "__main__":
    sys.exit(main())
