"""One loop nest of a kernel in the order of its schedule: tasks, rows, register tiles and what is
left of them.
"""

from __future__ import annotations

from dataclasses import replace

from cnncc.loops.ir import Body, Div, Guard, Index, Int, Mod, Nest, Size, Var, add, mul
from cnncc.loops.jam import jammed
from cnncc.loops.rewrite import Rewrite, substitute
from cnncc.loops.split import Split
from cnncc.loops.transform import parallel_loops
from cnncc.loops.unroll import unrolled
from cnncc.loops.walk import Names, indices, names_of
from cnncc.targets.cpu.coming import Coming
from cnncc.targets.cpu.emitted import ROWS_PER_TASK, Memory
from cnncc.targets.cpu.lane import BLOCK, LANE, POSITION, VECTOR, NotInTile
from cnncc.targets.cpu.printer import Printer
from cnncc.targets.cpu.schedule import Schedule, near_weights
from cnncc.targets.cpu.stretches import Stretches, first, in_stretches
from cnncc.targets.cpu.widths import LATENCY, Mixed
from cnncc.tensor import DType

TAPS = 7  # of a row of a window, written out
BLOCKS_AT_ONCE = 2  # of a sample alone: the sums of one wait for each other, and read half of what
# a cache gives


def by_rows(nest: Nest, memory: Memory) -> bool:
    """Whether the lanes are columns, of which neighbouring taps read the same."""
    out = (b for b in nest.buffers if b.role == "out")
    return any(1 < memory.innermost[b.name] == len(b.extents) - 1 for b in out)


