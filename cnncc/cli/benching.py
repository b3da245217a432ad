"""`cnncc bench`: the same network fused and unfused. First both must give the same bits; then they
are timed in turns, so that what else the machine does meets both alike, and compared with what the
machine can do at most."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnncc.cli.failures import DONE
from cnncc.cli.output import amount, print_json, remark
from cnncc.cli.sampling import concrete_shape, random_inputs
from cnncc.cli.stages import Request, require_machine_code
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_json,
    add_machine,
    add_net,
    net_arguments,
    positive,
    rate,
)
from cnncc.errors import CompilerBug
from cnncc.ops.base import Op
from cnncc.passes.count import count
from cnncc.tensor import Extent, evaluate

if TYPE_CHECKING:
    from cnncc.targets.cpu.binding import Binding
    from cnncc.targets.cpu.peaks import Peaks
    from cnncc.targets.runtime import Shape

LEAST_ROUNDS = 10
WARM_UP = 3
STEPS = 2  # of training before parameters are compared: the second reads the optimizer's state

ABOUT = """\
Both have the same random parameters and inputs, and their outputs must be equal bit for bit before
anything is timed. Times are of one whole call on arrays as a user gives them. With --train a call
is a training step: after two steps all parameters, statistics and the optimizer's state must be
equal bit for bit too; what is timed are steps with a learning rate of 0, so that weights stay sane.

  median    of all calls; the range is from the 10th to the 90th percentile
  GFLOP/s   two operations for each multiply-accumulate of convolutions and dense layers
  traffic   bytes of the tensors that each kernel reads and writes, each once
  roofline  the share of the least time that the measured peaks allow: for this work; for reading
            what a call holds once, out of the nearest cache that holds it; and for this traffic,
            when that does not fit the last cache
"""


def add(verbs: Verbs) -> None:
    """Add `bench`."""
    parser = verbs.add(
        "bench",
        "time a network fused against unfused",
        bench,
        [
            "cnncc bench lenet_digits",
            "cnncc bench resnet18 --batch 4 --seconds 20",
            "cnncc bench lenet_digits --train --batch 32",
            "cnncc bench vgg16 --threads 1 --json",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument(
        "--train", action="store_true", help="a step of training: forward, backward and update"
    )
    parser.add_argument("--batch", type=positive, default=1, help="samples per call (default: 1)")
    parser.add_argument(
        "--seconds", type=rate, default=3.0, help="how long to measure (default: 3)"
    )
    add_extents(parser)
    add_machine(parser)
    add_json(parser, "the figures")


@dataclass(frozen=True)
class Timing:
    """One way to run the network; times in seconds."""

    kernels: int
    compile_seconds: float
    median: float
    low: float
    high: float
    flops_per_second: float
    traffic_bytes: int
    arena_bytes: int
    roofline_share: float


def bench(options: argparse.Namespace) -> int:
    """Compile both ways, compare, measure, print."""
    require_machine_code("bench")
    ways = {name: _Way(options, name == "fused") for name in ("fused", "unfused")}
    request = ways["fused"].request
    graph = request.graph
    shape = concrete_shape(graph, request.batch, request.extents)
    inputs = random_inputs(graph, shape, request.checked.module.training)
    for way in ways.values():
        way.prepare(shape)
    what = "parameters and outputs" if options.train else "outputs"
    if options.train:
        for step in range(STEPS):
            _compare(*(way.run(inputs | _numbers(request, step)) for way in ways.values()))
        _compare(*(way.state() for way in ways.values()))
        inputs |= _numbers(request, STEPS, rate=0.0)
    _compare(*(way.run(inputs) for way in ways.values()))
    remark(f"{what} are equal bit for bit; measuring")
    times = _measure(ways, inputs, options.seconds)

    from cnncc.targets.cpu.peaks import measure_peaks

    peaks = measure_peaks(ways["fused"].runtime.threads)
    macs = evaluate(_macs(request), dict(shape.symbols)) * shape.batch
    timings = {name: _timing(way, times[name], shape, macs, peaks) for name, way in ways.items()}
    ratio = timings["unfused"].median / timings["fused"].median
    if options.json:
        print_json(
            {
                "name": graph.name,
                "train": options.train,
                "batch": shape.batch,
                "extents": dict(shape.symbols),
                "threads": peaks.threads,
                "macs": macs,
                "rounds": len(times["fused"]),
                "bit_equal": True,
                "speedup": ratio,
                "peak_flops_per_second": peaks.flops,
                "bandwidth_bytes_per_second": peaks.bandwidth,
                **{name: asdict(timing) for name, timing in timings.items()},
            }
        )
        return DONE
    print(
        f"{graph.name}, {'training step, ' if options.train else ''}batch {shape.batch}, "
        f"{peaks.threads} threads, {len(times['fused'])} rounds; {what} equal bit for bit"
    )
    print("         kernels     median                range  GFLOP/s      traffic roofline")
    for name, t in timings.items():
        around = f"{_time(t.low)} .. {_time(t.high)}"
        print(
            f"{name:8} {t.kernels:7} {_time(t.median):>10} {around:>20} "
            f"{t.flops_per_second / 1e9:8.1f} {amount(t.traffic_bytes):>12} {t.roofline_share:8.1%}"
        )
    print(f"fused is {ratio:.2f} times as fast")
    print(f"peaks: {peaks.flops / 1e9:.0f} GFLOP/s, {peaks.bandwidth / 1e9:.1f} GB/s from memory")
    return DONE


class _Way:
    """The network compiled one way."""

    def __init__(self, options: argparse.Namespace, fused: bool) -> None:
        self.request = Request(
            options.net,
            net_arguments(options),
            train=options.train,
            fuse=fused,
            batch=options.batch,
            extents=dict(options.extents),
            threads=options.threads,
            max_memory=options.max_memory,
        )
        start = time.perf_counter()
        self.runtime = self.request.runtime
        self.compile_seconds = time.perf_counter() - start

    def prepare(self, shape: Shape) -> None:
        """Give every parameter its initial value."""
        from cnncc.train.init import initial

        self.runtime.planned(shape)
        for node in self.request.graph.of("parameter"):
            if node.name in self.runtime.store:
                self.runtime.store.write(node.name, initial(node, 0))

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call."""
        return self.runtime.run(inputs)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that steps of training change."""
        read = self.runtime.store.read
        return {node.name: read(node.name) for node in self.request.graph.of("parameter")}

    def traffic(self, shape: Shape) -> int:
        """Bytes of the tensors that the kernels of one call touch, each once for every kernel."""
        portions, rest = divmod(shape.batch, self.runtime.portion(shape))
        found = portions * self._touched(self.runtime.planned(shape))
        if rest:
            found += self._touched(self.runtime.bind(replace(shape, batch=rest), shape.batch))
        return found

    def _touched(self, binding: Binding) -> int:
        """Bytes of the tensors that the kernels of one portion touch."""
        return sum(
            binding.placements[name].bytes
            for step in self.runtime.program.steps
            if step.phase >= 0 and step.kernels
            for name in dict.fromkeys(step.tensors)
        )


def _numbers(request: Request, step: int, rate: float | None = None) -> dict[str, NDArray[Any]]:
    """The optimizer's numbers in a step, at the learning rate of the text unless given."""
    from cnncc.train.optim import Optimizer

    training = request.checked.module.training
    assert training is not None, "a net without a train block is refused by elaboration"
    optimizer = Optimizer.of(training)
    return dict(optimizer.numbers(step, optimizer.rate(step) if rate is None else rate))


