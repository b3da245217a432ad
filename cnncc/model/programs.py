"""The compiled programs of a model, each made when it is first needed: inference, evaluation, the
training step, forward and backward with gradients of the caller's, the optimizer's step, and
inference that shows every layer. All of them work on one store of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cnncc.compiler import Edges, allowed, check_claims, kernels
from cnncc.graph.ir import Graph, Node
from cnncc.graph.module import Module, Training
from cnncc.graph.sources import Parameter
from cnncc.graph.verify import verify
from cnncc.io.layout import TensorInfo
from cnncc.model.arguments import one_of, positive
from cnncc.model.network import Network, Variant
from cnncc.ops.base import Op
from cnncc.passes.choices import NONE, Choices
from cnncc.passes.differentiate import prune
from cnncc.passes.fuse import Fused
from cnncc.passes.training import StepGraph, seeded_graph, training_graph, update_graph
from cnncc.targets.cpu.machine import detect
from cnncc.targets.interp.runtime import DictStore, InterpRuntime
from cnncc.targets.locks import Lock
from cnncc.targets.runtime import Ready, Runtime, Shape, Store
from cnncc.targets.tuned import Key, saved_choices
from cnncc.train.init import initial
from cnncc.train.metrics import Classification, classifications

PRECISIONS = ("default", "exact", "bf16")

AnyRuntime = Runtime | InterpRuntime
AnyStore = Store | DictStore
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to compile: what `cnncc.compile` was asked for."""

    target: str = "cpu"
    fuse: bool = True
    threads: int | None = None
    max_memory: int | None = None
    exact: bool = False  # every sum in the order of its definition
    bf16: bool = False  # weights that are used once per sample are rounded to bf16
    choices: Choices = NONE  # the batch, and what was measured for it
    apart: Edges = frozenset()  # not to be fused, besides what the text says

    @staticmethod
    def checked(
        target: str, fuse: bool, precision: str, threads: int | None, max_memory: int | None, *,
        train: bool = False, batch: int | None = None,
    ) -> Options:  # fmt: skip
        """Options as a person gives them. Raises ValueError and TypeError."""
        one_of("target", target, ("cpu", "interp"))
        one_of("precision", precision, PRECISIONS)
        for name, value in (("num_threads", threads), ("max_memory", max_memory)):
            if value is not None:
                positive(name, value)
        exact, bf16 = precision == "exact", precision == "bf16"
        if train and bf16:
            raise ValueError(
                "precision bf16 is for inference, and a training step keeps its weights in "
                "float32: train with precision='default', then load the weights into a model "
                "compiled without train=True"
            )
        choices = saved_choices(Key(threads or detect().cores, batch or 1, precision))
        return Options(target, fuse, threads, max_memory, exact, bf16, choices)

    @property
    def precision(self) -> str:
        """The name of the precision."""
        return "exact" if self.exact else "bf16" if self.bf16 else "default"


@dataclass(frozen=True)
class Step:
    """The compiled training step, and what of its outputs can be counted as right or wrong."""

    runtime: AnyRuntime
    graph: StepGraph
    classifications: tuple[Classification, ...]


@dataclass(frozen=True)
class Seeded:
    """Forward and backward from gradients of the caller's."""

    runtime: AnyRuntime
    graph: StepGraph
    trained: tuple[str, ...]  # parameters that have a gradient


@dataclass(frozen=True)
class Evaluation:
    """Inference with the loss; `scores` are the outputs that the classifications are read from."""

    runtime: AnyRuntime
    classifications: tuple[Classification, ...]


