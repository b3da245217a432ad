"""What differs between two networks: layers that one of them lacks, arguments, shapes, counts, and
which parameters have the same shape in both, so that trained weights can be carried over.

Layers are matched by name; what is left is matched by what it is, in order, so a layer that only
has another name counts as renamed and not as different.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnncc.graph.ir import Graph, Operator
from cnncc.graph.sources import Parameter
from cnncc.passes.count import Counts, LayerCount, count
from cnncc.passes.countable import TOTALS
from cnncc.tensor import Extent

Change = tuple[str, str, str]
"""What has changed, from what, to what."""


@dataclass(frozen=True)
class Difference:
    """All differences; every field is empty for networks that are the same but for names.

    `renamed` layers, by their names in the first network, are none.
    """

    totals: tuple[Change, ...]
    inputs: tuple[Change, ...]
    outputs: tuple[Change, ...]
    removed: tuple[LayerCount, ...]
    added: tuple[LayerCount, ...]
    changed: tuple[tuple[str, tuple[Change, ...]], ...]
    renamed: Mapping[str, str]
    carried: Mapping[str, str]  # parameters of the first whose values fit one of the second
    left: tuple[str, ...]  # parameters of the second that none of the first fits

    @property
    def same(self) -> bool:
        """Whether the networks are the same but for names."""
        return not (
            self.totals or self.inputs or self.outputs or self.removed or self.added or self.changed
        )


def compare(a: Graph, b: Graph) -> Difference:
    """The differences on the way from network a to network b."""
    counts = count(a), count(b)
    pairs = _matched(a, b, counts)
    partner = {x.name: y.name for x, y in pairs}
    first, second = {x.name for x, _ in pairs}, {y.name for _, y in pairs}
    inputs = zip(counts[0].inputs, counts[1].inputs, strict=False)
    translate = {**{mine: theirs for (mine, _), (theirs, _) in inputs}, **_results(pairs)}
    changed = [(x.name, tuple(_changes(a, b, x, y, translate))) for x, y in pairs]
    carried = _carried(a, b, pairs)
    return Difference(
        tuple(_totals(*counts)),
        tuple(_listed(counts[0].inputs, counts[1].inputs)),
        tuple(_listed(counts[0].outputs, counts[1].outputs)),
        tuple(x for x in counts[0].layers if x.name not in first),
        tuple(y for y in counts[1].layers if y.name not in second),
        tuple((name, changes) for name, changes in changed if changes),
        {x: y for x, y in partner.items() if x != y},
        carried,
        tuple(n.name for n in b.of("parameter") if n.name not in set(carried.values())),
    )


# --- which layer is which -------------------------------------------------------------------------


def _matched(
    a: Graph, b: Graph, counts: tuple[Counts, Counts]
) -> list[tuple[LayerCount, LayerCount]]:
    """Pairs of layers in the order of the first network."""
    named = {y.name: y for y in counts[1].layers}
    pairs = {
        x.name: named[x.name]
        for x in counts[0].layers
        if x.name in named and named[x.name].operator == x.operator
    }
    taken = {y.name for y in pairs.values()}
    rest = (
        [x for x in counts[0].layers if x.name not in pairs],
        [y for y in counts[1].layers if y.name not in taken],
    )
    signatures = [_signature(a, x) for x in rest[0]], [_signature(b, y) for y in rest[1]]
    blocks = difflib.SequenceMatcher(None, *signatures, autojunk=False).get_matching_blocks()
    for block in blocks:
        for k in range(block.size):
            pairs[rest[0][block.a + k].name] = rest[1][block.b + k]
    return [(x, pairs[x.name]) for x in counts[0].layers if x.name in pairs]


def _signature(graph: Graph, layer: LayerCount) -> str:
    """What a layer is, whatever its name: operators with their arguments, and the result."""
    parts = [
        f"{n.op.name}{n.op.attributes()}:{n.type}" for n in map(graph.__getitem__, layer.nodes)
    ]
    return " ".join(parts)


def _results(pairs: Iterable[tuple[LayerCount, LayerCount]]) -> dict[str, str]:
    """The results of layers of the first network, with those of their partners."""
    return {x.nodes[-1]: y.nodes[-1] for x, y in pairs}


# --- what differs ---------------------------------------------------------------------------------


def _totals(a: Counts, b: Counts) -> Iterable[Change]:
    for name in TOTALS:
        before, after = getattr(a, name), getattr(b, name)
        if before != after:
            yield name, _number(before), _number(after)
    for name, before, after in _listed(_seen(a), _seen(b)):
        yield f"receptive field of {name}", before, after


def _seen(counts: Counts) -> list[tuple[str, str]]:
    """The receptive field of every layer that has positions and is the last to have them."""
    fields = [(x.name, x.field) for x in counts.layers if x.field and x.type.rank > 0]
    read = {i for x in counts.layers if x.type.rank > 0 for i in x.operands}
    ends = {x.name for x in counts.layers if not read & set(x.nodes)}
    return [
        (name, "x".join(str(span.size) for span in field)) for name, field in fields if name in ends
    ]


def _listed(a: Sequence[tuple[str, Any]], b: Sequence[tuple[str, Any]]) -> Iterable[Change]:
    """What is listed of both networks, by position: two texts, or that there is none."""
    for k in range(max(len(a), len(b))):
        before, after = (str(side[k][1]) if k < len(side) else "none" for side in (a, b))
        if before != after:
            yield (a if k < len(a) else b)[k][0], before, after


def _changes(
    a: Graph, b: Graph, x: LayerCount, y: LayerCount, translate: Mapping[str, str]
) -> Iterable[Change]:
    mine = [a[n] for n in x.nodes if not isinstance(a[n].op, Parameter)]
    theirs = [b[n] for n in y.nodes if not isinstance(b[n].op, Parameter)]
    before, after = (" + ".join(n.op.name for n in nodes) for nodes in (mine, theirs))
    if before != after:
        yield "operators", before, after
    else:
        for left, right in zip(mine, theirs, strict=True):
            yield from _arguments(left.op, right.op)
    if x.type != y.type:
        yield "result", str(x.type), str(y.type)
    for what in ("params", "trained", "macs", "connections"):
        if getattr(x, what) != getattr(y, what):
            yield what, _number(getattr(x, what)), _number(getattr(y, what))
    if tuple(translate.get(i, i) for i in x.operands) != y.operands:
        yield "reads", ", ".join(x.operands), ", ".join(y.operands)


def _arguments(a: Operator, b: Operator) -> Iterable[Change]:
    before, after = _described(a), _described(b)
    for name in dict.fromkeys((*before, *after)):
        left, right = before.get(name, "default"), after.get(name, "default")
        if left != right:
            yield name, left, right


def _described(op: Operator) -> dict[str, str]:
    """Arguments as text; those of a window one by one."""
    found: dict[str, str] = {}
    for name, value in op.attributes().items():
        if name != "window":
            found[name] = str(value)
            continue
        for part in ("size", "stride", "dilation", "fit"):
            found[part] = "x".join(str(getattr(axis, part)) for axis in value)
        found["pad"] = ", ".join(f"({axis.lo}, {axis.hi})" for axis in value)
    return found


def _number(value: Extent) -> str:
    return f"{value:_}" if isinstance(value, int) else str(value)


def _carried(a: Graph, b: Graph, pairs: Iterable[tuple[LayerCount, LayerCount]]) -> dict[str, str]:
    """Parameters of paired layers, in order, whose shapes agree."""
    found: dict[str, str] = {}
    for x, y in pairs:
        mine = [a[n] for n in x.nodes if isinstance(a[n].op, Parameter)]
        theirs = [b[n] for n in y.nodes if isinstance(b[n].op, Parameter)]
        by_suffix = {n.name.removeprefix(y.name): n for n in theirs}
        for node in mine:
            other = by_suffix.get(node.name.removeprefix(x.name))
            if other is not None and other.type == node.type:
                found[node.name] = other.name
    return found
