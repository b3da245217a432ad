"""The training loop: epochs of batches, in an order that depends on the seed alone; after every
epoch validation, log, checkpoint and callbacks. Nothing that the loop knows is lost with the
process: a run that goes on from its checkpoint ends with the bits of a run that was never stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import CHECKPOINT, refuse
from cnncc.io.layout import TensorInfo
from cnncc.io.safetensors import State
from cnncc.train import checkpoint as store
from cnncc.train.callbacks import Callback
from cnncc.train.data import Dataset, batch_count, batches
from cnncc.train.log import CsvRows, History, JsonLines, Progress
from cnncc.train.optim import Optimizer

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Samples:
    """Arrays by input and target name, checked, with the samples as their first axis."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, chosen: Array | slice) -> Samples:
        """Some of the samples, in the order of their numbers."""
        return Samples(
            {name: np.ascontiguousarray(a[chosen]) for name, a in self.inputs.items()},
            {name: np.ascontiguousarray(a[chosen]) for name, a in self.targets.items()},
        )

    def parts(self, batch: int) -> Iterator[Samples]:
        """All samples in their order, `batch` at a time; the last part may be smaller."""
        for start in range(0, len(self), batch):
            yield self.take(slice(start, start + batch))


@dataclass
class Tally:
    """Sums over samples, from which metrics are made. `loss` is the mean of each batch, times its
    samples.
    """

    samples: int = 0
    loss: float = 0.0
    correct: int = 0
    labels: int = 0

    def add(self, other: Tally) -> None:
        """Count another batch."""
        self.samples += other.samples
        self.loss += other.loss
        self.correct += other.correct
        self.labels += other.labels

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """`loss` per sample, and `accuracy` where labels were counted."""
        found = {f"{prefix}loss": self.loss / self.samples}
        if self.labels:
            found[f"{prefix}accuracy"] = self.correct / self.labels
        return found


