"""The pictures of the gallery, one function each: of the networks in the current folder, which are
those of the page. Small PNG files with few colours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generate
import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import cnncc
from cnncc import compiler
from cnncc.graph.ir import Graph
from cnncc.ops.conv import Conv
from cnncc.passes.matrix import LayerMatrix, layer_matrix

COLOURS = 64
"""Of the palette of a file."""

INK, FAINT, ACCENT = "#181a20", "#d5d7dd", "#0b7a53"
SIGNED = LinearSegmentedColormap.from_list("signed", ["#16529e", "#ffffff", "#b02a12"])

PICTURES: dict[str, Callable[[], Figure]] = {}


def picture(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Enter a function under its name."""
    PICTURES[draw.__name__] = draw
    return draw


def save(name: str, path: Path) -> None:
    """Draw a picture and write it with a palette. Raises KeyError for an unknown name."""
    style = {"font.size": 9, "axes.edgecolor": FAINT, "text.color": INK, "axes.titlesize": 9}
    with mpl.rc_context(style):
        figure = PICTURES[name]()
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    image = Image.open(stream).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path.parent.mkdir(exist_ok=True)
    image.save(path, optimize=True)


# --- matrices -------------------------------------------------------------------------------------


def matrix_of(net: str, layer: str = "y") -> LayerMatrix:
    """The matrix of a layer."""
    return layer_matrix(compiler.front(net).graph, layer)


def show_matrix(axes: Axes, found: LayerMatrix, title: str) -> None:
    """A coloured cell for each entry, one colour for each weight; an entry that is the sum of two
    weights has the second one's colour in its middle. Numbers that are no weights are grey.
    """
    rows, columns = found.shape
    used = sorted({int(w) for w in found.weights if w >= 0})
    place = {weight: i for i, weight in enumerate(used)}
    few = colormaps["tab10"]
    terms: dict[tuple[int, int], int] = {}
    for r, c, w in zip(found.rows, found.columns, found.weights, strict=True):
        inner = terms.setdefault((int(r), int(c)), 0) * 0.28
        terms[int(r), int(c)] += 1
        colour: Any = "#9a9da6"
        if w >= 0:
            i = place[int(w)]
            colour = few(i) if len(used) <= 10 else colormaps["turbo"](i / (len(used) - 1))
        corner = (c - 0.5 + inner, r - 0.5 + inner)
        axes.add_patch(Rectangle(corner, 1 - 2 * inner, 1 - 2 * inner, color=colour, lw=0))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", title=title)
    axes.set_xticks(np.arange(columns + 1) - 0.5, [])
    axes.set_yticks(np.arange(rows + 1) - 0.5, [])
    axes.grid(color="#eceded", lw=0.6)
    axes.tick_params(length=0)
    axes.set_xlabel(f"{len(used)} weights" if used else "no weights", fontsize=8)


def matrices(nets: list[tuple[str, str]], columns: int, layer: str = "y") -> Figure:
    """The matrices of some networks, side by side: (network, title)."""
    lines = -(-len(nets) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.2 * lines))
    for number, (net, title) in enumerate(nets, 1):
        axes = figure.add_subplot(lines, columns, number)
        show_matrix(axes, matrix_of(net, layer), title)
    figure.tight_layout()
    return figure


@picture
def convolution() -> Figure:
    return matrices([(f"kinds.cnn:{n}", n) for n in ("correlation", "convolution")], 2)


@picture
def padding() -> Figure:
    names = ("valid", "same", "full", "replicate", "reflect", "circular")
    return matrices([(f"pads.cnn:{n}", n) for n in names], 3)


@picture
def stride() -> Figure:
    titles = {"unit": "stride 1", "strided": "stride 2", "dilated": "dilation 2", "both": "both"}
    return matrices([(f"steps.cnn:{n}", title) for n, title in titles.items()], 4)


@picture
def connectivity() -> Figure:
    titles = {
        "all": "dense", "local": "local", "tiled": "tiled(2)", "conv": "convolution",
        "symmetric": "symmetric",
    }  # fmt: skip
    return matrices([(f"share.cnn:{n}", title) for n, title in titles.items()], 5)


@picture
def tables() -> Figure:
    titles = {"full": "full", "groups": "two groups", "table": "a table"}
    return matrices([(f"tables.cnn:{n}", title) for n, title in titles.items()], 3)


@picture
def backward() -> Figure:
    there, back = matrix_of("there.cnn"), matrix_of("back.cnn", "z")
    entries = sorted(zip(there.rows, there.columns, there.weights, strict=True))
    turned = sorted(zip(back.columns, back.rows, back.weights, strict=True))
    if entries != turned:
        raise SystemExit("the transposed convolution is not the transpose of the convolution")
    figure = Figure(figsize=(5.2, 2.8))
    for number, (found, title) in enumerate(
        [(there, "convolution, stride 2"), (back, "its transpose")], 1
    ):
        show_matrix(figure.add_subplot(1, 2, number), found, title)
    figure.tight_layout()
    return figure


# --- images ---------------------------------------------------------------------------------------


def digit() -> Any:
    """A handwritten 3, [1, 1, 8, 8]."""
    data = cnncc.load_data("digits", "test")
    return data.x[np.flatnonzero(data.y == 3)[:1]]


