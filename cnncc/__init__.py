"""cnncc compiles a text description of a convolutional network into fused kernels for the CPU.

The public names below are looked up on first use, so that `import cnncc` costs a few milliseconds
and does not import Numba: reading, checking and formatting a `.cnn` file never needs it.

    import cnncc
    model = cnncc.compile("lenet_digits")
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Callback": ("cnncc.train.callbacks", "Callback"),
    "CompilerBug": ("cnncc.errors", "CompilerBug"),
    "Dataset": ("cnncc.train.data", "Dataset"),
    "EarlyStopping": ("cnncc.train.callbacks", "EarlyStopping"),
    "InputError": ("cnncc.model", "InputError"),
    "Model": ("cnncc.model", "Model"),
    "SpecError": ("cnncc.errors", "SpecError"),
    "TrainingError": ("cnncc.model", "TrainingError"),
    "compile": ("cnncc.model", "compile"),
    "load": ("cnncc.model", "load"),
    "load_data": ("cnncc.train.data", "load"),
}

__all__ = [
    "Callback",
    "CompilerBug",
    "Dataset",
    "EarlyStopping",
    "InputError",
    "Model",
    "SpecError",
    "TrainingError",
    "__version__",
    "compile",
    "load",
    "load_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cnncc' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
