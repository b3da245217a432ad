"""The hints of a kernel's text on what will be loaded soon, and the integers that it derives for
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cnncc.loops.ir import Body, Fetch, For, Guard, Int, Load, Size, Var, add, mul
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.coming import AHEAD, Behind, Coming, Inputs, Line
from cnncc.targets.cpu.emitted import Derived
from cnncc.targets.cpu.values import ValuePrinter


@dataclass
class HintPrinter(ValuePrinter):
    """Prints hints."""

    label: str = ""  # of the derived integers of this text
    coming: Coming | None = None  # what sums fetch in advance
    derived: dict[str, tuple[Derived, int]] = field(default_factory=dict)  # integers, by name

    def _hints(self, body: Body, pad: str) -> Iterator[str]:
        """Prefetches of what a tile takes behind its sums, such as a residual: it may lie in
        memory, and comes while the sums are computed.
        """
        sums = next((k for k, s in enumerate(body) if isinstance(s, For)), len(body))
        straight = [s for s in body[sums + 1 :] if not isinstance(s, (For, Guard))]
        for v in dict.fromkeys(values(tuple(straight))):
            if not isinstance(v, Load):
                continue
            if any(isinstance(p, Fetch) for i in v.index for p in subindices(i)):
                continue
            place, steps = self.address(v.buffer, v.index)
            if steps.position is not None and steps.lane == Int(1):
                arguments = self._shape(steps.spread), v.buffer, place, *self._apart(steps)
                yield pad + self.call("prefetch_tile", *arguments)

    def _fetched(self, loop: For, pad: str) -> Iterator[str]:
        """The hints of a tile's innermost loop on what comes next."""
        for hint in self.coming.of(loop, self.positions, self.place) if self.coming else ():
            if isinstance(hint, Inputs):
                apiece = self._derived(hint.apiece, 0, "apiece")
                place = self.index(add(hint.start, mul(hint.channel, apiece)))
                yield pad + self.call("prefetch", hint.buffer, place)
                continue
            if isinstance(hint, Line):
                yield pad + self.call("prefetch_nearby", hint.buffer, self.index(hint.place))
                continue
            if isinstance(hint, Behind):
                tile, turn = (
                    self._derived(hint.share, k, w) for k, w in enumerate(("tile", "turn"))
                )
                part = add(mul(hint.tile, tile), mul(Var(loop.var), turn))
                place = self.index(add(Size(f"{AHEAD}_at"), part))
                yield pad + self.call("prefetch_nearby", AHEAD, place)
                continue
            words = ("further", "before", "each")
            further, before, each = (self._derived(hint.next, k, w) for k, w in enumerate(words))
            part = add(mul(hint.position, before), mul(Var(loop.var), each))
            place = self.index(add(add(hint.start, further), part))
            yield pad + self.call("prefetch_nearby", hint.buffer, place)

    def _derived(self, of: Derived, which: int, word: str) -> Size:
        """An integer that follows from others, under a name that begins with the word."""
        known = next((n for n, found in self.derived.items() if found == (of, which)), None)
        count = sum(n.startswith(word) for n in self.derived)
        name = known or f"{word}{self.label}_{count}"
        self.derived[name] = (of, which)
        return Size(name)
