"""The programs of a network: inference, and a step of training or the gradients, of the network as
it is or of a smaller one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cnncc import compiler
from cnncc.graph.ir import Graph, Node
from cnncc.graph.module import Module
from cnncc.graph.sources import Input, Parameter
from cnncc.ops.base import Array
from cnncc.passes.fuse import Fused
from cnncc.passes.training import seeded_graph, training_graph
from cnncc.passes.winograd import algorithms, with_winograd
from cnncc.targets.arrays import NUMPY
from cnncc.targets.cpu.machine import detect
from cnncc.train.init import initial
from cnncc.train.optim import Optimizer
from cnncc.verify.channels import FEWEST
from cnncc.verify.reduce import reduced
from cnncc.verify.running import Target, drawn


@dataclass(frozen=True)
class Settings:
    """How to verify. `full`: nothing is made smaller; `layers`: only kernels and operators of
    these; `machine`: kernels are compiled, else interpreted.
    """

    full: bool = False
    layers: tuple[str, ...] = ()
    extents: Mapping[str, int] = field(default_factory=dict)
    batch: int = 2
    seed: int = 0
    machine: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Program:
    """A graph that runs. `forward`: the nodes of which operators are checked."""

    name: str
    graph: Graph
    module: Module
    phases: Mapping[str, int] | None
    guard: str
    forward: tuple[Node, ...]

    @cached_property
    def fused(self) -> Fused:
        return self._kernels(fuse=True)

    @cached_property
    def unfused(self) -> Fused:
        return self._kernels(fuse=False)

    @property
    def results(self) -> list[str]:
        """The nodes whose values a run gives: outputs, and new values of what is updated."""
        return list(dict.fromkeys(n for _, n in (*self.graph.outputs, *self.graph.updates)))

    def _kernels(self, *, fuse: bool) -> Fused:
        # which algorithms run was decided on the network as it is, not on the smaller one
        return compiler.kernels(self.graph, self.module, fuse=fuse, phases=self.phases, exact=True)

    def target(self, kernels: Fused, batch: int, settings: Settings) -> Target:
        return Target(
            kernels, batch, machine=settings.machine, phases=self.phases, guard=self.guard,
            threads=settings.threads,
        )  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A checked text, without and (where it has a `train` block) with its loss."""

    checked: compiler.Checked
    trained: compiler.Checked | None

    @staticmethod
    def read(
        source: str | os.PathLike[str], arguments: dict[str, bool | int | float] | None
    ) -> Network:
        """Raises SpecError for a text with mistakes."""
        checked = compiler.front(source, arguments=arguments)
        blocks = checked.program.top.tree.trains
        has = checked.module.training is not None or any(
            t.net == checked.graph.name for t in blocks
        )
        trained = compiler.front(source, train=True, arguments=arguments) if has else None
        return Network(checked, trained)

    def as_it_is(self) -> list[Program]:
        """The programs that a user runs."""
        return self._programs(lambda graph: graph)

    def smaller(self, settings: Settings, *, columns: bool = False) -> tuple[list[Program], str]:
        """Programs of the reduced network, and what is smaller in it."""
        lanes = detect().lanes_f32
        texts: list[str] = []

        def made(graph: Graph) -> Graph:
            found = reduced(
                graph, settings.extents, full=settings.full, columns=columns, lanes=lanes
            )
            texts.append(found.text)
            return found.graph

        return self._programs(made), texts[0]

    def _programs(self, made: Callable[[Graph], Graph]) -> list[Program]:
        inference = made(self.checked.graph)
        run = with_winograd(inference, algorithms(self.checked.graph))
        module = self.checked.module
        first = Program("inference", run, module, None, "", inference.nodes)
        if self.trained is None:  # gradients of the outputs' inner products with given tensors
            step = seeded_graph(inference, module)
            return [first, Program("gradients", step.graph, module, step.phases, "", ())]
        module, training = self.trained.module, self.trained.module.training
        assert training is not None, "a net without a train block is refused by elaboration"
        forward = made(self.trained.graph)
        step = training_graph(forward, module, training.optimizer)
        last = Program("training step", step.graph, module, step.phases, "loss", forward.nodes)
        return [first, last]


def given(program: Program, batch: int, seed: int) -> dict[str, Array]:
    """Random inputs, and parameters as they are before training but for zeros, which would hide
    what they multiply.
    """
    rng = np.random.default_rng(seed)
    training = program.module.training
    classes = {t.name: t.classes for t in training.targets} if training else {}
    found: dict[str, Array] = {}
    for node in program.graph.nodes:
        if isinstance(node.op, Parameter):
            start = initial(node, seed)
            if node.op.kind != "state" and not start.any() and node.op.init.literal is None:
                start = np.asarray(drawn(node.type, 0, rng, whole=False) / 4)
            found[node.name] = np.asarray(start, NUMPY[node.type.dtype])
        elif isinstance(node.op, Input):
            if node.type.dtype.is_float:
                found[node.name] = drawn(node.type, batch, rng, whole=False)
                continue
            kind = np.dtype(NUMPY[node.type.dtype])
            most = classes.get(node.name) or (FEWEST if node.op.role == "data" else 2)
            most = 256 if kind == np.uint8 else min(most, FEWEST)
            found[node.name] = rng.integers(0, most, node.type.dims(batch)).astype(kind)
    if program.guard and training is not None:
        optimizer = Optimizer.of(training)
        found |= dict(optimizer.numbers(0, optimizer.rate(0)))
    return found
