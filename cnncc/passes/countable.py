"""The numbers that an `expect` knows: of the net, of its layers, and of receptive fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cnncc.errors import did_you_mean
from cnncc.graph.faults import Faults
from cnncc.passes.count import Counts, LayerCount, total
from cnncc.passes.receptive import Span
from cnncc.syntax import tree as t
from cnncc.tensor import Extent

TOTALS = (
    "params", "trained", "state", "connections", "macs", "multiplications", "additions",
    "operations", "units", "input_units", "output_units", "depth", "weight_layers", "traffic",
)  # fmt: skip
"""Numbers of the whole net."""

STORED = ("stored_floats", "local_floats", "sparse_floats", "dense_floats")
"""Numbers of layers only: what they store in four forms (see storage.py)."""

SUMMED = tuple(name for name in TOTALS if not name.endswith(("_units", "depth", "_layers")))
"""Numbers of the net that are sums over its layers."""

OF_LAYERS = (*SUMMED, *STORED)
"""With a name in parentheses: the sum over the layers that it stands for."""

FIELDS: Mapping[str, Callable[[Span], int | float]] = {
    "receptive_field": lambda span: span.size,
    "jump": lambda span: int(span.jump) if span.jump.denominator == 1 else float(span.jump),
    "start": lambda span: int(span.start) if span.start == int(span.start) else span.start,
    "effective_padding": lambda span: span.padding,
}
"""Along each axis of the input: the size of a field, its step from one result to the next, the
centre of the first one, and how far the first one reaches before the input."""

FILTERS = ("layers", "bias")


def number_of(layer: LayerCount, what: str) -> Extent | None:
    """A number of one layer; None where it has none (a sparse matrix of unknown extents)."""
    if what not in STORED:
        found: Extent | None = getattr(layer, what)
        return found
    if layer.storage is None:
        return 0
    stored: Extent | None = getattr(layer.storage, _FORMS[what])
    return stored


_FORMS = dict(zip(STORED, ("layer", "local", "sparse", "dense"), strict=True))


@dataclass(frozen=True)
class Selection:
    """`connections(layers = conv, bias = no)`: all layers of an operator, with biases or not."""

    operator: str | None = None
    bias: bool = True

    def rows(self, counts: Counts, what: str) -> list[tuple[str, Extent]]:
        """Each chosen layer and its number."""
        chosen = (x for x in counts.layers if self.operator in (None, x.operator))
        return [(x.name, self.of(x, what)) for x in chosen]

    def of(self, layer: LayerCount, what: str) -> Extent:
        """The number of one layer."""
        number = number_of(layer, what)
        assert number is not None, "sums over layers know all their parts"
        return number if self.bias else number - layer.biases

    def total(self, counts: Counts, what: str) -> Extent:
        """The sum over the chosen layers."""
        return total(number for _, number in self.rows(counts, what))


def selection(faults: Faults, counts: Counts, call: t.Call) -> Selection | None:
    """What the named arguments of a count select; None after a report."""
    chosen, counts_biases = Selection(), call.name == "connections"
    for argument in call.arguments:
        word = argument.value.name if isinstance(argument.value, t.Name) else ""
        known: Iterable[str]
        match argument.name:
            case "layers":
                known = dict.fromkeys(x.operator for x in counts.layers)
                chosen = Selection(word, chosen.bias)
            case "bias" if counts_biases:
                known = ("no", "yes")
                chosen = Selection(chosen.operator, word == "yes")
            case "bias":
                faults.error("E0302", f"`{call.name}` counts no biases apart", argument.span)
                return None
            case _:
                taken = " and ".join(f"`{n}`" for n in FILTERS if n == "layers" or counts_biases)
                message = f"`{call.name}` takes a layer, or {taken} by name"
                faults.error("E0302", message, argument.span)
                return None
        names = list(known)
        if word not in names:
            near = [f"did you mean `{n}`?" for n in did_you_mean(word, names)]
            faults.error(
                "E0502",
                f"`{argument.name}` is one of {', '.join(names)}",
                argument.value.span,
                helps=near,
            )
            return None
    return chosen
