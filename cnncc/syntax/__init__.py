"""The language: text to tree and tree to text. `parse` reads a `.cnn` text, `format_text` writes it
in the one canonical layout, and tree.py says what there is in between. The grammar itself is the
file `cnn.lark`."""

from cnncc.syntax.dump import dump
from cnncc.syntax.format import format_text, format_tree
from cnncc.syntax.parse import parse
from cnncc.syntax.tree import File

__all__ = ["File", "dump", "format_text", "format_tree", "parse"]
