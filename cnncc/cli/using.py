"""Verbs that run a network with weights: `run` on arrays from a file, `eval` on a data set."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cnncc.cli.arrays import read_arrays, writable, write_arrays
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import print_json
from cnncc.cli.verbs import (
    Verbs,
    add_json,
    add_machine,
    add_net,
    add_precision,
    natural,
    net_arguments,
    positive,
)
from cnncc.errors import Diagnostic, SpecError, printable

if TYPE_CHECKING:
    from cnncc.model import Model, Network
    from cnncc.train.data import Dataset

BATCH = 64
SHOWN = 10
"""Samples that are shown one by one."""

DATA = "digits, synthetic:..., an npz file or a folder (see cnncc data info --help)"


def add(verbs: Verbs) -> None:
    """Add `run` and `eval`."""
    parser = verbs.add(
        "run",
        "run a network on arrays from a file",
        run,
        [
            "cnncc run lenet_digits --weights digits.safetensors --input images.npy",
            "cnncc run net.cnn --weights w.safetensors --input x.npz --output y.npy",
            "cnncc run net.cnn --weights w.npz --input x.npy --json",
        ],
        "Inputs have the shape (samples, channels, *extents). A .npy file is the only input of a\n"
        "network; an .npz file holds an array for each input, by its name.",
    )
    add_net(parser)
    _add_weights(parser)
    parser.add_argument("--input", metavar="FILE", type=Path, required=True, help=".npy or .npz")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help=".npy for one output, .npz for any number"
    )
    add_machine(parser)
    add_json(parser, "all results")

    parser = verbs.add(
        "eval",
        "measure a network with weights on a data set",
        evaluate,
        [
            "cnncc eval lenet_digits --weights digits.safetensors --data digits",
            "cnncc eval net.cnn --weights w.safetensors --data images.npz --split train --json",
            "cnncc eval net.cnn --weights w.safetensors --data images.npz --precision bf16",
        ],
        "The network needs a `train` block, which says what the loss is.",
    )
    add_net(parser)
    _add_weights(parser)
    parser.add_argument("--data", required=True, help=DATA)
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="which part (default: test)"
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="of the split of a set that is not divided"
    )
    add_machine(parser)
    add_json(parser, "the metrics")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, required=True, help=".safetensors or .npz"
    )
    parser.add_argument(
        "--batch",
        type=positive,
        help=f"samples at a time (default: {BATCH}); given, algorithms are chosen for so many",
    )
    add_precision(parser)


# --- run ---------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run the network and write or print its outputs."""
    model = loaded(options)
    module = model.network.inference.module
    outputs = [public for public, _ in model.network.inference.graph.outputs]
    if options.output is not None:
        if options.output.suffix not in (".npy", ".npz"):
            raise UsageError(f"--output is a .npy or .npz file, but got {options.output}")
        if options.output.suffix == ".npy" and len(outputs) > 1:
            raise UsageError(f"several outputs ({', '.join(outputs)}) need an .npz file")
        writable(options.output)
    given = read_arrays(options.input, module.inputs)
    counts = {name: len(array) if array.ndim else 0 for name, array in given.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{n} of {name}" for name, n in counts.items())
        raise SpecError(Diagnostic("E0802", f"inputs need equally many samples, but got {told}"))
    found = model.predict(*given.values(), batch=options.batch or BATCH)
    results = found if isinstance(found, dict) else {outputs[0]: found}
    if options.output is not None:
        write_arrays(options.output, results)
    if options.json:
        print_json({"outputs": {name: _as_json(array) for name, array in results.items()}})
    elif options.output is None:
        print("\n".join(line for name, array in results.items() for line in _shown(name, array)))
    return DONE


def loaded(options: argparse.Namespace) -> Model:
    """The network of the command line with its weights."""
    from cnncc.model import Model, Network
    from cnncc.model.programs import Options

    network = Network.read(options.net, net_arguments(options))
    how = Options.checked(
        "cpu", True, options.precision, options.threads, options.max_memory, batch=options.batch
    )  # algorithms are chosen for this batch; memory is planned for the samples that come
    model = Model(network, how, train=False, seed=0)
    model.load_weights(options.weights)
    return model


def _as_json(array: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": array.tolist()}


def _shown(name: str, array: NDArray[Any]) -> list[str]:
    """Shape and range of an output; for scores also the best class of the first samples."""
    lines = [
        f"{printable(name)}: {array.dtype} {'x'.join(map(str, array.shape))}, "
        f"from {array.min():.6g} to {array.max():.6g}"
    ]
    if array.ndim != 2 or array.shape[1] < 2:
        return lines
    for sample, scores in enumerate(array[:SHOWN]):
        lines.append(f"  {sample}: class {int(scores.argmax())} ({scores.max():.6g})")
    if len(array) > SHOWN:
        lines.append(f"  and {len(array) - SHOWN} more samples; --output writes them all")
    return lines


# --- eval --------------------------------------------------------------------------------------


def evaluate(options: argparse.Namespace) -> int:
    """Print loss and, where there are classes, accuracy."""
    model = loaded(options)
    samples = load_data(model.network, options.data, options.split, options.seed)
    start = time.perf_counter()
    metrics = model.evaluate(samples, batch=options.batch or BATCH)
    seconds = time.perf_counter() - start
    if options.json:
        print_json(
            {
                "name": model.network.inference.module.name,
                "data": options.data,
                "split": options.split,
                "samples": len(samples),
                "seconds": seconds,
                **metrics,
            },
            one_line=True,
        )
    else:
        print(f"{len(samples)} {options.split} samples of {options.data}: {told(metrics)}")
    return DONE


def told(metrics: Mapping[str, float]) -> str:
    """Metrics as a person reads them."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in metrics.items()
        if name != "lr" and not math.isnan(value)
    )


def load_data(network: Network, name: str, split: str, seed: int) -> Dataset:
    """A part of a data set as the network takes it: bytes for u8 inputs, images of its size.

    Raises SpecError for a network with several inputs or targets, which a data set cannot feed.
    """
    from cnncc.train.data import load

    variant = network.evaluation
    module = variant.module
    assert module.training is not None, "elaboration with the loss requires the block"
    for what, names in (
        ("input", module.inputs),
        ("target", tuple(t.name for t in module.training.targets)),
    ):
        if len(names) != 1:
            raise SpecError(
                Diagnostic(
                    "E0802",
                    f"a data set has one array for inputs and one for targets, but {module.name} "
                    f"has {len(names)} {what}s: {', '.join(names) or 'none'}",
                    helps=("use it from Python: model.fit(inputs, targets)",),
                )
            )
    type = variant.graph[module.inputs[0]].type
    extents = [e for e in type.spatial if isinstance(e, int)]
    size = (extents[0], extents[1]) if len(extents) == 2 else None
    return load(
        name,
        split,
        seed,
        dtype="uint8" if type.dtype.value == "u8" else "float32",
        image_size=size,
    )
