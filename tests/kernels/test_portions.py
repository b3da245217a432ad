"""A batch in portions: as large as the cache holds, with the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest

import cnncc
from cnncc.targets.cpu.portions import Traffic, samples_at_once
from cnncc.targets.runtime import Runtime, Shape
from tests.kernels.primitives import same_bits

CACHE = 1000

NET = """
net n {
  input x: f32[3, 9, 6]
  a = x -> conv(18, 3x3, pad = same) -> batchnorm -> relu
  output wide = a -> maxpool(3x3)
  output scores = a -> flatten -> dense(5) -> softmax
}
"""


def test_activations_that_fit_with_fewer_samples_make_portions() -> None:
    assert samples_at_once(Traffic((300, 100), 50), 16, CACHE) == 3
    assert samples_at_once(Traffic((10, 20), 50), 16, CACHE) == 16


def test_parameters_that_do_not_fit_are_not_read_again_for_little() -> None:
    assert samples_at_once(Traffic((300, 100), 50_000), 16, CACHE) == 16
    assert samples_at_once(Traffic((300, 300, 300), 2000), 16, CACHE) == 3


def test_activations_that_never_fit_are_left_whole() -> None:
    assert samples_at_once(Traffic((3000,), 50), 16, CACHE) == 16


@pytest.mark.parametrize("portion", [1, 2, 3, 5])
def test_portions_give_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    model = cnncc.compile(NET)
    x = np.random.default_rng(0).standard_normal((5, 3, 9, 6)).astype(np.float32)
    whole = model(x)
    monkeypatch.setattr(Runtime, "portion", lambda self, shape: min(portion, shape.batch))
    parts = model(x)
    assert all(same_bits(whole[name], parts[name]) for name in ("wide", "scores"))


def test_what_samples_share_keeps_the_batch_whole() -> None:
    """Batch statistics, and an input without a batch axis, speak of all samples."""
    model = cnncc.compile("lenet_digits", train=True)
    step = model._programs.step.runtime
    assert isinstance(step, Runtime)
    assert step.portion(Shape(64, ())) == 64
