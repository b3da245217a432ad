"""`cnncc explain`: what a code of a diagnostic means, or why the layers of a network share kernels
or do not. The second prints the ledger of fusion, in which every edge of the graph has an entry,
and why each convolution is computed as it is."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cnncc.cli.choosing import all_chosen, choice_lines, choices_json
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.gaining import gains_json, measured, print_gains
from cnncc.cli.output import amount, print_json
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_json,
    add_machine,
    add_net_arguments,
    add_precision,
    net_arguments,
    positive,
)
from cnncc.errors import CODES, Diagnostic, SpecError, did_you_mean, printable
from cnncc.passes.bf16 import Choice, choices
from cnncc.passes.check import number as grouped
from cnncc.passes.count import total
from cnncc.passes.fuse import Fused, Verdict
from cnncc.passes.lower import Kernel
from cnncc.tensor import Extent

_CODE = re.compile(r"[eE][0-9]{1,6}")


def add(verbs: Verbs) -> None:
    """Add `explain`."""
    parser = verbs.add(
        "explain",
        "explain an error code, or what was fused in a network and why",
        explain,
        [
            "cnncc explain E0202",
            "cnncc explain lenet_digits",
            "cnncc explain resnet50 --fused",
            "cnncc explain lenet_digits --train --json",
            "cnncc explain vgg19 --precision bf16",
            "cnncc explain mobilenet --measure --batch 16",
        ],
        "For a network: a line for every edge of its graph, grouped by kernel. + edges are fused\n"
        "and keep a tensor out of memory; - edges are not, and the line says why. Then which\n"
        "convolutions use Winograd's minimal filtering in calls of --batch samples, and what\n"
        "`cnncc tune` has measured for them. With --precision bf16 first a line for every layer\n"
        "with weights: + reads them in bf16.\n"
        "\n"
        "With --measure the network is compiled, with and without each fusion, and a table says\n"
        "what every one of them gains on this machine: the time of the kernels at both ends of\n"
        "the edge without it, by their time with it, as the median of turns in which both run;\n"
        "by how much two copies of the fused kernel differ; and what the roofline predicts.\n"
        "Edges that can only be fused together share a line.",
    )
    parser.add_argument("topic", metavar="CODE|NET", help="a code such as E0202, or a network")
    add_net_arguments(parser)
    parser.add_argument("--train", action="store_true", help="the graph of a training step")
    parser.add_argument("--fused", action="store_true", help="leave out the edges not fused")
    parser.add_argument("--batch", type=positive, default=1, help="samples per call (default: 1)")
    add_precision(parser)
    parser.add_argument(
        "--measure", action="store_true", help="measure what each fusion of inference gains"
    )
    parser.add_argument(
        "--turns",
        metavar="N",
        type=positive,
        help="with --measure: how often each is timed (default: 15, up to 300 in a small network)",
    )
    add_extents(parser)
    add_machine(parser)
    add_json(parser, "the ledger")


def explain(options: argparse.Namespace) -> int:
    """Print the explanation of a code, or the ledger of a network."""
    if _CODE.fullmatch(options.topic):
        print(_explanation(options.topic.upper()), end="")
        return DONE
    from cnncc.cli.stages import Request, require_machine_code

    request = Request(
        options.topic, net_arguments(options), train=options.train, batch=options.batch,
        extents=dict(options.extents), threads=options.threads, max_memory=options.max_memory,
        precision=options.precision,
    )  # fmt: skip
    if options.measure:
        require_machine_code("explain --measure")
        if options.train:
            raise UsageError("--measure is about inference: leave out --train")
    fused = request.fused()
    rounded = choices(request.graph) if request.bf16 else ()
    found = [] if options.train else all_chosen(request.graph, fused.graph, request.choices)
    gains = measured(options, request) if options.measure else None
    if options.json:
        bf16 = {"bf16": list(map(_choice, rounded))} if request.bf16 else {}
        more = {"measured": gains_json(gains)} if gains else {}
        print_json({**as_json(fused), **bf16, "choices": choices_json(found), **more})
        return DONE
    if request.bf16:
        print("\n".join([*_choice_lines(rounded), ""]))
    lines = [*ledger_lines(fused, only_fused=options.fused), *choice_lines(found)]
    print("\n".join(lines))
    if gains:
        print_gains(gains)
    return DONE


def _choice_lines(found: Sequence[Choice]) -> list[str]:
    """Which layers read their weights in bf16, and why the others do not."""
    halved = {c.weights.name: c.weights.type.elements for c in found if c.halved}
    every = {c.weights.name: c.weights.type.elements for c in found}
    names = [f"{printable(c.node.name)} ({c.node.op.name})" for c in found]
    wide = max(map(len, names), default=0)
    return [
        f"bf16: {sum(c.halved for c in found)} of {len(found)} layers with weights, "
        f"{grouped(total(halved.values()))} of {grouped(total(every.values()))} weights",
        *(
            f"  {'+' if c.halved else '-'} {name:{wide}}  {c.reason}"
            for c, name in zip(found, names, strict=True)
        ),
    ]


def _choice(c: Choice) -> dict[str, Any]:
    return {
        "layer": c.node.name,
        "operator": c.node.op.name,
        "weights": c.weights.name,
        "bf16": c.halved,
        "reason": c.reason,
    }


def _explanation(code: str) -> str:
    if code in CODES:
        return CODES[code].text(code)
    near = did_you_mean(code, CODES)
    helps = (f"did you mean {' or '.join(near)}?",) if near else ("codes begin with E01 to E08",)
    raise SpecError(Diagnostic("E0311", f"there is no code {code}", helps=helps))


def ledger_lines(fused: Fused, *, only_fused: bool = False) -> list[str]:
    """The ledger as lines: a summary, then for every kernel its nodes and the edges into them."""
    verdicts, in_place = _by_kernel(fused)
    joined = [v for v in fused.ledger if v.fused]
    saved = sum(v.bytes_saved for v in joined if isinstance(v.bytes_saved, int))
    operators = sum(len(k.nodes) for k in fused.kernels)
    lines = [
        f"{printable(fused.graph.name)}: {operators} operators in {len(fused.kernels)} kernels, "
        f"{len(joined)} of {len(fused.ledger)} edges fused",
        f"fusion keeps {amount(saved)} of every sample out of memory",
        "not fused: " + _reasons(v for v in fused.ledger if not v.fused),
    ]
    for number, kernel in enumerate(fused.kernels, 1):
        shown = [v for v in verdicts[number - 1] if v.fused or not only_fused]
        if only_fused and not shown:
            continue
        lines += ["", f"kernel {number}: {_title(kernel)}", *_edges(shown)]
    for name, edges in in_place.items():
        lines += ["", f"no kernel: {printable(name)} ({fused.graph[name].op.name})", *_edges(edges)]
    return lines


def _by_kernel(fused: Fused) -> tuple[list[list[Verdict]], dict[str, list[Verdict]]]:
    """The verdicts on the edges into each kernel's nodes, in the order of the kernels, and those
    into nodes without a kernel, whose inputs are written where they belong."""
    home = {node.name: i for i, k in enumerate(fused.kernels) for node in k.nodes}
    found: list[list[Verdict]] = [[] for _ in fused.kernels]
    in_place: dict[str, list[Verdict]] = {}
    for verdict in fused.ledger:
        if verdict.consumer in home:
            found[home[verdict.consumer]].append(verdict)
        else:
            in_place.setdefault(verdict.consumer, []).append(verdict)
    return found, in_place


def _title(kernel: Kernel) -> str:
    names = " + ".join(f"{printable(n.name)} ({n.op.name})" for n in kernel.nodes)
    span = kernel.nodes[0].origin.span
    return f"{names}  [{span.file}:{span.line}]" if span is not None and span.known else names


def _edges(verdicts: Sequence[Verdict]) -> list[str]:
    arrows = [printable(f"{v.producer} -> {v.consumer}") for v in verdicts]
    wide = max(map(len, arrows), default=0)
    rules = max((len(v.rule) for v in verdicts), default=0)
    return [
        f"  {'+' if v.fused else '-'} {arrow:{wide}}  {v.rule:{rules}}  {printable(v.reason)}"
        + (f" ({_amount(v.bytes_saved)} saved)" if v.fused else "")
        for v, arrow in zip(verdicts, arrows, strict=True)
    ]


def _reasons(verdicts: Any) -> str:
    counts = Counter(v.rule for v in verdicts)
    return ", ".join(f"{rule} {n}" for rule, n in counts.most_common()) or "nothing"


def _amount(size: Extent) -> str:
    return amount(size) if isinstance(size, int) else f"{size} bytes"


def as_json(fused: Fused) -> dict[str, Any]:
    """The ledger as JSON-ready values: kernels with their nodes, and every edge with the number of
    its kernel, null for a node that needs none."""
    home = {node.name: i for i, k in enumerate(fused.kernels) for node in k.nodes}
    return {
        "name": fused.graph.name,
        "operators": sum(len(k.nodes) for k in fused.kernels),
        "kernels": [
            {
                "nodes": [n.name for n in k.nodes],
                "operators": [n.op.name for n in k.nodes],
                "reads": list(k.reads),
                "writes": list(k.writes),
            }
            for k in fused.kernels
        ],
        "edges": [
            {
                "kernel": home.get(v.consumer),
                "producer": v.producer,
                "consumer": v.consumer,
                "fused": v.fused,
                "rule": v.rule,
                "reason": v.reason,
                "bytes_saved": v.bytes_saved
                if isinstance(v.bytes_saved, int)
                else str(v.bytes_saved),
            }
            for v in fused.ledger
        ],
    }
