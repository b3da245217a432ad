"""`cnncc compile`: compile a network, or print what any stage of the pipeline makes of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from cnncc.cli.failures import DONE
from cnncc.cli.output import amount, remark, write_text
from cnncc.cli.stages import STAGES, Request, stage_files
from cnncc.cli.verbs import (
    Verbs,
    add_extents,
    add_machine,
    add_net,
    add_precision,
    net_arguments,
    positive,
)

ABOUT = """\
The stages, in the order of the pipeline:
  tree    the syntax tree, with places        plan    the memory of one run
  graph   operators and parameters            loops   the loop nest of each kernel
  typed   the same, after all checks          python  the emitted entries and kernels
  train   with gradients and updates          llvm    what LLVM makes of them, optimised
  fused   the nodes of each kernel            asm     their machine code
                                              dot     a drawing of `fused` for Graphviz
Without --emit the network is compiled into the cache, so that its next use starts at once.
"""


def add(verbs: Verbs) -> None:
    """Add `compile`."""
    parser = verbs.add(
        "compile",
        "compile a network, or print a stage of it",
        compile_net,
        [
            "cnncc compile lenet_digits",
            "cnncc compile lenet_digits --emit=python",
            "cnncc compile resnet18 --emit=plan --batch 8",
            "cnncc compile lenet_digits --train --emit=fused --emit=loops -o stages",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument(
        "--emit",
        metavar="STAGE",
        action="append",
        choices=STAGES,
        default=[],
        help=f"what to print: {', '.join(STAGES)} (repeatable)",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="write each stage to files in this folder"
    )
    parser.add_argument("--train", action="store_true", help="a whole training step")
    parser.add_argument("--no-fuse", action="store_true", help="one kernel for each operator")
    parser.add_argument(
        "--batch", type=positive, default=1, help="of a call and of the plan (default: 1)"
    )
    add_precision(parser)
    add_extents(parser)
    add_machine(parser)


def compile_net(options: argparse.Namespace) -> int:
    """Compile, or print stages."""
    request = Request(
        options.net,
        net_arguments(options),
        train=options.train,
        fuse=not options.no_fuse,
        batch=options.batch,
        extents=dict(options.extents),
        threads=options.threads,
        max_memory=options.max_memory,
        precision=options.precision,
    )
    if not options.emit and options.output is None:
        return _compile(request)
    stages = options.emit or [s for s in STAGES if s != "train" or options.train]
    for stage in dict.fromkeys(stages):
        files = stage_files(stage, request)
        if options.output is None:
            _print(files)
            continue
        folder = options.output / stage if len(files) > 1 else options.output
        for name, text in files.items():
            write_text(folder / name, text)
        remark(f"{stage}: {len(files)} files in {folder}" if len(files) > 1 else f"{stage}")
    return DONE


def _print(files: Mapping[str, str]) -> None:
    for number, (name, text) in enumerate(files.items()):
        if len(files) > 1:
            print("\n" * (number > 0) + f"# ---- {name} " + "-" * max(4, 80 - len(name)))
        print(text, end="" if text.endswith("\n") else "\n")


def _compile(request: Request) -> int:
    start = time.perf_counter()
    runtime = request.runtime
    seconds = time.perf_counter() - start
    texts = runtime.kernel_texts
    print(
        f"{request.graph.name}: {len(request.fused().kernels)} kernels, {len(texts)} different "
        f"texts with those for borders and layouts, {seconds:.1f} s"
    )
    if not set(request.symbols) - set(request.extents):
        from cnncc.targets.cpu.portions import at_a_time
        from cnncc.targets.runtime import Shape

        shape = Shape(request.batch, tuple(sorted(request.extents.items())))
        binding = request.runtime.planned(shape)
        portion = at_a_time(binding.batch, shape.batch)
        print(
            f"at batch {request.batch}{portion}: activations {amount(binding.plan.size)}, "
            f"parameters {amount(request.runtime.store.bytes)}"
        )
    return DONE
