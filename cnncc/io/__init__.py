"""Files in and out: weights as safetensors or npz, read with nothing taken on trust.

`save_state` and `load_state` are what most code needs. `files` opens and measures, `layout` knows
the safetensors header, `npz` reads NumPy's archives, `replace` makes saving crash-safe.
"""

from cnncc.io.files import DataError
from cnncc.io.layout import TensorInfo
from cnncc.io.safetensors import State, check_state, inspect_state, load_state, save_state

__all__ = [
    "DataError",
    "State",
    "TensorInfo",
    "check_state",
    "inspect_state",
    "load_state",
    "save_state",
]
