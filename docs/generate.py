"""Makes docs/language.md from docs/language.in.md and the tables that the compiler itself reads.

python docs/generate.py            write it
python docs/generate.py --check    exit with 1 when it is not what it would be now
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cnncc.errors import CODES
from cnncc.graph import limits, training
from cnncc.graph.convert import describe
from cnncc.graph.layer import Init, Layer, Pad
from cnncc.ops import LAYERS
from cnncc.syntax import limits as text_limits

HERE = Path(__file__).parent
TEMPLATE, PAGE = HERE / "language.in.md", HERE / "language.md"

CATEGORIES = (
    "convolution", "dense", "pooling", "activation", "normalisation", "regularisation", "shape",
    "arithmetic", "loss",
)  # fmt: skip

DEFAULTS: dict[tuple[str, object], str] = {
    ("fit", None): "the net's; `exact`",
    ("stride", None): "the size",
    ("weights", None): "its own",
}
"""What a default of None means, where that can be said in a word."""


def page() -> str:
    """The text of docs/language.md."""
    parts = {
        "operators": operators(),
        "training": choices("optimizer", training.OPTIMIZERS)
        + "\n\n"
        + choices("schedule", training.SCHEDULES),
        "limits": limit_table(),
        "codes": code_table(),
    }

    def part(found: re.Match[str]) -> str:
        return parts[found[1]]

    text = TEMPLATE.read_text(encoding="utf-8")
    return "<!-- Made by docs/generate.py; edit docs/language.in.md. -->\n\n" + re.sub(
        r"^<!-- (\w+) -->$", part, text, flags=re.MULTILINE
    )


def operators() -> str:
    """A section for each category and operator."""
    unknown = {layer.category for layer in LAYERS.values()} - set(CATEGORIES)
    if unknown:
        raise SystemExit(f"docs/generate.py has no place for the categories {sorted(unknown)}")
    sections = []
    for category in CATEGORIES:
        layers = [x for x in LAYERS.values() if x.category == category]
        sections.append(f"### {category.capitalize()}")
        sections += [operator(layer) for layer in layers]
    return "\n\n".join(sections)


def operator(layer: Layer) -> str:
    """Signature, description and arguments."""
    lines = [f"#### {layer.name}", f"`{signature(layer)}`", prose(layer.doc)]
    if layer.arguments:
        rows = ["| argument | takes | default |", "|---|---|---|"]
        for a in layer.arguments:
            takes = describe(a.annotation).replace("|", "\\|")
            default = "required" if a.required else DEFAULTS.get((a.name, a.default), "")
            default = default or (f"`{value(a.default)}`" if a.default is not None else "")
            rows.append(f"| `{a.name}` | {takes} | {default} |")
        lines.append("\n".join(rows))
    return "\n\n".join(lines)


def signature(layer: Layer) -> str:
    """How the operator is written."""
    tensors = {None: ["a, b, ..."], 1: ["x"]}.get(layer.tensors) or ["x", "y"]
    by_position = [a.name for a in layer.arguments if a.positional and a.required]
    rest = [f"{a.name} = ..." for a in layer.arguments if not (a.positional and a.required)]
    inside = ", ".join([*by_position, *rest])
    if layer.tensors == 1:
        return f"x -> {layer.name}({inside})" if inside else f"x -> {layer.name}"
    return f"{layer.name}({', '.join([*tensors, *([inside] if inside else [])])})"


def prose(doc: str) -> str:
    """A docstring as paragraphs, `Example:` on a line of its own."""
    text = re.sub(r"[ \t]{2,}", " ", doc)
    text = re.sub(r"(?<!\n)\n(?=Example: )", "\n\n", text)
    return re.sub(r"^(\w[\w ]*) \* ", r"\1 \\* ", text)


def value(default: object) -> str:
    """A default as it is written in the language."""
    match default:
        case Pad():
            return default.amount if isinstance(default.amount, str) else str(default.amount)
        case Init():
            inside = ", ".join(f"{a:g}" for a in default.args)
            return f"{default.kind}({inside})" if inside else default.kind
        case bool():
            return "true" if default else "false"
        case tuple() if len(default) == 1:
            return value(default[0])
        case float():
            return repr(default) if default >= 1e-4 or default == 0 else f"{default:g}"
    return str(default)


def choices(what: str, table: dict[str, dict[str, training._Field]]) -> str:
    """The optimizers or schedules with their arguments."""
    rows = [f"| {what} | arguments |", "|---|---|"]
    for name, fields in table.items():
        arguments = ", ".join(
            f"`{field}`: {f.wants}"
            + (f" (default `{value(f.default)}`)" if f.default is not None else "")
            for field, f in fields.items()
        )
        rows.append(f"| `{name}` | {arguments or 'none'} |")
    return "\n".join(rows)


def limit_table() -> str:
    """The limits on texts and networks."""
    rows = {
        "bytes of a file": text_limits.TEXT_BYTES,
        "words, signs and comments of a file": text_limits.WORDS,
        "brackets inside brackets": text_limits.NESTING,
        "characters of a name": text_limits.NAME_CHARACTERS,
        "digits of a number": text_limits.DIGITS,
        "imports inside imports": limits.FILE_DEPTH,
        "files of a program": limits.FILES,
        "layers of a network, blocks and repeats expanded": limits.LAYERS,
        "the largest extent of an axis": limits.EXTENT,
        "elements of a tensor, without the batch": limits.ELEMENTS,
    }
    lines = [f"| {what} | {number:_} |" for what, number in rows.items()]
    return "\n".join(["| limit | at most |", "|---|---|", *lines])


def code_table() -> str:
    """Every code with its title."""
    rows = [f"| {code} | {entry.title} |" for code, entry in CODES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    new = page()
    if not options.check:
        PAGE.write_text(new, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != new:
        sys.exit("docs/language.md is not up to date: run python docs/generate.py")


if __name__ == "__main__":
    main()
