"""What a source may be: a path, a built-in name, or text."""

from pathlib import Path

import pytest

from cnncc.compiler import check_file, front
from cnncc.errors import SpecError
from cnncc.graph.locate import built_in, locate

TEXT = "net n { input x: f32[1]\n output x }\n"


def test_text_has_more_than_one_line() -> None:
    assert locate(TEXT).text == TEXT
    assert locate(TEXT).path is None


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "some.cnn"
    path.write_text(TEXT)
    assert locate(path).path == path
    assert locate(str(path)).text == TEXT
    assert locate(f"{path}:n").net == "n"
    assert locate(Path(f"{path}:n")).net == "n"


def test_files_are_shown_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.cnn").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert locate(tmp_path / "some.cnn").file == "some.cnn"
    assert locate("some.cnn").file == "some.cnn"


def test_built_in_names() -> None:
    assert locate("lenet5_modern").path is not None
    assert locate("lenet5_modern:lenet5_modern").net == "lenet5_modern"
    assert "residual" not in built_in()
    assert front("lenet_digits").graph.name == "lenet_digits"


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("lenet5_modem", "did you mean `lenet5_modern`?"),
        ("net n { input x: f32[1] output x }", "more than one line"),
        ("folder/net", "with its ending"),
        ("x" * 5000, "the built-in networks are"),
        ("", "the built-in networks are"),
        ("../specs/vgg16", "with its ending"),
    ],
)
def test_what_is_nothing_of_it_gets_a_hint(source: str, hint: str) -> None:
    (found,) = check_file(source)
    assert found.code == "E0401"
    assert any(hint in help for help in found.helps)


@pytest.mark.parametrize(
    "source", ["nothing.cnn", Path("nothing.cnn"), Path("nothing"), "a\0b.cnn"]
)
def test_files_that_do_not_exist(source: str | Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read|no built-in"):
        front(source)


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="a source is a path"):
        front(3)  # type: ignore[arg-type]
