"""Arithmetic whose operands are tensors: `y + skip` adds a layer to the graph, and so does
`0.3 * x`, in which the number becomes a constant of one element.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cnncc.errors import Span
from cnncc.graph.evaluate import Evaluator
from cnncc.graph.ir import Node, Origin
from cnncc.graph.naming import Group
from cnncc.graph.session import Session
from cnncc.graph.sources import Constant
from cnncc.graph.values import Value, show
from cnncc.syntax import tree as t
from cnncc.tensor import DType, TensorType

OPERATORS = {"+": "add", "-": "sub", "*": "mul"}
"""Layers behind the signs between two tensors."""


class TensorArithmetic(Evaluator):
    """An evaluator that adds layers to the graph of a session."""

    def __init__(self, session: Session, scope: dict[str, Value], prefix: str) -> None:
        super().__init__(session.faults, scope, session.words)
        self.session = session
        self.prefix = prefix
        self._group: Group | None = None

    @contextmanager
    def group(self, name: str | None) -> Iterator[Group]:
        """Within the layers of one statement."""
        outer = self._group
        self._group = self.session.naming.open(self.prefix, name)
        try:
            yield self._group
        finally:
            self._group = outer

    def is_tensor(self, value: Value) -> bool:
        return isinstance(value, Node)

    def between_tensors(self, e: t.Binary | t.Unary, operands: tuple[Value, ...]) -> Value:
        if isinstance(e, t.Unary):
            return self._times(e, operands[0], -1.0)
        left, right = operands
        if isinstance(left, Node) and isinstance(right, Node):
            if e.operator in OPERATORS:
                return self._sign(OPERATORS[e.operator], e, left, right)
        elif isinstance(left, Node) and isinstance(right, int | float):
            match e.operator:
                case "+" | "*":
                    return self._sign(OPERATORS[e.operator], e, left, self._number(e, right))
                case "-":
                    return self._sign("sub", e, left, self._number(e, right))
                case "/" if right != 0:
                    return self._times(e, left, 1 / right)
        elif isinstance(right, Node) and isinstance(left, int | float):
            match e.operator:
                case "+" | "*":
                    return self._sign(OPERATORS[e.operator], e, right, self._number(e, left))
                case "-":
                    return self._sign("sub", e, self._number(e, left), right)
        return self.faults.error(
            "E0308",
            f"`{e.operator}` cannot stand between {show(left)} and {show(right)}",
            e.operator_span if e.operator_span.known else e.span,
            helps=(
                "what a tensor holds is not known while the network is built"
                if e.operator in ("==", "!=", "<", "<=", ">", ">=")
                else "between tensors there are `+`, `-`, `*`; a tensor is divided by a number",
            ),
        )

    def _times(self, e: t.Binary | t.Unary, x: Value, factor: float) -> Value:
        assert isinstance(x, Node)
        return self._sign("mul", e, x, self._number(e, factor))

    def _number(self, e: t.Binary | t.Unary, number: float) -> Node:
        """A number as an operand: one element, the same for every sample."""
        type = TensorType(DType.F32, (1,), batched=False)
        return self.constant(float(number), type, e.span, "number")

    def _sign(self, name: str, e: t.Binary | t.Unary, left: Node, right: Node) -> Value:
        layer = self.session.layers.get(name)
        if layer is None:
            return self.faults.error("E0308", f"there is no operator `{name}`", e.span)
        return self.session.run(
            layer,
            (left, right),
            {},
            self._group_of_layer(),
            e.span,
            spans={},
            options={},
            head=e.operator_span if isinstance(e, t.Binary) and e.operator_span.known else e.span,
        )

    def constant(self, number: float, type: TensorType, span: Span, name: str) -> Node:
        """A tensor that has one value everywhere. Raises SpecError beyond the limits."""
        self.session.count_layer(span)
        member = self.session.naming.member(self._group_of_layer(), name)
        return self.session.builder.add(
            Constant(type, number), name=member.name, origin=Origin(span, member.name)
        )

    def _group_of_layer(self) -> Group:
        assert self._group is not None, "layers are made inside of statements"
        return self._group