def _macs(request: Request) -> Extent:
    """Multiply-accumulates of one sample; in training those of the gradients too."""
    if not request.train:
        return count(request.checked.graph).macs
    graph = request.graph
    found: Extent = 0
    for node in graph.nodes:
        if isinstance(node.op, Op):
            found = found + node.op.cost(graph.types(node), node.type).macs
    return found


def _compare(fused: dict[str, NDArray[Any]], unfused: dict[str, NDArray[Any]]) -> None:
    for name, array in fused.items():
        if array.tobytes() != unfused[name].tobytes():
            raise CompilerBug("fuse", name, "fused and unfused kernels give the same bits")


def _measure(
    ways: dict[str, _Way], inputs: dict[str, NDArray[Any]], seconds: float
) -> dict[str, list[float]]:
    """Times of calls in turns, until the time is over."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS + WARM_UP or time.perf_counter() < end:
        for name, way in ways.items():
            start = time.perf_counter()
            way.run(inputs)
            if rounds >= WARM_UP:
                times[name].append(time.perf_counter() - start)
        rounds += 1
    return times


def _timing(way: _Way, times: list[float], shape: Shape, macs: int, peaks: Peaks) -> Timing:
    binding = way.runtime.planned(shape)
    traffic = way.traffic(shape)
    low, median, high = np.percentile(times, (10, 50, 90))
    held = binding.plan.size + way.runtime.store.bytes
    cold = peaks.overflows(held)
    least = peaks.bound(2.0 * macs, min(held, traffic), traffic if cold else 0).seconds
    return Timing(
        kernels=len(way.runtime.fused.kernels),
        compile_seconds=way.compile_seconds,
        median=float(median),
        low=float(low),
        high=float(high),
        flops_per_second=2 * macs / float(median),
        traffic_bytes=traffic,
        arena_bytes=binding.plan.size,
        roofline_share=least / float(median),
    )


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"
