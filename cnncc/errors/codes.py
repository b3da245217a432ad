"""The table of codes. A code is never reused for something else: people search for it.

E01xx  words, layout, limits        E05xx  expect and require
E02xx  shapes                       E06xx  training
E03xx  names and arguments          E07xx  data and weight files
E04xx  imports                      E08xx  memory, arrays given to a model, questions about layers
"""

from __future__ import annotations

from cnncc.errors.codes_graph import NAMES, SHAPES
from cnncc.errors.codes_syntax import SYNTAX
from cnncc.errors.codes_use import BINDING, CLAIMS, FILES, IMPORTS, LOOKING, TRAINING
from cnncc.errors.explanation import Explanation

CODES: dict[str, Explanation] = {
    **SYNTAX, **SHAPES, **NAMES, **IMPORTS, **CLAIMS, **TRAINING, **FILES, **BINDING,
    **LOOKING,
}  # fmt: skip


def explain(code: str) -> str:
    """The explanation of a code as text. Raises KeyError for a code that does not exist."""
    return CODES[code].text(code)
