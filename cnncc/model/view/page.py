"""The page as one file of HTML: the steps of a network, its arrays and some samples, with the
scripts and the style that lie beside this file.

Nothing is loaded from anywhere: a content security policy in the page forbids it. Texts of the
network come as JSON in which `<` is escaped, and the scripts only ever set them as text.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.model.view.steps import Drawn

SCRIPTS = ("forward.js", "connections.js", "paint.js", "drawing.js", "page.js")
"""In the order in which they need each other; the first two know nothing of the browser."""

PER_CLASS = 2


@dataclass(frozen=True)
class Sampling:
    """Samples for the page: x [n, C, H, W] float32, classes [n] or none, and the names of classes.

    `title` says where they come from.
    """

    x: NDArray[np.float32]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    title: str

    @staticmethod
    def of(
        x: NDArray[Any], y: NDArray[Any], classes: int | None, names: Iterable[str], title: str
    ) -> Sampling:
        """The first samples of every class, class by class; of data without classes the first."""
        if classes is None:
            chosen = np.arange(min(len(x), 20))
        else:
            firsts = [np.flatnonzero(y == c)[:PER_CLASS] for c in range(min(classes, 20))]
            chosen = np.concatenate(firsts)
        picked = np.ascontiguousarray(x[chosen], np.float32)
        labels = tuple(int(y[i]) for i in chosen) if classes is not None else ()
        return Sampling(picked, labels, tuple(names), title)


def make_page(net: Drawn, samples: Sampling | None, note: str) -> str:
    """The text of the page. `note` is a sentence about the weights."""
    arrays = [*net.arrays, *([samples.x] if samples is not None else [])]
    facts: dict[str, Any] = {
        "name": net.name,
        "input": net.input,
        "note": note,
        "steps": net.steps,
        "outputs": net.outputs,
        "sizes": [int(a.size) for a in arrays],
        "samples": None,
    }
    if samples is not None:
        facts["samples"] = {
            "array": len(arrays) - 1,
            "count": len(samples.x),
            "classes": samples.classes,
            "names": samples.names,
            "title": samples.title,
            "low": float(samples.x.min()),
            "high": float(samples.x.max()),
        }
    blob = b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in arrays)
    parts = {
        "TITLE": html.escape(net.name),
        "STYLE": _text("page.css"),
        "FACTS": json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
        "ARRAYS": base64.b64encode(blob).decode("ascii"),
        "SCRIPT": "\n".join(_text(name) for name in SCRIPTS),
    }
    page = _text("page.html")
    pieces = page.split("@@")  # text, NAME, text, NAME, ..., text: no part is searched for names
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def _text(name: str) -> str:
    return files("cnncc.model.view").joinpath(name).read_text(encoding="utf-8")
