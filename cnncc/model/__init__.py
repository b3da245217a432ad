"""The public side of cnncc: `compile` turns a text into a `Model`, which runs, trains, shows and
saves the network.

`model` has both; `network` keeps the text, `programs` what is compiled from it, `arrays` takes in
the caller's arrays, `trainer` keeps what training needs between calls, `show` makes tables.
"""

from cnncc.model.arrays import InputError
from cnncc.model.model import Model, compile, compile_network
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
    "compile_network",
]
