"""Learning-rate schedules: a rate for every step, computed from the step alone.

A schedule keeps no state, so a resumed run needs only its step number to continue with the same
rates, bit for bit. Steps and epochs count from 0; an epoch has `steps_per_epoch` steps, and `base`
is the optimiser's `lr`.
"""

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """What the training loop asks of a schedule."""

    def lr(self, step: int, steps_per_epoch: int, base: float) -> float:
        """The learning rate of step `step`."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    def lr(self, step: int, steps_per_epoch: int, base: float) -> float:
        """`base`."""
        _check(step, steps_per_epoch, base)
        return base


@dataclass(frozen=True)
class Step:
    """Multiply the rate by `gamma` after every `every` epochs (PyTorch's StepLR).

    Raises ValueError unless `every` >= 1 and `gamma` > 0.
    """

    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _require(self.every >= 1, f"step: every must be at least 1 epoch, but got {self.every}")
        _require_positive("step: gamma", self.gamma)

    def lr(self, step: int, steps_per_epoch: int, base: float) -> float:
        """`base * gamma ** (epoch // every)`."""
        epoch = _check(step, steps_per_epoch, base) // steps_per_epoch
        return base * self.gamma ** (epoch // self.every)


@dataclass(frozen=True)
class Cosine:
    """Fall from `base` to `min` along half a cosine over `epochs` epochs, then stay at `min`.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation 5
    without restarts. The rate changes with every step, not only between epochs. Raises ValueError
    unless `epochs` >= 1 and `min` >= 0.
    """

    epochs: int
    min: float = 0.0

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"cosine: epochs must be at least 1, but got {self.epochs}")
        _require(
            math.isfinite(self.min) and self.min >= 0,
            f"cosine: min must be a finite number of at least 0, but got {self.min}",
        )

    def lr(self, step: int, steps_per_epoch: int, base: float) -> float:
        """`min + (base - min) * (1 + cos(pi * t)) / 2` where t goes from 0 to 1."""
        _check(step, steps_per_epoch, base)
        total = self.epochs * steps_per_epoch
        if step >= total:
            return self.min
        return self.min + (base - self.min) * (1 + math.cos(math.pi * step / total)) / 2


@dataclass(frozen=True)
class WarmUp:
    """Grow linearly to the rate of `then` over the first `steps` steps.

    Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.2: the factor is (step + 1) /
    steps, so the first step already moves, and the clock of `then` starts with the training, so
    that "epochs" means the same with and without warm-up. Raises ValueError unless `steps` >= 1.
    """

    steps: int
    then: Schedule = Constant()

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"warm_up: steps must be at least 1, but got {self.steps}")

    def lr(self, step: int, steps_per_epoch: int, base: float) -> float:
        """The rate of `then`, times (step + 1) / steps while that is below 1."""
        rate = self.then.lr(step, steps_per_epoch, base)
        return rate * (step + 1) / self.steps if step + 1 < self.steps else rate


SCHEDULES: dict[str, type[Constant] | type[Step] | type[Cosine] | type[WarmUp]] = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "warm_up": WarmUp,
}
"""The names that a `train` block uses. Each class's fields are the arguments."""


def _check(step: int, steps_per_epoch: int, base: float) -> int:
    _require(step >= 0, f"steps count from 0, but got {step}")
    _require(steps_per_epoch >= 1, f"an epoch has at least 1 step, but got {steps_per_epoch}")
    _require_positive("lr", base)
    return step


def _require_positive(name: str, value: float) -> None:
    _require(
        math.isfinite(value) and value > 0,
        f"{name} must be a finite number above 0, but got {value}",
    )


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
