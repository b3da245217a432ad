"""What a model compiled for training can do beside inference: whole steps, forward and backward
with gradients of the caller's, and the optimizer's step. Parameters, running statistics and the
optimizer's state live in the programs' store; this keeps the counts and what lies between calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, SpecError
from cnncc.graph.ir import Graph
from cnncc.graph.sources import Input
from cnncc.io.safetensors import State
from cnncc.model.arrays import InputError, Slot, as_input, slots
from cnncc.model.programs import Evaluation, Programs, Step
from cnncc.passes.training import BACKWARD, FORWARD, INPUT_GRADIENTS
from cnncc.targets.locks import Lock
from cnncc.targets.runtime import Session, shape_of
from cnncc.train.loop import Samples, Tally
from cnncc.train.metrics import correct
from cnncc.train.optim import Optimizer

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Gradients = dict[str, NDArray[np.float32]]


class TrainingError(SpecError, ArithmeticError):
    """The loss of a step is not finite (E0606). No parameter was changed by that step."""


@dataclass(frozen=True)
class _Pass:
    """A forward pass whose backward has not run yet: it holds an arena."""

    stack: ExitStack
    session: Session
    inputs: Arrays
    shapes: Mapping[str, tuple[int, ...]]  # of the outputs


class Trainer:
    """The training side of a model. Calls take turns; none may overlap an inference whose result
    matters, because they change the parameters that it reads.
    """

    def __init__(self, programs: Programs, seed: int) -> None:
        self.programs = programs
        self.seed = seed
        self.optimizer = Optimizer.of(programs.training)
        self.steps = 0
        self.epochs = 0
        self.gradients: Gradients = {}
        self._pass: _Pass | None = None
        self._lock = Lock()
        for node in programs.optimizer_state:
            programs.store.write(node.name, np.zeros(node.type.dims(0), np.float32))

    # --- what the loop asks for ---

    def train_on(self, samples: Samples, rate: float) -> Tally:
        """One whole step. Raises TrainingError, and SpecError (E0801) over the memory limit."""
        with self._lock:
            step = self.programs.step
            graph = step.graph.graph
            inputs = {**samples.inputs, **samples.targets}
            inputs |= {**self._numbers(rate), **self._key(graph)}
            outputs = step.runtime.run(inputs)
            loss = float(outputs["loss"].reshape(-1)[0])
            if not math.isfinite(loss):  # the step itself has left out its updates
                raise TrainingError(self._diverged(loss, rate))
            self.steps += 1
            self.programs.changed()
        return _tally(step, outputs, loss, samples)

    def measure(self, samples: Samples, batch: int) -> Tally:
        """Loss and right labels over all samples, behaving as at inference."""
        return measure(self.programs.evaluation, samples, batch)

    def state(self) -> tuple[State, State]:
        """Copies of the parameters and of what the optimizer keeps."""
        read = self.programs.store.read
        with self._lock:
            return (
                {n.name: np.array(read(n.name)) for n in self.programs.parameters},
                {n.name: np.array(read(n.name)) for n in self.programs.optimizer_state},
            )

    def load_state(self, params: State, optimiser: State) -> None:
        """Take over what `state` gave; names and shapes have been checked."""
        with self._lock:
            for name, value in {**params, **optimiser}.items():
                self.programs.store.write(name, value)

    def about(self) -> dict[str, Any]:
        """The network and its arguments, as JSON values."""
        network = self.programs.network
        return {"net": network.inference.module.name, "arguments": dict(network.arguments)}

    # --- forward, backward, update ---

    def forward(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs as in training, keeping what backward needs. An earlier pass is given up."""
        with self._lock:
            self._drop_pass()
            seeded = self.programs.seeded
            graph = seeded.graph.graph
            inputs = {**inputs, **self._key(graph)}
            stack = ExitStack()
            session = stack.enter_context(seeded.runtime.session(shape_of(graph, inputs)))
            outputs = session.run(FORWARD, inputs)
            shapes = {public: array.shape for public, array in outputs.items()}
            self._pass = _Pass(stack, session, inputs, shapes)
            return outputs

    def backward(self, given: Mapping[str, Any], wants_inputs: bool) -> Gradients:
        """Gradients for those of the outputs, of parameters and, if wanted, of inputs.

        Those of parameters are also added to `gradients`. Raises InputError (E0802, E0803), and
        RuntimeError without a forward pass.
        """
        with self._lock:
            current, seeded = self._pass, self.programs.seeded
            if current is None:
                raise RuntimeError("backward goes with the forward before it: call forward first")
            graph = seeded.graph.graph
            inputs = dict(current.inputs)
            for public, name in seeded.graph.seeds.items():
                slot = Slot(public, graph[name].type)
                inputs[name] = _seed(given.get(public), slot, current.shapes[public])
            outputs = current.session.run(BACKWARD, inputs)
            if wants_inputs:
                outputs |= current.session.run(INPUT_GRADIENTS, inputs)
            self._drop_pass()
            self.programs.changed()  # running statistics
            found = {k.removeprefix("grad:"): v for k, v in outputs.items() if k[:5] == "grad:"}
            for name in seeded.trained:
                known = self.gradients.get(name)
                self.gradients[name] = found[name].copy() if known is None else known + found[name]
            return found

    def update(self, rate: float) -> None:
        """A step of the optimizer from `gradients`, which are then empty.

        Raises RuntimeError when there are none, InputError when one has another shape or type.
        """
        with self._lock:
            missing = [n for n in self.programs.seeded.trained if n not in self.gradients]
            if missing:
                raise RuntimeError(
                    f"update needs the gradients of a backward: there is none of {missing[0]}"
                )
            runtime = self.programs.update
            inputs: dict[str, Array] = dict(self._numbers(rate))
            for name in self.programs.seeded.trained:
                type = runtime.graph[name].type
                slot = Slot(f"gradients[{name!r}]", type)
                inputs[f"gradient.{name}"] = as_input(self.gradients[name], slot)
            runtime.run(inputs)
            self.gradients.clear()
            self.steps += 1
            self.programs.changed()

    # --- details ---

    def _drop_pass(self) -> None:
        if self._pass is not None:
            self._pass.stack.close()
            self._pass = None

    def _numbers(self, rate: float) -> Arrays:
        return self.optimizer.numbers(self.steps, rate)

    def _key(self, graph: Graph) -> Arrays:
        """Seed and step, where layers draw random numbers."""
        key = np.array([self.seed, self.steps], np.int64)
        return {
            n.name: key
            for n in graph.of("input")
            if isinstance(n.op, Input) and n.op.role == "random"
        }

    def _diverged(self, loss: float, rate: float) -> Diagnostic:
        return Diagnostic(
            "E0606",
            f"the loss of step {self.steps + 1} is {loss}, so training stops here; "
            "this step changed no parameter",
            helps=(
                f"use a smaller learning rate than {rate:g}, or begin with "
                "`schedule = warm_up(steps = 100)`",
                "check that the data are finite and scaled to about -1 to 1",
            ),
        )


