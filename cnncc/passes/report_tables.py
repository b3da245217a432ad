"""Further tables of `cnncc report`, each about one question: what layers store against matrices,
where their receptive fields lie, and how many bytes they move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.table import Table

from cnncc.errors import printable
from cnncc.graph.ir import Graph
from cnncc.passes.check import number
from cnncc.passes.count import Counts, LayerCount, count, total
from cnncc.passes.fuse import Fused
from cnncc.passes.plan import prepared
from cnncc.passes.receptive import Span
from cnncc.passes.shifts import interior, last_equivariant, shifts, statement, tolerances
from cnncc.tensor import Extent

UNKNOWN = "?"
"""Shown for what symbolic extents do not tell."""


def storage_table(counts: Counts) -> Table:
    """Stored floats of every layer that multiplies weights with data, in four forms."""
    rows = [(x, x.storage) for x in counts.layers if x.storage is not None]
    found = [s for _, s in rows]
    table = _table(
        f"{printable(counts.name)}: stored floats",
        {
            "layer": "",
            "output": "",
            "as it is": _sum(s.layer for s in found),
            "local": _sum(s.local for s in found),
            "sparse": _sum(s.sparse for s in found),
            "dense": _sum(s.dense for s in found),
        },
    )
    for x, s in rows:
        floats = (s.layer, s.local, s.sparse, s.dense)
        table.add_row(printable(x.name), _shape(x), *map(_shown, floats))
    return table


def operation_table(counts: Counts) -> Table:
    """Multiplications and additions of every layer; without biases also those of the matrices."""
    rows = [x for x in counts.layers if x.connections != 0]
    forms = [x.storage.operations for x in rows if x.storage is not None]
    table = _table(
        f"{printable(counts.name)}: operations",
        {
            "layer": "",
            "output": "",
            "multiplications": number(counts.multiplications),
            "additions": number(counts.additions),
            "no biases": _sum(f["layer"] for f in forms),
            "as sparse": _sum(f["sparse"] for f in forms),
            "as dense": _sum(f["dense"] for f in forms),
        },
    )
    for x in rows:
        others = map(_shown, x.storage.operations.values()) if x.storage else ("", "", "")
        products, sums = number(x.multiplications), number(x.additions)
        table.add_row(printable(x.name), _shape(x), products, sums, *others)
    return table


def field_table(counts: Counts) -> Table:
    """The receptive field of every layer: size, jump, start and effective padding, per axis."""
    table = _table(
        f"{printable(counts.name)}: receptive fields",
        dict.fromkeys(("layer", "output", "size", "jump", "start", "padding"), ""),
    )
    columns: Sequence[Callable[[Span], object]] = (
        lambda span: span.size,
        lambda span: span.jump,
        lambda span: f"{span.start:g}",
        lambda span: span.padding,
    )
    for x in counts.layers:
        if x.field:
            table.add_row(printable(x.name), _shape(x), *(_per_axis(x.field, c) for c in columns))
    return table


def traffic_table(counts: Counts) -> Table:
    """Bytes that every layer writes, and that its operators read and write, each tensor once."""
    table = _table(
        f"{printable(counts.name)}: bytes of one sample",
        {
            "layer": "",
            "output": "",
            "written": number(counts.bytes),
            "read and written": number(counts.traffic),
        },
    )
    for x in counts.layers:
        table.add_row(printable(x.name), _shape(x), number(x.bytes), number(x.traffic))
    return table


def shift_table(graph: Graph) -> Table:
    """By which shifts each layer is equivariant, and how far a maximum may move in its pool."""
    found = shifts(graph)
    tolerated = {t.layer: t for t in tolerances(graph, found)}
    table = _table(
        f"{printable(graph.name)}: shifts",
        dict.fromkeys(("layer", "output", "input moves by", "results by", "inside", "maximum"), ""),
    )
    for x in count(graph).layers:
        moved = found[x.nodes[-1]]
        shape, tolerance = _shape(x), tolerated.get(x.name)
        if moved is None:
            table.add_row(printable(x.name), shape, "", "", "", "")
            continue
        table.add_row(
            printable(x.name),
            shape,
            _joined(s.shift for s in moved),
            _joined(s.step for s in moved),
            interior(moved),
            f"+-{_joined(tolerance.inputs)}" if tolerance else "",
        )
    return table


def shift_lines(graph: Graph) -> list[str]:
    """What moves with the input, in sentences; none when nothing does."""
    found = shifts(graph)
    lines = []
    for node in last_equivariant(graph, found):
        moved = found[node.name]
        assert moved is not None, "the last ones are equivariant"
        inside = interior(moved)
        where = "but all see a border" if inside == "none" else f"inside: {inside}"
        lines.append(f"{statement(node, moved)}, {where}")
    return lines


def _joined(values: Iterable[object]) -> str:
    texts = [str(v) for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def fused_traffic(fused: Fused) -> Extent:
    """Bytes that fused kernels read and write for one sample, each tensor once per kernel. What is
    computed of parameters alone is no work of a sample.
    """
    before = prepared(fused.graph)
    run = (k for k in fused.kernels if k.sink.name not in before)
    tensors = (fused.graph[name].type for k in run for name in dict.fromkeys(k.tensors))
    return total(t.elements * t.dtype.bytes for t in tensors)


TABLES: dict[str, Callable[[Counts], Table]] = {
    "storage": storage_table,
    "operations": operation_table,
    "fields": field_table,
    "traffic": traffic_table,
}
"""By the name that `--table` takes."""


def _table(title: str, totals: dict[str, str]) -> Table:
    """A table with its columns, each with the total below it; all but the first two are numbers."""
    table = Table(title=title, title_justify="left", show_footer=any(totals.values()))
    for place, (name, footer) in enumerate(totals.items()):
        justify = "left" if place < 2 else "right"
        table.add_column(name, footer, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _sum(numbers: Iterable[Extent | None]) -> str:
    known = list(numbers)
    if any(n is None for n in known):
        return UNKNOWN
    return number(total(n for n in known if n is not None))


def _shown(value: Extent | None) -> str:
    return UNKNOWN if value is None else number(value)


def _shape(x: LayerCount) -> str:
    return "x".join(map(str, x.type.shape))


def _per_axis(field: Sequence[Span], column: Callable[[Span], object]) -> str:
    return _joined(column(span) for span in field)
