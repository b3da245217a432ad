"""`cnncc matrix`: a linear layer written out as the matrix that it is."""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnncc.cli.failures import DONE, UsageError
from cnncc.cli.output import print_json, remark, write_text
from cnncc.cli.verbs import Verbs, add_json, add_net, net_arguments
from cnncc.errors import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cnncc.graph.ir import Graph
    from cnncc.passes.matrix import LayerMatrix

MOST_COLUMNS, MOST_ROWS, MOST_WIDTH = 40, 80, 160
"""The largest matrix that is printed; all others are summed up."""

MOST_LEGEND = 40
"""Weights whose places are listed."""

ABOUT = """\
The matrix A of a layer that is linear in its input: A @ x + layer(0) = layer(x) on flattened
tensors. A row is a result and a column an input, in row-major order, channels first. Weights are
shown as c1, c2, ... in the order in which they are stored, or as numbers where the text or
--weights gives them. A large matrix is summed up; --save writes any:
  .npz  arrays rows, columns, weights (from 0; -1: none), coefficients, shape, names; and values
  .csv  one line per term: row, column, coefficient, weight, and value
"""


def add(verbs: Verbs) -> None:
    """Add `matrix`."""
    parser = verbs.add(
        "matrix",
        "print or save the (Toeplitz) matrix of a linear layer",
        matrix,
        [
            "cnncc matrix edges.cnn y",
            "cnncc matrix lenet5_modern c1 --save c1.npz",
            "cnncc matrix lenet_digits c1 --weights digits.safetensors --save c1.csv",
        ],
        ABOUT,
    )
    add_net(parser)
    parser.add_argument("layer", metavar="LAYER", help="a layer, as `cnncc report` names it")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="numbers for the weights, from this file"
    )
    parser.add_argument("--save", metavar="FILE", type=Path, help="write it to a .npz or .csv file")
    add_json(parser, "size, entries and weights")


def matrix(options: argparse.Namespace) -> int:
    """Build the matrix, then save it or print it."""
    if options.save is not None and options.save.suffix not in (".npz", ".csv"):
        raise UsageError(f"--save is a .npz or .csv file, but got {options.save}")
    from cnncc import compiler
    from cnncc.passes.matrix import layer_matrix

    graph = compiler.front(options.net, arguments=net_arguments(options)).graph
    found = layer_matrix(graph, options.layer)
    given = _parameters(graph, found, options.weights)
    if options.save is not None:
        _save(options.save, found, given)
        remark(f"wrote {found.nonzeros} entries to {options.save}")
    if options.json:
        print_json(_as_json(found))
    elif options.save is None:
        print("\n".join(_lines(found, given)))
    return DONE


def _parameters(
    graph: Graph, found: LayerMatrix, file: Path | None
) -> dict[str, NDArray[Any]] | None:
    """Values of the layer's parameters: from a file, or from the text where that gives all of
    them; None when nothing is known of them. Raises DataError.
    """
    from cnncc.graph.sources import Parameter
    from cnncc.io.layout import TensorInfo
    from cnncc.io.safetensors import load_state
    from cnncc.train.init import initial

    if not found.stored.names:
        return {}
    if file is not None:
        import numpy as np

        expected = {
            n.name: TensorInfo.of(np.broadcast_to(np.float32(0), n.type.dims(0)))
            for n in graph.of("parameter")
        }
        arrays, _ = load_state(file, expect=expected, strict=True)
        return {name: arrays[name] for name in found.stored.names}
    shown = {n for n in found.stored.names if not _is_only_added(found, n)}
    for name in shown:
        op = graph[name].op
        assert isinstance(op, Parameter)
        if op.init.literal is None and op.init.kind != "constant":
            return None
    return {name: initial(graph[name], 0) for name in found.stored.names}


def _is_only_added(found: LayerMatrix, name: str) -> bool:
    """Whether no entry shows a parameter: a bias."""
    first = 0
    for other, size in zip(found.stored.names, found.stored.sizes, strict=True):
        if other == name:
            shown = (found.weights >= first) & (found.weights < first + size)
            return not bool(shown.any())
        first += size
    raise KeyError(name)


# --- printing -------------------------------------------------------------------------------------


