"""A nest as the key of a cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from cnncc.loops.ir import Nest
from cnncc.loops.text import print_nest


@dataclass(frozen=True)
class NestKey:
    """A nest, equal to others of the same text: nests with 0.0 and -0.0 are equal, their texts are
    not. Made by `nest_key`.
    """

    text: str
    nest: Nest = field(compare=False, repr=False)


def nest_key(nest: Nest) -> NestKey:
    """The key of a nest."""
    return NestKey(print_nest(nest), nest)
