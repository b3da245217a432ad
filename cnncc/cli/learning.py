"""`cnncc train`: from a network and a data set to weights."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cnncc.cli.arrays import writable
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import print_json, remark
from cnncc.cli.using import DATA, load_data, told
from cnncc.cli.verbs import (
    Verbs,
    add_json,
    add_machine,
    add_net,
    natural,
    net_arguments,
    positive,
    rate,
)
from cnncc.io.files import UNKNOWN, DataError

ABOUT = """\
Loss, optimizer, schedule, batch and epochs are those of the `train` block, unless given here. The
last line is the result on the test part of the data. The same seed gives the same weights, bit for
bit, on any number of threads; a resumed run ends with the bits of one that was never stopped.
"""


def add(verbs: Verbs) -> None:
    """Add `train`."""
    parser = verbs.add(
        "train",
        "train a network on a data set",
        train,
        [
            "cnncc train lenet_digits --data digits",
            "cnncc train lenet_digits --data digits --seed 3 --save digits.safetensors",
            "cnncc train net.cnn --data images.npz --epochs 5 --lr 0.01 --log run.jsonl",
            "cnncc train net.cnn --data images.npz --checkpoint run.ckpt --resume",
            "cnncc train lenet_digits --data digits --json",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("--data", required=True, help=DATA)
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        help="of initial values, order of samples, dropout, and the split of undivided data",
    )
    parser.add_argument("--epochs", type=positive, help="passes over the data")
    parser.add_argument("--batch", type=positive, help="samples of a step")
    parser.add_argument("--lr", type=rate, help="learning rate before the schedule")
    parser.add_argument("--no-fuse", action="store_true", help="one kernel for each operator")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write weights (.safetensors)")
    parser.add_argument(
        "--log",
        metavar="FILE",
        type=log_file,
        action="append",
        help="write metrics to a .jsonl or .csv file (repeatable)",
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="write all state after every epoch"
    )
    parser.add_argument(
        "--resume",
        metavar="FILE",
        nargs="?",
        const=True,
        help="go on from a checkpoint; without FILE from that of --checkpoint, if it is there",
    )
    add_machine(parser)
    add_json(parser, "the result as the last line,")


def log_file(text: str) -> Path:
    """A path that ends in .jsonl or .csv. Raises ArgumentTypeError."""
    path = Path(text)
    if path.suffix not in (".jsonl", ".csv"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .jsonl or .csv")
    return path


def train(options: argparse.Namespace) -> int:
    """Load, compile, train, test, save, tell."""
    from cnncc.model import Model, Network

    if options.resume is True and options.checkpoint is None:
        raise UsageError("--resume without a file goes on from --checkpoint, which is missing")
    for path in (options.save, options.checkpoint):
        if path is not None:
            writable(path)  # better now than after the last epoch
    network = Network.read(options.net, net_arguments(options))
    samples = load_data(network, options.data, "train", options.seed)
    tests = _tests(network, options)
    remark(f"{len(samples)} samples to train with, {len(tests) if tests else 'none'} to test with")

    start = time.perf_counter()
    model = Model.of(
        network,
        batch=options.batch,
        train=True,
        fuse=not options.no_fuse,
        num_threads=options.threads,
        max_memory=options.max_memory,
        seed=options.seed,
    )
    compiled = time.perf_counter()
    if options.lr is not None:
        model.optimizer = model.optimizer.with_lr(options.lr)
    history = model.fit(
        samples,
        epochs=options.epochs,
        batch=options.batch,
        log=options.log,
        checkpoint=options.checkpoint,
        resume=options.resume,
        verbose=False if options.json else None,
    )
    trained = time.perf_counter()
    last = {name: values[-1] for name, values in history.items() if values}
    tested = model.evaluate(tests) if tests is not None else {}
    if options.save is not None:
        model.save(options.save)

    metrics = {**last, **{f"test_{name}": value for name, value in tested.items()}}
    if options.json:
        print_json(
            {
                "name": network.inference.module.name,
                "data": options.data,
                "seed": options.seed,
                "epochs": history.epochs,
                "compile_seconds": compiled - start,
                "seconds": trained - start,
                **metrics,
            },
            one_line=True,
        )
        return DONE
    print(f"compiled in {compiled - start:.1f} s, trained in {trained - compiled:.1f} s")
    print(f"after {history.epochs} epochs: {told(metrics)}")
    if options.save is not None:
        print(f"weights are in {options.save}")
    return DONE


def _tests(network: Any, options: argparse.Namespace) -> Any:
    """The test part of the data, None for data that has none."""
    try:
        return load_data(network, options.data, "test", options.seed)
    except DataError as error:
        if error.diagnostics[0].code != UNKNOWN:
            raise
        return None
