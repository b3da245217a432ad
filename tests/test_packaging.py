"""What a stranger gets: the wheel and the editable install, each in a fresh environment, offline.

The environments see the packages that these tests run with, and nothing is downloaded. They are
used from a folder elsewhere, so that nothing is found only because the checkout is near.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import cnncc

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = SETTINGS["tool"]["setuptools"]
PROBE = "added_by_the_test.cnn"
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "cnncc", "grammar", "specs"]


def folder_of(package: str) -> Path:
    """Where the files of a package are, following [tool.setuptools.package-dir]."""
    mapped = SETUPTOOLS["package-dir"]
    if package in mapped:
        return ROOT / mapped[package]
    parent, _, name = package.rpartition(".")
    return folder_of(parent) / name


def test_the_list_of_packages_is_that_of_the_folders():
    inside = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "cnncc").rglob("__init__.py")
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(inside | {"cnncc.grammar", "cnncc.specs"}), (
        "correct [tool.setuptools] packages in pyproject.toml"
    )


def test_every_listed_package_is_a_folder_with_an_init():
    for package in SETUPTOOLS["packages"]:
        assert (folder_of(package) / "__init__.py").is_file(), package


def test_no_code_is_in_a_folder_without_an_init():
    for path in (ROOT / "cnncc").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), f"{path} would be missing from the wheel"


def test_the_version_is_written_once():
    assert "version" in SETTINGS["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(a|b|rc|dev)\d+)?", cnncc.__version__)


# ---- README and .ci/run -----------------------------------------------------------------------


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_readme_has_the_two_commands_that_start_from_nothing():
    from_nothing = [line for line in readme_commands() if line.startswith("python3 -m venv")]
    assert from_nothing == [
        "python3 -m venv .venv && .venv/bin/pip install -q . "
        "&& .venv/bin/cnncc train lenet_digits --data digits",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' "
        "&& .venv/bin/python -m pytest -q -n auto --dist worksteal",
    ]


def test_ci_runs_the_command_of_the_readme_and_has_no_copy_of_it():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    shown = subprocess.run(
        [script, "--show-command"], cwd="/", capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == [line for line in readme_commands() if "pytest" in line]
    assert ".[test]" not in script.read_text(encoding="utf-8")


# ---- Building and installing ------------------------------------------------------------------


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the network and without a trace of the checkout; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from: building writes into its folder."""
    copy = tmp_path_factory.mktemp("sources")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, copy / name)
    (copy / "specs" / PROBE).write_text("# A network that the list in pyproject.toml cannot know.")
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from an unpacked sdist, as an installer without a wheel would do."""
    out = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--sdist", "--outdir", str(out), str(sources), cwd=out)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (unpacked,) = (path for path in out.iterdir() if path.is_dir())
    run(*build, "--wheel", "--outdir", str(out), str(unpacked), cwd=out)
    (built,) = out.glob("*.whl")
    return built


def fresh_environment(folder: Path) -> Path:
    """An environment of its own that also sees the packages of this one; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # A line in a .pth file adds a folder, but the .pth files of that folder are not followed: an
    # editable install of cnncc in this environment stays invisible in the new one.
    Path(site.strip(), "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return python


def install(python: Path, what: str | Path, *options: str) -> None:
    pip = (python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "--ignore-installed", *options, what, cwd=python.parent)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The Python of an environment with cnncc in it, and the folder that cnncc must come from."""
    folder = tmp_path_factory.mktemp(request.param)
    python = fresh_environment(folder)
    if request.param == "wheel":
        install(python, request.getfixturevalue("wheel"))
        return python, folder
    sources = request.getfixturevalue("sources")
    install(python, sources, "--editable")
    return python, sources


def test_the_wheel_holds_all_code_and_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {"cnncc/py.typed", "cnncc/train/data/digits.npz", "cnncc/train/data/digits.md"}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "cnncc").rglob("*.py")}
    page = (ROOT / "cnncc" / "model" / "view").iterdir()
    expected |= {str(p.relative_to(ROOT)) for p in page if p.suffix in (".css", ".html", ".js")}
    for mapped in ("grammar", "specs"):
        files = (*(ROOT / mapped).glob("*.py"), *(ROOT / mapped).glob("*.lark"))
        files += tuple((ROOT / mapped).glob("*.cnn"))
        expected |= {f"cnncc/{mapped}/{path.name}" for path in files}
    expected.add(f"cnncc/specs/{PROBE}")
    found = {name for name in names if ".dist-info/" not in name}
    assert found == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_an_install_finds_itself_its_grammar_and_its_data(installed, tmp_path):
    python, home = installed
    code = """
        import cnncc, pathlib
        from importlib.resources import files
        from importlib.metadata import version
        from cnncc.train.data import load
        assert version("cnncc") == cnncc.__version__
        assert "digits" == load("digits").name
        specs = files("cnncc.specs")
        print(pathlib.Path(cnncc.__file__).resolve())
        print(*sorted(path.name for path in specs.iterdir() if path.name.endswith(".cnn")))
        print(files("cnncc.grammar").joinpath("cnn.lark").read_text(encoding="utf-8"))
    """
    shown = run(python, "-c", "\n".join(map(str.strip, code.splitlines())), cwd=tmp_path)
    file, names, grammar = shown.split("\n", 2)
    assert Path(file).is_relative_to(home.resolve())
    built_in = [path.name for path in (ROOT / "specs").glob("*.cnn")]
    assert names.split() == sorted([*built_in, PROBE])
    assert grammar == (ROOT / "grammar" / "cnn.lark").read_text(encoding="utf-8") + "\n"


@pytest.mark.skipif(find_spec("cnncc.syntax.parse") is None, reason="no parser")
def test_an_install_parses(installed, tmp_path):
    python, _ = installed
    code = (
        "from cnncc.syntax.parse import parse; print(type(parse('net n { input x: f32[1, 4] }')))"
    )
    assert "File" in run(python, "-c", code, cwd=tmp_path)


@pytest.mark.skipif(find_spec("cnncc.cli") is None, reason="no shell command")
def test_an_install_checks_a_built_in_network_by_its_name(installed, tmp_path):
    python, _ = installed
    run(python.parent / "cnncc", "check", "lenet_digits", cwd=tmp_path)


@pytest.mark.skipif(find_spec("cnncc.model") is None, reason="no models")
def test_an_install_compiles_a_built_in_network_by_its_name(installed, tmp_path):
    python, _ = installed
    code = "import cnncc, numpy as np; m = cnncc.compile('lenet_digits')"
    code += "; print(m(np.zeros((2, 1, 8, 8), np.float32)).shape)"
    assert "(2, 10)" in run(python, "-c", code, cwd=tmp_path)
