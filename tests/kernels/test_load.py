"""The cache of emitted modules: compiled once, found again by the next process, refused when it
cannot be trusted."""

import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from cnncc.errors import CompilerBug
from cnncc.targets import cache
from cnncc.targets.cpu.compiled import functions_of
from cnncc.targets.cpu.machine_code import MachineCode, keep, kept
from cnncc.targets.load import cache_clear, cache_info, load_module, module_name

ROOT = Path(__file__).parents[2]

KERNEL = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *


@compiled("void(f32*, f32*, i64)")
def twice(x, y, count):
    for i in range(0, count, 4):
        store_tail(y, i, load_tail4(x, i, count - i) * f32(2), count - i)
"""

ENTRY = """
from cnncc.targets.cpu.team import entry
from cnncc.targets.cpu.vector import f32_at
from {kernel} import twice


@entry
def network(job, control, tid, size):
    count = job[2]
    x = f32_at(job[0], count)
    y = f32_at(job[1], count)
    twice(x, y, count)
    twice(y, y, count)
"""

FOUR_TIMES = """
import json, sys, time
import numpy as np
from cnncc.targets.cpu.team import Team
from cnncc.targets.load import load_module, module_name
kernel_text, entry_text = json.loads(sys.argv[1])
begin = time.perf_counter()
kernel = load_module(kernel_text, kind="kernel")
entry = load_module(entry_text.format(kernel=module_name(kernel_text, kind="kernel")), kind="entry")
seconds = time.perf_counter() - begin
x, y = np.arange(11, dtype=np.float32), np.zeros(12, np.float32)
Team.shared(1).run(entry.network.address, np.array([x.ctypes.data, y.ctypes.data, 11]))
assert (y[:11] == 4 * x).all() and y[11] == 0, y
print(kernel.twice.was_cached, entry.network.was_cached, "numba" in sys.modules, seconds)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    place = tmp_path / "cache"
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(place))
    return place


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FOUR_TIMES, json.dumps([KERNEL, ENTRY])],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CNNCC_CACHE_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out.split(), errors


def unique(text: str, name: str) -> str:
    """A text that no other test has loaded."""
    return f"# {name}\n{text}"


def test_the_next_process_compiles_nothing(folder):
    assert finish(start(folder))[0][:3] == ["False", "False", "True"]
    files = sorted(path.name for path in folder.iterdir())
    words, errors = finish(start(folder))
    assert words[:3] == ["True", "True", "False"], "the second process compiled again"
    assert errors == ""
    assert sorted(path.name for path in folder.iterdir()) == files
    assert {name.rpartition(".")[2] for name in files} == {"py", "code"}


def test_another_instruction_set_is_another_module(folder):
    finish(start(folder))
    if cache.detect().isa in ("avx512", "avx2"):
        assert finish(start(folder, CNNCC_ISA="sse"))[0][:2] == ["False", "False"]
        assert len(list(folder.glob("k_*.py"))) == 2


def test_processes_that_write_at_once_do_no_harm(folder):
    for process in [start(folder) for _ in range(3)]:
        finish(process)
    assert finish(start(folder))[0][:2] == ["True", "True"]
    assert not list(folder.glob(".new-*"))


def test_the_same_text_is_the_same_module(folder):
    text = unique(KERNEL, "same")
    first = load_module(text, kind="kernel")
    assert load_module(text, kind="kernel") is first
    assert first.__name__ == module_name(text, kind="kernel")
    other = load_module(text, kind="kernel", key_extra="bound to 3 threads")
    assert other is not first
    assert Path(other.__file__).read_text().endswith("# key: bound to 3 threads\n")
    with pytest.raises(ValueError, match="one line"):
        load_module(text, kind="kernel", key_extra="a\nimport os")


def test_a_file_that_was_changed_is_written_again(folder):
    text = unique(KERNEL, "changed")
    name = module_name(text, kind="kernel").rpartition(".")[2]
    folder.mkdir()
    (folder / f"{name}.py").write_text("raise SystemExit('a stranger was here')")
    module = load_module(text, kind="kernel")
    assert Path(module.__file__).read_text() == text
    x = np.ones(4, np.float32)
    module.twice(x, x, 4)
    assert (x == 2).all()