def _lines(found: LayerMatrix, given: Mapping[str, NDArray[Any]] | None) -> list[str]:
    rows, columns = found.shape
    used = sorted({int(w) for w in found.weights if w >= 0})
    lines = [
        f"{printable(found.layer)}: {found.inputs} -> {found.results}",
        f"{rows} x {columns}, {found.nonzeros} of {rows * columns} entries are not zero, "
        f"{len(used)} weights",
    ]
    cells = _cells(found, used, given)
    wide = max((len(text) for text in cells.values()), default=1)
    if columns > MOST_COLUMNS or rows > MOST_ROWS or columns * (wide + 1) > MOST_WIDTH:
        return [*lines, "too large to print; --save writes it"]
    lines.append("")
    for row in range(rows):
        lines.append(" ".join(f"{cells.get((row, c), '.'):>{wide}}" for c in range(columns)))
    if given is None:
        shown = [
            f"{_symbol(k)} = {printable(found.stored.place(w))}"
            for k, w in enumerate(used[:MOST_LEGEND])
        ]
        more = [f"and {len(used) - MOST_LEGEND} more"] if len(used) > MOST_LEGEND else []
        lines += ["", *shown, *more]
    return lines


def _cells(
    found: LayerMatrix, used: list[int], given: Mapping[str, NDArray[Any]] | None
) -> dict[tuple[int, int], str]:
    """The text of every entry that is not zero."""
    if found.shape[0] > MOST_ROWS or found.shape[1] > MOST_COLUMNS:
        return {}
    places = list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    if given is not None:
        sums: dict[tuple[int, int], float] = defaultdict(float)
        for place, value in zip(places, found.values(given).tolist(), strict=True):
            sums[place] += value
        return {place: f"{value:g}" for place, value in sums.items()}
    number = {weight: k for k, weight in enumerate(used)}
    texts: dict[tuple[int, int], list[str]] = defaultdict(list)
    terms = zip(places, found.weights.tolist(), found.coefficients.tolist(), strict=True)
    for place, weight, coefficient in terms:
        if weight < 0:
            texts[place].append(f"{coefficient:g}")
        else:
            factor = "" if coefficient == 1 else f"{coefficient:.3g}*"
            texts[place].append(factor + _symbol(number[weight]))
    return {place: "+".join(parts) for place, parts in texts.items()}


def _symbol(number: int) -> str:
    return f"c{number + 1}"


def _as_json(found: LayerMatrix) -> dict[str, Any]:
    return {
        "layer": found.layer,
        "input": str(found.inputs),
        "result": str(found.results),
        "shape": list(found.shape),
        "nonzeros": found.nonzeros,
        "weights": len({int(w) for w in found.weights if w >= 0}),
        "parameters": list(found.stored.names),
    }


# --- files ----------------------------------------------------------------------------------------


def _save(path: Path, found: LayerMatrix, given: Mapping[str, NDArray[Any]] | None) -> None:
    """Write the terms. Raises DataError (E0710)."""
    import numpy as np

    from cnncc.cli.arrays import writable, write_arrays

    writable(path)
    if path.suffix == ".npz":
        arrays = {
            "rows": found.rows,
            "columns": found.columns,
            "weights": found.weights,
            "coefficients": found.coefficients,
            "shape": np.array(found.shape),
            "names": np.array([found.stored.place(w) for w in range(found.stored.size)], "U"),
        }
        if given is not None:
            arrays["values"] = found.values(given)
        write_arrays(path, arrays)
        return
    lines = io.StringIO()
    lines.write("row,column,coefficient,weight" + (",value" if given is not None else "") + "\n")
    values = found.values(given).tolist() if given is not None else [None] * len(found.rows)
    terms = zip(
        found.rows.tolist(),
        found.columns.tolist(),
        found.coefficients.tolist(),
        found.weights.tolist(),
        values,
        strict=True,
    )
    for row, column, coefficient, weight, value in terms:
        name = f'"{found.stored.place(weight)}"' if weight >= 0 else ""
        end = "" if value is None else f",{value!r}"
        lines.write(f"{row},{column},{coefficient!r},{name}{end}\n")
    write_text(path, lines.getvalue())