@dataclass(eq=False)
class Programs:
    """Everything compiled for one network.

    With `train` all programs share one store. Without, inference has its parameters in the layout
    that is fastest for it alone, and the other programs work on copies, made anew when the
    parameters have changed.
    """

    network: Network
    options: Options
    train: bool
    store: AnyStore = field(init=False)
    _made: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _copied: int = -1

    def __post_init__(self) -> None:
        self.store = self._new_store()
        self._copies = self.store if self.train else self._new_store()

    def _new_store(self) -> AnyStore:
        return DictStore() if self.options.target == "interp" else Store()

    @property
    def training(self) -> Training:
        """The `train` block. Raises SpecError (E0601) when there is none."""
        training = self.network.training.module.training
        assert training is not None, "elaboration for training requires the block"
        return training

    # --- the programs ---

    @property
    def inference(self) -> AnyRuntime:
        """Outputs by their public names."""
        return self._once("inference", lambda: self._runtime(self.network.inference, self.store))

    def ready(self, inputs: Mapping[str, Any]) -> Ready | None:
        """Inference on arrays like these, which have just run; None where it cannot be repeated."""
        runtime = self.inference
        return runtime.ready(inputs) if isinstance(runtime, Runtime) else None

    @property
    def evaluation(self) -> Evaluation:
        """The loss, and the scores of every classification, behaving as at inference."""

        def make() -> Evaluation:
            variant = self.network.evaluation
            found = classifications(variant.graph)
            loss = dict(variant.graph.outputs)["loss"]
            outputs = (("loss", loss), *((c.output, c.scores) for c in found))
            graph = verify(prune(replace(variant.graph, outputs=outputs)), "evaluation")
            module = replace(variant.module, requirements=())
            return Evaluation(self._runtime(Variant(graph, module), self._copies), found)

        return self._current(self._once("evaluation", make))

    @property
    def everything(self) -> AnyRuntime:
        """Inference without fusion; every computed node is an output by its own name."""

        def make() -> AnyRuntime:
            variant = self.network.inference
            names = [n.name for n in variant.graph.nodes if isinstance(n.op, Op)]
            graph = replace(variant.graph, outputs=tuple((n, n) for n in names))
            return self._runtime(replace(variant, graph=graph), self._copies, fused=False)

        return self._current(self._once("everything", make))

    @property
    def step(self) -> Step:
        """Forward, backward and update with the loss of the `train` block."""

        def make() -> Step:
            variant = self.network.training
            graph = training_graph(variant.graph, variant.module, self.training.optimizer)
            found = classifications(graph.graph)
            return Step(self._phased(graph, variant.module, guard="loss"), graph, found)

        return self._once("step", make)

    @property
    def seeded(self) -> Seeded:
        """Forward as in training, and backward from gradients of the outputs."""

        def make() -> Seeded:
            variant = self.network.training
            outputs = tuple(o for o in variant.graph.outputs if o[0] != "loss")
            averages = [new for _, new in variant.module.state_updates]
            bare = prune(replace(variant.graph, outputs=outputs), averages)
            graph = seeded_graph(bare, variant.module)
            trained = tuple(n for n in graph.gradients if isinstance(bare[n].op, Parameter))
            return Seeded(self._phased(graph, variant.module), graph, trained)

        return self._once("seeded", make)

    @property
    def update(self) -> AnyRuntime:
        """A step of the optimizer from gradients that the caller gives."""

        def make() -> AnyRuntime:
            graph = update_graph(
                self.network.training.graph, self.seeded.trained, self.training.optimizer
            )
            return self._phased(StepGraph(graph, {}, {}, {}), self.network.training.module)

        return self._once("update", make)

    @property
    def made(self) -> Mapping[str, AnyRuntime]:
        """The programs compiled so far, by name."""
        return {k: getattr(v, "runtime", v) for k, v in list(self._made.items())}

    # --- memory ---

    def bind(self, batch: int | None) -> None:
        """Compile what the model is for, and plan its memory where batch and extents are known.

        Raises SpecError: E0503 for a required fusion that inference does not have, E0501 when the
        text expects less memory of inference (at this batch, 1 when it is not known), E0801 over
        the limit.
        """
        variant = self.network.inference
        if self.options.fuse:
            options = self.options
            check_claims(
                variant.graph, variant.module, batch=batch or 1, exact=options.exact,
                bf16=options.bf16, limit=options.max_memory,
            )  # fmt: skip
        main = self.step.runtime if self.train else self.inference
        fixed = not any(n.type.symbols for n in main.graph.of("input"))
        if isinstance(main, Runtime) and fixed and batch is not None:
            main.planned(Shape(batch, ()))

    @property
    def peak(self) -> int:
        """Bytes of the largest plan so far, with the parameters."""
        bound = [r.peak for r in self.made.values() if isinstance(r, Runtime)]
        return max(bound, default=0)

    # --- parameters ---

    @property
    def parameters(self) -> tuple[Node, ...]:
        """Parameters and running statistics of the network, without those of the optimizer."""
        found = {n.name: n for n in self.network.inference.graph.of("parameter")}
        if self.train:
            found |= {n.name: n for n in self.network.training.graph.of("parameter")}
        return tuple(found.values())

    def start_from(self, seed: int) -> None:
        """Give every parameter its initial value, which is drawn when it is needed."""
        for node in self.parameters:
            nbytes = np.dtype(np.float32).itemsize * math.prod(node.type.dims(0))
            self.store.write_later(node.name, nbytes, partial(initial, node, seed))

    @property
    def expected(self) -> dict[str, TensorInfo]:
        """What a file of weights holds for this network, by name."""
        state = {n.name: n.type.dims(0) for n in self.parameters}
        return {k: TensorInfo.of(np.broadcast_to(np.float32(0), v)) for k, v in state.items()}

    @property
    def optimizer_state(self) -> tuple[Node, ...]:
        """What the optimizer keeps between steps."""
        own = {n.name for n in self.parameters}
        return tuple(n for n in self.step.graph.graph.of("parameter") if n.name not in own)

    def changed(self) -> None:
        """Kernels have changed parameters in place: what was computed from them is stale."""
        self.store.version += 1

    # --- making ---

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._made:
            with self._lock:
                if name not in self._made:
                    self._made[name] = make()
        found: T = self._made[name]
        return found

    def _current(self, program: T) -> T:
        """The program, after its copies of parameters were brought up to date."""
        if self._copies is not self.store and self._copied != self.store.version:
            with self._lock:
                version = self.store.version
                for node in self.parameters:
                    self._copies.write(node.name, self.store.read(node.name))
                self._copied = version
        return program

    def _phased(self, graph: StepGraph, module: Module, guard: str = "") -> AnyRuntime:
        variant = Variant(verify(graph.graph, "differentiate"), module)
        return self._runtime(variant, self.store, phases=dict(graph.phases), guard=guard)

    def _runtime(
        self,
        variant: Variant,
        store: AnyStore,
        *,
        fused: bool = True,
        phases: dict[str, int] | None = None,
        guard: str = "",
    ) -> AnyRuntime:
        grouped = self.fused(variant.graph, variant.module, fused and self.options.fuse, phases)
        if isinstance(store, DictStore):
            return InterpRuntime(grouped, store=store, phases=phases, guard=guard)
        return Runtime(
            grouped,
            store=store,
            phases=phases,
            threads=self.options.threads,
            max_memory=self.options.max_memory,
            panels=not self.train and store is self.store,
            guard=guard,
            widths={} if phases else self.choices.widths_in(grouped.graph),
        )

    def fused(
        self, graph: Graph, module: Module, enabled: bool, phases: dict[str, int] | None
    ) -> Fused:
        """The kernels of a graph, with what the spec forbids and requires."""
        options = self.options
        return kernels(
            graph, module, fuse=enabled, phases=phases, exact=options.exact, bf16=options.bf16,
            choices=self.choices, apart=options.apart,
        )  # fmt: skip

    @property
    def choices(self) -> Choices:
        """The batch and what was measured for it, as far as the claims of inference allow: the same
        for all programs, so that evaluation gives the bits of inference.
        """
        return allowed(self.options.choices, self.network.inference.module)
