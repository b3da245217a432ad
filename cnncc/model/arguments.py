"""What people pass to a model beside arrays: counts, rates, paths, and data in their several forms.
Each function takes one such argument, and says what is wrong with it as ValueError or TypeError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.model.arrays import Slot, as_input
from cnncc.train.data import Dataset
from cnncc.train.loop import Samples

PathLike = str | os.PathLike[str]


def pair(x: Any, y: Any = None) -> tuple[Any, Any]:
    """(inputs, targets) of a Dataset, of a pair, or of both given apart."""
    if isinstance(x, Dataset):
        if y is not None:
            raise TypeError("a Dataset has its own targets: leave y out")
        return x.x, x.y
    if y is None and isinstance(x, tuple) and len(x) == 2:
        return x[0], x[1]
    return x, y


def named_inputs(
    net: str, slots: tuple[Slot, ...], arrays: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The inputs of a call, given by position and by name, checked. Raises as `Model.__call__`."""
    if len(slots) == len(arrays) == 1 and not named:  # at once: a small network runs as fast
        return {slots[0].name: as_input(arrays[0], slots[0])}
    names = [slot.name for slot in slots]
    given = {**dict(zip(names, arrays, strict=False)), **named}
    doubled = [n for n in names[: len(arrays)] if n in named]
    if len(arrays) > len(names) or doubled or given.keys() != set(names):
        got = ", ".join([f"{len(arrays)} by position", *named])
        raise TypeError(
            f"{net} takes {counted(len(names), 'input')} ({', '.join(names)}), but got {got}"
        )
    found = {slot.name: as_input(given[slot.name], slot) for slot in slots}
    sample_count(found)
    return found


def by_output(grad: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Gradients by the names of outputs, from a dict, a tuple, or one array for one output."""
    if isinstance(grad, Mapping):
        unknown = [name for name in grad if name not in outputs]
        if unknown:
            raise TypeError(
                f"there is no output {unknown[0]!r}; the outputs are {', '.join(outputs)}"
            )
        return dict(grad)
    if isinstance(grad, tuple) and len(grad) == len(outputs):
        return dict(zip(outputs, grad, strict=True))
    if isinstance(grad, tuple) or len(outputs) != 1:
        raise TypeError(
            f"backward needs {counted(len(outputs), 'gradient')}, of {', '.join(outputs)}: "
            "as a tuple, or as a dict by name"
        )
    return {outputs[0]: grad}


def aligned(y: Any, targets: tuple[Slot, ...]) -> dict[str, Any]:
    """Targets by name, from a dict, a tuple, or one array for one target."""
    names = [slot.name for slot in targets]
    given = dict(y) if isinstance(y, Mapping) else None
    if given is None:
        several = y if isinstance(y, tuple) else (y,)
        given = dict(zip(names, several, strict=True)) if len(several) == len(names) else {}
    if given.keys() != set(names):
        raise TypeError(
            f"the loss needs {counted(len(names), 'target')} ({', '.join(names)}): "
            + ("an array" if len(names) == 1 else "a tuple, or a dict by name")
        )
    return given


def labelled(
    x: Any, y: Any, named: Callable[..., dict[str, NDArray[Any]]], targets: tuple[Slot, ...]
) -> Samples:
    """Inputs and targets, checked. `named(arrays, by_name)` takes inputs as a call does, and raises
    as one.
    """
    if y is None:
        raise TypeError("training data are inputs with targets: a Dataset, or x and y")
    match x:
        case tuple():
            inputs = named(x, {})
        case Mapping():
            inputs = named((), x)
        case _:
            inputs = named((x,), {})
    given = aligned(y, targets)
    found = {slot.name: as_input(given[slot.name], slot) for slot in targets}
    sample_count({**inputs, **found})
    return Samples(inputs, found)


def sample_count(arrays: Mapping[str, NDArray[Any]]) -> int:
    """How many samples the arrays have. Raises ValueError when they disagree."""
    counts = {name: len(a) for name, a in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "all arrays need equally many samples, but got "
            + ", ".join(f"{count} of {name}" for name, count in counts.items())
        )
    return next(iter(counts.values()))


def paths(log: PathLike | Iterable[PathLike] | None) -> tuple[Path, ...]:
    """The paths of logs, from one, several or none."""
    if log is None:
        return ()
    return (Path(log),) if isinstance(log, str | os.PathLike) else tuple(Path(p) for p in log)


def resumed(resume: PathLike | bool | None, checkpoint: PathLike | None) -> Path | None:
    if resume is None or resume is False:
        return None
    if resume is not True:
        return Path(resume)
    if checkpoint is None:
        raise ValueError("resume=True goes on from `checkpoint`, but there is none")
    return Path(checkpoint) if Path(checkpoint).exists() else None


def counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def positive(name: str, value: Any) -> int:
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, but got {value!r}")
    return int(value)


def learning_rate(lr: Any) -> float:
    if not isinstance(lr, int | float | np.number) or not 0 < float(lr) < float("inf"):
        raise ValueError(f"lr must be a finite number above 0, but got {lr!r}")
    return float(lr)


def as_seed(value: Any) -> int:
    """What random numbers are made from. Raises ValueError."""
    if not is_whole(value) or not 0 <= value < 1 << 63:
        raise ValueError(f"seed must be a whole number of 0 to 2^63 - 1, but got {value!r}")
    return int(value)


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, but got {value!r}")
