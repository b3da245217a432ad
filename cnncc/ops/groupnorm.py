"""Group and layer normalisation: every sample is normalised by itself.

Definition: y = (x - mean) / sqrt(variance + eps) * weight + bias, mean and variance over the
positions and the channels of a group, weight and bias per channel. Source: Wu and He (2018); Ba,
Kiros and Hinton (2016). Layer normalisation is one group of all channels. Training and inference do
the same: moments -> group_moments -> norm_fold -> affine.
"""

from __future__ import annotations

from cnncc.graph.ir import Node
from cnncc.graph.layer import Count, Flag, LayerBuilder, Number
from cnncc.ops.affine import Affine
from cnncc.ops.base import layer
from cnncc.ops.batchnorm import ONES, ZEROS, positive
from cnncc.ops.fold import NormFold
from cnncc.ops.moments import GroupMoments, Moments


def grouped(b: LayerBuilder, x: Node, groups: int, eps: float, *, frozen: bool) -> Node:
    """The operators of a normalisation over groups of channels."""
    positive(b, eps)
    channels = (x.type.channels,)
    weight = b.parameter("weight", channels, ONES, frozen=frozen)
    bias = b.parameter("bias", channels, ZEROS, frozen=frozen)
    moments = b.add(Moments(), x, suffix=".moments")
    statistics = b.add(GroupMoments(groups), moments, suffix=".statistics")
    fold = b.add(NormFold(eps), statistics, weight, bias, suffix=".fold")
    return b.add(Affine(), x, fold)


@layer("groupnorm", "normalisation")
def groupnorm(
    b: LayerBuilder, x: Node, groups: Count, *, eps: Number = 1e-5, frozen: Flag = False
) -> Node:
    """Normalises each sample over groups of neighbouring channels and all positions; weight and
    bias per channel.

    Example: `x -> conv(64, 3x3) -> groupnorm(8) -> relu`. PyTorch: `GroupNorm`, Keras:
    `GroupNormalization`, ONNX: `GroupNormalization`.
    """
    return grouped(b, x, groups, eps, frozen=frozen)


@layer("layernorm", "normalisation")
def layernorm(b: LayerBuilder, x: Node, *, eps: Number = 1e-5, frozen: Flag = False) -> Node:
    """Normalises each sample over all channels and positions; weight and bias per channel, not per
    element.

    On vectors this is PyTorch's `LayerNorm`; with positions it is `GroupNorm(1, channels)`, which
    unlike `LayerNorm([C, H, W])` has one weight for all positions, so the input's extents may vary.
    Example: `x -> dense(64) -> layernorm`. Keras: `GroupNormalization(1)`, ONNX:
    `LayerNormalization` on vectors.
    """
    return grouped(b, x, 1, eps, frozen=frozen)
