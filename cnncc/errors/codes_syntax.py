"""Codes E0101 to E0149: words, signs, layout, and the limits on a text and on the network that is
built from it."""

from __future__ import annotations

from cnncc.errors.explanation import Explanation

_NET = "net small {\n  input x: f32[1, 8, 8]\n"


def _net(line: str) -> str:
    return f"{_NET}  {line}\n  output y\n}}"


def _entry(title: str, law: str, wrong: str, right: str) -> Explanation:
    """An entry whose examples are one line of a net."""
    return Explanation(title, law, _net(wrong), _net(right))


SYNTAX: dict[str, Explanation] = {
    "E0101": _entry(
        "unexpected character",
        "Outside of comments a file consists of ASCII names, numbers, the signs of the language "
        "and texts in double quotes. Spellings of other languages, such as `=>` or `&&`, are "
        "named together with what is written here.",
        "y = x => relu;",
        "y = x -> relu",
    ),
    "E0102": _entry(
        "control or invisible character",
        "A file has no control characters, no bidirectional marks and no invisible characters, "
        "not even in comments: with them a line can be made to read differently from what it "
        "says. Tabs and line ends are allowed.",
        "y = x -> relu  # \u202e",
        "y = x -> relu  # plain text",
    ),
    "E0103": _entry(
        "a name that is not ASCII",
        "Names consist of the letters a to z and A to Z, digits and underscores, and do not begin "
        "with a digit. Letters of other scripts that look alike would make two names look like "
        "one. Comments may use any script.",
        "y = x -> relú",
        "y = x -> relu",
    ),
    "E0104": _entry(
        "unexpected word",
        "The words are all known but cannot stand in this order. The message says what could have "
        "stood at the place.",
        "y = x -> 3",
        "y = x -> relu",
    ),
    "E0105": _entry(
        "nested too deep",
        "Brackets are nested at most 64 deep, and so are the operators of one expression. No "
        "network needs more, and the bound makes every file safe to read.",
        f"y = {'(' * 65}x{')' * 65}",
        "y = x",
    ),
    "E0106": Explanation(
        "the file is too large",
        "A file has at most 1 MiB and 50 000 words and comments. Blocks and `repeat` say in a few "
        "lines what a long file says by repetition.",
        "# a file of more than a megabyte",
        'import "first_half.cnn"\nimport "second_half.cnn"',
    ),
    "E0107": _entry(
        "the name is too long",
        "A name has at most 64 characters.",
        f"{'a' * 65} = x",
        "y = x",
    ),
    "E0108": _entry(
        "not a number",
        "Numbers are decimal: digits, with single underscores between them if you like, for a "
        "float a point with digits on both sides or an exponent. They have at most 18 digits, so "
        "that every integer fits into 64 bits, and floats are finite.",
        "y = x -> leaky_relu(.5)\n  z = x * 1__0",
        "y = x -> leaky_relu(0.5)\n  z = x * 1_0",
    ),
    "E0109": _entry(
        "a bracket is not closed, or closes nothing",
        "Every `(`, `[` and `{` is closed by its own counterpart, in order. The message shows "
        "where the open bracket stands.",
        "y = relu(x",
        "y = relu(x)",
    ),
    "E0110": Explanation(
        "a string is not closed",
        "A text in double quotes ends on the line it begins on.",
        'import "blocks.cnn',
        'import "blocks.cnn"',
    ),
    "E0111": _entry(
        "a reserved word is used as a name",
        "The words of statements (`net`, `block`, `train`, `import`, `default`, `input`, "
        "`output`, `weights`, `repeat`, `in`, `expect`, `require`, `nofuse`, `target`, `return`) "
        "and of expressions (`if`, `then`, `else`, `and`, `or`, `not`, `true`, `false`) name "
        "nothing else. As the name of an argument, before `=` in brackets, they are allowed.",
        "target = x -> relu\n  y = target",
        "aim = x -> relu\n  y = aim",
    ),
    "E0112": _entry(
        "a statement is in the wrong place",
        "A net has inputs and outputs, a block has parameters and ends in one `return`, `train` "
        "has targets and settings, and a `repeat` holds none of them.",
        "y = x -> relu\n  return y",
        "y = x -> relu",
    ),
    "E0113": _entry(
        "arguments or parameters are in the wrong order",
        "Arguments by position come before arguments by name, and parameters without a default "
        "come before those with one.",
        "y = x -> conv(pad = 1, 8, 3x3)",
        "y = x -> conv(8, 3x3, pad = 1)",
    ),
    "E0114": _entry(
        "not a size",
        "A size is one word of two or three extents of at least 1: `3x3`, `5x5x5`. Anything else, "
        "such as computed extents, is a tuple: `(k, k)`, `(5,)`.",
        "y = x -> conv(8, 3 x 3)",
        "y = x -> conv(8, 3x3)",
    ),
    "E0115": _entry(
        "`=`, `==` or `:` in place of another",
        "`=` gives a name to a value, also to the value of an argument; `==` compares two values; "
        "`:` stands between the name of an input or target and its type.",
        "y = x -> relu\n  expect params = 0",
        "y = x -> relu\n  expect params == 0",
    ),
    "E0116": _entry(
        "a comma or an operator is missing",
        "Arguments are separated by commas, and an operator is applied with an arrow or with "
        "brackets.",
        "y = x -> conv(8 3x3)",
        "y = x -> conv(8, 3x3)",
    ),
    "E0117": _entry(
        "comparisons do not chain",
        "A comparison is true or false and cannot be compared with a number again.",
        "y = if 1 < channels(x) < 3 then x else relu(x)",
        "y = if 1 < channels(x) and channels(x) < 3 then x else relu(x)",
    ),
    "E0118": Explanation(
        "an unknown statement",
        "A line of a net begins with one of the words of the language or with `name =`.",
        "net small {\n  imput x: f32[1, 8, 8]\n  output x\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  output x\n}",
    ),
    "E0119": _entry(
        "quotes in the wrong place",
        "Text in quotes stands after `import`, and only there. Everywhere else a word is written "
        "bare.",
        'y = x -> conv(8, 3x3, pad = "same")',
        "y = x -> conv(8, 3x3, pad = same)",
    ),
    "E0120": _entry(
        "too many layers",
        "A network has at most 10 000 layers after blocks and repeats are expanded, and its graph "
        "a bounded number of nodes.",
        "repeat 5000 { x = x -> relu -> tanh -> relu }\n  y = x",
        "repeat 50 { x = x -> relu -> tanh -> relu }\n  y = x",
    ),
    "E0121": _entry(
        "the count of a repeat is out of range",
        "A repeat runs at least 0 times and at most as often as a network may have layers.",
        "repeat 1_000_000_000 { x = x -> relu }\n  y = x",
        "repeat 10 { x = x -> relu }\n  y = x",
    ),
    "E0122": _entry(
        "building takes too long",
        "The number of expressions that are evaluated while a network is built is bounded, so that "
        "nested repeats and blocks that use blocks cannot run for hours.",
        "repeat 1000 { repeat 1000 { repeat 1000 { k = 1 + 1 } } }\n  y = x",
        "k = 1 + 1\n  y = x",
    ),
    "E0123": Explanation(
        "blocks are used too deep within blocks",
        "A block may use itself only under an `if` that ends at some point.",
        "block deeper(x) {\n  return deeper(relu(x))\n}\n" + _net("y = x -> deeper"),
        "block deeper(x, n) {\n  return if n == 0 then x else deeper(relu(x), n - 1)\n}\n"
        + _net("y = x -> deeper(3)"),
    ),
    "E0125": _entry(
        "a number is out of range",
        "Whole numbers are computed exactly and lie below 2^63 in absolute value; floats are "
        "finite 64-bit numbers; an expression in symbolic extents has a bounded number of terms.",
        "y = x * (999_999_999_999 * 999_999_999_999)",
        "y = x * 9",
    ),
    "E0126": Explanation(
        "an extent is out of range",
        "Every extent of a tensor lies between 1 and 2^31 - 1: indices are 32-bit numbers in some "
        "kernels, and an empty tensor has no meaning for a layer.",
        "net small {\n  input x: f32[1, 0, 8]\n  output relu(x)\n}",
        "net small {\n  input x: f32[1, 8, 8]\n  output relu(x)\n}",
    ),
    "E0127": Explanation(
        "a tensor is too large",
        "A tensor has at most 2^39 elements, which is two terabytes of floats. What fits into the "
        "memory of the machine is checked later, see E0801.",
        "net large {\n  input x: f32[1000, 1_000_000, 1_000_000]\n  output relu(x)\n}",
        "net large {\n  input x: f32[1000, 1000, 1000]\n  output relu(x)\n}",
    ),
}
