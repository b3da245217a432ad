"""From language values to what a layer function asks for: the annotations of `graph.layer`, read as
rules, with the words for what is refused.
"""

from __future__ import annotations

import typing
from dataclasses import replace
from typing import Any, Literal, NoReturn, get_args, get_origin

from cnncc.graph.ir import Node
from cnncc.graph.layer import (
    ArgumentError,
    Count,
    Extents,
    Flag,
    Init,
    Kernel,
    Natural,
    Number,
    Numbers,
    Pad,
    PadMode,
    PerAxis,
    Phases,
    Region,
    Size,
    Transposed,
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
        Pad: "valid, same, same_lower, full, a number, (lo, hi) pairs, const(v), "
        "const(lo = a, hi = b), replicate, reflect, circular or solve(out = n)",
        Init: "he, glorot, lecun, normal(std), uniform(bound), constant(v), gabor(...) "
        "or a literal",
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
    if get_args(annotation)[0] is Word and isinstance(value, Word):
        return value
    if annotation == Region and isinstance(value, Word | tuple):
        return value
    if annotation == Kernel and isinstance(value, Weights | Transposed):
        return value
    if annotation == Kernel and isinstance(value, list):
        return _convert_init(value, argument)
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
    if annotation == Phases and items and all(_integer(i) and i >= 0 for i in items):
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
    if isinstance(value, Word):
        border = _border(value)
        if border is not None:
            return border
    amount = _amount(value)
    return amount if amount is not None else _refuse(value, Pad, argument)


def _amount(value: Any) -> Pad | None:
    """How much is padded, with zeros: numbers, or a word that a window gives a meaning to."""
    pairs = _pairs(value)
    if pairs is not None:
        return Pad(pairs)
    match value:
        case Word(("valid" | "same" | "same_lower" | "full") as name, (), ()):
            return Pad(name)
        case Word("solve", (), (("out", out),)):
            extents = (
                out.taps if isinstance(out, Size) else out if isinstance(out, tuple) else (out,)
            )
            if extents and all(_integer(o) and o >= 1 for o in extents):
                return Pad("solve", out=tuple(extents))
    return None


def _border(word: Word) -> Pad | None:
    """A border that does not hold zeros; its amount is `same` unless given."""
    named = dict(word.named)
    mode: PadMode = "const"
    values: float | tuple[float, float] = 0.0
    given: tuple[Any, ...]
    match word:
        case Word(("replicate" | "reflect" | "circular") as mode, given, ()):
            pass
        case Word("const", (number, *rest), ()) if _number(number):
            values, given = float(number), tuple(rest)
        case Word("const", (), _) if {"lo", "hi"} <= set(named) <= {"lo", "hi", "amount"}:
            if not (_number(named["lo"]) and _number(named["hi"])):
                return None
            values = (float(named["lo"]), float(named["hi"]))
            given = (named["amount"],) if "amount" in named else ()
        case _:
            return None
    amount = Pad("same") if not given else _amount(given[0]) if len(given) == 1 else None
    return amount and replace(amount, mode=mode, value=values)


INITS = {
    "he": 0,
    "glorot": 0,
    "lecun": 0,
    "zeros": 0,
    "ones": 0,
    "constant": 1,
    "normal": 1,
    "uniform": 1,
    "gabor": 0,
}
"""The initialisers with the numbers that they take by position."""

GABOR = {
    "alpha": 1.0, "beta_x": 0.1, "beta_y": 0.1, "f": 1.0, "phi": 0.0, "x0": 0.0, "y0": 0.0,
}  # fmt: skip
"""The numbers of `gabor`, all by name, as in Goodfellow et al. (2016), equation 9.16. A last one is
`tau`; without it the outputs have evenly spread directions.
"""


def _convert_init(value: Any, argument: str) -> Init:
    if isinstance(value, Word) and value.name == "gabor" and not value.args:
        given = dict(value.named)
        if set(given) <= {*GABOR, "tau"} and all(_number(v) for v in given.values()):
            return Init("gabor", tuple(float(v) for v in {**GABOR, **given}.values()))
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
