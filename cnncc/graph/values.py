"""The values that exist while a network is built: numbers, truth values, tuples and lists of them,
sizes such as 3x3, words such as `same`, extents that are not known yet (`H`), names of shared
kernels, and tensors, which are nodes of the graph. A value that stands for a mistake that has been
reported is `POISON`: whatever is computed from it is poison too, so that one mistake is reported
once.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, final

from cnncc.graph.ir import Node
from cnncc.graph.layer import Size, Transposed, Weights, Word
from cnncc.tensor import Poly


@final
class Poison:
    """The value of an expression with a mistake in it."""

    def __repr__(self) -> str:
        return "POISON"


POISON: Final = Poison()

Value: TypeAlias = (
    "bool | int | float | Poly | tuple[Any, ...] | list[Any]"
    " | Size | Word | Weights | Transposed | Node | Poison"
)


def is_integer(value: Value) -> bool:
    """Whether the value is a known integer (`true` is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Value) -> bool:
    """Whether the value is a known number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_poisoned(value: Value) -> bool:
    """Whether the value is poison or contains any."""
    match value:
        case Poison():
            return True
        case tuple() | list():
            return any(is_poisoned(v) for v in value)
        case Word():
            return any(is_poisoned(v) for v in (*value.args, *(v for _, v in value.named)))
    return False


def contains_tensor(value: Value) -> bool:
    """Whether a tensor is the value or stands somewhere in it."""
    match value:
        case Node():
            return True
        case tuple() | list():
            return any(contains_tensor(v) for v in value)
        case Word():
            return any(contains_tensor(v) for v in (*value.args, *(v for _, v in value.named)))
    return False


def show(value: Value) -> str:
    """A value as a message shows it: numbers and words as they are written, tensors by name."""
    match value:
        case bool():
            return "true" if value else "false"
        case Node():
            return f"the tensor `{value.name}`"
        case Weights():
            return f"the shared kernel `{value.name}`"
        case Transposed():
            return f"transpose({value.name})"
        case tuple():
            comma = "," if len(value) == 1 else ""
            return "(" + ", ".join(map(show, value)) + comma + ")"
        case list():
            return "[" + ", ".join(map(show, value)) + "]"
        case Word():
            parts = [show(v) for v in value.args] + [f"{k} = {show(v)}" for k, v in value.named]
            return f"{value.name}({', '.join(parts)})" if parts else value.name
    return str(value)


def kind(value: Value) -> str:
    """What sort of thing a value is, in words."""
    match value:
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case Poly():
            return "an extent that is not known yet"
        case Node():
            return "a tensor"
        case Weights():
            return "the name of a shared kernel"
        case Transposed():
            return "the kernel of a layer"
        case tuple():
            return "a tuple"
        case list():
            return "a list"
        case Size():
            return "a size"
        case Word():
            return "a word"
        case Poison():
            return "a mistake"