class Trainee(Protocol):
    """What the loop asks of the thing that is trained."""

    seed: int
    steps: int
    epochs: int
    optimizer: Optimizer

    def train_on(self, samples: Samples, rate: float) -> Tally:
        """One step: its loss, and how many labels were right where that is known."""
        ...

    def measure(self, samples: Samples, batch: int) -> Tally:
        """Sums over all samples, behaving as at inference."""
        ...

    def state(self) -> tuple[State, State]:
        """Parameters, and what the optimizer keeps."""
        ...

    def load_state(self, params: State, optimiser: State) -> None:
        """Take over what `state` gave."""
        ...

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of the network, as JSON values."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """How to train: counts are at least 1; `logs` are paths that end in .jsonl, .json or .csv."""

    epochs: int
    batch: int
    validation: Samples | None = None
    callbacks: Sequence[Callback] = ()
    logs: Sequence[Path] = ()
    checkpoint: Path | None = None
    resume: Path | None = None
    verbose: bool | None = None


@dataclass(frozen=True)
class _Start:
    """Where a run began, in the counts of the trainee, and the epochs of it that are done."""

    step: int
    epoch: int
    done: int = 0


def train(model: Any, trainee: Trainee, samples: Samples, plan: Plan) -> History:
    """Train to the end of the plan's epochs; the metrics of every epoch, those resumed included.

    `model` is what callbacks are given. The schedule and its epochs start with the run, while the
    optimizer goes on from its state. Raises SpecError when a file cannot be read or written, when
    the checkpoint belongs to another run, or when the loss is no longer finite; files then hold
    what the last whole epoch left.
    """
    history, start = _begin(trainee, samples, plan)
    per_epoch = batch_count(len(samples), plan.batch)
    for callback in plan.callbacks:
        callback.on_train_begin(model, history)
    with contextlib.ExitStack() as stack:
        through = trainee.steps if plan.resume is not None else None
        logs = [stack.enter_context(_log(path, through)) for path in plan.logs]
        bar = stack.enter_context(
            Progress(plan.epochs * per_epoch, done=start.done * per_epoch, enabled=plan.verbose)
        )
        for epoch in range(start.done, plan.epochs):
            began = time.perf_counter()
            tally = _epoch(trainee, samples, plan, start, epoch, bar)
            trainee.epochs += 1
            metrics = tally.metrics()
            if plan.validation is not None:
                metrics |= trainee.measure(plan.validation, plan.batch).metrics("val_")
            rate = trainee.optimizer.rate(trainee.steps - 1 - start.step, per_epoch)
            history.record({**metrics, "lr": rate})
            row = {"epoch": epoch + 1, "step": trainee.steps, "lr": rate, **metrics}
            for log in logs:
                log.write({**row, "seconds": round(time.perf_counter() - began, 3)})
            if plan.checkpoint is not None:
                _save(plan, trainee, samples, start, epoch + 1, history)
            # every callback hears of the epoch, whatever the others say
            ends = [callback.on_epoch_end(epoch + 1, metrics) for callback in plan.callbacks]
            if any(ends):
                break
    for callback in plan.callbacks:
        callback.on_train_end(history)
    return history


def _epoch(
    trainee: Trainee, samples: Samples, plan: Plan, start: _Start, epoch: int, bar: Progress
) -> Tally:
    tally = Tally()
    per_epoch = batch_count(len(samples), plan.batch)
    for chosen in _order(len(samples), plan.batch, trainee.seed, start.epoch + epoch):
        rate = trainee.optimizer.rate(trainee.steps - start.step, per_epoch)
        part = trainee.train_on(samples.take(chosen), rate)
        tally.add(part)
        bar.advance(part.samples, tally.metrics())
        for callback in plan.callbacks:
            callback.on_step_end(trainee.steps, part.metrics())
    return tally


def _order(samples: int, batch: int, seed: int, epoch: int) -> Iterator[Array]:
    """The numbers of the samples of each batch of an epoch: those that `batches` takes."""
    numbers = Dataset(
        np.zeros((samples, 1), np.uint8), np.arange(samples), samples, "the numbers of samples"
    )
    return (chosen for _, chosen in batches(numbers, batch, seed, epoch))


def _log(path: Path, through: int | None) -> JsonLines | CsvRows:
    match path.suffix:
        case ".csv":
            return CsvRows(path, keep_through=through)
        case ".jsonl" | ".json":
            return JsonLines(path, keep_through=through)
    raise ValueError(f"a log ends in .jsonl or .csv, but got {path}")


# --- checkpoints ---


def _config(trainee: Trainee, samples: Samples, plan: Plan) -> dict[str, Any]:
    """What must not change between the parts of one run."""
    return {
        **trainee.about(),
        "optimizer": trainee.optimizer.choice.name,
        "batch": plan.batch,
        "samples": len(samples),
    }


def _save(
    plan: Plan, trainee: Trainee, samples: Samples, start: _Start, done: int, history: History
) -> None:
    params, optimiser = trainee.state()
    counters = {"first_step": start.step, "first_epoch": start.epoch}
    assert plan.checkpoint is not None
    store.save(
        plan.checkpoint,
        store.Checkpoint(
            params,
            optimiser,
            trainee.steps,
            done,
            trainee.seed,
            counters,
            _config(trainee, samples, plan),
            dict(history),
        ),
    )


def _begin(trainee: Trainee, samples: Samples, plan: Plan) -> tuple[History, _Start]:
    if plan.resume is None:
        return History(), _Start(trainee.steps, trainee.epochs)
    params, optimiser = trainee.state()
    found = store.load(
        plan.resume,
        expect_params={k: TensorInfo.of(v) for k, v in params.items()},
        expect_optimiser={k: TensorInfo.of(v) for k, v in optimiser.items()},
    )
    ours = _config(trainee, samples, plan)
    for name, value in ours.items():
        if found.config.get(name) != value:
            raise refuse(
                CHECKPOINT,
                f"{plan.resume} is a checkpoint of another run: its {name} is "
                f"{str(found.config.get(name))[:60]}, but here it is {value}",
                "train with the data and settings that the run began with",
                "or start a new run from its parameters",
            )
    trainee.load_state(found.params, found.optimiser)
    trainee.steps, trainee.seed = found.step, found.seed
    start = _Start(
        found.counters.get("first_step", 0), found.counters.get("first_epoch", 0), found.epoch
    )
    trainee.epochs = start.epoch + start.done
    return History(found.history), start
