"""From the caller's arrays to the arrays that a compiled graph takes: any library's arrays come in,
and rank, extents, element type and range are compared with what the network declares before any of
them reaches a kernel. Layout is as PyTorch and ONNX have it: batch, channels, spatial extents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnncc.errors import Diagnostic, Note, Span, SpecError
from cnncc.graph.ir import Graph, Node
from cnncc.graph.sources import Input
from cnncc.tensor import DType, TensorType

Array = NDArray[Any]

NUMPY: Mapping[DType, type[np.generic]] = {
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.U8: np.uint8,
    DType.U16: np.uint16,
    DType.I32: np.int32,
    DType.I64: np.int64,
}


SHAPES = 64  # shapes that a slot remembers


class InputError(SpecError, ValueError):
    """An array does not fit the network: its shape (E0802), its element type (E0803), or a value
    out of range (E0706). Nothing was run.
    """


@dataclass(frozen=True)
class Slot:
    """An input of a graph as arrays are held against it.

    `limit`: its numbers are 0 to limit - 1, because they name a class or a row; None without such
    a bound.
    """

    name: str
    type: TensorType
    limit: int | None = None
    classes: bool = False  # class numbers, of which (samples,) is a usual shape
    span: Span | None = None
    _known: set[tuple[int, ...]] = field(init=False, default_factory=set, compare=False, repr=False)

    def takes(self, value: Any) -> bool:
        """Whether a value is such an array as was checked before, down to its shape."""
        return (
            type(value) is np.ndarray
            and value.shape in self._known
            and value.dtype == NUMPY[self.type.dtype]
            and value.flags.carray
        )

    def remember(self, shape: tuple[int, ...]) -> None:
        """Arrays of this shape fit."""
        if self.limit is None and len(self._known) < SHAPES:
            self._known.add(shape)


def slots(graph: Graph, names: tuple[str, ...], classes: Mapping[str, int]) -> tuple[Slot, ...]:
    """The inputs `names` of a graph in this order; `classes`: the number of classes of targets."""
    bounds = index_limits(graph)
    found = []
    for name in names:
        node = graph[name]
        limit = classes.get(name, bounds.get(name))
        found.append(Slot(name, node.type, limit, name in classes, node.origin.span))
    return tuple(found)


def index_limits(graph: Graph) -> dict[str, int]:
    """For inputs that hold row or class numbers, how many rows or classes there are."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op.name == "embed":
            numbers, count = node.inputs[0], graph[node.inputs[1]].type.shape[0]
        elif node.op.name in ("cross_entropy", "nll"):
            numbers, count = node.inputs[1], graph[node.inputs[0]].type.shape[0]
        else:
            continue
        source = _source(graph, graph[numbers])
        if source is not None and isinstance(count, int):
            found[source.name] = min(count, found.get(source.name, count))
    return found


def _source(graph: Graph, node: Node) -> Node | None:
    """The input that a tensor of whole numbers is a view of."""
    while not isinstance(node.op, Input):
        if len(node.inputs) != 1:
            return None
        node = graph[node.inputs[0]]
    return node


def as_input(value: Any, slot: Slot) -> Array:
    """The caller's array as a slot takes it: C-contiguous, of the slot's element type.

    float64 and float16 become float32; whole numbers become those of the slot when they are in its
    range. Raises InputError (E0802, E0803, E0706), and TypeError for what is no array.
    """
    if slot.takes(value):
        checked: Array = value
        return checked
    array = as_array(value, slot.name)
    array = _typed(array, slot, listed=isinstance(value, list | tuple | int | float))
    array = _shaped(array, slot)
    if slot.limit is not None and array.size:
        _check_limit(array, slot)
    array = np.require(array, NUMPY[slot.type.dtype], ["C", "ALIGNED"])
    slot.remember(array.shape)
    return array


def as_array(value: Any, name: str) -> Array:
    """Any array, or nested lists of numbers, as a NumPy array. Raises TypeError."""
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        array = np.asarray(value)
    except (BufferError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TypeError(
            f"{name}: this {type(value).__name__} cannot be read as an array on the CPU: {reason}"
        ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name}: expected an array of numbers, but got {type(value).__name__}"
            + (f" of {array.dtype}" if array.dtype != object else "")
        )
    return array


