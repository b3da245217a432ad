"""`cnncc diff`: what differs between two networks, beyond their texts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cnncc.cli.failures import DONE
from cnncc.cli.output import amount, print_json
from cnncc.cli.verbs import Verbs, add_json, add_net_arguments, net_arguments
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.passes.compare import Change, Difference

ABOUT = """\
Compares what the texts mean: layers that are missing (-), new (+) or changed (~), arguments,
shapes and counts, and which trained weights fit. Layers are matched by name, the others by what
they are; layers that only have other names are listed as renamed and are no difference. --arg is
given to both networks.
"""


def add(verbs: Verbs) -> None:
    """Add `diff`."""
    parser = verbs.add(
        "diff",
        "show what differs between two networks",
        diff,
        [
            "cnncc diff vgg16 vgg19",
            "cnncc diff old.cnn new.cnn",
            "cnncc diff a.cnn a.cnn:small --json",
        ],
        ABOUT,
    )
    parser.add_argument("first", metavar="NET", help="a path, a path:name, or a built-in name")
    parser.add_argument("second", metavar="NET", help="the network to compare it with")
    add_net_arguments(parser)
    add_json(parser, "the differences")


def diff(options: argparse.Namespace) -> int:
    """Print the differences."""
    from cnncc import compiler
    from cnncc.passes.compare import compare

    a, b = (
        compiler.front(net, arguments=net_arguments(options)).graph
        for net in (options.first, options.second)
    )
    found = compare(a, b)
    peaks = [_peak(net, options) for net in (options.first, options.second)]
    if options.json:
        memory = {"first": peaks[0], "second": peaks[1]}
        print_json({"first": a.name, "second": b.name, **_as_json(found), "memory": memory})
        return DONE
    print(f"{printable(a.name)} -> {printable(b.name)}")
    print("\n".join(_lines(found)))
    if None not in peaks and peaks[0] != peaks[1]:
        print(f"memory: {amount(peaks[0] or 0)} -> {amount(peaks[1] or 0)} for one sample")
    return DONE


def _peak(net: str, options: argparse.Namespace) -> int | None:
    """Bytes that are planned for one sample; None where they depend on symbolic extents."""
    from cnncc.cli.memory import planned_memory

    found = planned_memory(net, net_arguments(options)).get("inference")
    return None if found is None else int(found["peak"])


def _lines(found: Difference) -> Iterable[str]:
    if found.same:
        yield "the same network" + (" but for names" if found.renamed else "")
    for title, changes in (
        ("inputs", found.inputs), ("outputs", found.outputs), ("counts", found.totals)
    ):  # fmt: skip
        if changes:
            yield title
            yield from _changes(changes)
    if found.removed or found.added or found.changed:
        yield "layers"
    for sign, layers in (("-", found.removed), ("+", found.added)):
        for x in layers:
            params = f", {x.params} params" if x.params else ""
            yield f"  {sign} {printable(x.name)}: {x.operator} -> {x.type}{params}"
    for name, changes in found.changed:
        yield f"  ~ {printable(name)}"
        yield from ("  " + line for line in _changes(changes))
    if found.renamed:
        yield "renamed"
        yield from (f"  {printable(x)} -> {printable(y)}" for x, y in found.renamed.items())
    yield f"weights: {len(found.carried)} tensors fit, {len(found.left)} of the second are left"
    yield from (f"  {printable(name)}" for name in found.left)


def _changes(changes: Iterable[Change]) -> Iterable[str]:
    shown = list(changes)
    wide = max((len(what) for what, _, _ in shown), default=0)
    return (f"  {printable(what):{wide}}  {a} -> {b}" for what, a, b in shown)


def _as_json(found: Difference) -> dict[str, Any]:
    def changes(some: Iterable[Change]) -> list[dict[str, str]]:
        return [{"what": what, "first": a, "second": b} for what, a, b in some]

    return {
        "same": found.same,
        "counts": changes(found.totals),
        "inputs": changes(found.inputs),
        "outputs": changes(found.outputs),
        "removed": [x.name for x in found.removed],
        "added": [x.name for x in found.added],
        "changed": [{"layer": name, "changes": changes(some)} for name, some in found.changed],
        "renamed": dict(found.renamed),
        "weights": {"carried": dict(found.carried), "left": list(found.left)},
    }
