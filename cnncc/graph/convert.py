"""From language values to what a layer function asks for: the annotations of `graph.layer`, read as
rules, with the words for what is refused.
"""

from __future__ import annotations

import typing
from typing import Any, Literal, NoReturn, get_args, get_origin

from cnncc.graph.ir import Node
from cnncc.graph.layer import (
    ArgumentError,
    Count,
    Extents,
    Flag,
    Init,
    Natural,
    Number,
    Numbers,
    Pad,
    PerAxis,
    Size,
    Weights,
    Word,
)


def describe(annotation: Any) -> str:
    """What an argument accepts, in words."""
    if get_origin(annotation) is typing.Annotated:
        return str(get_args(annotation)[1])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    choices = [a for a in get_args(annotation) if a is not type(None)]
    if choices:
        return " or ".join(describe(a) for a in choices)
    names = {
        Size: "a size such as 3x3",
        Pad: "valid, same, same_lower, a number, (lo, hi) pairs, const(v), replicate, reflect, "
        "circular or solve(out = n)",
        Init: "he, glorot, lecun, normal(std), uniform(bound), constant(v) or a literal",
        Weights: "a name declared by `weights`",
        Word: "a word",
    }
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def convert(value: Any, annotation: Any, argument: str) -> Any:
    """The Python value of a language value for an annotation. Raises ArgumentError."""
    if get_origin(annotation) is typing.Annotated:
        return _convert_annotated(value, annotation, argument)
    if get_origin(annotation) is Literal:
        allowed = get_args(annotation)
        if isinstance(value, Word) and not value.args and not value.named and value.name in allowed:
            return value.name
        _refuse(value, annotation, argument)
    if annotation is Size:
        return _convert_size(value, argument)
    if annotation is Pad:
        return _convert_pad(value, argument)
    if annotation is Init:
        return _convert_init(value, argument)
    if annotation is Weights:
        return value if isinstance(value, Weights) else _refuse(value, annotation, argument)
    if annotation is Word:
        return value if isinstance(value, Word) else _refuse(value, annotation, argument)
    choices = [a for a in get_args(annotation) if a is not type(None)]
    for choice in choices[:-1]:
        try:
            return convert(value, choice, argument)
        except ArgumentError:
            continue  # the last choice's refusal speaks for all
    if choices:
        try:
            return convert(value, choices[-1], argument)
        except ArgumentError:
            _refuse(value, annotation, argument)
    raise AssertionError(f"layer annotation {annotation!r} of {argument}")


def _refuse(value: Any, annotation: Any, argument: str) -> NoReturn:
    raise ArgumentError(
        f"`{argument}` must be {describe(annotation)}, but got {show(value)}", argument=argument
    )


def show(value: Any) -> str:
    """A language value as the user would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Node):
        return f"the tensor `{value.name}`"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(show, value)) + ")"
    return str(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _convert_annotated(value: Any, annotation: Any, argument: str) -> Any:
    items = (
        value.taps
        if isinstance(value, Size)
        else value
        if isinstance(value, (tuple, list))
        else (value,)
    )
    if annotation is Flag and isinstance(value, bool):
        return value
    if annotation == Count and _integer(value) and value >= 1:
        return value
    if annotation == Natural and _integer(value) and value >= 0:
        return value
    if annotation == Number and _number(value):
        return float(value)
    if annotation in (PerAxis, Extents) and items and all(_integer(i) and i >= 1 for i in items):
        return tuple(items)
    if annotation == Numbers and items and all(_number(i) for i in items):
        return tuple(float(i) for i in items)
    _refuse(value, annotation, argument)


def _convert_size(value: Any, argument: str) -> Size:
    taps = (
        value.taps if isinstance(value, Size) else value if isinstance(value, tuple) else (value,)
    )
    if taps and all(_integer(t) and t >= 1 for t in taps):
        return Size(tuple(taps))
    _refuse(value, Size, argument)


def _pairs(value: Any) -> tuple[tuple[int, int], ...] | int | None:
    """n -> n; (lo, hi) -> one pair for every axis; ((lo, hi), ...) -> one pair per axis."""
    if _integer(value) and value >= 0:
        return int(value)
    if isinstance(value, tuple) and len(value) == 2 and all(_integer(v) and v >= 0 for v in value):
        return ((value[0], value[1]),)
    if not isinstance(value, tuple) or not value:
        return None
    if not all(isinstance(v, tuple) and len(v) == 2 for v in value):
        return None
    if all(_integer(n) and n >= 0 for v in value for n in v):
        return tuple((v[0], v[1]) for v in value)
    return None


def _convert_pad(value: Any, argument: str) -> Pad:
    amount = _pairs(value)
    if amount is not None:
        return Pad(amount)
    if not isinstance(value, Word):
        _refuse(value, Pad, argument)
    named = dict(value.named)
    match value.name:
        case "valid" | "same" | "same_lower" if not value.args and not named:
            return Pad(value.name)
        case "solve" if set(named) == {"out"} and not value.args:
            out = named["out"]
            out = out.taps if isinstance(out, Size) else out if isinstance(out, tuple) else (out,)
            if all(_integer(o) and o >= 1 for o in out):
                return Pad("solve", out=tuple(out))
        case "const" if 1 <= len(value.args) <= 2 and not named and _number(value.args[0]):
            border: Any = _pairs(value.args[1]) if len(value.args) == 2 else "same"
            if border is not None:
                return Pad(border, "const", float(value.args[0]))
        case "replicate" | "reflect" | "circular" if len(value.args) <= 1 and not named:
            border = _pairs(value.args[0]) if value.args else "same"
            if border is not None:
                return Pad(border, value.name)
    _refuse(value, Pad, argument)


INITS = {
    "he": 0,
    "glorot": 0,
    "lecun": 0,
    "zeros": 0,
    "ones": 0,
    "constant": 1,
    "normal": 1,
    "uniform": 1,
}


def _convert_init(value: Any, argument: str) -> Init:
    if isinstance(value, Word) and INITS.get(value.name) == len(value.args) and not value.named:
        numbers = tuple(float(a) for a in value.args if _number(a))
        if len(numbers) == len(value.args):
            return Init(value.name, numbers)
    if isinstance(value, list):
        return Init("literal", literal=_frozen(value, argument))
    _refuse(value, Init, argument)


def _frozen(value: Any, argument: str) -> tuple[Any, ...]:
    return tuple(
        _frozen(v, argument) if isinstance(v, list) else _literal(v, argument) for v in value
    )


def _literal(value: Any, argument: str) -> float:
    return float(value) if _number(value) else _refuse(value, Init, argument)
