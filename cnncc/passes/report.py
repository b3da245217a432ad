"""What `cnncc report` shows: the counts of every layer and of the network, as JSON-ready values and
as a table. Nothing is compiled, run or allocated for it.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from cnncc.errors import printable
from cnncc.graph.ir import TypedGraph
from cnncc.passes.check import number
from cnncc.passes.count import Counts, LayerCount, count
from cnncc.passes.receptive import Field
from cnncc.passes.shifts import last_equivariant, shifts, tolerances
from cnncc.passes.storage import Storage
from cnncc.tensor import Extent, TensorType

WIDTH = 120
"""Columns of the table where it is written to no terminal."""


def report(graph: TypedGraph) -> dict[str, Any]:
    """The numbers of a checked network, ready for `json.dumps`.

    Keys: name, inputs, outputs, params, trained, state, macs, connections, multiplications,
    additions, operations, input_units, units, output_units, depth (also weight_layers),
    activation_bytes, parameter_bytes (f32), traffic_bytes (one kernel per operator), conditions on
    symbolic extents, layers, a list with the numbers of each, what they would store in other forms
    among them, and equivariance, the shifts that the last layers with positions follow, and
    pool_tolerance, how far a maximum may move in its window. Numbers that depend on symbolic
    extents are strings such as `1728 * H * W`; None stands for what these do not tell.
    """
    counts = count(graph)
    return {
        "name": counts.name,
        "inputs": {name: str(type) for name, type in counts.inputs},
        "outputs": {name: str(type) for name, type in counts.outputs},
        "params": counts.params,
        "trained": counts.trained,
        "state": counts.state,
        "macs": _plain(counts.macs),
        "connections": _plain(counts.connections),
        "multiplications": _plain(counts.multiplications),
        "additions": _plain(counts.additions),
        "operations": _plain(counts.operations),
        "input_units": _plain(counts.input_units),
        "units": _plain(counts.units),
        "output_units": _plain(counts.output_units),
        "depth": counts.depth,
        "weight_layers": counts.weight_layers,
        "activation_bytes": _plain(counts.bytes),
        "parameter_bytes": 4 * (counts.params + counts.state),
        "traffic_bytes": _plain(counts.traffic),
        "conditions": [
            {"layer": c.origin.layer, "divides": f"({c.extent}) % {c.divisor} == 0", "text": c.text}
            for c in graph.conditions
        ],
        "layers": [_layer(x) for x in counts.layers],
        "equivariance": _equivariance(graph),
        "pool_tolerance": [
            {
                "layer": t.layer,
                "positions": list(t.positions),
                "inputs": [_fraction(n) for n in t.inputs],
            }
            for t in tolerances(graph, shifts(graph))
        ],
    }


def _layer(x: LayerCount) -> dict[str, Any]:
    return {
        "name": x.name,
        "operator": x.operator,
        "line": x.line,
        "inputs": list(x.operands),
        "input_shapes": [_shape(t) for t in x.input_types],
        "shape": _shape(x.type),
        "dtype": x.type.dtype.value,
        "params": x.params,
        "trained": x.trained,
        "state": x.state,
        "macs": _plain(x.macs),
        "connections": _plain(x.connections),
        "units": _plain(x.units),
        "multiplications": _plain(x.multiplications),
        "additions": _plain(x.additions),
        "activation_bytes": _plain(x.bytes),
        "traffic_bytes": _plain(x.traffic),
        "storage": None if x.storage is None else _storage(x.storage),
        "receptive_field": None if x.field is None else _field(x.field),
    }


def _storage(storage: Storage) -> dict[str, Any]:
    """Stored floats, and operations without biases, of the layer and of the matrices."""
    floats = {
        "layer": storage.layer,
        "local": storage.local,
        "sparse": storage.sparse,
        "dense": storage.dense,
    }
    return {
        "floats": {name: None if n is None else _plain(n) for name, n in floats.items()},
        "operations": {
            name: None if n is None else _plain(n) for name, n in storage.operations.items()
        },
    }


def _field(field: Field) -> dict[str, Any]:
    """Per spatial axis of the input: size, step between results, centre of the first, padding."""
    return {
        "size": [span.size for span in field],
        "jump": [_fraction(span.jump) for span in field],
        "start": [span.start for span in field],
        "padding": [span.padding for span in field],
    }


def _equivariance(graph: TypedGraph) -> list[dict[str, Any]]:
    """For the last layers that move with the input: by how many positions, per axis, both move
    together, and the first and last result that sees no border (None: not known; none when last is
    less than first).
    """
    found = shifts(graph)
    known = [(n, found[n.name] or ()) for n in last_equivariant(graph, found)]
    return [
        {
            "layer": n.origin.layer or n.name,
            "shift": [s.shift for s in moved],
            "step": [s.step for s in moved],
            "first": [s.first for s in moved],
            "last": [s.last for s in moved],
        }
        for n, moved in known
    ]


def _fraction(value: Any) -> float | int:
    return int(value) if value.denominator == 1 else float(value)


def _shape(type: TensorType) -> list[int | str]:
    return [_plain(e) for e in type.shape]


def _plain(extent: Extent) -> int | str:
    return extent if isinstance(extent, int) else str(extent)


def table(graph: TypedGraph) -> Table:
    """The report as a rich table, one row per layer that computes something, and the totals."""
    counts = count(graph)
    shown = Table(title=printable(counts.name), title_justify="left", show_footer=True)
    totals = {
        "layer": f"{counts.depth} weight layers",
        "params": number(counts.params),
        "macs": number(counts.macs),
        "connections": number(counts.connections),
        "bytes": number(counts.bytes),
    }
    for column in (
        "layer",
        "operator",
        "output",
        "params",
        "macs",
        "connections",
        "field",
        "bytes",
    ):
        right = column in ("params", "macs", "connections", "field", "bytes")
        shown.add_column(
            column,
            totals.get(column, ""),
            justify="right" if right else "left",
            overflow="fold",
        )
    for x in counts.layers:
        shown.add_row(
            printable(x.name),
            x.operator,
            "x".join(map(str, x.type.shape)),
            _blank(x.params),
            _blank(x.macs),
            _blank(x.connections),
            _field_text(x.field),
            number(x.bytes),
        )
    return shown


def table_text(graph: TypedGraph) -> str:
    """The table as plain text of at most WIDTH columns."""
    console = Console(width=WIDTH, color_system=None, force_terminal=False, record=False)
    with console.capture() as capture:
        console.print(table(graph), summary(count(graph)), sep="\n")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def summary(counts: Counts) -> str:
    """The totals in a few lines."""
    lines = [
        f"params       {number(counts.params)}"
        + (f" ({number(counts.trained)} trained)" if counts.trained != counts.params else "")
        + (f", state {number(counts.state)}" if counts.state else ""),
        f"macs         {number(counts.macs)}",
        f"connections  {number(counts.connections)}",
        f"operations   {number(counts.operations)}: {number(counts.multiplications)} "
        f"multiplications, {number(counts.additions)} additions",
        f"units        {number(counts.units)}, and {number(counts.output_units)} in the output",
    ]
    return "\n".join(lines)


def _blank(value: Extent) -> str:
    return "" if value == 0 else number(value)


def _field_text(field: Field | None) -> str:
    if not field:
        return ""
    sizes = [span.size for span in field]
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))
