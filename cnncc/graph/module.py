"""What a net says beside its graph: what it expects, which layers must or must not share a kernel,
how it is trained, and which layers its names stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cnncc.errors import NOWHERE, Span
from cnncc.graph.values import Value
from cnncc.syntax.tree import Expr
from cnncc.tensor import TensorType

Setting: TypeAlias = "bool | int | float | Choice"


@dataclass(frozen=True)
class Choice:
    """An optimizer or schedule with all its arguments: `sgd(lr = 0.05, momentum = 0.9)`."""

    name: str
    values: tuple[tuple[str, Setting], ...] = ()

    def __getitem__(self, argument: str) -> Setting:
        return dict(self.values)[argument]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k} = {v}' for k, v in self.values)})"


@dataclass(frozen=True)
class Target:
    """What the loss compares with: an input of the training graph.

    `class[k]` has the type i64[*, 1] with values 0..k-1, and `classes` is k; it is None for a
    target that has no classes.
    """

    name: str
    type: TensorType
    classes: int | None = None


@dataclass(frozen=True)
class Training:
    """A `train` block: targets, optimizer, schedule, samples per step, passes over the data."""

    targets: tuple[Target, ...]
    optimizer: Choice
    schedule: Choice
    batch: int
    epochs: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Expectation:
    """One condition of an `expect`, with the names that it may use (tensors are nodes)."""

    condition: Expr
    scope: Mapping[str, Value] = field(compare=False)
    layers: Mapping[str, tuple[str, ...]] = field(compare=False)


@dataclass(frozen=True)
class Requirement:
    """`require fused(a, b)`: for every name the nodes that it stands for."""

    fact: str
    layers: tuple[tuple[str, tuple[str, ...]], ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Module:
    """A net beside its graph.

    `arguments` are the net's arguments as compiled; `inputs` the nodes of data inputs in order
    (targets are in `training`); `layers` the nodes of each assigned name, parameters left out;
    `nofuse` nodes that get kernels of their own.
    """

    name: str
    file: str
    arguments: tuple[tuple[str, Value], ...] = ()
    inputs: tuple[str, ...] = ()
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expectations: tuple[Expectation, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    nofuse: tuple[str, ...] = ()
    training: Training | None = None
    state_updates: tuple[tuple[str, str], ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)