def _tally(step: Step, outputs: Arrays, loss: float, samples: Samples) -> Tally:
    """The loss of a step, and the right labels where the scores are among its outputs."""
    tally = Tally(len(samples), loss * len(samples))
    shown = {name: public for public, name in step.graph.graph.outputs}
    for found in step.classifications:
        if found.scores in shown:
            labels = samples.targets[found.target]
            tally.correct += correct(outputs[shown[found.scores]], labels)
            tally.labels += labels.size
    return tally


def measure(evaluation: Evaluation, samples: Samples, batch: int) -> Tally:
    """Loss and right labels of an evaluation over all samples, `batch` at a time."""
    total = Tally()
    for part in samples.parts(batch):
        outputs = evaluation.runtime.run({**part.inputs, **part.targets})
        tally = Tally(len(part), float(outputs["loss"].reshape(-1)[0]) * len(part))
        for found in evaluation.classifications:
            labels = part.targets[found.target]
            tally.correct += correct(outputs[found.output], labels)
            tally.labels += labels.size
        total.add(tally)
    return total


def target_slots(programs: Programs) -> tuple[Slot, ...]:
    """The targets of the loss, as arrays are held against them."""
    variant = programs.network.evaluation
    training = variant.module.training
    assert training is not None, "elaboration with the loss requires the block"
    classes = {t.name: t.classes for t in training.targets if t.classes is not None}
    return slots(variant.graph, tuple(t.name for t in training.targets), classes)


def _seed(given: Any, slot: Slot, shape: tuple[int, ...]) -> Array:
    """The gradient of an output of this shape; zeros where the caller gives none."""
    if given is None:
        return np.zeros(shape, np.float32)
    array = as_input(given, slot)
    if array.shape != shape:
        raise InputError(
            Diagnostic(
                "E0802",
                f"the gradient of `{slot.name}` has the shape {array.shape}, "
                f"but the output of forward had {shape}",
            )
        )
    return array
