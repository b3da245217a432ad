"""One call of an entry: what it computes, by which kernels, on which tensors."""

from __future__ import annotations

from dataclasses import dataclass

from cnncc.graph.ir import Node
from cnncc.loops.ir import Nest
from cnncc.passes.lower import Kernel
from cnncc.targets.cpu.bands import Cut
from cnncc.targets.cpu.border import BORDER_INTEGERS
from cnncc.targets.cpu.caller import CALLER_INTEGERS, Callee
from cnncc.targets.cpu.emitted import Emitted
from cnncc.targets.cpu.strips import Strip
from cnncc.targets.load import module_name


@dataclass(frozen=True)
class Step:
    """One call of an entry: a kernel with its tensors, the border of one tensor, or several kernels
    band by band or strip by strip.
    """

    phase: int
    tensors: tuple[str, ...]
    emitted: Emitted | None  # None: a border fill, or several kernels
    nest: Nest | None
    text: str
    comment: tuple[str, ...]
    kernel: Kernel | None = None
    ahead: str = ""  # the tensor of which its tiles fetch what another kernel reads next
    parts: tuple[Step, ...] = ()  # several kernels
    cut: Cut | Strip | None = None  # how the work of several is cut
    within: tuple[str, ...] = ()  # the tensors that exist between them alone

    @property
    def kernels(self) -> tuple[Step, ...]:
        """The steps of one kernel that it consists of: none for the border of a tensor."""
        return self.parts or ((self,) if self.emitted else ())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What it computes, none for borders and changes of layout."""
        return tuple(n for s in self.kernels if s.kernel for n in s.kernel.nodes)

    @property
    def texts(self) -> tuple[str, ...]:
        """Of all its kernels, each after those that it calls."""
        return (*(s.text for s in self.parts), self.text)

    @property
    def callee(self) -> Callee:
        """What a kernel that calls its kernel needs to know of it."""
        tensors = (*self.tensors, self.ahead) if self.ahead else self.tensors
        return Callee(module_name(self.text, kind="kernel"), tensors, self.integers)

    @property
    def places(self) -> int:
        """Of the table: the pieces of a thread's share, and its integers."""
        return 1 + self.integers

    @property
    def integers(self) -> int:
        """How many integers its kernel takes."""
        if self.emitted:
            return len(self.emitted.arguments)
        return CALLER_INTEGERS if self.parts else BORDER_INTEGERS
