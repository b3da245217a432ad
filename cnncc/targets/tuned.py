"""What `cnncc tune` has measured, kept in the private cache folder for later compiles: a JSON file
for each machine and number of threads.

A result is a choice for the form of a layer (`passes/choices.py`), for one precision and one batch.
A file that is damaged, of another version, or not about this machine is ignored with a warning.
CNNCC_TUNED=0 ignores all of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnncc import __version__
from cnncc.passes.choices import Choice, Choices

VERSION = 1
LARGEST = 16 << 20
"""Bytes of a file that is read at all."""

KINDS = ("algorithm", "width")
MOST = 1024
"""What no value of a choice exceeds."""


@dataclass(frozen=True)
class Key:
    """What choices were measured for: threads, samples per call, and the precision."""

    threads: int
    batch: int
    precision: str


@dataclass(frozen=True)
class Result:
    """One saved choice."""

    kind: str
    form: str
    precision: str
    batch: int
    value: int
    seconds: float
    before: float

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What there is one result for."""
        return self.kind, self.form, self.precision, self.batch


def is_used() -> bool:
    """Whether saved results are used: not with CNNCC_TUNED=0. Raises ValueError for a value other
    than 0 and 1.
    """
    value = os.environ.get("CNNCC_TUNED") or "1"
    if value not in ("0", "1"):
        raise ValueError(f"CNNCC_TUNED must be 0 or 1, but got {value!r}")
    return value == "1"


def saved_choices(key: Key) -> Choices:
    """The choices for calls of this kind on this machine: what was saved, or with CNNCC_TUNED=0
    nothing.
    """
    if not is_used():
        return Choices(batch=key.batch)
    found = [r for r in _read(key.threads) if (r.precision, r.batch) == (key.precision, key.batch)]
    algorithms, widths = (
        {r.form: Choice(r.value, r.seconds, r.before) for r in found if r.kind == kind}
        for kind in KINDS
    )
    return Choices(algorithms, widths, key.batch)


def save_choices(key: Key, choices: Choices, settled: Mapping[str, Iterable[str]]) -> Path:
    """Keep choices, and forget the older ones of `settled` forms (by kind) that are not among them.
    Returns the file. Raises OSError when the folder cannot be written.
    """
    from cnncc.targets.cache import write_atomically

    gone = {(k, f, key.precision, key.batch) for k, forms in settled.items() for f in forms}
    kept = {r.place: r for r in _read(key.threads) if r.place not in gone}
    for kind, found in zip(KINDS, (choices.algorithms, choices.widths), strict=True):
        for form, c in found.items():
            made = Result(kind, form, key.precision, key.batch, c.value, c.seconds, c.before)
            kept[made.place] = made
    path = _path(key.threads)
    content = {
        "version": VERSION,
        "machine": machine_facts(key.threads),
        "results": [asdict(kept[place]) for place in sorted(kept)],
    }
    write_atomically(path, json.dumps(content, indent=1).encode())
    return path


def machine_facts(threads: int) -> dict[str, Any]:
    """What times depend on, besides the layer: the version of the kernels, the processor as it is
    seen here, and the threads.
    """
    from cnncc.targets.cpu.machine import detect

    m = detect()
    features = hashlib.sha256(",".join(m.features).encode()).hexdigest()[:16]
    return {"cnncc": __version__, "cpu": m.cpu_name, "features": features, "isa": m.isa,
            "l1": m.l1, "l2": m.l2, "l3": m.l3, "threads": threads}  # fmt: skip


def _path(threads: int) -> Path:
    from cnncc.targets.cache import MEASURED_PREFIX, cache_folder

    facts = json.dumps([VERSION, machine_facts(threads)], sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return cache_folder() / f"{MEASURED_PREFIX}{digest}.json"


def _read(threads: int) -> list[Result]:
    """The results of the file; none without a file, or with one that is of no use, as a warning
    says.
    """
    path = _path(threads)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ValueError("it is not of this version")
        if content.get("machine") != machine_facts(threads):
            raise ValueError("it is about another machine")
        return [_result(entry) for entry in content["results"]]
    except FileNotFoundError:
        return []
    except (
        OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        why = error.strerror if isinstance(error, OSError) else _fault(error)
        warnings.warn(
            f"the measured choices in {path} are ignored: {why}. "
            "`cnncc tune` measures again and replaces the file.",
            RuntimeWarning,
            stacklevel=3,
        )
        return []


def _fault(error: Exception) -> str:
    return str(error) if type(error) is ValueError else "it is damaged"


def _result(entry: Mapping[str, Any]) -> Result:
    """One result of a file. Raises ValueError, KeyError or TypeError for what is none."""
    found = Result(**entry)
    numbers = (found.seconds, found.before)
    sound = (
        found.kind in KINDS
        and isinstance(found.form, str)
        and isinstance(found.precision, str)
        and _whole(found.batch)
        and _whole(found.value)
        and found.value <= MOST
        and all(isinstance(n, float | int) and math.isfinite(n) and n >= 0 for n in numbers)
    )
    if not sound:
        raise ValueError("it is damaged")
    return found


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
