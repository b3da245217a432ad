"""The operators, one room each. Importing this package fills the two tables that the compiler reads: `OPERATORS` by
the name in graph text and `LAYERS` by the name in the language.
"""

from cnncc.ops import (  # noqa: F401 - importing a room registers what is in it
    activation,
    dense,
    elementwise,
    loss,
    reduce,
    shape,
    softmax,
)
from cnncc.ops.base import LAYERS, OPERATORS, Op, Sample, all_samples

__all__ = ["LAYERS", "OPERATORS", "Op", "Sample", "all_samples"]
