"""Random inputs for verbs that see how fast a network is, and the extents that these need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, SpecError
from cnncc.graph.ir import Graph
from cnncc.graph.module import Training

if TYPE_CHECKING:
    from cnncc.targets.runtime import Shape


def concrete_shape(graph: Graph, batch: int, extents: Mapping[str, int]) -> Shape:
    """Batch and extents of a call. Raises SpecError (E0804) when an extent is not given."""
    from cnncc.targets.runtime import Shape

    symbols = {s for n in graph.of("input") for s in n.type.symbols}
    missing = sorted(symbols - extents.keys())
    if missing:
        given = " ".join(f"--extent {name}=64" for name in missing)
        message = f"the inputs have the extents {', '.join(missing)}, which must be known here"
        raise SpecError(Diagnostic("E0804", message, helps=(f"say which, for example {given}",)))
    return Shape(batch, tuple(sorted(extents.items())))


def random_inputs(
    graph: Graph, shape: Shape, training: Training | None = None
) -> dict[str, NDArray[Any]]:
    """Inputs and targets: normal floats, any bytes, class numbers, and whole numbers that every
    table has. The numbers of an optimizer are left out.
    """
    from cnncc.targets.runtime import numpy_dtype

    rng = np.random.default_rng(0)
    classes = {t.name: t.classes for t in training.targets} if training else {}
    found: dict[str, NDArray[Any]] = {}
    for node in graph.of("input"):
        if node.name.startswith("step."):
            continue
        dims = node.type.concrete(dict(shape.symbols)).dims(shape.batch)
        kind = np.dtype(numpy_dtype(node.type))
        if kind.kind == "f":
            found[node.name] = rng.standard_normal(dims).astype(kind)
        else:
            most = 256 if kind == np.uint8 else classes.get(node.name) or 2
            found[node.name] = rng.integers(0, most, dims).astype(kind)
    return found