class SegmentText:
    """The lines of a segment."""

    def __init__(
        self,
        split: Split,
        memory: Memory,
        dtype: DType,
        schedule: Schedule,
        number: int,
        held: int = 0,
    ) -> None:
        nest = split.nest
        self.loops, self.inside = parallel_loops(nest)
        self.stretches: Stretches | None = None
        rows = schedule.tile or schedule.rows
        if rows and schedule.blocked and not schedule.overlapping and schedule.lanes > 1:
            self.stretches = in_stretches(nest, number)
        if self.stretches:
            self.inside = self.stretches.body
        for var, (limit, condition) in split.limits.items():
            if var == schedule.tile:  # the phases of the tile's loop have extents of their own
                self.loops[var] = limit
                schedule = replace(schedule, rest=0, whole_tiles=False, overlapping=False)
            else:
                self.inside = (Guard(condition, self.inside),)
        sums = schedule.width * schedule.vectors
        names, most = Names(names_of(nest)), (held - schedule.vectors - 1) // sums
        if schedule.tile and sums < 2 * LATENCY:  # two units wait for them
            self.inside = jammed(self.inside, names, most)
        if by_rows(nest, memory):
            self.inside = unrolled(self.inside, names, TAPS)
        self.nest, self.schedule, self.number = nest, schedule, number
        self.printer = Printer(
            nest, dtype, memory.innermost, self.schedule.group(self.loops),
            padded=memory.padded, lanes=schedule.lanes, label=str(number), registers=held,
            hungry=near_weights(schedule.lanes, dtype) > 0,
            coming=Coming(nest, self.schedule, memory.innermost, number, bool(memory.ahead)),
        )  # fmt: skip
        self.together = self._some_blocks()
        self.lines = self._blocked() if schedule.blocked else self._streaming()

    # --- order of the work ---

    def _size(self, name: str) -> str:
        return self.printer.index(Size(name))

    def _extent(self, var: str) -> str:
        return self.printer.factor(self.loops[var])

    def _rows(self) -> str:
        return " * ".join(self._extent(v) for v in self.schedule.rows) or "1"

    def _decode(self, indent: int) -> list[str]:
        """The row's variables from its number."""
        pad, rows = "    " * indent, self.schedule.rows
        if not rows:
            return []
        if len(rows) == 1:
            return [f"{pad}{rows[0]} = row"]
        lines, rest = [], "row"
        for var in reversed(rows[1:]):
            extent = self._extent(var)
            lines += [f"{pad}{var} = {rest} % {extent}"]
            if var != rows[1]:
                lines += [f"{pad}rest = {rest} // {extent}"]
                rest = "rest"
            else:
                lines += [f"{pad}{rows[0]} = {rest} // {extent}"]
        return lines

    def _blocked(self) -> list[str]:
        """Tasks are (chunk of rows, block of lanes): a block's weights serve all rows of the chunk
        from cache.
        """
        s, indent = self.schedule, 2
        per_task, block = self._size(f"{ROWS_PER_TASK}{self.number}"), s.block
        lanes_extent = self._extent(s.vector) if s.vector else "1"
        lines = [
            f"    rows = {self._rows()}",
            f"    blocks = ({lanes_extent} + {block - 1}) // {block}",
            f"    tasks = (rows + {per_task} - 1) // {per_task} * blocks",
            "    for task in range(tasks * share // shares, tasks * (share + 1) // shares):",
            f"        k0 = task % blocks * {block}",
            f"        first_row = task // blocks * {per_task}",
        ]
        for var, extent, length in self.stretches.axes if self.stretches else ():
            turns = f"0, {self.printer.index(extent)}, {self._size(length)}"
            lines += [f"{'    ' * indent}for {first(var).name} in range({turns}):"]
            indent += 1
        pad = "    " * indent
        lines += [
            f"{pad}for row in range(first_row, min(rows, first_row + {per_task})):",
            *self._decode(indent + 1),
        ]
        if s.lanes == 1 or s.whole_blocks:
            return [*lines, *self._tiles(indent + 1, full=True), *self._alone()]
        if s.only_tail:
            return [*lines, *self._tail(indent + 1)]
        return [
            *lines,
            f"{pad}    if k0 + {block} <= {lanes_extent}:",
            *self._tiles(indent + 2, full=True),
            f"{pad}    else:",
            *self._tail(indent + 2),
            *self._alone(),
        ]

    def _tail(self, indent: int) -> list[str]:
        """The last block when it is not full: one vector at a time, or all if they are needed,
        the lanes beyond the end masked.
        """
        s, pad = self.schedule, "    " * indent
        extent = self._extent(s.vector)
        if s.wide_tail:
            return [f"{pad}left = {extent} - k0", *self._tiles(indent, full=False)]
        if s.vectors == 1:
            return [f"{pad}k1 = 0", f"{pad}left = {extent} - k0", *self._tiles(indent, full=False)]
        return [
            f"{pad}for k1 in range(0, {extent} - k0, {s.lanes}):",
            f"{pad}    left = {extent} - k0 - k1",
            *self._tiles(indent + 1, full=False),
        ]

    def _tiles(self, indent: int, *, full: bool) -> list[str]:
        """The tile axis: whole tiles, then the remaining positions one by one, or a last tile that
        computes some positions again.
        """
        s, pad = self.schedule, "    " * indent
        if not s.tile:
            return self._body(indent, 1, full=full)
        extent, start = self._extent(s.tile), Var(f"{s.tile}0")
        if s.rest and s.overlapping:
            return self._mixed(indent, full=full)
        if s.whole_tiles or s.overlapping:
            whole = [f"{pad}for {start.name} in range(0, {extent}, {s.width}):"]
        else:
            whole = [f"{pad}for {start.name} in range(0, {extent} - {s.width - 1}, {s.width}):"]
        if s.overlapping:
            whole += [f"{pad}    {start.name} = min({start.name}, {extent} - {s.width})"]
        whole += self._body(indent + 1, s.width, full=full)
        if s.whole_tiles or s.overlapping or (full and self.together):
            return whole
        return [
            *whole,
            f"{pad}for {s.tile} in {self._left()}:",
            *self._body(indent + 1, 1, full=full),
        ]

    def _mixed(self, indent: int, *, full: bool) -> list[str]:
        """Tiles of one width, and behind them of another one."""
        s, pad, extent = self.schedule, "    " * indent, self._extent(self.schedule.tile)
        mixed = Mixed(self.loops[s.tile], s.width, s.rest, s.vectors)
        begin, start = self._size(self.printer.derive(mixed, 0, "mixed").name), f"{s.tile}0"
        return [
            f"{pad}for {start} in range(0, {begin}, {s.width}):",
            *self._body(indent + 1, s.width, full=full),
            f"{pad}for {start} in range({begin}, {extent}, {s.rest}):",
            f"{pad}    {start} = min({start}, {extent} - {s.rest})",
            *self._body(indent + 1, s.rest, full=full),
        ]

    def _left(self) -> str:
        """The positions behind the whole tiles."""
        extent, width = self._extent(self.schedule.tile), self.schedule.width
        return f"range({extent} // {width} * {width}, {extent})"

    def _alone(self) -> list[str]:
        """The samples behind the whole tiles in a layer without positions, one by one: some blocks
        of lanes at once, then the others.
        """
        s, n = self.schedule, BLOCKS_AT_ONCE
        if not self.together:
            return []
        last = f"min(tasks * (share + 1) // shares, {self._extent(s.vector)} // {s.block})"
        return [
            "    begin = tasks * share // shares",
            f"    end = {last}",
            f"    for {s.tile} in {self._left()}:",
            f"        for task in range(begin, end - {n - 1}, {n}):",
            f"            k0 = task * {s.block}",
            *self.together,
            f"        for task in range(max(begin, end - (end - begin) % {n}), end):",
            f"            k0 = task * {s.block}",
            *self._body(3, 1, full=True),
        ]

    def _some_blocks(self) -> list[str]:
        """The body for a sample and some blocks of lanes as one tile; empty where that has no form
        or gains nothing.
        """
        s = self.schedule
        one = s.tile == "i_n" and not s.rows and s.blocked and s.lanes > 1 and not self.stretches
        if not one or s.whole_tiles or s.overlapping or s.only_tail or not s.vector:
            return []
        if any(isinstance(i, (Div, Mod)) and i.a == Var(s.vector) for i in indices(self.inside)):
            return []  # of several groups
        attempt = replace(self.printer.copy(), across=True, coming=None)
        attempt.positions, attempt.vectors = BLOCKS_AT_ONCE, s.vectors
        part = VECTOR * s.lanes if s.vectors > 1 else Int(0)
        places: dict[str, Index] = {s.vector: BLOCK + POSITION * s.block + part + self._lane}
        try:
            lines = attempt.body(substitute(self.inside, places), 3)
        except NotInTile:
            return []
        self.printer = replace(attempt, across=False, coming=self.printer.coming)
        return lines

    def _streaming(self) -> list[str]:
        """Tasks are rows; lanes run innermost, so memory is touched in order."""
        s = self.schedule
        lines = [
            f"    rows = {self._rows()}",
            "    for row in range(rows * share // shares, rows * (share + 1) // shares):",
            *self._decode(2),
        ]
        if not s.vector:
            return [*lines, "        k0 = 0", *self._body(2, 1, full=True)]
        extent = self._extent(s.vector)
        if s.lanes == 1 or s.whole_blocks:
            return [
                *lines,
                f"        for k0 in range(0, {extent}, {s.block}):",
                *self._body(3, 1, full=True),
            ]
        if s.only_tail:
            return [*lines, "        k0 = 0", *self._tail(2)]
        return [
            *lines,
            f"        for k0 in range(0, {extent} - {s.block - 1}, {s.block}):",
            *self._body(3, 1, full=True),
            f"        k0 = {extent} // {s.block} * {s.block}",
            f"        if k0 < {extent}:",
            *self._tail(3),
        ]

    # --- one tile ---

    def _group(self, i: Index) -> Index | None:
        """A block lies inside one group (the schedule sees to it), so its group is that of its
        first lane.
        """
        v = Var(self.schedule.vector)
        match i:
            case Div(a, b) if a == v:
                return Div(BLOCK, b)
            case Mod(a, b) if a == v:
                return add(Mod(BLOCK, b), add(v, mul(BLOCK, -1)))
        return None

    def _body(self, indent: int, positions: int, *, full: bool) -> list[str]:
        """The body for so many positions of the tile, with whole vectors or with a masked one."""
        s = self.schedule
        self.printer.tail = "" if full else "left"
        body: Body = self.inside
        if s.lanes > 1:
            body = Rewrite(index=self._group).on_body(body)
        vectors = s.vectors if (full or s.wide_tail) and s.vector else 1
        if positions > 1 or vectors > 1:
            attempt = self.printer.copy()
            try:
                lines = self._tile(attempt, body, indent, positions, vectors, full=full)
            except NotInTile:
                return self._one_by_one(body, indent, positions, vectors, full=full)
            self.printer = attempt
            return lines
        return self._tile(self.printer, body, indent, 1, 1, full=full)

    def _tile(
        self, printer: Printer, body: Body, indent: int, positions: int, vectors: int, *, full: bool
    ) -> list[str]:
        """A tile as one value. Raises NotInTile."""
        s = self.schedule
        places: dict[str, Index] = {}
        if s.vector:
            part = VECTOR * s.lanes if vectors > 1 else Int(0)
            places[s.vector] = BLOCK + (part if full or vectors > 1 else Var("k1")) + self._lane
        if positions > 1:
            places[s.tile] = Var(f"{s.tile}0") + POSITION
        printer.positions, printer.vectors = positions, vectors
        return printer.body(substitute(body, places), indent)

    def _one_by_one(
        self, body: Body, indent: int, positions: int, vectors: int, *, full: bool
    ) -> list[str]:
        """The parts of a tile in two loops."""
        s, lines = self.schedule, []
        places: dict[str, Index] = {s.vector: BLOCK + self._lane} if s.vector else {}
        if vectors > 1 or not full:
            places[s.vector] = BLOCK + Var("k1") + self._lane
        if vectors > 1:
            lines.append(f"{'    ' * indent}for k1 in range(0, {s.block}, {s.lanes}):")
            indent += 1
            self.printer.tail = "" if full else "left - k1"  # `left` is that of all vectors
        if positions > 1:
            start = f"{s.tile}0"
            lines.append(f"{'    ' * indent}for {s.tile} in range({start}, {start} + {positions}):")
            indent += 1
        self.printer.positions = self.printer.vectors = 1
        return [*lines, *self.printer.body(substitute(body, places), indent)]

    @property
    def _lane(self) -> Index:
        return LANE if self.schedule.lanes > 1 else Int(0)
