"""The memory plan: tensors that live at the same time never share a byte, and others do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cnncc.passes.plan import Life, lives, plan

KERNELS = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=1, max_size=9
)


def test_life_reaches_from_the_writer_to_the_last_reader() -> None:
    found = lives([("x", "w", "a"), ("a", "b"), ("b", "a", "c"), ("c", "y")], {"w"}, {"y"})
    assert found == {
        "x": Life(0, 0),
        "a": Life(0, 2),
        "b": Life(1, 2),
        "c": Life(2, 3),
        "y": Life(3, 4),
    }


def test_chain_needs_two_buffers() -> None:
    chain = [(f"t{i}", f"t{i + 1}") for i in range(10)]
    found = lives(chain, (), {"t10"})
    made = plan(found, dict.fromkeys(found, 128))
    assert made.size == 256
    assert set(made.offsets.values()) == {0, 128}


def test_largest_tensors_decide_the_peak() -> None:
    found = lives([("a", "b"), ("b", "c"), ("c", "d")], (), {"d"})
    assert plan(found, {"a": 64, "b": 640, "c": 128, "d": 64}).size == 640 + 128


def test_results_outlive_the_last_kernel() -> None:
    found = lives([("a", "y"), ("b", "z")], (), {"y", "z"})
    made = plan(found, dict.fromkeys(found, 64))
    assert made.offsets["y"] != made.offsets["z"]


def test_nothing_to_place() -> None:
    assert plan({}, {}).size == 0


@given(KERNELS, st.data())
def test_tensors_that_meet_are_apart(kernels: list[list[str]], data: st.DataObject) -> None:
    ends = data.draw(st.sets(st.sampled_from("abcdefgh")))
    found = lives(kernels, {"h"}, ends)
    assert set(found) == {t for k in kernels for t in k} - {"h"}
    sizes = {t: 64 * data.draw(st.integers(1, 9)) for t in found}
    made = plan(found, sizes)
    for a in found:
        assert 0 <= made.offsets[a] <= made.size - sizes[a]
        assert made.offsets[a] % 64 == 0
        for b in found:
            if a < b and found[a].meets(found[b]):
                first, second = sorted((a, b), key=lambda t: made.offsets[t])
                assert made.offsets[first] + sizes[first] <= made.offsets[second], (a, b)
    alive = [
        sum(sizes[t] for t in found if found[t].meets(Life(k, k))) for k in range(len(kernels))
    ]
    assert max(alive) <= made.size <= sum(sizes.values())
