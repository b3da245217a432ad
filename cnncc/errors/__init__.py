"""Everything about mistakes: where they stand (`Source`, `Span`), what is said about them
(`Diagnostic`, `Note`), how it is shown (`render`, `to_json`), how it is raised (`SpecError` for the
user's, `CompilerBug` for ours), and the table of codes that `cnncc explain` prints."""

from cnncc.errors.codes import CODES, explain
from cnncc.errors.diagnostic import Diagnostic, Note, did_you_mean, to_json
from cnncc.errors.explanation import Explanation
from cnncc.errors.failure import CompilerBug, Diagnostics, SpecError
from cnncc.errors.printable import printable
from cnncc.errors.render import render
from cnncc.errors.source import NOWHERE, Source, Span

__all__ = [
    "CODES",
    "NOWHERE",
    "CompilerBug",
    "Diagnostic",
    "Diagnostics",
    "Explanation",
    "Note",
    "Source",
    "Span",
    "SpecError",
    "did_you_mean",
    "explain",
    "printable",
    "render",
    "to_json",
]