def test_where_layers_stand_in_a_spec_makes_no_other_entry(folder):
    kernel = load_module(unique(KERNEL, "remarks"), kind="kernel")
    text = ENTRY.format(kernel=kernel.__name__)
    first, second = (
        text.replace("    twice(x, y", f"    # c1 = conv(x)  [{where}:3]\n    twice(x, y")
        for where in ("a.cnn", "/home/folder/a.cnn")
    )
    assert first != second
    module = load_module(first, kind="entry")
    assert load_module(second, kind="entry") is module
    assert module_name(text, kind="entry") == module.__name__
    assert module_name(text.replace("(y, y", "(x, y"), kind="entry") != module.__name__
    bound = module_name(first, kind="entry", key_extra="3 threads")
    assert bound not in (module.__name__, module_name(first, kind="entry", key_extra="4 threads"))
    of_kernel = unique(KERNEL, "in a kernel"), unique(KERNEL, "every line counts")
    assert len({module_name(k, kind="kernel") for k in of_kernel}) == 2


@pytest.mark.parametrize(
    "lie",
    [
        b"import os\n",
        b"# two lines for Python\rraise SystemExit\n",
        b"# key: of a stranger\n",
        b"\t# no blank\n",
        b"# no \0 text\n",
        b"# no text: \xff\n",
    ],
)
def test_an_entry_with_more_than_remarks_is_written_again(folder, lie):
    kernel = load_module(unique(KERNEL, f"beside {lie!r}"), kind="kernel")
    text = f"{ENTRY.format(kernel=kernel.__name__)}\nLIE = {lie!r}\n"
    path = folder / f"{module_name(text, kind='entry').rpartition('.')[2]}.py"
    path.write_bytes(lie + text.encode())
    module = load_module(text, kind="entry")
    assert Path(module.__file__).read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("before", "lie"),
    [
        ('TEXT = """a\n\nb"""\n', '# """ + LIE + """\n'),
        ("TEXT = '''a\n\nb'''\n", "# ''' + LIE + '''\n"),
        ("NUMBER = 1 + \\\n\n2\n", "# 3\n"),
        ('TEXT = \'"""\' + """a\n\nb"""\n', '# """ + LIE + """\n'),
    ],
)
def test_a_comment_counts_where_it_might_be_none(folder, before, lie):
    """In a string, or behind a line that goes on."""
    kernel = load_module(unique(KERNEL, f"goes on {before!r}"), kind="kernel")
    text = ENTRY.format(kernel=kernel.__name__) + before
    changed = text.replace("\n\nb", f"\n{lie}b").replace("\n\n2", f"\n{lie}2")
    assert changed != text
    assert module_name(changed, kind="entry") != module_name(text, kind="entry")


def test_a_function_from_the_cache_knows_its_text_with_other_remarks(folder):
    """More lines in front of it make no other function."""
    kernel = load_module(unique(KERNEL, "moved"), kind="kernel")
    text = ENTRY.format(kernel=kernel.__name__)
    entry = load_module(text, kind="entry").network
    moved = text.replace("@entry", "# a layer\n# another\n@entry")
    assert module_name(moved, kind="entry") == entry.function.__module__
    names = {"__name__": entry.function.__module__}
    exec(moved, names)
    assert names["network"] is entry


def test_a_remark_is_not_obeyed(folder):
    """Read as UTF-7, what follows would be code."""
    kernel = load_module(unique(KERNEL, "encoded"), kind="kernel")
    text = f"{ENTRY.format(kernel=kernel.__name__)}\nOBEYED = '+AC0AJw-'\n"
    path = folder / f"{module_name(text, kind='entry').rpartition('.')[2]}.py"
    path.write_bytes(b"# -*- coding: utf-7 -*-\n" + text.encode())
    module = load_module(text, kind="entry")
    assert Path(module.__file__).read_bytes() != text.encode(), "a remark more does no harm"
    assert module.OBEYED == "+AC0AJw-"


def test_an_emitted_module_is_not_imported_by_name_if_its_file_lies(folder):
    folder.mkdir(mode=0o700)
    (folder / "k_0123456789abcdef.py").write_text("raise SystemExit('a stranger was here')")
    with pytest.raises(ModuleNotFoundError):
        __import__("cnncc_emitted.k_0123456789abcdef")


