"""The public side of cnncc: `compile` turns a text into a `Model`, which runs, trains, shows and
saves the network.

`compiling` and `model` have these two; `network` keeps the text, `programs` what is compiled from
it, `arrays` and `arguments` take in what the caller gives, `trainer` keeps what training needs
between calls, `show` makes tables.
"""

from cnncc.model.arrays import InputError
from cnncc.model.compiling import compile, load
from cnncc.model.model import Model
from cnncc.model.network import Network
from cnncc.model.programs import Options
from cnncc.model.trainer import TrainingError

__all__ = [
    "InputError",
    "Model",
    "Network",
    "Options",
    "TrainingError",
    "compile",
    "load",
]
