"""A network as a model keeps it: the parsed text with its net arguments, from which the graphs for
inference, evaluation and training are made, and which is saved together with weights so that a
weight file alone brings the model back.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cnncc.graph.elaborate import elaborate
from cnncc.graph.imports import Program, display, read_program
from cnncc.graph.ir import TypedGraph
from cnncc.graph.limits import FILES
from cnncc.graph.locate import locate
from cnncc.graph.module import Module
from cnncc.io.files import CHECKPOINT, refuse
from cnncc.io.safetensors import inspect_state
from cnncc.ops import LAYERS
from cnncc.passes.check import check
from cnncc.syntax.limits import TEXT_BYTES

Arguments = Mapping[str, "bool | int | float"]

KEY = "cnncc.network"
"""Where a weight file keeps the text of its network."""

VERSION = 1


@dataclass(frozen=True)
class Variant:
    """A verified graph with what the net says beside it."""

    graph: TypedGraph
    module: Module


@dataclass(frozen=True, eq=False)
class Network:
    """A program, the net of it that was picked (None: the last), and the net's arguments."""

    program: Program
    net: str | None
    arguments: Arguments

    @staticmethod
    def read(source: str | os.PathLike[str], arguments: Arguments) -> Network:
        """Read a source as `cnncc.compile` takes it. Raises SpecError and TypeError."""
        found = locate(source)
        program = read_program(found.text, found.file, found.path)
        return Network(program, found.net, dict(arguments))

    @cached_property
    def inference(self) -> Variant:
        """The net itself; layers use running statistics and drop nothing."""
        return self._variant()

    @cached_property
    def evaluation(self) -> Variant:
        """As `inference`, with the loss. Raises SpecError (E0601) without a `train` block."""
        return self._variant(loss=True)

    @cached_property
    def training(self) -> Variant:
        """As in training, with the loss. Raises SpecError (E0601) without a `train` block."""
        return self._variant(train=True)

    @property
    def trainable(self) -> bool:
        """Whether the file has a `train` block for the net."""
        return self.inference.module.training is not None

    def _variant(self, *, train: bool = False, loss: bool = False) -> Variant:
        graph, module = elaborate(
            self.program, LAYERS, net=self.net, arguments=self.arguments, train=train, loss=loss
        )
        return Variant(check(graph, module), module)

    # --- in a weight file ---

    def to_text(self) -> str:
        """Everything that `from_text` needs, as JSON."""
        top = self.program.top
        main = PurePosixPath(top.name).name
        main = main if _is_confined(main) else MAIN
        files = {main: top.tree.span.source.text}
        root = PurePosixPath(_absolute(top.name)).parent
        for unit in self.program.units:
            if unit is not top:
                name = PurePosixPath(_absolute(unit.name)).relative_to(root).as_posix()
                files[name] = unit.tree.span.source.text
        facts: dict[str, Any] = {
            "version": VERSION,
            "main": main,
            "net": self.inference.module.name,
            "arguments": dict(self.arguments),
            "files": files,
        }
        return json.dumps(facts, sort_keys=True)

    @staticmethod
    def from_file(path: Path) -> Network:
        """The network that belongs to the weights in a file. Raises DataError (E0701 to E0708), and
        SpecError.
        """
        _, metadata = inspect_state(path)
        if KEY not in metadata:
            raise refuse(
                CHECKPOINT,
                f"{path} holds weights, but not the network that they belong to",
                "compile the network, then `model.load_weights(path)`",
            )
        return Network.from_text(metadata[KEY], str(path))

    @staticmethod
    def from_text(text: str, where: str) -> Network:
        """The network that `to_text` wrote; `where` names the file in messages.

        The text is not trusted: names are confined to a folder of their own, and the language's
        limits hold. Raises DataError (E0708) for what `to_text` does not write, and SpecError.
        """
        facts = _checked(text, where)
        files: dict[str, str] = facts["files"]
        main = facts["main"]
        if len(files) == 1:
            program = read_program(files[main], main)
            return Network(program, facts["net"], facts["arguments"])
        with tempfile.TemporaryDirectory(prefix="cnncc-") as folder:
            try:
                _write_files(Path(folder), files)
            except OSError:  # such as `a.cnn` beside `a.cnn/b.cnn`
                raise refuse(CHECKPOINT, f"{where} is damaged: its texts are no files") from None
            path = Path(folder, main)
            program = read_program(files[main], display(str(path)), path)
        return Network(program, facts["net"], facts["arguments"])


MAIN = "network.cnn"
"""The name in a weight file of a text that has none, or none that ends in `.cnn`."""


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder.joinpath(*PurePosixPath(name).parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")


def _absolute(name: str) -> str:
    return Path(os.path.realpath(name)).as_posix()


def _checked(text: str, where: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
        json.dumps(facts, ensure_ascii=False).encode()  # JSON can hold halves of characters
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise refuse(
            CHECKPOINT,
            f"{where} does not hold a network that this cnncc can read",
            "compile the network from its text, then load the weights into it",
        )
    files, arguments = facts.get("files"), facts.get("arguments")
    sound = (
        isinstance(files, dict)
        and 1 <= len(files) <= FILES + 1
        and all(_is_confined(name) for name in files)
        and all(isinstance(t, str) and len(t) <= TEXT_BYTES for t in files.values())
        and isinstance(facts.get("main"), str)
        and facts["main"] in files
        and "/" not in facts["main"]
        and isinstance(facts.get("net"), str)
        and isinstance(arguments, dict)
        and all(isinstance(value, bool | int | float) for value in arguments.values())
    )
    if not sound:
        raise refuse(CHECKPOINT, f"{where} is damaged: the network in it cannot be read")
    return facts


def _is_confined(name: str) -> bool:
    """Whether a file name stays in its folder: relative, plain parts, with the right ending."""
    parts = name.split("/")
    return (
        len(name) <= 4096
        and name.endswith(".cnn")
        and name.isprintable()
        and not any(p in ("", ".", "..") or "\\" in p or ":" in p for p in parts)
    )
