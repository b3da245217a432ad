"""Two nests as one: the names, sizes and buffers that the fusion of a producer with its consumer
has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cnncc.errors import CompilerBug
from cnncc.loops.affine import extent_of
from cnncc.loops.ir import Body, Buffer, Fetch, Index, Int, Nest, Size
from cnncc.loops.producer import CannotInline, written
from cnncc.loops.rewrite import Rewrite
from cnncc.loops.walk import Names, indices, names_of, subindices
from cnncc.tensor import Extent

__all__ = ["Merge", "merged"]


@dataclass(frozen=True)
class Merge:
    """The producer in the words of the fused nest. `buffers` is what its buffers are called now,
    `sizes` are all of the fused nest, `names` those taken in either nest.
    """

    consumer: Nest
    producer: Nest
    buffer: str
    keep: bool
    buffers: dict[str, str]
    sizes: dict[str, Extent]
    names: Names

    def nest(self, body: Body) -> Nest:
        """The fused nest: the consumer's buffers in order, with the producer's other inputs in the
        place of the tensor between them, which is the last output if it is kept.
        """
        others = {b.name for b in self.consumer.buffers if b.name != self.buffer}
        inputs = [b for b in self.producer.buffers if b.role == "in"]
        found: list[Buffer] = []
        for b in self.consumer.buffers:
            if b.name == self.buffer:
                found += [mine for mine in inputs if mine.name not in others]
            else:
                found.append(b)
        if self.keep:
            found.append(replace(self.consumer.buffer(self.buffer), role="out"))
        return _pruned(Nest(tuple(found), self.sizes, body))

    def named(self, original: Nest) -> dict[str, str]:
        """What the fused nest calls the inputs of the producer, and its output if it is kept.

        A name that the consumer uses too is prefixed: the `w` of what computes `x` becomes `x_w`.
        """
        return {b.name: self.buffers[b.name] for b in original.buffers
                if self.keep or b.role == "in"}  # fmt: skip


def merged(
    consumer: Nest,
    producer: Nest,
    buffer: str,
    *,
    keep: bool = False,
    alias: Mapping[str, str] | None = None,
) -> Merge:
    """The producer of the consumer's input `buffer` beside it. `alias` maps producer buffers to the
    consumer buffers that hold the same tensor. Raises CannotInline for several outputs.
    """
    output = written(producer)
    _check_fit(consumer, buffer, producer, output)
    alias = alias or {}
    names = Names(names_of(consumer) - (set() if keep else {buffer}))
    # if it is not kept, its name is free for an input of the producer
    buffers = {output.name: buffer if keep else f"{buffer}, not stored"}
    for b in producer.buffers:
        if b.name in alias:
            _check_alias(consumer.buffer(alias[b.name]), consumer, b, producer)
            buffers[b.name] = alias[b.name]
        elif b.name not in buffers:
            buffers[b.name] = names.claim(b.name, f"{buffer}_{b.name}")
    sizes = dict(consumer.sizes)
    replaced: dict[str, Index] = {}
    # the axes of the tensor between the two have a name on each side; the consumer's is kept
    read = consumer.buffer(buffer).extents
    for mine, theirs in zip(output.extents, read, strict=True):
        if isinstance(mine, Size) and isinstance(theirs, (Size, Int)):
            replaced.setdefault(mine.name, theirs)
    for name, value in producer.sizes.items():
        if name in replaced:
            continue
        new = name if sizes.get(name) == value else names.claim(name, f"{buffer}_{name}")
        replaced[name] = Size(new)
        sizes[new] = value
    names.take(names_of(producer))
    renamed = _renamed(producer, buffers, replaced, sizes)
    return Merge(consumer, renamed, buffer, keep, buffers, sizes, names)


def _check_fit(consumer: Nest, buffer: str, producer: Nest, output: Buffer) -> None:
    into = consumer.buffer(buffer)
    if into.role != "in":
        raise CompilerBug("inline", buffer, "only an input can be replaced by its producer")
    read = [extent_of(e, consumer.sizes) for e in into.extents]
    written = [extent_of(e, producer.sizes) for e in output.extents]
    if read != written or into.dtype != output.dtype:
        raise CompilerBug("inline", buffer, f"reads {read} of what was produced as {written}")
    if any(isinstance(i, Fetch) and i.buffer == buffer for i in indices(consumer.body)):
        raise CannotInline("the consumer uses the tensor as an index")


def _check_alias(theirs: Buffer, consumer: Nest, mine: Buffer, producer: Nest) -> None:
    a = [extent_of(e, consumer.sizes) for e in theirs.extents]
    b = [extent_of(e, producer.sizes) for e in mine.extents]
    if a != b or theirs.dtype != mine.dtype or (theirs.role, mine.role) != ("in", "in"):
        raise CompilerBug("inline", mine.name, f"is not the tensor of {theirs.name}: {b} and {a}")


def _renamed(
    nest: Nest, buffers: Mapping[str, str], sizes: Mapping[str, Index], known: Mapping[str, Extent]
) -> Nest:
    """With other names of buffers, with its sizes replaced, and with `known` as all sizes."""

    def index(i: Index) -> Index | None:
        match i:
            case Size(name):
                return sizes[name]
            case Fetch(buffer, at):
                return Fetch(buffers[buffer], tuple(map(rewrite.on_index, at)))
            case _:
                return None

    rewrite = Rewrite(index=index, buffer=lambda name: buffers[name])
    own = tuple(
        replace(b, name=buffers[b.name], extents=tuple(map(rewrite.on_index, b.extents)))
        for b in nest.buffers
    )
    return Nest(own, dict(known), rewrite.on_body(nest.body))


def _pruned(nest: Nest) -> Nest:
    """Without the sizes that nothing mentions any more."""
    used = {i.name for i in indices(nest.body) if isinstance(i, Size)}
    for b in nest.buffers:
        used |= {i.name for e in b.extents for i in subindices(e) if isinstance(i, Size)}
    return replace(nest, sizes={name: e for name, e in nest.sizes.items() if name in used})