def test_damaged_machine_code_is_compiled_again(folder):
    finish(start(folder))
    for path in folder.glob("*.code"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert finish(start(folder))[0][:2] == ["False", "False"]
    assert finish(start(folder))[0][:2] == ["True", "True"]


def test_a_process_without_the_compiler_leaves_machine_code_as_it_is(folder):
    finish(start(folder))
    kept_before = {p.name: p.read_bytes() for p in folder.glob("*.code")}
    script = (
        "import sys, cnncc.targets.cpu.team; from cnncc.targets.load import load_module\n"
        "load_module(sys.argv[1], kind='kernel').twice"
    )
    environment = {"PYTHONPATH": str(ROOT), "CNNCC_CACHE_DIR": str(folder)}
    subprocess.run(
        [sys.executable, "-c", script, KERNEL], check=True, timeout=300,
        env={**os.environ, **environment, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    assert {p.name: p.read_bytes() for p in folder.glob("*.code")} == kept_before
    assert finish(start(folder))[0][:2] == ["True", "True"]


def test_an_entry_whose_kernel_was_removed_is_compiled_again(folder):
    finish(start(folder))
    kernel = module_name(KERNEL, kind="kernel")
    code = next(p for p in folder.glob("*.code") if b'"symbol": "cnncc_twice' in p.read_bytes())
    assert kernel not in sys.modules
    code.unlink()
    assert finish(start(folder))[0][:2] == ["False", "True"]


def test_machine_code_that_calls_the_unknown_is_not_loaded(folder):
    code = MachineCode("lost", "cnncc_lost", (), "void", ("cnncc_of_nobody",), b"not read")
    keep("cnncc_emitted.lost", [code])
    assert kept("cnncc_emitted.lost") == (code,)
    assert not functions_of("cnncc_emitted.lost")


def test_a_function_from_the_cache_knows_its_text(folder):
    finish(start(folder))
    script = f"""
import sys
from cnncc.targets.load import load_module
twice = load_module({KERNEL!r}, kind="kernel").twice
assert twice.was_cached and "numba" not in sys.modules
assert twice.function.__name__ == "twice"
assert "@cnncc_twice" in twice.llvm_ir() and "cnncc_twice" in twice.assembly()
assert twice.was_cached
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CNNCC_CACHE_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes mean nothing on this system")
def test_the_folder_is_private(folder):
    cache_info()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes mean nothing on this system")
@pytest.mark.parametrize("which", ["itself", "its parent"])
def test_a_folder_that_others_can_write_is_refused(folder, which):
    folder.mkdir(mode=0o700)
    (folder if which == "itself" else folder.parent).chmod(0o777)
    with pytest.warns(RuntimeWarning, match="others can"):
        used = cache_info().path
    assert used != folder
    assert stat.S_IMODE(used.stat().st_mode) == 0o700
    assert load_module(unique(KERNEL, which), kind="kernel").__file__.startswith(str(used))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache_info().path == used, "the user is told once"


def test_a_folder_that_cannot_be_made_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNCC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="is not used"):
        assert cache_info().files == 0


def test_info_counts_and_clear_removes_only_our_files(folder):
    folder.mkdir(mode=0o700)
    (folder / "notes.txt").write_text("mine")
    load_module(unique(KERNEL, "info"), kind="kernel")
    info = cache_info()
    assert (info.path, info.files) == (folder, 2)
    assert info.bytes == sum(p.stat().st_size for p in folder.iterdir()) - 4
    assert cache_clear() == info
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert cache_info().files == 0


def test_text_that_is_not_python_is_our_fault(folder):
    with pytest.raises(CompilerBug, match="valid Python"):
        load_module("def (:", kind="entry")


def test_a_network_whose_kernels_are_there_runs_without_numba(folder):
    script = """
import sys
import numpy as np
import cnncc
x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
model = cnncc.compile("lenet_digits")
print("numba" in sys.modules, model(x).tobytes().hex())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CNNCC_CACHE_DIR": str(folder)}
    first, second = (
        subprocess.check_output(
            [sys.executable, "-c", script], env=environment, text=True, timeout=300
        ).split()
        for _ in range(2)
    )
    assert (first[0], second[0]) == ("True", "False")
    assert first[1] == second[1]
