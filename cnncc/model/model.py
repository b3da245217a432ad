"""A compiled network as a Python callable. Arrays go in and come out in the layout of PyTorch and
ONNX: batch, channels, spatial extents.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnncc.graph.module import Module
from cnncc.graph.sources import Parameter
from cnncc.io.layout import TensorInfo
from cnncc.io.safetensors import check_state, load_state, save_state
from cnncc.model.arguments import (
    as_seed,
    by_output,
    labelled,
    learning_rate,
    named_inputs,
    pair,
    paths,
    positive,
    resumed,
    sample_count,
)
from cnncc.model.arrays import as_array, slots
from cnncc.model.network import KEY, Network
from cnncc.model.programs import Options, Programs
from cnncc.model.trainer import Trainer, measure, target_slots
from cnncc.targets.runtime import Ready
from cnncc.train.callbacks import as_callbacks
from cnncc.train.log import History
from cnncc.train.loop import Plan, Samples, train
from cnncc.train.optim import Optimizer

if TYPE_CHECKING:
    from cnncc.model.profile import Profile

Array = NDArray[Any]
Results: TypeAlias = Any
"""An array, or a dict of arrays by output name when there are several: every user knows which."""
PathLike = str | os.PathLike[str]

EVALUATION_BATCH = 64
"""Samples at a time where nobody says how many."""


class Model:
    """A compiled network.

    Made by `cnncc.compile` or `Model.load`. Calling it runs inference; any number of threads may
    call one model at once, and a forked child may go on using it. All models of a process with the
    same `num_threads` share a team of threads, which runs one call after the other; with
    `num_threads=1` calls run side by side, at most four of a model and batch size. What trains it
    (`step`, `fit`, `forward`, `backward`, `update`) needs `train=True` at compile time, and takes
    turns with itself; inference that runs meanwhile may read parameters half changed.

    Inputs may be anything with `__dlpack__` or `__array_interface__`, or nested lists. float64 is
    converted to the float32 that inputs declare; bytes are not taken for floats. Attributes:
    `network` is the checked text, `seed` what random numbers are made from, `training` whether
    calls behave as in training.
    """

    def __init__(self, network: Network, options: Options, *, train: bool, seed: int) -> None:
        self.network = network
        self.training = False
        self._programs = Programs(network, options, train)
        self._seed = seed
        module, graph = network.inference.module, network.inference.graph
        self._inputs = slots(graph, module.inputs, {})
        self._outputs = tuple(public for public, _ in graph.outputs)
        self._repeatable = all(slot.limit is None for slot in self._inputs)
        self._ready: Ready | None = None  # for arrays as in the last call
        self._programs.start_from(seed)
        self._trainer = Trainer(self._programs, seed) if train else None

    @staticmethod
    def of(
        network: Network,
        *,
        target: str = "cpu",
        batch: int | None = None,
        train: bool = False,
        fuse: bool = True,
        precision: str = "default",
        num_threads: int | None = None,
        max_memory: int | None = None,
        seed: int = 0,
    ) -> Model:
        """What `cnncc.compile` does, for a network that was read already."""
        samples = None if batch is None else positive("batch", batch)
        options = Options.checked(
            target, fuse, precision, num_threads, max_memory, train=train, batch=samples
        )
        model = Model(network, options, train=train, seed=as_seed(seed))
        model._programs.bind(samples)
        return model

    # --- inference ---

    def __call__(self, *arrays: Any, **named: Any) -> Results:
        """Run the network: inputs in the order of the text, or by their names.

        Each is an array (batch, channels, *extents) of the declared type. Returns a new array, or
        a dict by output name when the network has several outputs. After `train()` it is `forward`.
        Raises InputError (a SpecError and ValueError; E0706, E0802, E0803) for an array that does
        not fit, SpecError for extents that break a condition (E0802, E0804) and for a batch that
        needs more memory than allowed (E0801), TypeError for the wrong number or names of inputs.
        """
        if self.training:
            return self.forward(*arrays, **named)
        ready = self._ready
        outputs = None if ready is None else ready.run(arrays, named)
        if outputs is None:
            inputs = self._named(arrays, named)
            outputs = self._programs.inference.run(inputs)
            self._ready = self._programs.ready(inputs) if self._repeatable else None
        return self._packed(outputs)

    def predict(self, *arrays: Any, batch: int = EVALUATION_BATCH, **named: Any) -> Results:
        """As a call, at most `batch` samples at a time, so that memory does not grow with them."""
        positive("batch", batch)
        inputs = self._named(arrays, named)
        count = sample_count(inputs)
        run = self._programs.inference.run
        parts = [
            run({k: np.ascontiguousarray(a[i : i + batch]) for k, a in inputs.items()})
            for i in range(0, count, batch)
        ]
        return self._packed({k: np.concatenate([p[k] for p in parts]) for k in self._outputs})

    def activations(self, *arrays: Any, **named: Any) -> dict[str, Array]:
        """The result of every node by its name, in order; layers are named as in reports.

        They are computed without fusion; the values are the same.
        """
        return self._programs.everything.run(self._named(arrays, named))

    def profile(self, *arrays: Any, repeats: int | None = None, **named: Any) -> Profile:
        """Time every kernel of inference on these inputs, with the layers that it computes.

        Each is timed by itself, in the order and with the threads of a call, `repeats` times (by
        default for about half a second), and compared with the peaks of the machine, which takes
        two seconds more. `print(model.profile(x))` shows a table, `.chart("profile.svg")` draws it,
        `.as_dict()` is for JSON. Arguments and errors are those of a call; ValueError for interp.
        """
        from cnncc.model.profile import profile_inference  # with Rich, which nothing else needs

        times = None if repeats is None else positive("repeats", repeats)
        return profile_inference(self._programs, self._named(arrays, named), times)

    # --- training ---

    def step(self, x: Any, y: Any, *, lr: float | None = None) -> float:
        """One step of training on a batch: forward, backward and update; the loss before it.

        It is one run of the threads, and leaves the bits that the phases leave one by one.
        `x` is the input (a tuple or dict of several), `y` the target; class numbers have the shape
        (batch,). The learning rate is `lr`, or that of the schedule, in which a step outside of
        `fit` belongs to the first epoch. Raises TrainingError (E0606) when the loss is not finite;
        parameters are then as before.
        """
        trainer = self._training("step")
        rate = trainer.optimizer.rate(trainer.steps) if lr is None else learning_rate(lr)
        tally = trainer.train_on(self._samples(x, y), rate)
        return tally.loss / tally.samples

    def forward(self, *arrays: Any, **named: Any) -> Results:
        """Run the network as in training: batch statistics, dropout. `backward` may follow.

        Needs `train=True`. Arguments, results and errors are those of a call.
        """
        outputs = self._training("forward").forward(self._named(arrays, named))
        return self._packed(outputs)

    def backward(self, grad: Any, *, inputs: bool = False) -> dict[str, NDArray[np.float32]]:
        """Gradients of a loss of yours, given its gradients with respect to the outputs.

        `grad` has the shape of the output; for several outputs it is a dict by name, in which what
        is missing counts as zero, or a tuple in their order. Returns the gradient of every trained
        parameter by name, with `inputs` also that of every float input, and adds those of the
        parameters to `gradients`. Running statistics move. Raises RuntimeError unless a `forward`
        came before.
        """
        trainer = self._training("backward")
        return trainer.backward(by_output(grad, self._outputs), inputs)

    @property
    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Sums of the gradients of all `backward` since the last `update`; may be changed."""
        return self._training("gradients").gradients

    def update(self, *, lr: float | None = None) -> None:
        """A step of the optimizer from `gradients`, which are empty afterwards."""
        trainer = self._training("update")
        trainer.update(trainer.optimizer.rate(trainer.steps) if lr is None else learning_rate(lr))

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        batch: int | None = None,
        validation: Any = None,
        callbacks: Iterable[Any] = (),
        log: PathLike | Iterable[PathLike] | None = None,
        checkpoint: PathLike | None = None,
        resume: PathLike | bool | None = None,
        verbose: bool | None = None,
    ) -> History:
        """Train; the metrics of every epoch, as lists by name: `loss`, `accuracy`, `val_loss`, ...

        `x` is a Dataset, or inputs with targets `y` as in `step`. `epochs` and `batch` are those of
        the `train` block unless given; the last batch of an epoch may be smaller. `validation` is a
        Dataset or a pair (x, y). `log` names files ending in .jsonl or .csv, `checkpoint` a file
        that is written after every epoch. `resume` names the checkpoint to go on from; True means
        that of `checkpoint`, if it is there. The result has then the same bits as a run that was
        never stopped. `verbose` shows a progress bar, None only on a terminal. The order of samples
        and dropout depend on the model's seed.

        Raises TrainingError (E0606), DataError for files, InputError for arrays, ValueError.
        """
        trainer = self._training("fit")
        settings = self._programs.training
        plan = Plan(
            positive("epochs", settings.epochs if epochs is None else epochs),
            positive("batch", settings.batch if batch is None else batch),
            None if validation is None else self._samples(*pair(validation)),
            as_callbacks(callbacks),
            paths(log),
            None if checkpoint is None else Path(checkpoint),
            resumed(resume, checkpoint),
            verbose,
        )
        return train(self, trainer, self._samples(*pair(x, y)), plan)

    def evaluate(self, x: Any, y: Any = None, *, batch: int = EVALUATION_BATCH) -> dict[str, float]:
        """Mean loss, and accuracy where the target is a class, behaving as at inference.

        `x` is a Dataset, or inputs with targets `y`. Needs a `train` block, not `train=True`.
        """
        positive("batch", batch)
        samples = self._samples(*pair(x, y))
        return measure(self._programs.evaluation, samples, batch).metrics()

    def train(self, mode: bool = True) -> Self:
        """Let calls behave as in training, as `forward` does. Training itself always does so."""
        if mode:
            self._training("train")
        self.training = mode
        return self

    def eval(self) -> Self:
        """Let calls run inference, which is how a model begins."""
        return self.train(False)

    @property
    def seed(self) -> int:
        """What initial values, the order of samples and dropout are made from."""
        return self._trainer.seed if self._trainer else self._seed

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer with its schedule; `model.optimizer = model.optimizer.with_lr(0.1)`."""
        return self._training("optimizer").optimizer

    @optimizer.setter
    def optimizer(self, value: Optimizer) -> None:
        trainer = self._training("optimizer")
        if value.choice.name != trainer.optimizer.choice.name:
            raise ValueError(
                f"the step was compiled for {trainer.optimizer.choice.name}, "
                f"so its optimizer cannot become {value.choice.name}"
            )
        trainer.optimizer = value

    # --- parameters ---

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics by name (`c1.weight`).

        Shapes are PyTorch's: (out, in, *taps) for a convolution, (out, in) for a dense layer.
        """
        read = self._programs.store.read
        return {n.name: np.array(read(n.name)) for n in self._programs.parameters}

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Names and copies of the parameters without running statistics, in the text's order."""
        for node in self._programs.parameters:
            if isinstance(node.op, Parameter) and node.op.kind != "state":
                yield node.name, np.array(self._programs.store.read(node.name))

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Set parameters from arrays by name; float64 and float16 become float32.

        Raises DataError (E0707) with all differences; nothing is then changed. With `strict=False`
        names may be missing on either side.
        """
        arrays = {}
        for name, value in state.items():
            array = as_array(value, name)
            arrays[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        expected = self._programs.expected
        found = {name: TensorInfo.of(array) for name, array in arrays.items()}
        check_state(found, expected, "this state", strict)
        for name, array in arrays.items():
            if name in expected:
                self._programs.store.write(name, array)

    def save(self, path: PathLike) -> None:
        """Write parameters, and the network itself, to one safetensors file; crash-safe.

        The optimizer's state is not part of it; `fit(checkpoint=)` keeps that. Raises DataError
        (E0710).
        """
        save_state(Path(path), self.state_dict(), {KEY: self.network.to_text()})

    @staticmethod
    def load(path: PathLike, **options: Any) -> Model:
        """The model that `save` wrote. `options` are those of `cnncc.compile`, without arguments of
        the net, which the file knows.

        Raises DataError (E0701 to E0708), and SpecError for the network in the file.
        """
        model = Model.of(Network.from_file(Path(path)), **options)
        model.load_weights(path)
        return model

    def load_weights(self, path: PathLike, strict: bool = True) -> None:
        """Set parameters from a safetensors or npz file, whose names, shapes and types are compared
        before any value is read. Raises DataError (E0701 to E0707).
        """
        arrays, _ = load_state(Path(path), expect=self._programs.expected, strict=strict)
        self.load_state_dict(arrays, strict)

    # --- looking inside ---

    @property
    def emitted(self) -> dict[str, str]:
        """The text of everything compiled so far: entries such as `inference` and `step.backward`,
        and kernels by the names under which entries import them.
        """
        from cnncc.model import show  # with Rich: most programs show nothing

        return show.emitted(self._programs.made)

    @property
    def peak_memory(self) -> int:
        """Planned bytes of the largest program bound so far, activations and parameters; 0 before
        the first call unless `batch` was given, and always for target `interp`.
        """
        return self._programs.peak

    def summary(self) -> str:
        """A table of the layers: shapes, parameters, multiply-adds, and the kernel of each."""
        from cnncc.model import show  # with Rich: most programs show nothing

        return show.summary(self._programs)

    def __repr__(self) -> str:
        from cnncc.model import show  # with Rich: most programs show nothing

        return show.short(self._programs)

    def _repr_html_(self) -> str:
        from cnncc.model import show  # with Rich: most programs show nothing

        return show.html(self._programs)

    # --- arrays ---

    def _named(self, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Array]:
        return named_inputs(self._module.name, self._inputs, arrays, named)

    def _samples(self, x: Any, y: Any) -> Samples:
        return labelled(x, y, self._named, target_slots(self._programs))

    def _packed(self, outputs: Mapping[str, Array]) -> Results:
        if len(self._outputs) == 1:
            return outputs[self._outputs[0]]
        return {name: outputs[name] for name in self._outputs}

    @property
    def _module(self) -> Module:
        return self.network.inference.module

    def _training(self, what: str) -> Trainer:
        if self._trainer is None:
            raise RuntimeError(
                f"{what} needs a model that was compiled for training: "
                "cnncc.compile(..., train=True)"
            )
        return self._trainer
