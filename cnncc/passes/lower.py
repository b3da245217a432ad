"""A group of nodes as one kernel: the sink's loop nest with its producers inlined, or pushed into
the producer that computes several elements at a time.

Fusion has only these two mechanisms, so a fused kernel does the same arithmetic in the same order
as the kernels it replaces, and has the same bits.

A deep network repeats its layers, and what is made for one of them serves all: equal operators on
equal types share one nest object, and so do the kernels that are joined from the same nests in the
same way. Nests are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cnncc.errors import CompilerBug
from cnncc.graph.ir import Graph, Node
from cnncc.loops.digits import over_digits
from cnncc.loops.inline import inline
from cnncc.loops.ir import Nest, Store
from cnncc.loops.key import This
from cnncc.loops.merge import merged
from cnncc.loops.push import push
from cnncc.loops.walk import statements
from cnncc.ops.base import Op
from cnncc.tensor import TensorType


@dataclass(frozen=True)
class Kernel:
    """What runs as one piece: its nodes in order (the sink last), the nest, and the tensor behind
    each buffer.
    """

    nodes: tuple[Node, ...]
    nest: Nest
    tensors: tuple[str, ...]  # one node name per buffer of the nest

    @property
    def sink(self) -> Node:
        return self.nodes[-1]

    @property
    def reads(self) -> tuple[str, ...]:
        return self._by_role("in")

    @property
    def writes(self) -> tuple[str, ...]:
        return self._by_role("out")

    def _by_role(self, role: str) -> tuple[str, ...]:
        pairs = zip(self.tensors, self.nest.buffers, strict=True)
        return tuple(t for t, b in pairs if b.role == role)


def own_nest(graph: Graph, node: Node) -> tuple[Nest, dict[str, str]]:
    """A node's loop nest and the tensor behind each of its buffers."""
    if not isinstance(node.op, Op):
        raise CompilerBug("lower", node.name, f"{node.op.name} has no loop nest")
    nest = _nest(node.op, repr(node.op), graph.types(node), node.type)
    tensors = (*node.inputs, node.name)
    if len(tensors) != len(nest.buffers):
        raise CompilerBug(
            "lower", node.name, f"{len(nest.buffers)} buffers for {len(tensors)} tensors"
        )
    return nest, {b.name: t for b, t in zip(nest.buffers, tensors, strict=True)}


def lower(graph: Graph, nodes: Sequence[Node], needed: Callable[[str], bool]) -> Kernel:
    """The kernel of a group.

    Requires: `nodes` in topological order, every one but the last read inside the group;
    `needed(name)` says whether a tensor is also read outside. Ensures: the kernel writes the sink
    and every needed tensor.
    Raises CannotInline when a producer's form does not allow it.
    """
    nest, tensors = own_nest(graph, nodes[-1])
    for producer in reversed(nodes[:-1]):
        below, below_tensors = own_nest(graph, producer)
        reading = [b for b, t in tensors.items() if t == producer.name]
        if not reading:
            raise CompilerBug("lower", producer.name, "nobody in the group reads it")
        for number, buffer in enumerate(reading):
            known = {t: b for b, t in tensors.items() if b != buffer}
            alias = {
                b: known[t] for b, t in below_tensors.items() if t in known and t != producer.name
            }
            keep = needed(producer.name) and number == 0
            nest, names = _joined(
                This(nest), This(below), buffer, keep, tuple(sorted(alias.items()))
            )
            del tensors[buffer]
            tensors |= {names[b]: below_tensors[b] for b in names}
            left = {b.name for b in nest.buffers}
            tensors = {b: t for b, t in tensors.items() if b in left}
    return Kernel(tuple(nodes), nest, tuple(tensors[b.name] for b in nest.buffers))


CACHED = 512  # nests of operators, and joined ones: a deep network has a few dozen of each


@lru_cache(maxsize=CACHED)
def _nest(op: Op, written: str, inputs: tuple[TensorType, ...], output: TensorType) -> Nest:
    """An operator's nest. `written`: the operator's text, which tells 0.0 from -0.0."""
    return op.nest(inputs, output)


@lru_cache(maxsize=CACHED)
def _joined(
    consumer: This, producer: This, buffer: str, keep: bool, alias: tuple[tuple[str, str], ...]
) -> tuple[Nest, Mapping[str, str]]:
    """A consumer fused with what computes its input, and what its nest calls the buffers of the
    producer. Raises CannotInline.
    """
    above, below = consumer.nest, producer.nest
    names = merged(above, below, buffer, keep=keep, alias=dict(alias)).named(below)
    stores = sum(isinstance(s, Store) for s in statements(below.body))
    join = push if stores > 1 else inline
    return over_digits(join(above, below, buffer, keep=keep, alias=dict(alias))), names
