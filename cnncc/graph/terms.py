"""The text form of what stands in graph text besides node names: extents, types, and the attribute
values of operators. Attributes are Python literals and constructor terms from a closed table
(`Axis(size=3, lo=1)`); names that are not quoted are symbolic extents. Reading builds values only
from that table: no text can name anything else.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from cnncc.graph.ir import Operator
from cnncc.graph.layer import Init, Pad, Size, Weights, Word
from cnncc.tensor import DType, Extent, Poly, TensorType, symbol
from cnncc.window import Axis

TERMS: dict[str, type[Any]] = {c.__name__: c for c in (Axis, Init, Pad, Size, Weights, Word)}
"""Attribute values that are no literals, by the name of their constructor."""


class TextError(ValueError):
    """A text that is no graph text: the line and what is wrong there."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.line, self.message = line, message


# --- values to text ------------------------------------------------------------------------------


def print_value(value: Any) -> str:
    """An attribute value. Raises TypeError for one that has no text form."""
    match value:
        case bool() | None:
            return repr(value)
        case DType():
            return f"DType({value.value!r})"
        case str() | int():
            return repr(value)
        case float():
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        case Poly():
            return str(value)
        case TensorType():
            return f"TensorType({str(value)!r})"
        case tuple():
            inner = ", ".join(map(print_value, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case Operator():
            return print_operator(value)
        case _ if TERMS.get(type(value).__name__) is type(value):
            return f"{type(value).__name__}({_print_fields(value)})"
    raise TypeError(f"graph text has no form for {value!r}")


def print_operator(op: Operator) -> str:
    """`conv(window=(...))`: the operator with the attributes that are not at their defaults."""
    return f"{op.name}({', '.join(f'{k}={print_value(v)}' for k, v in op.attributes().items())})"


def _print_fields(value: Any) -> str:
    parts = []
    for f in fields(value):
        current = getattr(value, f.name)
        if f.default is MISSING or current != f.default or type(current) is not type(f.default):
            parts.append(f"{f.name}={print_value(current)}")
    return ", ".join(parts)


# --- text to values ------------------------------------------------------------------------------


def parse_expression(text: str) -> ast.expr:
    """The Python expression in a text. Raises TextError."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise TextError(0, f"`{text.strip()[:60]}` is not a term") from None


def read_value(e: ast.expr, operators: Mapping[str, type[Operator]]) -> Any:
    """The attribute value that an expression stands for. Raises TextError."""
    match e:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Tuple():
            return tuple(read_value(element, operators) for element in e.elts)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name() | ast.BinOp() | ast.UnaryOp():
            return read_extent(e)
        case ast.Call(func=ast.Name(id=name)):
            return _read_term(name, e, operators)
    raise TextError(0, f"`{ast.unparse(e)}` is no attribute value")


def read_operator(e: ast.expr, operators: Mapping[str, type[Operator]], **given: Any) -> Operator:
    """The operator that a call stands for; `given` are further attributes. Raises TextError."""
    if not isinstance(e, ast.Call) or not isinstance(e.func, ast.Name):
        raise TextError(0, f"`{ast.unparse(e)}` is no operator with attributes")
    cls = operators.get(e.func.id)
    if cls is None:
        raise TextError(0, f"there is no operator {e.func.id}")
    return _construct(cls, e, operators, given)  # type: ignore[no-any-return]


def _read_term(name: str, e: ast.Call, operators: Mapping[str, type[Operator]]) -> Any:
    match name, e.args:
        case "float", [ast.Constant(value="inf" | "-inf" | "nan" as text)]:
            return float(text)
        case "DType", [ast.Constant(value=str(text))] if text in set(DType):
            return DType(text)
        case "TensorType", [ast.Constant(value=str(text))]:
            return parse_type(text)
    if name in operators:
        return read_operator(e, operators)
    if name not in TERMS:
        raise TextError(0, f"there is no term {name}(...)")
    return _construct(TERMS[name], e, operators, {})


def _construct(
    cls: type[Any], e: ast.Call, operators: Mapping[str, type[Operator]], given: dict[str, Any]
) -> Any:
    known = {f.name for f in fields(cls)}
    values = dict(given)
    for keyword in e.keywords:
        if keyword.arg is None or keyword.arg not in known or keyword.arg in values:
            raise TextError(0, f"{ast.unparse(e.func)} has no attribute {keyword.arg} to set")
        values[keyword.arg] = read_value(keyword.value, operators)
    if e.args:
        raise TextError(0, f"the attributes of {ast.unparse(e.func)} have names")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise TextError(0, f"{ast.unparse(e)}: {error}") from None


def read_extent(e: ast.expr) -> Extent:
    """The extent that an expression stands for. Raises TextError."""
    match e:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub()):
            return -read_extent(e.operand)
        case ast.BinOp(op=ast.Add()):
            return read_extent(e.left) + read_extent(e.right)
        case ast.BinOp(op=ast.Sub()):
            return read_extent(e.left) - read_extent(e.right)
        case ast.BinOp(op=ast.Mult()):
            return read_extent(e.left) * read_extent(e.right)
        case ast.BinOp(op=ast.FloorDiv(), right=ast.Constant(value=int() as divisor)) if divisor:
            return read_extent(e.left) // divisor
    raise TextError(0, f"`{ast.unparse(e)}` is no extent")


def parse_type(text: str) -> TensorType:
    """`f32[*, 6, H + 1]` as a type. Raises TextError."""
    element, bracket, inside = text.strip().removesuffix("]").partition("[")
    if not bracket or element not in set(DType) or not text.strip().endswith("]"):
        raise TextError(0, f"`{text.strip()[:60]}` is no type")
    batched = inside.startswith("*")
    inside = inside.removeprefix("*").removeprefix(",").strip()
    extents = parse_expression(f"({inside},)") if inside else ast.Tuple([], ast.Load())
    assert isinstance(extents, ast.Tuple)
    return TensorType(DType(element), tuple(read_extent(e) for e in extents.elts), batched)
