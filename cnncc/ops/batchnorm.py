"""Batch normalisation.

Definition: y = (x - mean) / sqrt(variance + eps) * weight + bias per channel, over the batch and
all positions. Source: Ioffe and Szegedy (2015). In training the statistics are those of the batch,
and running averages of them are kept (the variance unbiased, as in PyTorch); at inference the
running averages take their place. Nothing here is an operator: moments -> batch_moments ->
norm_fold -> affine, whose gradients compose.
"""

from __future__ import annotations

from cnncc.graph.ir import Node
from cnncc.graph.layer import Flag, Init, LayerBuilder, Number
from cnncc.ops.affine import Affine
from cnncc.ops.base import layer
from cnncc.ops.fold import NormFold, RunningAverage, Stack
from cnncc.ops.moments import BatchMoments, Moments
from cnncc.tensor import product

ZEROS, ONES = Init("zeros"), Init("ones")


@layer("batchnorm", "normalisation")
def batchnorm(
    b: LayerBuilder,
    x: Node,
    *,
    eps: Number = 1e-5,
    momentum: Number = 0.1,
    frozen: Flag = False,
) -> Node:
    """Normalises every channel over the batch and all positions, then scales and shifts it.

    Parameters per channel: weight and bias; running mean and variance are kept beside them and used
    at inference. `momentum` is the share of the newest batch in the running averages. `frozen`
    keeps weight and bias at their values.
    Example: `x -> conv(64, 3x3, bias = none) -> batchnorm -> relu`. PyTorch: `BatchNorm2d`, Keras:
    `BatchNormalization` (whose momentum is 1 - ours), ONNX: `BatchNormalization`.
    """
    positive(b, eps)
    if not 0 <= momentum <= 1:
        b.error(
            "E0213",
            f"`momentum` is a share between 0 and 1, but got {momentum}",
            argument="momentum",
        )
    channels = (x.type.channels,)
    weight = b.parameter("weight", channels, ONES, frozen=frozen)
    bias = b.parameter("bias", channels, ZEROS, frozen=frozen)
    mean = b.parameter("running_mean", channels, ZEROS, state=True)
    variance = b.parameter("running_var", channels, ONES, state=True)
    if b.options.get("train", False):
        positions = product(x.type.spatial)
        moments = b.add(Moments(), x, suffix=".moments")
        statistics = b.add(BatchMoments(positions), moments, suffix=".statistics")
        for state, row, word in ((mean, 0, "mean"), (variance, 2, "var")):
            average = RunningAverage(momentum, row)
            update = b.add(average, state, statistics, suffix=f".next_{word}")
            b.options["state_updates"].append((state, update))
    else:
        statistics = b.add(Stack(), mean, variance, suffix=".statistics")
    fold = b.add(NormFold(eps), statistics, weight, bias, suffix=".fold")
    return b.add(Affine(), x, fold)


def positive(b: LayerBuilder, eps: float) -> None:
    """Refuse an eps that could divide by zero."""
    if not eps > 0:
        b.error("E0213", f"`eps` must be positive, but got {eps}", argument="eps")
