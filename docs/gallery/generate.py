"""Regenerates the pages of the gallery from the networks that stand on them.

    python docs/gallery/generate.py               numbers, outputs, pictures, timings of all pages
    python docs/gallery/generate.py padding       of one page
    python docs/gallery/generate.py --numbers     numbers and outputs only
    python docs/gallery/generate.py --check       exit with 1 when these are not what they would be
    python docs/gallery/generate.py --train       train the network of lenet_digits.html anew

A page is Markdown. Blocks ```cnn file=NAME are its networks; what stands between one of these
comments and `<!-- end -->` is made:

    <!-- numbers: a.cnn:full lenet5 -->    a table from `cnncc report --json`
    <!-- output: matrix a.cnn:full y -->   what the command prints
    <!-- timing: a.cnn:full -->            a sentence from `cnncc bench --json`

and a link to pictures/NAME.png has the function NAME of pictures.py draw it. Pictures need
matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cnncc
from cnncc.cli import main as cnncc_main
from cnncc.model.view import Sampling, drawn, make_page

HERE = Path(__file__).resolve().parent
PAGES = sorted(page for page in HERE.glob("*.md") if page.name != "README.md")
INTERACTIVE = HERE / "lenet_digits.html"
NOTE = "trained on 1437 handwritten digits of 8×8 pixels; made by `cnncc view`"

_NETWORKS = re.compile(r"^```cnn file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MADE = re.compile(r"^(<!-- (\w+): (.*?) -->\n)(.*?)^(<!-- end -->)$", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"\]\(pictures/(\w+)\.png\)")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Regenerate the gallery.")
    parser.add_argument("pages", nargs="*", help="names of pages (default: all)")
    for option in ("check", "numbers", "train"):
        parser.add_argument(f"--{option}", action="store_true")
    options = parser.parse_args()
    chosen = [page for page in PAGES if not options.pages or page.stem in options.pages]
    if len(chosen) < len(options.pages):
        parser.error(f"the pages are {', '.join(page.stem for page in PAGES)}")
    stale = []
    for page in chosen:
        text = page.read_text(encoding="utf-8")
        made = regenerated(text, timings=not (options.check or options.numbers))
        if made != text:
            stale.append(page.name)
            if not options.check:
                page.write_text(made, encoding="utf-8")
        if not (options.check or options.numbers):
            draw(made)
    if not options.pages:
        page_text = interactive(train=options.train)
        if page_text != INTERACTIVE.read_text(encoding="utf-8"):
            stale.append(INTERACTIVE.name)
            if not options.check:
                INTERACTIVE.write_text(page_text, encoding="utf-8")
    if options.check and stale:
        print(f"not up to date: {', '.join(stale)}; run docs/gallery/generate.py", file=sys.stderr)
        return 1
    return 0


# --- what stands on a page ------------------------------------------------------------------------


def networks(text: str) -> dict[str, str]:
    """The networks of a page by the name of their file."""
    return {found[1]: found[2] for found in _NETWORKS.finditer(text)}


@contextlib.contextmanager
def in_folder(text: str) -> Any:
    """The networks of a page as files in a folder, which is the current one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, network in networks(text).items():
            Path(name).write_text(network, encoding="utf-8")
        yield Path(folder)


def regenerated(text: str, timings: bool) -> str:
    """The page with everything between its comments made again; timings only when asked for."""
    makers: dict[str, Callable[[list[str]], str]] = {"numbers": numbers, "output": output}
    if timings:
        makers["timing"] = timing

    def part(found: re.Match[str]) -> str:
        maker = makers.get(found[2])
        return found[0] if maker is None else f"{found[1]}{maker(found[3].split())}{found[5]}"

    with in_folder(text):
        return _MADE.sub(part, text)


def command(words: list[str]) -> str:
    """What a command of the shell prints. Raises SystemExit when it fails."""
    stream, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(errors):
        code = cnncc_main(words)
    if code != 0:
        raise SystemExit(f"cnncc {' '.join(words)}: {errors.getvalue()}")
    return stream.getvalue()


def output(words: list[str]) -> str:
    """A block with a command and what it prints, but for what depends on the machine: parameters
    lie in panels as wide as its vectors.
    """
    lines = "\n".join(line.rstrip() for line in command(words).splitlines())
    lines = re.sub(r"\d+ bytes of parameters", "... bytes of parameters", lines)
    return f"```text\n$ cnncc {' '.join(words)}\n{lines}\n```\n"


def numbers(nets: list[str]) -> str:
    """A table with a row for each network."""
    head = ["network", "input", "output", "parameters", "connections", "multiply-adds",
            "weight layers", "receptive field"]  # fmt: skip
    rows = [head, ["---", "---", "---", *["---:"] * (len(head) - 3)]]
    for net in nets:
        found = json.loads(command(["report", net, "--json"]))
        fields = [x["receptive_field"]["size"] for x in found["layers"] if x["receptive_field"]]
        rows.append(
            [
                f"`{found['name']}`",
                ", ".join(_shape(t) for t in found["inputs"].values()),
                ", ".join(_shape(t) for t in found["outputs"].values()),
                *(grouped(found[key]) for key in ("params", "connections", "macs")),
                str(found["weight_layers"]),
                "×".join(map(str, fields[-1])) if fields else "",
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _shape(type: str) -> str:
    """`f32[*, 1, 8, 8]` -> `1×8×8`."""
    return "×".join(type.partition("[")[2].rstrip("]").split(", ")[1:])


def grouped(value: object) -> str:
    """A number with blanks between thousands; expressions in symbolic extents as they are."""
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


def timing(words: list[str]) -> str:
    """A sentence on a network fused and unfused, with the date and the machine."""
    found = json.loads(command(["bench", *words, "--json", "--seconds", "2"]))
    assert found["bit_equal"]

    def told(side: dict[str, Any]) -> str:
        low, middle, high = (side[key] * 1e6 for key in ("low", "median", "high"))
        return (
            f"{middle:.1f} µs ({low:.1f} to {high:.1f}) in {side['kernels']} kernels with "
            f"{side['traffic_bytes'] / 1024:.1f} KiB of traffic"
        )

    day = datetime.date.today().isoformat()
    return (
        f"Time of a call of `{found['name']}`, median with the 10th and 90th percentile: fused "
        f"{told(found['fused'])}; unfused {told(found['unfused'])}; the same bits. Batch "
        f"{found['batch']}, {found['threads']} threads, {_machine()}, {day}.\n"
    )


def _machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "an unknown processor"


def draw(text: str) -> None:
    """The pictures that a page links to."""
    import pictures  # needs matplotlib; the folder of a script is on its path

    with in_folder(text):
        for name in dict.fromkeys(_PICTURE.findall(text)):
            pictures.save(name, HERE / "pictures" / f"{name}.png")


# --- the interactive page -------------------------------------------------------------------------


def interactive(*, train: bool) -> str:
    """The text of lenet_digits.html, with the weights that it has now or with new ones."""
    model = cnncc.compile("lenet_digits", train=train, target="cpu" if train else "interp")
    if train:
        model.fit(cnncc.load_data("digits", "train"))
    else:
        model.load_state_dict(weights_of(INTERACTIVE.read_text(encoding="utf-8"), model))
    data = cnncc.load_data("digits", "test")
    title = f"test samples of {data.name}"
    samples = Sampling.of(data.x, data.y, data.classes, data.class_names, title)
    return make_page(drawn(model.network.inference.graph, model.state_dict()), samples, NOTE)


def weights_of(page: str, model: cnncc.Model) -> dict[str, Any]:
    """The parameters in a page of a network of convolutions and dense layers with biases."""
    facts = json.loads(re.findall(r'<script id="facts"[^>]*>(.*?)</script>', page, re.DOTALL)[0])
    text = re.findall(r'<script id="arrays"[^>]*>(.*?)</script>', page, re.DOTALL)[0]
    flat = np.frombuffer(base64.b64decode(text), "<f4")
    arrays = np.split(flat, np.cumsum(facts["sizes"])[:-1])
    state = model.state_dict()
    found = {}
    for step in facts["steps"]:
        if step["op"] in ("conv", "dense"):
            name = step["name"]
            found[f"{name}.weight"] = arrays[step["weight"]].reshape(state[f"{name}.weight"].shape)
            # a convolution's bias is repeated over its positions
            found[f"{name}.bias"] = arrays[step["bias"]].reshape(step["shape"][0], -1)[:, 0]
    return found


if __name__ == "__main__":
    sys.exit(main())
