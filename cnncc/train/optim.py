"""The numbers of a training step. An optimizer's arithmetic is part of the compiled step
(`ops.optimizer`); what changes from step to step, such as the learning rate and Adam's corrections,
is a handful of numbers that the step takes as inputs, and this module computes them. It keeps no
state: a resumed run needs its step number only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cnncc.graph.module import Choice, Training
from cnncc.train.schedule import SCHEDULES, Schedule

ENDLESS = 1 << 62
"""Steps of an epoch where there are no epochs: schedules by epochs stay at their beginning."""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer with its settings, and the schedule of its learning rate."""

    choice: Choice
    schedule: Schedule

    @staticmethod
    def of(training: Training) -> Optimizer:
        """What a `train` block asks for."""
        return Optimizer(training.optimizer, schedule_of(training.schedule))

    @property
    def lr(self) -> float:
        """The learning rate before the schedule."""
        return self._number("lr")

    def with_lr(self, lr: float) -> Optimizer:
        """The same optimizer with another learning rate. Raises ValueError unless `lr` > 0."""
        if not (isinstance(lr, int | float) and math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be a finite number above 0, but got {lr!r}")
        values = tuple((k, float(lr) if k == "lr" else v) for k, v in self.choice.values)
        return replace(self, choice=replace(self.choice, values=values))

    def rate(self, step: int, steps_per_epoch: int = ENDLESS) -> float:
        """The learning rate of step `step`, counted from 0."""
        return self.schedule.lr(step, steps_per_epoch, self.lr)

    def numbers(self, step: int, rate: float) -> Mapping[str, NDArray[np.float32]]:
        """The inputs `step.<name>` of step `step` (from 0) at a learning rate, f32[1] each.

        They are computed in float64 and rounded once. `ops.optimizer` has the formulas.
        """
        match self.choice.name:
            case "sgd":
                found = {
                    "rate": rate,
                    "momentum": self._number("momentum"),
                    "decay": self._number("weight_decay"),
                }
            case "adam" | "adamw":
                found = self._adam(step + 1, rate, decoupled=self.choice.name == "adamw")
            case other:
                raise ValueError(f"there is no optimizer {other!r}")
        return {f"step.{name}": np.array([value], np.float32) for name, value in found.items()}

    def _adam(self, t: int, rate: float, *, decoupled: bool) -> dict[str, float]:
        beta1, beta2 = self._number("beta1"), self._number("beta2")
        decay = self._number("weight_decay")
        return {
            "rest1": 1 - beta1,
            "beta2": beta2,
            "rest2": 1 - beta2,
            "decay": 0.0 if decoupled else decay,
            "keep": 1 - rate * decay if decoupled else 1.0,
            "step": rate / (1 - beta1**t),
            "root": math.sqrt(1 - beta2**t),
            "eps": self._number("eps"),
        }

    def _number(self, name: str) -> float:
        value = self.choice[name]
        assert not isinstance(value, Choice), f"{name} is a number"
        return float(value)


def schedule_of(choice: Choice) -> Schedule:
    """The schedule that a choice names, with the schedules inside it."""
    arguments = {k: schedule_of(v) if isinstance(v, Choice) else v for k, v in choice.values}
    return SCHEDULES[choice.name](**arguments)  # type: ignore[arg-type]
