"""The operators, one room each. Importing this package fills the two tables that the compiler
reads: `OPERATORS` by the name in graph text and `LAYERS` by the name in the language.
"""

from cnncc.ops import (  # noqa: F401 - importing a room registers what is in it
    adaptive,
    adaptive_max,
    affine,
    arrange,
    batchnorm,
    bf16,
    concat,
    conv,
    conv_layer,
    crop,
    dense,
    density,
    dropout,
    dropout_draw,
    elementwise,
    embed,
    fold,
    groupnorm,
    join,
    likelihood,
    loss,
    lrn,
    moments,
    optimizer,
    pad,
    pool_average,
    pool_channel,
    pool_global,
    pool_max,
    pool_norm,
    pool_weighted,
    rbf,
    rectifier,
    reduce,
    shape,
    sigmoidal,
    softmax,
    upsample,
    upsample_linear,
    winograd,
)
from cnncc.ops.base import LAYERS, OPERATORS, Op, Sample, all_samples

__all__ = ["LAYERS", "OPERATORS", "Op", "Sample", "all_samples"]
