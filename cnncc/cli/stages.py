"""The text of each stage of the pipeline, for `cnncc compile --emit`. The front stages need neither
a machine nor Numba; from `plan` on the network is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cnncc import compiler
from cnncc.cli.failures import UsageError
from cnncc.errors import Diagnostic, SpecError, printable
from cnncc.graph.ir import Graph
from cnncc.graph.text import print_graph
from cnncc.loops.text import print_nest
from cnncc.passes.choices import NONE, Choices
from cnncc.passes.fuse import Fused
from cnncc.passes.lower import Kernel
from cnncc.passes.training import StepGraph, training_graph
from cnncc.tensor import Poly, Symbol

if TYPE_CHECKING:
    from cnncc.targets.runtime import Runtime

STAGES = (
    "tree", "graph", "typed", "train", "fused", "plan", "loops", "python", "llvm", "asm", "dot",
)  # fmt: skip
"""In the order of the pipeline; `dot` is a drawing of `fused`."""

ENDINGS = {"python": "py", "llvm": "ll", "asm": "s", "dot": "dot"}
PHASES = {-2: "step", -1: "prepare", 0: "forward", 1: "backward", 2: "update"}


@dataclass(frozen=True)
class Request:
    """What to compile: a source, the values of its arguments, and how."""

    net: str
    arguments: Mapping[str, bool | int | float] = field(default_factory=dict)
    train: bool = False
    fuse: bool = True
    batch: int = 1
    extents: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    max_memory: int | None = None
    precision: str = "default"

    def __post_init__(self) -> None:
        if self.train and self.precision == "bf16":
            raise UsageError("--precision bf16 is for inference: leave out --train")

    @property
    def exact(self) -> bool:
        return self.precision == "exact"

    @property
    def bf16(self) -> bool:
        return self.precision == "bf16"

    @cached_property
    def checked(self) -> compiler.Checked:
        """The verified graph."""
        return compiler.front(self.net, train=self.train, arguments=dict(self.arguments))

    @cached_property
    def step(self) -> StepGraph | None:
        """The graph of a training step, None for inference."""
        if not self.train:
            return None
        training = self.checked.module.training
        assert training is not None, "a net without a train block is refused by elaboration"
        return training_graph(self.checked.graph, self.checked.module, training.optimizer)

    @property
    def graph(self) -> Graph:
        """What is fused and compiled."""
        return self.step.graph if self.step else self.checked.graph

    def fused(self) -> Fused:
        """Kernels and ledger."""
        return self._fused

    @cached_property
    def _fused(self) -> Fused:
        phases = self.step.phases if self.step else None
        if self.fuse:
            self._check_claims()
        return compiler.kernels(
            self.graph, self.checked.module, fuse=self.fuse, phases=phases, exact=self.exact,
            bf16=self.bf16, choices=self.choices,
        )  # fmt: skip

    @cached_property
    def choices(self) -> Choices:
        """The batch, and what was measured on this machine for such calls of inference."""
        if self.train:
            return NONE
        from cnncc.targets.cpu.machine import detect
        from cnncc.targets.tuned import Key, saved_choices

        precision = "exact" if self.exact else "bf16" if self.bf16 else "default"
        saved = saved_choices(Key(self.threads or detect().cores, self.batch, precision))
        return compiler.allowed(saved, self.checked.module)

    def _check_claims(self) -> None:
        """What the net claims of its compiled form, which is that of inference."""
        found = self.checked
        if self.train and (found.module.requirements or found.module.expectations):
            found = compiler.front(self.net, arguments=dict(self.arguments))
        compiler.check_claims(
            found.graph, found.module, batch=self.batch, symbols=dict(self.extents),
            exact=self.exact, bf16=self.bf16, limit=self.max_memory,
        )  # fmt: skip

    @cached_property
    def runtime(self) -> Runtime:
        """The compiled program."""
        from cnncc.targets.cpu.store import Store
        from cnncc.targets.runtime import Runtime

        return Runtime(
            self.fused(),
            store=Store(),
            phases=self.step.phases if self.step else None,
            threads=self.threads,
            max_memory=self.max_memory,
            guard="loss" if self.step else "",
            widths=self.choices.widths_in(self.fused().graph),
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic extents of the inputs."""
        return tuple(
            sorted({s for n in self.graph.of("input") for e in n.type.shape for s in _symbols(e)})
        )


def _symbols(extent: int | Poly) -> set[str]:
    if isinstance(extent, int):
        return set()
    return {
        atom.name for monomial, _ in extent.terms for atom in monomial if isinstance(atom, Symbol)
    }


def stage_files(stage: str, request: Request) -> dict[str, str]:
    """The files of a stage by name; most stages are one. Raises SpecError."""
    match stage:
        case "tree" | "graph" | "typed":
            text = compiler.front_text(
                request.net, stage, train=request.train, arguments=dict(request.arguments)
            )
        case "train":
            trained = request if request.train else _trained(request)
            assert trained.step is not None
            text = _step_text(trained.step)
        case "fused":
            text = _fused_text(request.fused())
        case "loops":
            text = _loops_text(request.fused())
        case "dot":
            from cnncc.cli.dot import dot_text

            text = dot_text(request.fused())
        case "plan":
            text = _plan_text(request)
        case _:
            return _machine_files(stage, request)
    return {f"{stage}.{ENDINGS.get(stage, 'txt')}": text}