def _typed(array: Array, slot: Slot, *, listed: bool) -> Array:
    wanted = slot.type.dtype
    kind = array.dtype.kind
    if wanted.is_float:
        if kind == "f" or (listed and kind in "iu"):
            with np.errstate(over="ignore"):
                return array.astype(NUMPY[wanted], copy=False)
        raise _wrong_type(array, slot)
    if kind not in "iu":
        raise _wrong_type(array, slot)
    bounds = np.iinfo(np.dtype(NUMPY[wanted]))
    if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
        raise _refused(
            "E0706",
            slot,
            f"{_the(slot)} is {wanted}, which holds {bounds.min} to {bounds.max}, "
            f"but the array has {array.min()} to {array.max()}",
        )
    return array.astype(NUMPY[wanted], copy=False)


def _shaped(array: Array, slot: Slot) -> Array:
    if slot.classes and array.ndim == 1 and slot.type.shape == (1,):
        array = array[:, np.newaxis]
    if not _fits(array.shape, slot.type):
        raise _refused(
            "E0802",
            slot,
            f"{_the(slot)} is {_written(slot.type)}, but got an array of shape {array.shape}",
            *_advice(array, slot),
        )
    if slot.type.batched and array.shape[0] == 0:
        raise _refused("E0802", slot, f"{_the(slot)} needs at least one sample, but got none")
    return array


def _fits(shape: tuple[int, ...], type: TensorType) -> bool:
    own = shape[1:] if type.batched else shape
    return len(shape) == type.axes and all(
        n >= 1 if not isinstance(extent, int) else n == extent
        for extent, n in zip(type.shape, own, strict=True)
    )


def _advice(array: Array, slot: Slot) -> list[str]:
    shape, type = array.shape, slot.type
    if slot.classes:
        return ["give one class number per sample; of one-hot rows that is `y.argmax(axis=1)`"]
    if type.batched and _fits((1, *shape), type):
        return ["add the batch axis: `x[np.newaxis]`"]
    last = len(shape) - 1
    if len(shape) == type.axes > 2 and _fits((shape[0], shape[last], *shape[1:last]), type):
        order = (0, last, *range(1, last))
        return [f"channels stand in front of the spatial axes: `x.transpose{order}`"]
    if shape and type.batched and type.channels == 1 and _fits((shape[0], 1, *shape[1:]), type):
        return ["add the channel axis: `x[:, np.newaxis]`"]
    return []


def _check_limit(array: Array, slot: Slot) -> None:
    wrong = (array < 0) | (array >= slot.limit)
    if wrong.any():
        at = int(np.argmax(wrong.reshape(len(array), -1).any(axis=1)))
        value = int(array.reshape(-1)[np.argmax(wrong)])
        what = "a class" if slot.classes else "a number"
        assert slot.limit is not None
        raise _refused(
            "E0706",
            slot,
            f"{what} of `{slot.name}` is 0 to {slot.limit - 1}, but sample {at} has {value}",
            "count from 0",
        )


def _wrong_type(array: Array, slot: Slot) -> InputError:
    wanted = slot.type.dtype
    if wanted.is_float:
        helps = ["convert it: `x.astype(np.float32)`"]
        if array.dtype == np.uint8:
            helps = [
                "pixels of 0 to 255 as fractions: `x.astype(np.float32) / 255`",
                f"or declare the input as u8: `input {slot.name}: u8[...]`",
            ]
    else:
        helps = [f"convert it: `x.astype(np.{np.dtype(NUMPY[wanted]).name})`"]
    return _refused(
        "E0803",
        slot,
        f"{_the(slot)} is {_written(slot.type)}, but got an array of {array.dtype}",
        *helps,
    )


def _the(slot: Slot) -> str:
    return f"`{slot.name}`"


def _written(type: TensorType) -> str:
    """A type as its array: `f32 of shape (batch, 1, 28, 28)`."""
    axes = [*(["batch"] if type.batched else []), *map(str, type.shape)]
    return f"{type.dtype} of shape ({', '.join(axes)})"


def _refused(code: str, slot: Slot, message: str, *helps: str) -> InputError:
    notes = (Note("it is declared here", slot.span),) if slot.span and slot.span.known else ()
    return InputError(Diagnostic(code, message, None, "", notes, helps))
