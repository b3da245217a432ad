"""The front door: a source of any kind to a model."""

from __future__ import annotations

import os
from typing import Any

from cnncc.model.model import Model
from cnncc.model.network import Network


def compile(
    source: str | os.PathLike[str],
    target: str = "cpu",
    batch: int | None = None,
    train: bool = False,
    fuse: bool = True,
    precision: str = "default",
    num_threads: int | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    **net_arguments: bool | int | float,
) -> Model:
    """Compile a network.

    `source` is a path (a Path, or a string that ends in `.cnn`, with `:net` for one of several
    nets), the name of a built-in network, or a text of more than one line. `net_arguments` are the
    net's parameters, such as `classes=100`.

    `target`: `cpu`, or `interp`, which interprets the kernels slowly as they are defined. `batch`:
    plan the memory for this batch size now rather than at the first call, and choose for it how
    convolutions are computed; other sizes still work. What the text expects of `memory` is checked
    for this batch, or for one sample. `train`: compile a training step too, which needs a `train`
    block. `fuse=False`: one kernel per operator, with the same results. `precision`: `default`; or
    `exact`, with which every convolution adds its products in the order of its definition, while by
    default those of inference that are large enough use Winograd's minimal filtering, whose
    rounding error is a few times as large; or `bf16`, as `default`, but layers that use each weight
    once per sample, such as dense ones, read their weights rounded to bfloat16, whose relative
    error is up to 1/257 (not with `train`). What `cnncc tune` has measured on this machine for this
    batch (1 where it is not given), precision and number of threads is used; CNNCC_TUNED=0 in the
    environment ignores it. `num_threads`: at most this many threads, by default the cores that the
    process may use. Results depend, by rounding, on the algorithms that are chosen for `batch`, and
    on threads only where others were measured for their number. `max_memory`: refuse a plan,
    parameters included, over this many bytes, by default half of the machine's. Each program of a
    model (inference, evaluation, a training step, forward with backward, activations) is bounded by
    itself: a model that does several of these may hold as much for each, beside the parameters,
    which they share when `train` is set. `seed`, from 0 below 2^63: initial values, order of
    samples, dropout.

    Raises SpecError with all mistakes of the text, ValueError and TypeError for other arguments.
    """
    return Model.of(
        Network.read(source, net_arguments),
        target=target,
        batch=batch,
        train=train,
        fuse=fuse,
        precision=precision,
        num_threads=num_threads,
        max_memory=max_memory,
        seed=seed,
    )


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """The model that `Model.save` wrote, its network included; see `Model.load`."""
    return Model.load(path, **options)
