"""The shape of the code base: who may import whom, how large a module may be, what is documented.

The layers are read from the contract that import-linter checks, so there is one list of them.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import cnncc

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cnncc"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400
VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?|handlers?|misc|common)(_|$)")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


BY_PATH = pytest.mark.parametrize("path", MODULES, ids=name_of)
BELOW_THE_PACKAGE = pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p) not in ("__init__.py", "__main__.py")], ids=name_of
)
OUTSIDE_TARGETS = pytest.mark.parametrize(
    "path", [p for p in MODULES if not name_of(p).startswith("targets/")], ids=name_of
)


def layers() -> dict[str, tuple[int, bool]]:
    """Part of the package -> its height from the bottom, and whether neighbours may be imported."""
    contract = SETTINGS["tool"]["importlinter"]["contracts"][0]
    found = {}
    for height, layer in enumerate(reversed(contract["layers"])):
        for name in re.findall(r"\w+", layer):
            found[name] = (height, "|" not in layer)
    return found


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports at run time, wherever in the file the statement stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or ""
            if node.module == "cnncc":
                yield from (f"cnncc.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    return module.split(".")[1]


def test_every_part_of_the_package_has_a_layer():
    parts = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    parts |= {p.stem for p in PACKAGE.glob("*.py") if p.stem not in ("__init__", "__main__")}
    assert parts - layers().keys() == set()


@BELOW_THE_PACKAGE
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    height, _ = layers()[own]
    for module in imports(path):
        if not module.startswith("cnncc.") or part_of(module) == own:
            continue
        if part_of(module) == "__version__":
            continue
        other, neighbours = layers()[part_of(module)]
        assert other < height or (other == height and neighbours), (
            f"{name_of(path)} imports {module}, which is not below it"
        )


@OUTSIDE_TARGETS
def test_numba_is_imported_only_under_targets(path):
    roots = {module.split(".")[0] for module in imports(path)}
    assert roots & {"numba", "llvmlite"} == set()


@BY_PATH
def test_modules_are_small_well_named_and_introduced(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES, "a file over 400 lines is usually two ideas"
    for part in path.relative_to(PACKAGE).with_suffix("").parts:
        assert not VAGUE.search(part), f"{part} says nothing about what is inside"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module begins with a paragraph about it"


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh process has imported after running `code`."""
    script = f"{code}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


LIGHT = [
    "import cnncc",
    "import cnncc; cnncc.SpecError",
    "from cnncc.train.data import load; load('digits')",
]


@pytest.mark.parametrize("code", LIGHT)
def test_reading_and_loading_need_no_numba(code):
    assert loaded_after(code) & {"numba", "llvmlite", "torch"} == set()


def test_importing_cnncc_imports_nothing_heavy():
    assert loaded_after("import cnncc") & {"numpy", "lark", "rich", "safetensors"} == set()


def test_public_names_exist_and_are_documented():
    for name in cnncc.__all__:
        if name in cnncc._HOME and find_spec(cnncc._HOME[name][0]) is None:
            continue
        value = getattr(cnncc, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), f"{name} has no docstring"
    assert set(cnncc._HOME) | {"__version__"} == set(cnncc.__all__)
    assert set(cnncc.__all__) <= set(dir(cnncc))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cnncc.nonsense


@pytest.mark.parametrize("package", ["cnncc.errors", "cnncc.io", "cnncc.train.data"])
def test_exported_names_are_there_and_documented(package):
    module = import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        assert not callable(value) or (value.__doc__ or "").strip(), f"{name} has no docstring"
