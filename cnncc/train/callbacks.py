"""What may listen to a training run: callbacks are told when it begins, after every step and every
epoch, and when it ends, and an epoch's listener may end the run. A plain function is one too: it is
called with the epoch and its metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnncc.train.log import History

Metrics: TypeAlias = Mapping[str, float]


class Callback:
    """A listener that does nothing; subclasses override what they care for.

    Epochs count from 1 and steps from 1: a number says how many are done.
    """

    def on_train_begin(self, model: Any, history: History) -> None:
        """Before the first step. `history` holds the epochs of a run that is being resumed."""

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        """After a step: its loss, and the accuracy where there are classes."""

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> bool | None:
        """After an epoch, validation included. True ends the run."""
        return None

    def on_train_end(self, history: History) -> None:
        """After the last epoch; not when the run ends by an exception."""


class _Function(Callback):
    """A function (epoch, metrics) -> True to end the run."""

    def __init__(self, function: Callable[[int, Metrics], bool | None]) -> None:
        self.function = function

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> bool | None:
        return self.function(epoch, metrics)


class EarlyStopping(Callback):
    """Ends a run when a metric has not improved for `patience` epochs.

    `monitor` is a name of the history, such as `val_loss`; `mode` says which way is better, by
    default down for names that end in `loss` and up for others. An improvement is one of more than
    `min_delta`; NaN is none. With `restore_best` the model gets the parameters of the best epoch
    back; a resumed run knows only those of its own epochs. Raises ValueError for a negative
    `patience` or `min_delta`, and at the first epoch whose metrics lack `monitor`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best: bool = False,
    ) -> None:
        if patience < 0 or min_delta < 0:
            raise ValueError(
                f"patience and min_delta are at least 0, but got {patience} and {min_delta}"
            )
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode is auto, min or max, but got {mode!r}")
        down = monitor.endswith("loss") if mode == "auto" else mode == "min"
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.restore_best = restore_best
        self._sign = -1.0 if down else 1.0
        self._begin()

    def _begin(self) -> None:
        self.best, self.waited = -math.inf, 0
        self._parameters: dict[str, NDArray[np.float32]] | None = None

    def on_train_begin(self, model: Any, history: History) -> None:
        self._model = model
        self._begin()
        for value in history.get(self.monitor, []):
            self._seen(value)

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> bool | None:
        if self.monitor not in metrics:
            known = ", ".join(metrics)
            raise ValueError(f"there is no metric {self.monitor!r}; this run measures {known}")
        if self._seen(metrics[self.monitor]) and self.restore_best:
            self._parameters = self._model.state_dict()
        return self.waited > self.patience

    def on_train_end(self, history: History) -> None:
        if self._parameters is not None:
            self._model.load_state_dict(self._parameters)

    def _seen(self, value: float) -> bool:
        """Whether the value is the best so far."""
        value = self._sign * value
        if value > self.best + self.min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False


def as_callbacks(given: Iterable[Any]) -> list[Callback]:
    """Callbacks and functions as callbacks. Raises TypeError for anything else."""
    found: list[Callback] = []
    for item in given:
        if isinstance(item, Callback):
            found.append(item)
        elif callable(item) and not isinstance(item, type):
            found.append(_Function(item))
        else:
            raise TypeError(
                f"a callback is a Callback or a function of epoch and metrics, but got {item!r}"
            )
    return found
