"""`compile --emit`: every stage prints something true, to stdout or to files."""

import ast
import os
import re
import subprocess
import sys

import pytest

from cnncc.cli.stages import STAGES
from cnncc.graph.text import parse_graph, print_graph
from cnncc.ops import OPERATORS

TRAINED = """\
net tiny {
  input x: f32[1, 6, 6]
  wobble = x -> conv(2, 3x3) -> relu
  output y = wobble -> flatten -> dense(3)
}

train tiny {
  target label: class[3]
  loss = cross_entropy(y, label)
  optimizer = sgd(lr = 0.1)
}
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.cnn"
    path.write_text(TRAINED)
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_prints(stage, shell, tiny):
    done = shell("compile", tiny, f"--emit={stage}")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) > 5


@pytest.mark.parametrize("stage", ["graph", "typed", "train"])
def test_graph_stages_parse_back(stage, shell, tiny):
    text = shell("compile", tiny, f"--emit={stage}").out
    graph = parse_graph(text, OPERATORS)
    bare = re.sub(r"  # .*", "", text)
    assert print_graph(graph) == bare


def test_the_training_step_marks_its_phases(shell, tiny):
    lines = shell("compile", tiny, "--emit=train").out.splitlines()
    assert any(line.endswith("# backward") for line in lines)
    assert any(line.endswith("# update") for line in lines)


def test_python_is_python_with_layer_names_and_places(shell, tiny):
    text = shell("compile", tiny, "--emit=python").out
    tree = ast.parse(text)
    assert any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in ast.walk(tree))
    assert "tiny.cnn:3" in text
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"wobble", "label", "tiny"}  # no name of a spec is an identifier


def test_tensors_that_live_together_do_not_overlap_in_the_plan(shell, tiny):
    text = shell("compile", tiny, "--train", "--emit=plan", "--batch", "4").out
    rows = re.findall(r"^ *(\d+) +(\d+) +(\d+)\.\.(\d+) ", text, re.MULTILINE)
    placed = [tuple(map(int, row)) for row in rows]
    assert len(placed) >= 8
    arena = int(re.search(r"arena (\d+) bytes", text)[1])
    assert max(start + size for start, size, *_ in placed) == arena
    for i, (start, size, first, last) in enumerate(placed):
        for other, length, begin, end in placed[i + 1 :]:
            if first <= end and begin <= last:
                assert start + size <= other or other + length <= start


def test_the_plan_of_several_samples_says_what_lies_in_their_pieces(shell):
    text = shell("compile", "cifar10", "--emit=plan", "--batch", "4").out
    (piece,) = map(int, re.findall(r"a piece of (\d+) bytes for each sample", text))
    arena = int(re.search(r"arena (\d+) bytes", text)[1])
    rows = re.findall(r"^ *(\d+) +(\d+)(\*?) +\d+\.\.\d+ +(\S+):", text, re.MULTILINE)
    inside = [int(start) + int(size) for start, size, mark, _ in rows if mark]
    behind = [int(start) + int(size) for start, size, mark, _ in rows if not mark]
    assert {name for *_, mark, name in rows if mark} >= {"image", "c1.relu", "p2", "c3.relu"}
    assert {name for *_, mark, name in rows if not mark} >= {"f5.flatten", "f5.relu"}
    assert 0 <= piece - max(inside) <= 64
    assert max([3 * piece + max(inside), *behind]) == arena
    alone = shell("compile", "cifar10", "--emit=plan").out
    assert "piece" not in alone
    assert "*  " not in alone


def test_the_plan_of_symbolic_extents_asks_for_them(shell, tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text("net a {\n  input x: f32[3, H, W]\n  output y = x -> maxpool(2x2)\n}\n")
    done = shell("compile", path, "--emit=plan", "--extent", "H=8")
    assert (done.code, done.out) == (1, "")
    assert "--extent W=64" in done.err
    extents = ["--extent", "H=8", "--extent", "W=12"]
    assert "arena" in shell("compile", path, "--emit=plan", *extents).out
    odd = shell("compile", path, "--emit=plan", "--extent", "H=9", "--extent", "W=12")
    assert odd.code == 1
    assert "net.cnn:3" in odd.err


def test_stages_go_to_files(shell, tiny, tmp_path):
    folder = tmp_path / "stages"
    done = shell("compile", tiny, "--emit=tree", "--emit=python", "--emit=dot", "-o", folder)
    assert (done.code, done.out) == (0, "")
    assert (folder / "tree.txt").read_text().startswith("File")
    assert (folder / "dot.dot").read_text().startswith("digraph")
    assert (folder / "python" / "entry_forward.py").is_file()
    assert list((folder / "python").glob("k_*.py"))
    (tmp_path / "file").write_text("")
    assert "E0710" in shell("compile", tiny, "--emit=tree", "-o", tmp_path / "file").err


def test_without_fusion_every_operator_is_a_kernel(shell, tiny):
    count = len(re.findall(r"^kernel", shell("compile", tiny, "--emit=fused").out, re.MULTILINE))
    alone = shell("compile", tiny, "--no-fuse", "--emit=fused").out
    assert len(re.findall(r"^kernel", alone, re.MULTILINE)) == alone.count("  %") > count


def test_a_drawing_has_every_operator_and_only_quoted_names(shell, tiny):
    text = shell("compile", tiny, "--emit=dot").out
    assert text.count("shape=ellipse") == 2
    assert '[label="wobble\\nconv"]' in text
    for line in text.splitlines():
        bare = re.sub(r'"(\\.|[^"\\])*"', "", line)
        assert '"' not in bare
    assert text.count("{") == text.count("}")


def test_compiling_says_how_large_and_how_long(shell, tiny):
    done = shell("compile", tiny)
    assert done.code == 0
    assert re.search(r"tiny: \d+ kernels, \d+ different texts with those .*, \d+\.\d s", done.out)
    assert "at batch 1: activations" in done.out


def test_without_machine_code_there_is_none_to_show(tiny):
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    for words in (["compile", tiny, "--emit=asm"], ["bench", tiny]):
        done = subprocess.run(
            [sys.executable, "-m", "cnncc", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "unset NUMBA_DISABLE_JIT" in done.stderr


def test_too_much_memory_is_refused_before_it_is_taken(shell):
    done = shell("compile", "lenet_digits", "--max-memory", "8K")
    assert done.code == 1
    assert "E0801" in done.err


def test_training_stages_need_a_train_block(shell, small):
    done = shell("compile", small, "--emit=train")
    assert done.code == 1
    assert "E0601" in done.err
