"""The smoke test: a network is read, run, and trained for one step. Seconds, once kernels are
compiled.
"""

import numpy as np
import pytest

import cnncc


@pytest.fixture(scope="module")
def model() -> cnncc.Model:
    return cnncc.compile("lenet_digits", train=True, seed=3)


def test_a_network_runs(model: cnncc.Model):
    data = cnncc.load_data("digits", "test")
    scores = model(data.x[:5])
    assert scores.shape == (5, 10)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.array_equal(model(data.x[2:3]), scores[2:3]), "samples do not depend on each other"


def test_a_step_lowers_the_loss_of_its_batch(model: cnncc.Model):
    data = cnncc.load_data("digits")
    x, y = data.x[:32], data.y[:32]
    losses = [model.step(x, y) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
