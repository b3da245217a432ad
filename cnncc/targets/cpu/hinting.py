"""The hints of a kernel's text on what will be loaded soon, and the integers that it derives for
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from cnncc.loops.ir import Body, Fetch, For, Guard, Index, Int, Load, Size, Var, add, mul
from cnncc.loops.walk import subindices, values
from cnncc.targets.cpu.coming import AHEAD, Behind, Coming, Hint, Inputs, Line, Weights
from cnncc.targets.cpu.emitted import Derived
from cnncc.targets.cpu.layout import ALIGN
from cnncc.targets.cpu.turns import later
from cnncc.targets.cpu.values import ValuePrinter

APIECE = 8  # weights that a tile's turn fetches, where turns are written out: two vectors of
# eight lanes for half as many tiles of six positions as a map of 7x7 has


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

    def _fetched(self, loop: For, pad: str, turns: int = 1) -> Iterator[str]:
        """The hints of a tile's innermost loop on what comes next, where so many of its turns are
        written out.
        """
        for hint in self.coming.of(loop, self.positions, self.place) if self.coming else ():
            if turns > 1 and isinstance(hint, Inputs):
                continue  # narrow tiles: pieces so few that a processor follows them by itself
            word, buffer, place, each = self._hint(hint, loop.var)
            places = [later(place, loop.var, turn) for turn in range(turns)]
            if turns > 1 and each:  # line after line, from one pointer
                line = ALIGN // self.nest.buffer(buffer).dtype.bytes
                places = [add(place, at) for at in range(0, turns * each, line)]
            for at in places:
                yield pad + self.call(word, buffer, self.index(at))

    def _hint(self, hint: Hint, var: str) -> tuple[str, str, Index, int]:
        """Its word, what it fetches from where, and how many elements in a turn (0: that is not
        known, or not one after the other).
        """
        match hint:
            case Inputs():
                apiece = self.derive(hint.apiece, 0, "apiece")
                return "prefetch", hint.buffer, add(hint.start, mul(hint.channel, apiece)), 0
            case Line():
                return "prefetch_nearby", hint.buffer, hint.place, 0
            case Behind():
                tile, turn = (self.derive(hint.share, k, w) for k, w in enumerate(("tile", "turn")))
                part = add(mul(hint.tile, tile), mul(Var(var), turn))
                return "prefetch_nearby", AHEAD, add(Size(f"{AHEAD}_at"), part), 0
            case Weights():
                words = ("further", "before", "each")
                further, before, each = (self.derive(hint.next, k, w) for k, w in enumerate(words))
                part = add(mul(hint.position, before), mul(Var(var), each))
                place = add(add(hint.start, further), part)
                return "prefetch_nearby", hint.buffer, place, APIECE
            case _:
                assert_never(hint)

    def derive(self, of: Derived, which: int, word: str) -> Size:
        """An integer that follows from others, under a name that begins with the word."""
        known = next((n for n, found in self.derived.items() if found == (of, which)), None)
        count = sum(n.startswith(word) for n in self.derived)
        name = known or f"{word}{self.label}_{count}"
        self.derived[name] = (of, which)
        return Size(name)
