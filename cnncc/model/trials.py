"""Where the programs of a network come from that are compared with each other: all of them have the
parameters that the network has before training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from cnncc.model.network import Network
from cnncc.model.programs import Options, Programs
from cnncc.targets.runtime import Runtime
from cnncc.train.init import initial


@dataclass
class Trials:
    """Programs of one network, of which each is compiled in its own way."""

    network: Network
    _state: dict[str, NDArray[Any]] = field(default_factory=dict)

    def runtime(self, options: Options) -> Runtime:
        """Inference compiled so, for the CPU."""
        programs = Programs(self.network, options, False)
        for node in programs.parameters:
            if node.name not in self._state:
                self._state[node.name] = initial(node, 0)
            programs.store.write(node.name, self._state[node.name])
        made = programs.inference
        assert isinstance(made, Runtime), "the target is the CPU"
        return made