def show_map(axes: Axes, values: Any, title: str, **options: Any) -> None:
    axes.imshow(values, interpolation="nearest", **{"vmin": 0, **options})
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


@picture
def pooling() -> Figure:
    x = digit()
    found = cnncc.compile("pools.cnn", target="interp")(x)
    titles = {
        "mean": "avgpool(2x2)", "largest": "maxpool(2x2)",
        "overlapping": "maxpool(3x3, stride = 1)", "power": "lppool(2x2, p = 4)",
    }  # fmt: skip
    figure = Figure(figsize=(10.5, 2.3))
    show_map(figure.add_subplot(1, 5, 1), x[0, 0], "the digit", cmap="gray_r")
    for number, (name, title) in enumerate(titles.items(), 2):
        show_map(figure.add_subplot(1, 5, number), found[name][0, 0], title, cmap="gray_r")
    figure.tight_layout()
    return figure


@picture
def kernels() -> Figure:
    model = cnncc.compile("lenet_digits", target="interp")
    page = generate.INTERACTIVE.read_text(encoding="utf-8")
    model.load_state_dict(generate.weights_of(page, model))
    x = digit()
    maps = model.activations(x)["c1.relu"][0]
    kernel = model.state_dict()["c1.weight"][:, 0]
    figure = Figure(figsize=(10.5, 1.9))
    grid = figure.add_gridspec(2, 18, wspace=0.15, hspace=0.1)
    show_map(figure.add_subplot(grid[:, :2]), x[0, 0], "", cmap="gray_r")
    limit, most = np.abs(kernel).max(), maps.max()
    for k in range(16):
        above, below = (figure.add_subplot(grid[row, k + 2]) for row in (0, 1))
        show_map(above, kernel[k], "", cmap=SIGNED, vmin=-limit, vmax=limit)
        show_map(below, maps[k], "", cmap=SIGNED, vmin=-most, vmax=most)
    return figure


# --- graphs ---------------------------------------------------------------------------------------


def edges_of(graph: Graph) -> list[list[tuple[int, int]]]:
    """Per convolution in a chain of them, (output, input) of all connections along its axis."""
    layers = []
    for node in graph.nodes:
        if isinstance(node.op, Conv):
            (axis,), (extent,) = node.op.window, graph[node.inputs[0]].type.spatial
            (out,) = node.type.spatial
            assert isinstance(extent, int)
            assert isinstance(out, int)
            layers.append([(o, i) for o in range(out) for _, i in axis.taps(o, extent)])
    return layers


@picture
def receptive_fields() -> Figure:
    figure = Figure(figsize=(10.5, 2.6))
    for number, name in enumerate(("plain", "strided", "dilated"), 1):
        layers = edges_of(compiler.front(f"fields.cnn:{name}").graph)
        axes = figure.add_subplot(1, 3, number)
        counts = [1 + max(i for _, i in layers[0]), *(1 + max(o for o, _ in e) for e in layers)]
        wide = counts[0] - 1

        def x(level: int, unit: int, counts: list[int] = counts, wide: int = wide) -> float:
            return unit * wide / max(counts[level] - 1, 1)

        cone = {counts[-1] // 2}
        for level in range(len(layers), 0, -1):
            below = set()
            for o, i in layers[level - 1]:
                inside = o in cone
                ends = [x(level, o), x(level - 1, i)]
                axes.plot(
                    ends, [level, level - 1], color=ACCENT if inside else FAINT,
                    lw=1.3 if inside else 0.6, zorder=2 if inside else 1,
                )  # fmt: skip
                if inside:
                    below.add(i)
            for unit in range(counts[level]):
                dot(axes, x(level, unit), level, unit in cone)
            cone = below
        for unit in range(counts[0]):
            dot(axes, x(0, unit), 0, unit in cone)
        axes.set_title(f"{name}: {len(cone)} of {counts[0]}")
        axes.set_axis_off()
    figure.tight_layout()
    return figure


def dot(axes: Axes, x: float, y: float, marked: bool) -> None:
    axes.plot([x], [y], "o", ms=4.5, mfc=ACCENT if marked else "white", mec=ACCENT if marked else
              "#a9acb5", mew=0.8, zorder=3)  # fmt: skip


@picture
def architectures() -> Figure:
    names = (
        "lenet1989", "lenet1989_nips", "lenet5", "alexnet", "vgg16", "vgg19", "googlenet",
        "resnet18", "resnet50", "resnet152", "mobilenet",
    )  # fmt: skip
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.add_subplot()
    for name in names:
        found = json.loads(generate.command(["report", name, "--json"]))
        axes.plot([found["params"]], [found["macs"]], "o", color=ACCENT, ms=5)
        above = name in ("vgg19", "lenet1989_nips", "googlenet", "resnet152")
        axes.annotate(
            name, (found["params"], found["macs"]), xytext=(-3, 5) if above else (5, -9),
            textcoords="offset points", ha="right" if above else "left", fontsize=8,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="multiply-adds")
    axes.margins(0.24, 0.1)
    axes.grid(color="#eceded", lw=0.6)
    return figure
