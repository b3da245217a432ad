"""Where the values of a graph come from: inputs, parameters and constants. They are operators
without operands and without a loop nest: a target binds the first two to memory that it is given,
and fills the third itself. Their type is not inferred from anything, so it is one of their fields;
graph text shows it once, behind the colon, like every other type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cnncc.graph.ir import Operator
from cnncc.graph.layer import Init
from cnncc.tensor import DType, TensorType

Kind = Literal["trained", "frozen", "state"]
Role = Literal["data", "target", "random"]


@dataclass(frozen=True)
class Source(Operator):
    """An operator without operands whose result type is given."""

    pointwise: ClassVar[bool] = False
    linear: ClassVar[tuple[int, ...]] = ()

    type: TensorType

    def infer(self, types: tuple[TensorType, ...]) -> TensorType:
        """The declared type. Raises TypeError when there are operands."""
        if types:
            raise TypeError(f"{self.name} takes no operands, but got {len(types)}")
        return self.type

    def attributes(self) -> dict[str, Any]:
        return {name: value for name, value in super().attributes().items() if name != "type"}


@dataclass(frozen=True)
class Input(Source):
    """An array that the caller gives: data, a target of the loss, or the key of random numbers."""

    name: ClassVar[str] = "input"

    role: Role = "data"


@dataclass(frozen=True)
class Parameter(Source):
    """An array of the network: trained, frozen at its initial value, or running state."""

    name: ClassVar[str] = "parameter"

    init: Init = Init("zeros")  # noqa: RUF009 - Init is frozen
    kind: Kind = "trained"

    @property
    def trained(self) -> bool:
        return self.kind == "trained"


@dataclass(frozen=True)
class Constant(Source):
    """The same number everywhere: `zeros(...)`, or the number in `0.3 * x`; or a table of numbers,
    as nested tuples of the type's shape.
    """

    name: ClassVar[str] = "constant"

    value: float | tuple[Any, ...] = 0.0


RANDOM_KEY = Input(TensorType(DType.I64, (2,), batched=False), role="random")
"""The seed and the step that random layers such as dropout draw their numbers from."""

SOURCES: dict[str, type[Source]] = {c.name: c for c in (Input, Parameter, Constant)}
"""By the name that graph text uses."""
