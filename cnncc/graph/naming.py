"""Names of layers. Every layer that a statement makes gets a name of its own while the statement is
read (`c1.conv`, `c1.tanh`); at the end of the statement its main layer takes over the name that the
statement assigns (`c1.conv` becomes `c1`, its kernel `c1.weight`). The rules are written down in
README.md of this folder, because weight files depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cnncc.graph.ir import Builder, Condition, Node, Origin
from cnncc.graph.values import Value


@dataclass
class Member:
    """A layer or a use of a block in a statement."""

    name: str
    parametrised: bool = False
    passing: bool = False  # only in training, as dropout: it never is what a statement is about


@dataclass
class Group:
    """The layers of one statement: `assigned` is its name in full (`layer1.c1`), "" when it has
    none.
    """

    assigned: str
    prefix: str  # of the body it stands in: "" or "layer1."
    first: int  # nodes and conditions that were there before it
    first_condition: int
    members: list[Member] = field(default_factory=list)


class Naming:
    """Gives out layer names and renames nodes in the graph under construction."""

    def __init__(self, builder: Builder, conditions: list[Condition]) -> None:
        self.builder = builder
        self.conditions = conditions
        self._taken: set[str] = set()
        self._reserved: set[str] = set()
        self._next: dict[str, int] = {}
        self._renamed: dict[str, str] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names that a body assigns away from its unnamed layers."""
        self._reserved.update(names)

    def take(self, name: str) -> str:
        """The name itself when it is reserved or free, else the first of name_2, name_3, ..."""
        if name in self._reserved:
            self._reserved.discard(name)
            self._taken.add(name)
            return name
        taken, self._next[name] = self._first_free(name, name, self._next.get(name, 2))
        return taken

    def numbered(self, stem: str) -> str:
        """The first of stem_1, stem_2, ... that is free."""
        number = self._next.get(stem + "_", 1)
        taken, self._next[stem + "_"] = self._first_free(f"{stem}_{number}", stem, number + 1)
        return taken

    def _first_free(self, name: str, stem: str, number: int) -> tuple[str, int]:
        while name in self._taken or name in self._reserved or name in self.builder:
            name = f"{stem}_{number}"
            number += 1
        self._taken.add(name)
        return name, number

    def final(self, name: str) -> str:
        """What a node is called now that had the name once."""
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def open(self, prefix: str, name: str | None) -> Group:
        """Begin a statement that assigns `name` (None: it assigns nothing) in a body."""
        assigned = "" if name is None else self.take(prefix + name)
        return Group(assigned, prefix, len(self.builder.nodes), len(self.conditions))

    def member(self, group: Group, operator: str, *, passing: bool = False) -> Member:
        """A layer or block of the statement."""
        if group.assigned:
            member = Member(self.take(f"{group.assigned}.{operator}"), passing=passing)
        else:
            member = Member(self.numbered(group.prefix + operator), passing=passing)
        group.members.append(member)
        return member

    def close(self, group: Group, value: Value) -> Value:
        """Let the main layer have the statement's name; the value, with its node renamed."""
        if not group.members and group.assigned:
            # Another name for something that has one: the name stays free for a layer.
            self._taken.discard(group.assigned)
            self._reserved.add(group.assigned)
        main = _main(group)
        if main is None or not group.assigned:
            return value
        names: dict[str, str] = {}
        new: set[str] = set()
        for node in self.builder.nodes[group.first :]:
            rest = _below(node.name, main.name)
            if rest is None:
                continue
            name, number = group.assigned + rest, 2
            while name in new or name in self.builder:
                name = f"{group.assigned}{rest}_{number}"
                number += 1
            names[node.name] = name
            new.add(name)
        self._rename(group, main.name, names)
        self._renamed.update(names)
        if isinstance(value, Node):
            return self.builder[names.get(value.name, value.name)]
        return value

    def _rename(self, group: Group, main: str, names: dict[str, str]) -> None:
        def moved(origin: Origin) -> Origin:
            rest = _below(origin.layer, main)
            return origin if rest is None else replace(origin, layer=group.assigned + rest)

        self.builder.replace_from(
            group.first,
            [
                replace(
                    node,
                    name=names.get(node.name, node.name),
                    inputs=tuple(names.get(n, n) for n in node.inputs),
                    origin=moved(node.origin),
                )
                for node in self.builder.nodes[group.first :]
            ],
        )
        self.conditions[group.first_condition :] = [
            replace(c, text=c.text.replace(main, group.assigned), origin=moved(c.origin))
            for c in self.conditions[group.first_condition :]
        ]


def _below(name: str, layer: str) -> str | None:
    """What follows the layer's name in a name (`.weight`, or nothing); None for another layer's."""
    rest = name.removeprefix(layer)
    return rest if name.startswith(layer) and rest[:1] in ("", ".") else None


def _main(group: Group) -> Member | None:
    """The only layer with parameters, the last layer when none has any, else none."""
    weighted = [m for m in group.members if m.parametrised]
    if len(weighted) == 1:
        return weighted[0]
    others = [m for m in group.members if not m.passing]
    return None if weighted or not others else others[-1]
