"""For `cnncc explain`: by which algorithm each convolution is computed and how wide register tiles
are, and why: by the cost model, or because `cnncc tune` has measured it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cnncc.errors import printable
from cnncc.graph.ir import Graph
from cnncc.passes.choices import Choice, Choices, form
from cnncc.passes.winograd import chosen, costs


@dataclass(frozen=True)
class Chosen:
    """What was chosen for the layers of one form, of which one was asked for.

    model: the choice of the cost model. predicted: the gain of what is used over that, by the
    model. against: another choice, and the gain that the model predicts over it, where the model
    decides. All are None for tiles. measured: None where the model decides.
    """

    kind: str
    layers: tuple[str, ...]
    value: int
    model: int | None
    predicted: float | None
    against: tuple[int, float] | None
    measured: Choice | None

    @property
    def gain(self) -> float | None:
        """The measured gain."""
        m = self.measured
        return 1 - m.seconds / m.before if m is not None and m.before else None

    @property
    def reason(self) -> str:
        """Why, in words."""
        m = self.measured
        if m is None:
            other, gain = self.against or (0, 0.0)
            return f"by the cost model: a gain of {gain:+.0%} over {label(self.kind, other)}"
        against = "" if self.model is None else f" with {label(self.kind, self.model)}"
        said = f", {self.predicted:+.0%} by the cost model" if self.predicted is not None else ""
        times = f"measured: {1e3 * m.seconds:.3g} ms against {1e3 * m.before:.3g}{against}"
        return f"{times}, a gain of {self.gain or 0:+.0%}{said}"


def label(kind: str, value: int) -> str:
    """A choice in words: `direct`, `F(4x4)`, `tile 14`."""
    if kind == "width":
        return f"tile {value}"
    return f"F({value}x{value})" if value else "direct"


def all_chosen(graph: Graph, fused: Graph, choices: Choices) -> list[Chosen]:
    """The choices for a network. `graph`: as it was checked; `fused`: as it is compiled."""
    return [*_algorithms(graph, fused, choices), *_widths(fused, choices)]


def _algorithms(graph: Graph, fused: Graph, choices: Choices) -> Iterator[Chosen]:
    found: dict[tuple[str, int], list[str]] = {}
    for node in graph.nodes:
        if costs(node, graph):
            used = int(getattr(fused[node.name].op, "m", 0))
            found.setdefault((form(node, graph), used), []).append(node.name)
    for (text, used), names in found.items():
        node = graph[names[0]]
        by_value = costs(node, graph, choices.batch)
        model = chosen(node, graph, choices.batch) or 0
        other = 0 if used else min((m for m in by_value if m), key=lambda m: by_value[m])
        against = other, 1 - by_value[used] / by_value[other]
        measured = choices.algorithms.get(text)
        measured = measured if measured is not None and measured.value == used else None
        predicted = 1 - by_value[used] / by_value[model]
        yield Chosen("algorithm", _layers(graph, names), used, model, predicted, against, measured)


def _widths(fused: Graph, choices: Choices) -> Iterator[Chosen]:
    names: dict[str, list[str]] = {}
    for name in choices.widths_in(fused):
        names.setdefault(form(fused[name], fused), []).append(name)
    for text, own in names.items():
        choice = choices.widths[text]
        yield Chosen("width", _layers(fused, own), choice.value, None, None, None, choice)


def _layers(graph: Graph, names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(graph[n].origin.layer or n for n in names))


def choice_lines(found: list[Chosen]) -> list[str]:
    """The choices as lines; without convolutions that the model leaves to their definition."""
    found = [c for c in found if c.value or c.measured]
    if not found:
        return []
    names = [printable(_named(c.layers)) for c in found]
    wide = max(map(len, names))
    lines = [
        f"{name:{wide}}  {label(c.kind, c.value):8} {c.reason}"
        for name, c in zip(names, found, strict=True)
    ]
    return ["", "algorithms, and what was measured:", *lines]


def _named(layers: tuple[str, ...]) -> str:
    return layers[0] + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")


def choices_json(found: list[Chosen]) -> list[dict[str, Any]]:
    """The choices, ready for JSON."""
    return [
        {
            "kind": c.kind,
            "layers": list(c.layers),
            "value": c.value,
            "model": c.model,
            "predicted_gain": c.predicted,
            "measured_gain": c.gain,
            "seconds": c.measured.seconds if c.measured else None,
            "seconds_before": c.measured.before if c.measured else None,
        }
        for c in found
    ]
