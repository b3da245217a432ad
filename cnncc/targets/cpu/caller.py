"""The kernel that runs other kernels in turn, each on a part of its work that stays in the cache,
before it goes on to the next part.

What it calls are kernels as they also run alone, some with one more argument: a tensor of which
they fetch a part. Where tensors begin and how much there is to do are integers of the table, which
has all of them once for every part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnncc.targets.cpu.touched import TOUCH_INTEGERS

CALLER_INTEGERS = 4  # units (of Winograd's transforms), parts, lots, and where those of parts begin


@dataclass(frozen=True)
class Callee:
    """A kernel that is called: its module, its tensors, and how many integers it has."""

    module: str
    tensors: tuple[str, ...]
    integers: int


def band_text(kernels: Sequence[Callee], dtypes: Mapping[str, str]) -> str:
    """The module text of the kernel that runs Winograd's three kernels band by band. `dtypes`: the
    element type of each of its tensors, in the order of its arguments.
    """
    names = _names(dtypes)
    (spread, *spread_at), (multiply, *multiply_at), (join, *join_at) = _calls(kernels, names)
    integers = sum(k.integers for k in kernels)
    first = integers + TOUCH_INTEGERS  # its first unit; behind it that of the next band
    here = f"range(table[own + {first}], table[own + {first + 1}])"
    body = [
        f"            own = begin + band * {first + 2}",
        f"            touch_tiles({names[kernels[0].tensors[0]]}, table, own + {integers})",
        f"            for unit in {here}:",
        f"                {spread}({', '.join(spread_at)}, unit, units)",
        f"            {multiply}({', '.join(multiply_at)}, 0, 1)",
        f"            for unit in {here}:",
        f"                {join}({', '.join(join_at)}, unit, units)",
    ]
    own = ["from cnncc.targets.cpu.vector.maps import touch_tiles"]
    return _text(kernels, dtypes, "band", body, imports=own, units=True)


def strip_text(kernels: Sequence[Callee], dtypes: Mapping[str, str]) -> str:
    """The module text of the kernel that runs kernels strip by strip; `dtypes` as for bands."""
    body = [
        f"            own = begin + strip * {sum(k.integers for k in kernels)}",
        *(
            f"            {kernel}({', '.join(arguments)}, strip, strips)"
            for kernel, *arguments in _calls(kernels, _names(dtypes))
        ),
    ]
    return _text(kernels, dtypes, "strip", body)


def _names(dtypes: Mapping[str, str]) -> dict[str, str]:
    return {tensor: f"t{number}" for number, tensor in enumerate(dtypes)}


def _modules(kernels: Sequence[Callee]) -> dict[str, str]:
    return {m: f"kernel_{i}" for i, m in enumerate(dict.fromkeys(k.module for k in kernels))}


def _calls(kernels: Sequence[Callee], names: Mapping[str, str]) -> list[list[str]]:
    """Of every kernel its name and arguments, all but its share."""
    modules, calls, first = _modules(kernels), [], 0
    for k in kernels:
        own = f"own + {first}" if first else "own"
        calls.append([modules[k.module], *(names[t] for t in k.tensors), "table", own])
        first += k.integers
    return calls


def _text(
    kernels: Sequence[Callee],
    dtypes: Mapping[str, str],
    part: str,
    body: Sequence[str],
    *,
    imports: Sequence[str] = (),
    units: bool = False,
) -> str:
    """The kernel whose body runs one `part`."""
    names, parts = _names(dtypes), f"{part}s"
    types = ", ".join(f"{t}*" for t in dtypes.values())
    lines = [
        f'"""{", ".join(names.values())}: {len(kernels)} kernels, {part} by {part}."""',
        "",
        "from cnncc.targets.cpu.compiled import compiled",
        *imports,
        "",
        *(f"from {module} import kernel as {name}" for module, name in _modules(kernels).items()),
        "",
        "",
        f'@compiled("void({types}, i64*, i64, i64, i64)")',
        f"def kernel({', '.join(names.values())}, table, first, share, shares):",
        *["    units = table[first + 0]"] * units,
        f"    {parts} = table[first + 1]",
        f"    lots = table[first + 2]  # a lot of {parts} follow each other in a piece of memory",
        "    begin = first + table[first + 3]",
        "    for lot in range(lots * share // shares, lots * (share + 1) // shares):",
        f"        for {part} in range({parts} * lot // lots, {parts} * (lot + 1) // lots):",
        *body,
        "",
    ]
    return "\n".join(lines)
