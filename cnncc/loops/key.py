"""A nest as the key of a cache: by what it says, or by being the very same object."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cnncc.loops.ir import Nest
from cnncc.loops.text import print_nest


@dataclass(frozen=True)
class NestKey:
    """A nest, equal to others of the same text: nests with 0.0 and -0.0 are equal, their texts are
    not. Made by `nest_key`.
    """

    text: str
    nest: Nest = field(compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class This:
    """A nest, equal to nothing but itself: a key that costs no walk through the nest. A cache under
    it finds what it knows where equal layers share a nest, as those of `passes.lower` do.
    """

    nest: Nest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, This) and self.nest is other.nest

    def __hash__(self) -> int:
        return id(self.nest)


def nest_key(nest: Nest) -> NestKey:
    """The key of a nest."""
    return _key(This(nest))


@lru_cache(maxsize=1024)
def _key(this: This) -> NestKey:
    return NestKey(print_nest(this.nest), this.nest)
