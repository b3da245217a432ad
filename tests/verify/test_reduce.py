"""The smaller network that a certificate is made with: every network of the lectures has one, which
keeps at least one step of every large extent, and a wrong extent is a diagnostic.
"""

from __future__ import annotations

import pytest

from cnncc import compiler
from cnncc.errors import SpecError
from cnncc.graph.locate import built_in
from cnncc.verify.reduce import STEP, reduced

LIBRARIES = ("classifier_features", "lenet5_table", "residual")  # blocks and tables only


@pytest.mark.parametrize("name", [n for n in built_in() if n not in LIBRARIES])
def test_every_built_in_network_can_be_reduced(name: str) -> None:
    graph = compiler.front(name).graph
    smaller = reduced(graph, {}).graph
    assert [n.name for n in smaller.nodes] == [n.name for n in graph.nodes]
    assert smaller.outputs == graph.outputs
    for node in graph.of("input"):
        for old, new in zip(node.type.spatial, smaller[node.name].type.spatial, strict=True):
            if isinstance(old, int):
                assert isinstance(new, int)
                assert min(old, STEP) <= new <= old


def refused(extents: dict[str, int]) -> str:
    with pytest.raises(SpecError) as caught:
        reduced(compiler.front("audio").graph, extents)
    return str(caught.value)


def test_an_extent_that_does_not_fit_is_refused() -> None:
    assert "`audio` takes no input with T = 100" in refused({"T": 100})
    assert "--extent T=N" in refused({"T": 100})


def test_an_extent_that_there_is_not_is_refused() -> None:
    assert "`audio` has no symbolic extent `Q`" in refused({"Q": 8})
    assert "its symbolic extents: T" in refused({"Q": 8})
