"""Rows S12, S15, S38 to S42 of the lecture table, all with each other: thousands of combinations of
sharing, connections, kind, bias, padding, stride, dilation and rank against their definition, and
the adjoint identities <conv x, y> = <x, conv^T y> = <w, dw(x, y)>, exactly.
"""

from __future__ import annotations

import numpy as np
import pytest

from cnncc.passes.fuse import fuse
from cnncc.targets.interp.program import run_interp
from tests.kernels.joined import both_targets
from tests.kernels.stepwise import on_kernels
from tests.mission.products import CONNECTS, PADS, SHARES, SIZES, Joined, cases, joined

ALL = cases(2048)
PART = 256


def values(case: Joined) -> dict[str, np.ndarray]:
    return run_interp(fuse(case.graph, enabled=False), case.data, 2, np.float32)


def test_S15_the_cases_have_every_value_of_every_argument() -> None:
    for name, every in (
        ("rank", SIZES), ("share", SHARES), ("connect", CONNECTS), ("pad", PADS),
        ("transposed", (True, False)),
    ):  # fmt: skip
        assert {getattr(case, name) for case in ALL} == set(every)
    assert len(set(ALL)) == len(ALL) >= 2000


@pytest.mark.parametrize("part", range(len(ALL) // PART))
def test_S15_every_combination_is_its_definition_and_its_gradients_are_adjoint(part: int) -> None:
    chosen = joined(ALL[part * PART : (part + 1) * PART])
    assert chosen.check(values(chosen)) == []


def test_S15_the_check_sees_a_wrong_tap_and_a_wrong_gradient() -> None:
    chosen = joined(ALL[:8])
    found = values(chosen)
    number = next(i for i, case in enumerate(chosen.cases) if case.bias == "tied")
    for what in ("y", "dx", "dw", "dbias"):
        spoiled = dict(found)
        array = spoiled[chosen.results[number][what]].copy()
        data = chosen.data[{"dx": f"x{number}", "dw": f"y{number}.weight"}.get(what, "x0")]
        at = np.unravel_index(np.flatnonzero(data)[0], data.shape) if what in ("dx", "dw") else 0
        array[at] += 1
        spoiled[chosen.results[number][what]] = array
        assert len(chosen.check(spoiled)) == 1


def on_cpu(chosen: Joined) -> dict[str, np.ndarray]:
    names = dict(chosen.graph.outputs)
    return {names[k]: value for k, value in on_kernels(chosen.graph, chosen.data).items()}


def test_S15_some_combinations_on_the_cpu() -> None:
    """Fused programs run whole, and the kernels of single nodes, are what the interpreter is."""
    chosen = joined([case for case in ALL if case.rank == 2 and case.dilation == 1][:5])
    twice = both_targets(chosen.graph)
    cpu, interp = twice.run(chosen.data)
    names = dict(chosen.graph.outputs)
    for public in cpu:
        assert np.array_equal(cpu[public], interp[public]), public
    assert chosen.check({names[public]: value for public, value in cpu.items()}) == []
    assert chosen.check(on_cpu(chosen)) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(ALL) // PART))
def test_S15_every_combination_on_the_cpu(part: int) -> None:
    """Samples are as many as a tile of them has, and one more: tiles and what remains."""
    chosen = joined(ALL[part * PART : (part + 1) * PART], batch=17)
    assert chosen.check(on_cpu(chosen)) == []
