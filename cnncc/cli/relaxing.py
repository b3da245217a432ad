"""`cnncc relax` and `cnncc project`: walking between convolutions, tiled, local and dense layers,
with the weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import print_json, remark, write_text
from cnncc.cli.verbs import Verbs, add_json, add_net, add_net_arguments, net_arguments
from cnncc.errors import printable

if TYPE_CHECKING:
    from cnncc.graph.ir import Graph
    from cnncc.passes.carry import Carried

RELAX = """\
A convolution is a local layer whose kernels all agree, and that is a dense layer with zeros in the
right places. Relaxing a layer lifts such a restriction: the network computes the same, but can
learn more. Prints the text of the new network, without expectations that hold for the old one only.
  tiled(t)  t kernels in turn along each axis
  local     a kernel for every position
  dense     a weight for every input and output
"""

PROJECT = """\
Weights of the first network for the second, whose layers share more: every number becomes the
average over what it stands for, the least change of the layer's matrix. Says how large the change
is, as a share of the matrix (Frobenius norms): 0 after relax, before the network learned more.
"""


def add(verbs: Verbs) -> None:
    """Add `relax` and `project`."""
    parser = verbs.add(
        "relax",
        "turn convolutions into tiled, local or dense layers that compute the same",
        relax,
        [
            "cnncc relax lenet5_modern --to local -o local.cnn",
            "cnncc relax lenet5_modern --to 'tiled(2)' --layer c3 -o tiled.cnn",
            "cnncc relax lenet_digits --to local -o l.cnn --weights w.npz --save l.npz",
        ],
        RELAX,
    )
    add_net(parser)
    parser.add_argument(
        "--to", metavar="PRIOR", type=prior, required=True, help="local, dense, or 'tiled(2)'"
    )
    parser.add_argument(
        "--layer",
        dest="layers",
        metavar="LAYER",
        action="append",
        default=[],
        help="only this convolution (repeatable)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the text here")
    _add_weights(parser, required=False)

    parser = verbs.add(
        "project",
        "average weights into a network whose layers share more",
        project,
        [
            "cnncc project local.cnn lenet5_modern --weights local.safetensors "
            "--save w.safetensors",
        ],
        PROJECT,
    )
    parser.add_argument("net", metavar="NET", help="the network that the weights are of")
    parser.add_argument("onto", metavar="NET", help="the network that they are for")
    add_net_arguments(parser)
    _add_weights(parser, required=True)
    add_json(parser, "the distances")


def _add_weights(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, required=required, help="weights of the network"
    )
    parser.add_argument(
        "--save", metavar="FILE", type=Path, required=required, help="where the new weights go"
    )


def prior(text: str) -> str:
    """What `--to` takes. Raises ArgumentTypeError."""
    from cnncc.cli.rewriting import PRIORS

    if not PRIORS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not local, dense or tiled(n)")
    return text


def relax(options: argparse.Namespace) -> int:
    """Print or write the new text, and convert weights where they are given."""
    if (options.weights is None) != (options.save is None):
        raise UsageError("--weights and --save go together: what to convert, and where it goes")
    from cnncc import compiler
    from cnncc.cli.rewriting import relaxed

    given = net_arguments(options)
    found = relaxed(options.net, options.to, options.layers, given)
    if options.weights is not None:
        graph = compiler.front(options.net, arguments=given).graph
        _converted(graph, found.graph, options)
    if options.output is not None:
        write_text(options.output, found.text)
    else:
        print(found.text, end="")
    for statement in found.dropped:
        remark(f"left out: {printable(' '.join(statement.split()))}")
    return DONE


def project(options: argparse.Namespace) -> int:
    """Convert weights and print the distances."""
    from cnncc import compiler

    source, target = (
        compiler.front(net, arguments=net_arguments(options)).graph
        for net in (options.net, options.onto)
    )
    found = _converted(source, target, options)
    if options.json:
        print_json({"layers": [_as_json(layer, *d) for layer, d in found.distances.items()]})
        return DONE
    if not found.distances:
        print("no layer differs")
    for layer, (distance, size) in found.distances.items():
        share = distance / size if size else 0.0
        print(f"{printable(layer)}: distance {distance:.6g} of {size:.6g} ({share:.3%})")
    return DONE


def _as_json(layer: str, distance: float, size: float) -> dict[str, Any]:
    return {"layer": layer, "distance": distance, "norm": size}


def _converted(source: Graph, target: Graph, options: argparse.Namespace) -> Carried:
    """Read weights, carry them, and write them. Raises SpecError, DataError."""
    import numpy as np

    from cnncc.cli.arrays import writable
    from cnncc.io.layout import TensorInfo
    from cnncc.io.safetensors import load_state, save_state
    from cnncc.passes.carry import carry

    writable(options.save)
    expected = {
        n.name: TensorInfo.of(np.broadcast_to(np.float32(0), n.type.dims(0)))
        for n in source.of("parameter")
    }
    state, _ = load_state(options.weights, expect=expected, strict=True)
    found = carry(source, target, state)
    save_state(options.save, found.state)
    return found
