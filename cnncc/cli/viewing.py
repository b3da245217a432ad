"""`cnncc view`: a network as a page for the browser, in which every layer can be seen at work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cnncc.cli.arrays import writable
from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import amount, remark, write_text
from cnncc.cli.using import DATA, load_data
from cnncc.cli.verbs import Verbs, add_net, net_arguments
from cnncc.errors import Diagnostic, SpecError
from cnncc.io.files import UNKNOWN, DataError

if TYPE_CHECKING:
    from cnncc.model import Network
    from cnncc.model.view import Sampling

ABOUT = """\
The page is one file that needs no network. It shows all layers for some samples and for an image
that is drawn in it, computed in the page from the weights, and what each unit is computed from: its
receptive field, its weights, its products. It knows feed-forward networks of one image input made
of convolutions, pools, dense layers, batch normalisation and the common activations. Without
--weights the parameters are initial ones; without --data there is only the pad to draw on.
"""


def add(verbs: Verbs) -> None:
    """Add `view`."""
    parser = verbs.add(
        "view",
        "make a page that shows every layer at work in the browser",
        view,
        [
            "cnncc view lenet_digits --weights digits.safetensors --data digits -o digits.html",
            "cnncc view net.cnn -o net.html",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help=".safetensors or .npz (default: initial ones)"
    )
    parser.add_argument("--data", help=f"samples to choose from: {DATA}")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the page, an .html file"
    )


def view(options: argparse.Namespace) -> int:
    """Write the page."""
    from cnncc.model import Model, Network
    from cnncc.model.view import drawn, make_page

    if options.output.suffix not in (".html", ".htm"):
        raise UsageError(f"--output is an .html file, but got {options.output}")
    writable(options.output)
    network = Network.read(options.net, net_arguments(options))
    model = Model.of(network, target="interp")  # nothing runs here, so nothing is compiled
    note = "initial parameters, not trained"
    if options.weights is not None:
        model.load_weights(options.weights)
        note = f"weights of {options.weights.name}"
    net = drawn(network.inference.graph, model.state_dict())
    samples = _samples(network, options.data) if options.data is not None else None
    page = make_page(net, samples, note)
    write_text(options.output, page)
    remark(f"wrote {amount(len(page.encode()))} to {options.output}")
    return DONE


def _samples(network: Network, data: str) -> Sampling:
    """Some samples of the test part of the data, or of all of it where it is not divided."""
    from cnncc.model.view import Sampling

    try:
        found, part = load_data(network, data, "test", 0), "test"
    except DataError as error:
        if error.diagnostics[0].code != UNKNOWN:
            raise
        found, part = load_data(network, data, "train", 0), "train"
    (source,) = network.inference.graph.of("input")
    if found.x.shape[1:] != source.type.shape:
        size = "x".join(map(str, found.x.shape[1:]))
        message = f"a sample of {found.name} is {size}, but `{source.name}` is {source.type}"
        raise SpecError(Diagnostic("E0802", message, source.origin.span))
    title = f"{part} samples of {found.name}"
    return Sampling.of(found.x, found.y, found.classes, found.class_names, title)
