"""Networks small enough to be interpreted, and data that they can learn."""

import numpy as np
from numpy.typing import NDArray

import cnncc

PERCEPTRON = """
net perceptron(hidden = 8) {{
  input x: f32[4]
  h = x -> dense(hidden) -> tanh{dropout}
  output y = h -> dense(3)
}}
train perceptron {{
  target label: class[3]
  loss = cross_entropy(y, label)
  optimizer = {optimizer}
  schedule = {schedule}
  batch = 8
  epochs = 2
}}
"""

CONVOLUTION = """
net small {
  input image: f32[2, 6, 6]
  c1 = image -> conv(3, 3x3, pad = same, bias = none) -> batchnorm -> relu
  output scores = c1 -> globalavgpool -> flatten -> dense(4)
}
train small {
  target label: class[4]
  loss = cross_entropy(scores, label)
  optimizer = sgd(lr = 0.1, momentum = 0.9, weight_decay = 0.01)
  batch = 4
}
"""

TWO_HEADS = """
net heads {
  input a: f32[3]
  input b: f32[3]
  s = a + 2 * b
  output sum = s -> dense(2)
  output gate = s -> sigmoid
}
train heads {
  target wanted: f32[2]
  target open: f32[3]
  loss = mse(sum, wanted) + 0.5 * mse(gate, open)
  optimizer = sgd(lr = 0.1)
}
"""


def perceptron(
    optimizer: str = "sgd(lr = 0.1)",
    *,
    schedule: str = "constant",
    dropout: bool = False,
    seed: int = 0,
    target: str = "interp",
) -> cnncc.Model:
    text = PERCEPTRON.format(
        optimizer=optimizer, schedule=schedule, dropout=" -> dropout(0.5)" if dropout else ""
    )
    return cnncc.compile(text, target=target, train=True, seed=seed)


def blobs(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three clouds of points in four dimensions, and which one each point is of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    points = centres[labels] + 0.3 * rng.standard_normal((count, 4))
    return points.astype(np.float32), labels


def same_state(a: cnncc.Model, b: cnncc.Model) -> bool:
    """Whether two models have the same parameters, bit for bit."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )
