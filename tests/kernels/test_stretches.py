"""Long sums in stretches: the same additions in the same order, however long a stretch is."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest

from cnncc.ops import all_samples
from cnncc.targets.cpu import table
from cnncc.targets.cpu.stretches import STRETCH, lengths_of
from cnncc.targets.cpu.tasks import STAYING
from tests.kernels.joined import both_targets, joined, joined_arrays
from tests.kernels.primitives import same_bits
from tests.ops.evaluate import floats


@pytest.mark.parametrize("extents", [(7,), (1, 9), (3, 4), (2, 1, 5), (2, 3, 4)])
def test_stretches_take_the_turns_in_their_order(extents: tuple[int, ...]) -> None:
    in_order = list(product(*map(range, extents)))
    for read, fitting in product((1, 40, 1000), (1, 10, 100, 5000)):
        lengths = lengths_of(extents, read, fitting)
        starts = [range(0, e, n) for e, n in zip(extents, lengths, strict=True)]
        taken = []
        for first in product(*starts):
            ends = [min(e, f + n) for e, f, n in zip(extents, first, lengths, strict=True)]
            taken += list(product(*(range(f, e) for f, e in zip(first, ends, strict=True))))
        assert taken == in_order
        assert read * prod(lengths) <= fitting * prod(extents) or prod(lengths) == 1


def test_a_stretch_is_as_long_as_fits() -> None:
    assert lengths_of((16, 64), 16 * 64 * 10, 640) == (1, 64)
    assert lengths_of((16, 64), 16 * 64 * 10, 2000) == (3, 64)
    assert lengths_of((16, 64), 16 * 64 * 10, 320) == (1, 32)
    assert lengths_of((16, 64), 16 * 64 * 10, 10**6) == (16, 64)


SAMPLES = [s for s in all_samples() if s.op.name in ("conv_dw", "dense_dw")]
BATCHES = sorted({s.batch for s in SAMPLES})


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cache", [1, 700, 3000, 10**9])
def test_bits_do_not_depend_on_the_length_of_a_stretch(
    batch: int, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "own_cache", lambda: STAYING * cache)
    samples = [s for s in SAMPLES if s.batch == batch]
    twice = both_targets(joined([(s.op, s.types) for s in samples]))
    cpu, interp = twice.run(joined_arrays([floats(s) for s in samples]))
    wrong = [s for i, s in enumerate(samples) if not same_bits(cpu[f"y{i}"], interp[f"y{i}"])]
    assert wrong == []
    emitted = [s.emitted for s in twice.cpu.program.steps if s.emitted]
    assert any(a.startswith(STRETCH) for e in emitted for a in e.arguments)