def _trained(request: Request) -> Request:
    return Request(request.net, request.arguments, train=True, fuse=request.fuse)


def _step_text(step: StepGraph) -> str:
    """The graph of a training step; a remark behind each node of a later phase says which."""
    lines = []
    for line in print_graph(step.graph).splitlines():
        name = line.strip().removeprefix("%").split(" ", 1)[0]
        phase = step.phases.get(name, 0) if line.startswith("  %") else 0
        lines.append(f"{line}  # {PHASES[phase]}" if phase else line)
    return "\n".join(lines) + "\n"


def _fused_text(fused: Fused) -> str:
    parts = []
    for number, kernel in enumerate(fused.kernels, 1):
        inside = print_graph(fused.graph.with_nodes(kernel.nodes), places=True).splitlines()
        nodes = [line for line in inside if line.startswith("  %")]
        parts.append("\n".join([_kernel_line(number, kernel), *nodes]))
    return "\n\n".join(parts) + "\n"


def _kernel_line(number: int, kernel: Kernel) -> str:
    reads = ", ".join(map(printable, kernel.reads))
    return f"kernel {number}: {reads} -> {', '.join(map(printable, kernel.writes))}"


def _loops_text(fused: Fused) -> str:
    parts = []
    for number, kernel in enumerate(fused.kernels, 1):
        buffers = (b.name for b in kernel.nest.buffers)
        named = ", ".join(
            f"{b} = {printable(t)}" for b, t in zip(buffers, kernel.tensors, strict=True)
        )
        head = (
            f"# kernel {number}: {' + '.join(printable(n.name) for n in kernel.nodes)}\n# {named}"
        )
        parts.append(f"{head}\n{print_nest(kernel.nest)}")
    return "\n".join(parts)


def _plan_text(request: Request) -> str:
    """Where each tensor of a run lies in the arena, when, and what lies outside of it."""
    from cnncc.targets.cpu.portions import at_a_time
    from cnncc.targets.runtime import Shape

    missing = [name for name in request.symbols if name not in request.extents]
    if missing:
        given = " ".join(f"--extent {name}=64" for name in missing)
        raise SpecError(
            Diagnostic(
                "E0804",
                f"the plan depends on the extents {', '.join(missing)}",
                helps=(f"say which, for example {given}",),
            )
        )
    runtime = request.runtime
    shape = Shape(request.batch, tuple(sorted(request.extents.items())))
    binding = runtime.planned(shape)
    plan, placements = binding.plan, binding.placements
    piece, inside = binding.arrangement.piece, binding.arrangement.inside
    marked = "in which tensors marked * lie; their offset and bytes are of one sample"
    pieces = [f"of it, a piece of {piece} bytes for each sample, {marked}"] if piece else []
    lines = [
        f"plan of {printable(request.graph.name)} at batch {request.batch}"
        + at_a_time(binding.batch, request.batch),
        f"arena {plan.size} bytes, parameters {runtime.store.bytes} bytes, "
        f"{len(runtime.program.steps)} steps",
        *pieces,
        "",
        f"{'offset':>12} {'bytes':>12}  steps        tensor",
    ]
    for name in sorted(plan.offsets, key=lambda n: (plan.lives[n].first, plan.offsets[n])):
        life = plan.lives[name]
        alive = f"{life.first}..{life.last}"
        tensor, place = runtime.program.tensors[name], placements[name]
        size, mark = (place.sample_bytes, "*") if name in inside else (place.bytes, " ")
        halo = place.halo
        border = (
            f", border {' '.join(f'{lo}+{hi}' for lo, hi in halo)}" if any(map(any, halo)) else ""
        )
        where = f"{plan.offsets[name]:12} {size:12}{mark} {alive:12}"
        lines.append(f"{where} {printable(name)}: {tensor.type}{border}")
    return "\n".join(lines) + "\n"


def require_machine_code(what: str) -> None:
    """Raise UsageError when Numba is told to compile nothing."""
    from cnncc.targets.cpu.compiled import JIT

    if not JIT:
        raise UsageError(f"{what} is about machine code: unset NUMBA_DISABLE_JIT")


def _machine_files(stage: str, request: Request) -> dict[str, str]:
    """Emitted Python, or what LLVM made of it: one file for each entry and each distinct kernel."""
    from cnncc.targets.load import load_module, module_name

    if stage != "python":
        require_machine_code(f"--emit={stage}")
    program = request.runtime.program
    ending = ENDINGS[stage]
    files = {}
    for phase, text in program.entry_texts.items():
        name = f"entry_{PHASES.get(phase, str(phase))}.{ending}"
        entry = program.entries[phase]
        files[name] = (
            text if stage == "python" else entry.llvm_ir() if stage == "llvm" else entry.assembly()
        )
    for text in request.runtime.kernel_texts:
        short = module_name(text, kind="kernel").rpartition(".")[2]
        if stage == "python":
            files[f"{short}.{ending}"] = text
            continue
        kernel = load_module(text, kind="kernel").kernel
        files[f"{short}.{ending}"] = kernel.llvm_ir() if stage == "llvm" else kernel.assembly()
    return files
