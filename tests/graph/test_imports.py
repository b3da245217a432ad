"""Imports: what becomes visible, and every way of naming a file that is refused."""

import os
from pathlib import Path

import pytest

from cnncc.compiler import check_file, front
from cnncc.errors import SpecError
from cnncc.graph import limits
from cnncc.syntax.limits import TEXT_BYTES

NET = "net n { input x: f32[1, 8, 8]\n output y = unit(x) }\n"
UNIT = "block unit(x) { return relu(x) }\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def codes(path: Path) -> list[str]:
    return [d.code for d in check_file(path)]


def test_blocks_of_an_imported_file_are_visible(tmp_path: Path) -> None:
    write(tmp_path, "parts/unit.cnn", UNIT)
    top = write(tmp_path, "top.cnn", 'import "parts/unit.cnn"\n' + NET)
    graph = front(top).graph
    assert graph["y.relu_1"].origin.span is not None
    assert graph["y.relu_1"].origin.span.file.endswith("parts/unit.cnn")


def test_imports_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    write(tmp_path, "parts/deep/core.cnn", "block core(x) { return relu(x) }\n")
    write(
        tmp_path,
        "parts/unit.cnn",
        'import "deep/core.cnn"\nblock unit(x) { return core(x) }\n',
    )
    assert codes(write(tmp_path, "top.cnn", 'import "parts/unit.cnn"\n' + NET)) == []


def test_imports_of_imports_are_not_visible(tmp_path: Path) -> None:
    write(tmp_path, "unit.cnn", UNIT)
    write(tmp_path, "middle.cnn", 'import "unit.cnn"\n')
    assert codes(write(tmp_path, "top.cnn", 'import "middle.cnn"\n' + NET)) == ["E0301"]


def test_a_file_may_be_imported_over_two_ways(tmp_path: Path) -> None:
    write(tmp_path, "unit.cnn", UNIT)
    for name in "ab":
        text = f'import "unit.cnn"\nblock {name}(x) {{ return unit(x) }}\n'
        write(tmp_path, f"{name}.cnn", text)
    head = 'import "a.cnn"\nimport "b.cnn"\nimport "unit.cnn"\nimport "unit.cnn"\n'
    assert codes(write(tmp_path, "top.cnn", head + NET)) == []


@pytest.mark.parametrize(
    "path",
    [
        "../unit.cnn",
        "parts/../unit.cnn",
        "/etc/passwd.cnn",
        "./unit.cnn",
        "parts//unit.cnn",
        "parts\\\\unit.cnn",
        "c:unit.cnn",
        "file:///unit.cnn",
        "",
        "parts/",
        "unit.txt",
        "unit",
    ],
)
def test_paths_that_are_refused(tmp_path: Path, path: str) -> None:
    write(tmp_path, "unit.cnn", UNIT)
    write(tmp_path, "inner/unit.cnn", UNIT)
    assert codes(write(tmp_path, "inner/top.cnn", f'import "{path}"\n' + NET)) == ["E0402"]


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "outside/unit.cnn", UNIT)
    top = write(tmp_path, "inside/top.cnn", 'import "unit.cnn"\n' + NET)
    (tmp_path / "inside/unit.cnn").symlink_to(tmp_path / "outside/unit.cnn")
    assert codes(top) == ["E0402"]
    (tmp_path / "inside/unit.cnn").unlink()
    (tmp_path / "inside/parts").symlink_to(tmp_path / "outside")
    assert codes(write(tmp_path, "inside/top.cnn", 'import "parts/unit.cnn"\n' + NET)) == ["E0402"]


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "real.cnn", UNIT)
    (tmp_path / "unit.cnn").symlink_to("real.cnn")
    assert codes(write(tmp_path, "top.cnn", 'import "unit.cnn"\n' + NET)) == []


def test_circles_are_reported_with_their_way(tmp_path: Path) -> None:
    top = write(tmp_path, "top.cnn", 'import "a.cnn"\n' + NET)
    write(tmp_path, "a.cnn", 'import "b.cnn"\n' + UNIT)
    write(tmp_path, "b.cnn", 'import "top.cnn"\n')
    (found,) = check_file(top)
    assert found.code == "E0403"
    assert "top.cnn -> a.cnn -> b.cnn -> top.cnn" in found.message
    write(tmp_path, "b.cnn", 'import "b.cnn"\n')
    assert codes(top) == ["E0403"]


def test_a_link_makes_a_circle_too(tmp_path: Path) -> None:
    top = write(tmp_path, "top.cnn", 'import "again.cnn"\n' + NET)
    (tmp_path / "again.cnn").symlink_to(top)
    assert codes(top) == ["E0403"]


def test_depth_and_number_of_files_are_bounded(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path, f"f{i}.cnn", f'import "f{i + 1}.cnn"\n')
    write(tmp_path, "f12.cnn", UNIT)
    assert codes(write(tmp_path, "deep.cnn", 'import "f0.cnn"\n' + NET)) == ["E0404"]
    count = limits.FILES + 5
    for i in range(count):
        write(tmp_path, f"many/g{i}.cnn", f"block g{i}(x) {{ return relu(x) }}\n")
    head = "".join(f'import "g{i}.cnn"\n' for i in range(count))
    assert set(codes(write(tmp_path, "many/top.cnn", head + NET))) == {"E0404"}


def test_only_files_of_text_are_read(tmp_path: Path) -> None:
    top = write(tmp_path, "top.cnn", 'import "unit.cnn"\n' + NET)
    assert codes(top) == ["E0401"]
    (tmp_path / "unit.cnn").mkdir()
    assert codes(top) == ["E0401"]
    (tmp_path / "unit.cnn").rmdir()
    (tmp_path / "unit.cnn").write_bytes(b"block unit(x) {\n return \xff\xfe }\n")
    assert codes(top) == ["E0401"]
    (tmp_path / "unit.cnn").write_text(" " * (TEXT_BYTES + 1))
    assert codes(top) == ["E0106"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "unit.cnn")
    assert codes(write(tmp_path, "top.cnn", 'import "unit.cnn"\n' + NET)) == ["E0401"]


def test_mistakes_of_all_files_are_reported(tmp_path: Path) -> None:
    write(tmp_path, "a.cnn", "block a(x) { return relu(x }\n")
    write(tmp_path, "b.cnn", "block b(x) { return }\n")
    text = 'import "a.cnn"\nimport "b.cnn"\nimport "c.cnn"\n' + NET
    files = {Path(d.span.file).name for d in check_file(write(tmp_path, "top.cnn", text)) if d.span}
    assert files == {"a.cnn", "b.cnn", "top.cnn"}


def test_a_name_that_is_defined_twice(tmp_path: Path) -> None:
    write(tmp_path, "unit.cnn", UNIT)
    assert codes(write(tmp_path, "top.cnn", 'import "unit.cnn"\n' + UNIT + NET)) == ["E0305"]


def test_a_text_without_a_file_cannot_import() -> None:
    with pytest.raises(SpecError) as caught:
        front('import "unit.cnn"\n' + NET)
    assert [d.code for d in caught.value.diagnostics] == ["E0405"]
