"""A call like the one before takes a short way, which checks all that the long way does."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.model import InputError
from cnncc.targets.runtime import Runtime

NET = """
net small {
  input a: f32[8, 6, 6]
  input b: f32[3]
  y = a -> conv(8, 3x3, pad = 1) -> relu -> flatten -> dense(3)
  output sum = y + b
  output own = y
}
"""
RNG = np.random.default_rng(3)
A = RNG.standard_normal((2, 8, 6, 6)).astype(np.float32)
B = RNG.standard_normal((2, 3)).astype(np.float32)


@pytest.fixture
def model() -> cnncc.Model:
    return cnncc.compile(NET, seed=1)


def longest(model: cnncc.Model, a: object, b: object) -> dict[str, np.ndarray]:
    """The results of a call by position and name, which always takes the long way."""
    return model(a, b=b)


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    assert list(one) == list(two) == ["sum", "own"]
    return all(np.array_equal(one[k], two[k]) for k in one)


def test_the_second_call_looks_nothing_up(
    model: cnncc.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model(A, B)
    monkeypatch.setattr(Runtime, "run", None)
    second = model(A, B)
    assert same(first, second)
    assert same(first, model(b=B, a=A))
    assert not any(np.shares_memory(first[k], second[k]) for k in first)
    assert not same(first, model(A * 2, B))
    assert not same(first, model(b=B, a=A * 2))


@pytest.mark.parametrize("channels", [2, 100], ids=["copied", "written where they stay"])
def test_results_of_any_size_are_new(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnncc.compile(f"net n {{\n  input x: f32[{channels}, 5, 5]\n  output x -> relu\n}}\n")
    x = RNG.standard_normal((1, channels, 5, 5)).astype(np.float32)
    model(x)
    monkeypatch.setattr(Runtime, "run", None)
    results = [model(factor * x) for factor in (np.float32(1), np.float32(2), np.float32(3))]
    for factor, result in enumerate(results, 1):
        assert np.array_equal(result, np.maximum(np.float32(factor) * x, 0))


def test_parameters_that_changed_are_prepared_again(model: cnncc.Model) -> None:
    before = model(A, B)
    state = model.state_dict()
    model.load_state_dict({k: v * 2 for k, v in state.items()})
    after = model(A, B)
    assert not same(before, after)
    assert same(after, longest(model, A, B))
    model.load_state_dict(state)
    assert same(before, model(A, B))


def test_other_arrays_take_the_long_way(model: cnncc.Model) -> None:
    expected = model(A, B)
    read_only = A.copy()
    read_only.flags.writeable = False
    turned = np.asfortranarray(A)
    for a in (A.astype(np.float64), A.tolist(), read_only, turned, A[::1]):
        assert same(model(a, B), expected)
        assert same(model(A, B), expected)
    for batch in (1, 2, 1, 2):
        found = model(A[:batch], B[:batch])
        assert np.array_equal(found["sum"], expected["sum"][:batch])


def test_nothing_that_does_not_fit_comes_in(model: cnncc.Model) -> None:
    model(A, B)
    for a, b in ((A, B[:1]), (A[:, :7], B), (A.astype(np.complex64), B)):
        with pytest.raises((InputError, ValueError, TypeError)):
            model(a, b)
    for given in ((A,), (A, B, B), ()):
        with pytest.raises(TypeError, match="takes 2 inputs"):
            model(*given)
    for named in ({"a": A}, {"a": A, "c": B}, {"a": A, "b": B, "c": B}):
        with pytest.raises(TypeError, match="takes 2 inputs"):
            model(**named)
    for arrays, more in (((A,), {"a": A}), ((A, B), {"b": B})):
        with pytest.raises(TypeError, match="takes 2 inputs"):
            model(*arrays, **more)


def test_row_numbers_are_checked_each_time() -> None:
    model = cnncc.compile("net n {\n  input w: i32[4]\n  output y = w -> embed(5, 3)\n}\n")
    model(np.array([[0, 1, 2, 4]], np.int32))
    with pytest.raises(InputError):
        model(np.array([[0, 1, 2, 5]], np.int32))


def test_training_mode_is_no_repetition() -> None:
    text = "net n {\n  input x: f32[4]\n  output y = x -> dense(3) -> dropout(0.5)\n}\n"
    text += (
        "train n {\n  target t: class[3]\n  loss = cross_entropy(y, t)\n"
        "  optimizer = sgd(lr = 0.1)\n  batch = 2\n  epochs = 1\n}\n"
    )
    model = cnncc.compile(text, train=True)
    x = np.ones((64, 4), np.float32)
    plain = model(x)
    assert not np.array_equal(model.train()(x), plain)
    assert np.array_equal(model.eval()(x), plain)
    model.step(x, np.zeros(64, np.int64), lr=1.0)
    assert not np.array_equal(model(x), plain)
