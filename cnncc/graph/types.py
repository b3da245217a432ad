"""Reads the types that inputs and targets are declared with: `f32[3, H, W]`. A name among the
extents that has no value yet becomes a symbol, an extent that only the data will tell, and has that
value from then on.
"""

from __future__ import annotations

from cnncc.errors import did_you_mean
from cnncc.graph.evaluate import Evaluator
from cnncc.graph.ir import ShapeError
from cnncc.graph.limits import check_type
from cnncc.syntax import tree as t
from cnncc.tensor import DType, Extent, TensorType, symbol

MOST_AXES = 4
"""Channels and three spatial axes."""


def declared_type(body: Evaluator, e: t.TypeExpr, what: str) -> TensorType | None:
    """The type of an input; None after a report."""
    span = e.element_span if e.element_span.known else e.span
    names = [d.value for d in DType if d not in (DType.F64, DType.BF16)]
    if e.element not in names:
        if e.element == "class":
            helps = ["`class[k]` is for the targets of a `train` block"]
        elif e.element == DType.F64.value:
            helps = ["networks compute in f32; write f32"]
        else:
            helps = [f"did you mean `{n}`?" for n in did_you_mean(e.element, names)]
            helps = helps or [f"element types are {', '.join(names)}"]
        body.faults.error(
            "E0316", f"there is no element type `{e.element}` here", span, helps=helps
        )
        return None
    return bracketed_type(body, e, DType(e.element), what)


def bracketed_type(body: Evaluator, e: t.TypeExpr, dtype: DType, what: str) -> TensorType | None:
    """The type with the extents in the brackets; None after a report."""
    if not 1 <= len(e.extents) <= MOST_AXES:
        body.faults.error(
            "E0316",
            f"{what} has 1 to {MOST_AXES} extents, channels first, but got {len(e.extents)}",
            e.span,
            helps=("the batch axis is not written",),
        )
        return None
    extents: list[Extent] = []
    for element in e.extents:
        extent = _extent(body, element)
        if extent is None:
            return None
        extents.append(extent)
    type = TensorType(dtype, tuple(extents))
    try:
        check_type(type, what)
    except ShapeError as broken:
        wrong = (x for x, n in zip(e.extents, extents, strict=True) if _out_of_range(n))
        place = next(wrong, e)
        body.faults.error(
            broken.code,
            broken.rule,
            place.span,
            helps=broken.fixes,
        )
        return None
    return type


def _out_of_range(extent: Extent) -> bool:
    try:
        check_type(TensorType(DType.F32, (extent,)), "")
    except ShapeError:
        return True
    return False


def _extent(body: Evaluator, e: t.Expr) -> Extent | None:
    if isinstance(e, t.Name) and e.name not in body.scope:
        body.declare_symbol(e.name, symbol(e.name))
    return body.extent(e, "an extent")
