"""Checkpoints: everything that a run needs to go on as if it had never stopped.

A checkpoint is one safetensors file. Its arrays are named `params/...` and `optimiser/...`; the
rest (step, epoch, seed, counters, history, configuration) is JSON in the file's metadata, together
with a digest of every byte, so that damage is noticed and never trained on. Saving is crash-safe
(see `cnncc.io.replace`), and the checkpoint before the last is kept as `NAME.previous`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.io.files import CHECKPOINT, DataError, refuse
from cnncc.io.layout import TensorInfo
from cnncc.io.safetensors import State, check_state, load_state, save_state

VERSION = 1
_KEY = "cnncc.checkpoint"
_PARAMS = "params/"
_OPTIMISER = "optimiser/"
_COUNTS = ("step", "epoch", "seed")
_FIELDS = {"version", "digest", "counters", "config", "history", *_COUNTS}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training run between two steps.

    `params` and `optimiser` map names to arrays (any shape; float, integer or boolean). `step` is
    the number of steps done, `epoch` the epoch that the next step belongs to, `seed` the run's
    seed. `counters` holds the positions of counter-based random generators. `config` is whatever
    JSON value describes the run, and `history` the metrics so far, one list per name.
    """

    params: State
    optimiser: State = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    seed: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)


def previous_path(path: str | Path) -> Path:
    """Where `save` keeps the checkpoint that it replaces."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def save(path: str | Path, checkpoint: Checkpoint, *, keep_previous: bool = True) -> None:
    """Write a checkpoint in one step; when this returns, it survives a crash and a power cut.

    Raises DataError E0710 when the file cannot be written, and ValueError or TypeError when the
    checkpoint holds what cannot be stored; the file at `path` is then as before.
    """
    arrays = {_PARAMS + name: np.asarray(value) for name, value in checkpoint.params.items()}
    arrays |= {_OPTIMISER + name: np.asarray(v) for name, v in checkpoint.optimiser.items()}
    facts: dict[str, Any] = {
        "version": VERSION,
        "step": _count("step", checkpoint.step),
        "epoch": _count("epoch", checkpoint.epoch),
        "seed": _count("seed", checkpoint.seed),
        "counters": {name: _count(name, value) for name, value in checkpoint.counters.items()},
        "config": checkpoint.config,
        "history": {k: [float(value) for value in v] for k, v in checkpoint.history.items()},
    }
    facts["digest"] = _digest(arrays, facts)
    text = json.dumps(facts, sort_keys=True)
    if json.loads(text)["config"] != checkpoint.config:
        raise TypeError("config must be a JSON value: texts as keys, lists rather than tuples")
    save_state(path, arrays, {_KEY: text}, previous=previous_path(path) if keep_previous else None)


def load(
    path: str | Path,
    *,
    expect_params: Mapping[str, TensorInfo] | None = None,
    expect_optimiser: Mapping[str, TensorInfo] | None = None,
) -> Checkpoint:
    """Read and verify a checkpoint.

    `expect_params` and `expect_optimiser` are the names, dtypes and shapes that the model and its
    optimiser need. Raises DataError: E0701 no file, E0702 to E0705 not a sound safetensors file,
    E0707 another network's, E0708 not a checkpoint, or damaged. The help of E0702 to E0708 says
    when a previous checkpoint is there; `load_or_previous` takes it.
    """
    path = Path(path)
    try:
        arrays, metadata = load_state(path)
        facts = _facts(metadata, path)
        if _digest(arrays, facts) != facts["digest"]:
            raise refuse(CHECKPOINT, f"{path} is damaged: its content does not match its digest")
    except DataError as error:
        raise _with_fallback(error, path) from None
    params, optimiser = _part(arrays, _PARAMS), _part(arrays, _OPTIMISER)
    if len(params) + len(optimiser) != len(arrays):
        raise refuse(CHECKPOINT, f"{path} holds arrays that are neither params nor optimiser")
    for found, expected in ((params, expect_params), (optimiser, expect_optimiser)):
        if expected is not None:
            check_state({k: TensorInfo.of(v) for k, v in found.items()}, expected, path)
    return Checkpoint(
        params,
        optimiser,
        facts["step"],
        facts["epoch"],
        facts["seed"],
        facts["counters"],
        facts["config"],
        facts["history"],
    )


def load_or_previous(
    path: str | Path,
    *,
    expect_params: Mapping[str, TensorInfo] | None = None,
    expect_optimiser: Mapping[str, TensorInfo] | None = None,
) -> tuple[Checkpoint, Path]:
    """The checkpoint at `path`, or the one before where that is damaged or gone; and which it was.

    A caller that wants to lose work rather than stop says so by calling this instead of `load`.
    Raises the DataError of `path` when neither can be read. A checkpoint of another network (E0707)
    is no reason to take the previous one.
    """
    path = Path(path)
    wanted = {"expect_params": expect_params, "expect_optimiser": expect_optimiser}
    try:
        return load(path, **wanted), path
    except DataError as error:
        older = previous_path(path)
        if error.diagnostics[0].code == "E0707" or not older.exists():
            raise
        try:
            return load(older, **wanted), older
        except DataError:
            raise error from None


def _facts(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    text = metadata.get(_KEY)
    if text is None:
        raise refuse(
            CHECKPOINT,
            f"{path} holds arrays, but is not a checkpoint of cnncc",
            "load it as weights instead",
        )
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("version", VERSION) != VERSION:
        version = facts.get("version") if isinstance(facts, dict) else "unreadable"
        raise refuse(
            CHECKPOINT,
            f"{path} is a checkpoint of version {str(version)[:20]}; this cnncc reads {VERSION}",
        )
    if not _is_sound(facts):
        raise refuse(CHECKPOINT, f"{path} is damaged: its step, seed or counters cannot be read")
    return facts


def _is_sound(facts: dict[str, Any]) -> bool:
    if facts.keys() != _FIELDS or not isinstance(facts["config"], dict):
        return False
    counters, history = facts["counters"], facts["history"]
    if not isinstance(counters, dict) or not isinstance(history, dict):
        return False
    counts = [*(facts[name] for name in _COUNTS), *counters.values()]
    return all(type(count) is int and 0 <= count < 1 << 64 for count in counts) and all(
        isinstance(values, list) and all(isinstance(value, float) for value in values)
        for values in history.values()
    )


def _digest(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all arrays and over all other facts."""
    total = hashlib.sha256()
    rest = {name: value for name, value in facts.items() if name != "digest"}
    total.update(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.require(arrays[name], arrays[name].dtype.newbyteorder("<"), "C")
        total.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _part(arrays: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or not 0 <= value < 1 << 64:
        raise ValueError(f"{name} must be a whole number of 0 to 2^64 - 1, but got {value!r}")
    return int(value)


def _with_fallback(error: DataError, path: Path) -> DataError:
    older = previous_path(path)
    if not older.exists():
        return error
    first = error.diagnostics[0]
    advice = f"the checkpoint before it is {older}: load that, or use load_or_previous"
    return refuse(first.code, first.message, *first.helps, advice)
