"""Every kernel by itself: fused = unfused = interpreted on floats and on whole numbers, equal to
the operators' NumPy oracles, and each access in bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Graph
from cnncc.graph.sources import Constant, Source
from cnncc.loops.key import NestKey, nest_key
from cnncc.loops.verify import bounds, verify
from cnncc.ops.base import Array, Op
from cnncc.passes.fuse import fuse
from cnncc.passes.linear import constant_array
from cnncc.passes.lower import Kernel
from cnncc.tensor import evaluate
from cnncc.verify.certificate import Check, Verdict
from cnncc.verify.isolate import Piece, together
from cnncc.verify.running import (
    Arrays,
    Target,
    close,
    drawn,
    dyadic,
    interpreted,
    same_bits,
    same_numbers,
)

ROUNDING = 1e-5
"""Relative L2 error that a kernel with quotients, roots or exponentials may have."""

DIFFERENCES = ("cross_entropy", "cross_entropy_grad", "log_softmax", "log_softmax_grad")
"""Operators whose results may lose all digits to a difference on data that a network classifies
well.
"""

Data = Mapping[str, Array]


class Kernels:
    """Kernels by themselves, as one program fused and as one unfused. There is at least one."""

    def __init__(
        self, found: Sequence[Piece], batch: int, *, machine: bool, threads: int | None
    ) -> None:
        self.pieces, self.batch = found, batch
        self.graph, fused = together(found, "kernels")
        self.alone = fuse(self.graph, enabled=False)
        self.targets = tuple(
            Target(f, batch, machine=machine, threads=threads) for f in (fused, self.alone)
        )

    def verdicts(self, actual: Arrays, seed: int) -> list[Verdict]:
        """One per kernel. `actual` holds the network's own tensors in a run by definition."""
        rng = np.random.default_rng(seed)
        own = {new: actual[old] for p in self.pieces for new, old in p.sources.items()}
        sets = {
            "floats": _filled(self.graph, own, self.batch, rng, whole=False),
            "integers": _filled(self.graph, own, self.batch, rng, whole=True),
            "data": own,
        }
        known = {new: actual[old] for p in self.pieces for new, old in p.results.items()}
        runs = {}
        for name, given in sets.items():
            defined = known if name == "data" else interpreted(self.alone, given, self.batch)
            runs[name] = (*(t.run(given) for t in self.targets), defined)
        return [self._verdict(piece, sets, runs) for piece in self.pieces]

    def _verdict(
        self, piece: Piece, sets: Mapping[str, Data], runs: Mapping[str, tuple[Arrays, ...]]
    ) -> Verdict:
        wanted = [n for _, n in piece.graph.outputs]
        checks = []
        for name, (fast, slow, definition) in runs.items():
            checks.append(same_bits(f"fused = interp, {name}", fast, definition, wanted))
            checks.append(same_bits(f"unfused = interp, {name}", slow, definition, wanted))
        checks.append(_oracle(piece, sets, {k: r[0] for k, r in runs.items()}, self.batch))
        checks.append(bounds_check(piece.kernel, self.batch))
        return Verdict("kernel", piece.label, tuple(checks), piece.places)


def _filled(
    graph: Graph, actual: Data, batch: int, rng: np.random.Generator, *, whole: bool
) -> dict[str, Array]:
    """Numbers for every float source; class numbers, indices and keys as the network has them."""
    given = dict(actual)
    for node in graph.nodes:
        if not isinstance(node.op, Source) or isinstance(node.op, Constant):
            continue
        if node.type.dtype.is_float:
            given[node.name] = drawn(node.type, batch, rng, whole=whole)
    return given


def _oracle(
    piece: Piece, sets: Mapping[str, Data], runs: Mapping[str, Arrays], batch: int
) -> Check:
    """On whole numbers the definition's results to the number, where all of them are short binary
    numbers; else within rounding on the network's own data (a loss and its gradient: on random
    scores), relative to the result whatever its size.
    """
    wanted = [n for _, n in piece.graph.outputs]
    exact = oracle(piece.graph, sets["integers"], batch)
    ops = [n.op for n in piece.graph.nodes if isinstance(n.op, Op)]
    names = [n.name for n in piece.graph.nodes if isinstance(n.op, Op)]
    inexact = [op.name for op in ops if not always_exact(op)]
    if dyadic(*(exact[n] for n in names)):
        found = [
            same_numbers("oracle, integers", np.asarray(runs["integers"][n], np.float64),
                         np.asarray(exact[n], np.float64), n)
            for n in wanted
        ]  # fmt: skip
        if not inexact or not any(c.failed for c in found):
            return _merged(found)
    # losses near 0 and their gradients are differences of numbers that are equal but for rounding;
    # between random scores nothing of that kind cancels
    chosen = "floats" if any(op.name in DIFFERENCES for op in ops) else "data"
    defined = oracle(piece.graph, sets[chosen], batch)
    found = [
        close("oracle, floats", np.asarray(runs[chosen][n]), np.asarray(defined[n]), n, ROUNDING)
        for n in wanted
    ]
    return _merged(found)


def _merged(found: Sequence[Check]) -> Check:
    """The first failing check, or one for all."""
    failing = next((c for c in found if c.outcome == "differs"), None)
    if failing is not None:
        return failing
    note = "; ".join(c.note for c in found if c.note)
    return Check(found[0].name, found[0].outcome, sum(c.elements for c in found), note)


def always_exact(op: Op) -> bool:
    """Whether no sample of the operator's kind needs rounding on whole numbers."""
    return all(sample.exact for sample in type(op).samples())


def oracle(graph: Graph, given: Data, batch: int) -> dict[str, Array]:
    """All tensors of a graph by the operators' NumPy definitions, floats in float64."""
    found: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if isinstance(node.op, Constant):
                found[node.name] = constant_array(node, batch)
            elif isinstance(node.op, Source):
                x = given[node.name]
                found[node.name] = x.astype(np.float64) if x.dtype.kind == "f" else x
            else:
                assert isinstance(node.op, Op)
                operands = [found[i] for i in node.inputs]
                found[node.name] = node.op.oracle(graph.types(node), operands)
    return found


def bounds_check(kernel: Kernel, batch: int) -> Check:
    """Every access of the nest is proved to stay inside its buffer."""
    return _proved(nest_key(kernel.nest), batch)


@lru_cache(maxsize=1024)  # deep networks repeat their kernels
def _proved(key: NestKey, batch: int) -> Check:
    nest = key.nest
    sizes = {name: evaluate(e, {"*": batch}) for name, e in nest.sizes.items()}
    try:
        verify(nest)
        verify(nest, sizes)
    except CompilerBug as error:
        return Check("bounds", "differs", 0, str(error))
    proofs = bounds(nest, sizes)
    failing = [p for p in proofs if not p.holds]
    if failing:
        return Check("bounds", "differs", len(proofs), str(failing[0]))
    assumed = sum(any(p.assumed) for p in proofs)
    note = f"{assumed} through checked indices in the data" if assumed else ""
    return Check("bounds", "equal", len(proofs), note)
