"""Weights files: what is saved comes back bit for bit, and nothing else is believed."""

import json
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnncc.errors import SpecError
from cnncc.io import DataError, TensorInfo, check_state, inspect_state, load_state, save_state
from cnncc.io.layout import DTYPES

DTYPE_NAMES = [np.dtype(code).name for code in DTYPES.values()]


def code_of(error: pytest.ExceptionInfo[DataError]) -> str:
    return error.value.diagnostics[0].code


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: object, offsets: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, name, dtype):
    count = 24
    data = np.random.default_rng(0).bytes(count * np.dtype(dtype).itemsize)
    flat = np.frombuffer(data, dtype) if dtype != "bool" else np.arange(count) % 2 == 1
    state = {
        "conv1.weight": flat.reshape(2, 3, 4),
        "conv1.bias": flat[:6],
        "scale": flat[0].reshape(()),
        "empty": flat[:0].reshape(0, 3),
    }
    path = tmp_path / name
    save_state(path, state, {"network": "lenet", "ünï": "←"})
    found, metadata = load_state(path)
    assert metadata == {"network": "lenet", "ünï": "←"}
    assert found.keys() == state.keys()
    for key, array in state.items():
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape
        assert found[key].tobytes() == array.tobytes()
    info, texts = inspect_state(path)
    assert texts == metadata
    assert info == {key: TensorInfo.of(array) for key, array in state.items()}


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_strided_reversed_and_big_endian_arrays_are_stored_by_value(tmp_path, name):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    state = {
        "transposed": base.T,
        "fortran": np.asfortranarray(base),
        "strided": base[::2, ::3],
        "reversed": base[::-1, ::-1],
        "big_endian": base.astype(">f4"),
        "one_row": np.broadcast_to(base[0], (3, 6)),
    }
    save_state(tmp_path / name, state)
    found, metadata = load_state(tmp_path / name)
    assert metadata == {}
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], array, strict=False)
        assert found[key].dtype == np.float32


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_our_reader_agrees_with_the_library(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("agree") / "w.safetensors"
    save_state(path, {"a": array, "b": array[..., None]}, {"k": "v"})
    theirs = safetensors.numpy.load_file(path)
    ours, _ = load_state(path)
    for key in ("a", "b"):
        assert ours[key].tobytes() == theirs[key].tobytes()
        assert ours[key].shape == theirs[key].shape


def test_a_file_from_torch_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "t.safetensors"
    save_file({"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}, path)
    found, _ = load_state(path)
    np.testing.assert_array_equal(found["w"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert found["n"] == 7
    save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, path)
    with pytest.raises(DataError, match="BF16") as error:
        load_state(path)
    assert code_of(error) == "E0707"


F32_3 = TensorInfo(np.dtype(np.float32), (3,))


def test_all_differences_are_reported_before_values_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    zeros = np.zeros(3, np.float32)
    save_state(path, {"c1.weigth": zeros, "c1.bias": zeros.astype(np.float64), "old": zeros})
    expect = {"c1.weight": F32_3, "c1.bias": F32_3}
    with pytest.raises(DataError, match="4 of its tensors differ") as error:
        load_state(path, expect=expect)
    notes = [note.text for note in error.value.diagnostics[0].notes]
    assert code_of(error) == "E0707"
    assert notes == [
        "c1.bias is float64[3] in the file, but float32[3] is needed",
        "c1.weight float32[3] is missing from the file (it has c1.weigth)",
        "c1.weigth float32[3] is not part of the network",
        "old float32[3] is not part of the network",
    ]


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_strict_false_forgives_names_but_not_shapes(tmp_path, name):
    path = tmp_path / name
    save_state(path, {"a": np.zeros(3, np.float32), "b": np.zeros(1, np.float32)})
    found, _ = load_state(path, expect={"a": F32_3, "c": F32_3}, strict=False)
    assert found.keys() == {"a", "b"}
    with pytest.raises(DataError, match="1 of its tensors") as error:
        load_state(path, expect={"b": F32_3}, strict=False)
    assert code_of(error) == "E0707"


def test_a_long_list_of_differences_is_cut():
    many = {f"layer{n}.weight": F32_3 for n in range(50)}
    with pytest.raises(DataError) as error:
        check_state({}, many, "w.safetensors")
    notes = error.value.diagnostics[0].notes
    assert len(notes) == 21
    assert notes[-1].text == "and 30 more"


HOSTILE = {
    "an extent of 2^31": ({"w": entry([1 << 31, 0], [0, 0])}, b"", "E0702"),
    "2^33 times 2^33 wraps to 0": ({"w": entry([1 << 30] * 5, [0, 0])}, b"", "E0703"),
    "negative extent": ({"w": entry([-1], [0, 4])}, b"0000", "E0702"),
    "extent is a float": ({"w": entry([1.0], [0, 4])}, b"0000", "E0702"),
    "extent is true": ({"w": entry([True], [0, 4])}, b"0000", "E0702"),
    "offsets backwards": ({"w": entry([1], [4, 0])}, b"0000", "E0703"),
    "offsets past the end": ({"w": entry([2], [0, 8])}, b"0000", "E0703"),
    "a gap": ({"a": entry([1], [0, 4]), "b": entry([1], [8, 12])}, b"0" * 12, "E0703"),
    "an overlap": ({"a": entry([2], [0, 8]), "b": entry([1], [4, 8])}, b"0" * 8, "E0703"),
    "bytes left over": ({"w": entry([1], [0, 4])}, b"00000", "E0703"),
    "unknown dtype": ({"w": entry([1], [0, 1], "F8_E4M3")}, b"0", "E0707"),
    "dtype is a list": ({"w": entry([1], [0, 1], [])}, b"0", "E0707"),
    "boolean byte 2": ({"w": entry([1], [0, 1], "BOOL")}, b"\x02", "E0702"),
    "empty name": ({"": entry([1], [0, 4])}, b"0000", "E0702"),
    "endless name": ({"x" * 1000: entry([1], [0, 4])}, b"0000", "E0702"),
    "17 axes": ({"w": entry([1] * 17, [0, 4])}, b"0000", "E0702"),
    "extra key": ({"w": {**entry([1], [0, 4]), "path": "/etc"}}, b"0000", "E0702"),
    "entry is a number": ({"w": 3}, b"", "E0702"),
    "header is a list": ([1], b"", "E0702"),
    "metadata is nested": ({"__metadata__": {"a": {}}}, b"", "E0702"),
    "metadata is a list": ({"__metadata__": []}, b"", "E0702"),
    "twice the same name": (b'{"w":{"a":1},"w":{"a":1}}', b"", "E0702"),
    "not JSON": (b"{nonsense", b"", "E0702"),
    "not UTF-8": (b"\xff\xfe{}", b"", "E0702"),
    "deep nesting": (b"[" * 100_000, b"", "E0702"),
    "a number of 10000 digits": (b'{"w":' + b"9" * 10_000 + b"}", b"", "E0702"),
    "empty header": (b"", b"", "E0702"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, case):
    header, data, code = HOSTILE[case]
    with pytest.raises(DataError) as error:
        load_state(raw_file(tmp_path / "w.safetensors", header, data))
    assert code_of(error) == code
    assert isinstance(error.value, SpecError)


def test_a_giant_header_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:  # sparse: 1 GiB that takes no disk
        file.write((1 << 29).to_bytes(8, "little"))
        file.truncate(1 << 30)
    with pytest.raises(DataError, match="over the limit") as error:
        load_state(path)
    assert code_of(error) == "E0705"


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_state(path, {"a": np.arange(5, dtype=np.float32), "b": np.arange(3)}, {"k": "v"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            load_state(path)
    path.write_bytes(whole)
    assert load_state(path)[0].keys() == {"a", "b"}


def test_truncated_npz_is_noticed(tmp_path):
    path = tmp_path / "w.npz"
    save_state(path, {"a": np.arange(50, dtype=np.float32)}, {"k": "v"})
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            load_state(path)


@given(st.data())
def test_random_damage_never_ends_in_a_traceback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    name = data.draw(st.sampled_from(["w.safetensors", "w.npz"]))
    path = folder / name
    save_state(path, {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2))}, {"k": "v"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found, _ = load_state(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_pickles_are_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="pickle") as error:
        load_state("w.safetensors")
    assert code_of(error) == "E0704"
    np.savez("objects.npz", a=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match="pickle") as error:
        load_state("objects.npz")
    assert code_of(error) == "E0704"
    with zipfile.ZipFile("model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"torch\.save") as error:
        load_state("model.pt")
    assert code_of(error) == "E0704"
    assert not Path("exploded").exists()


def npy(header: str, data: bytes) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


NPY = {
    "record dtype": ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "E0702"),
    "date": ("{'descr': '<M8', 'fortran_order': False, 'shape': (1,), }", "E0707"),
    "text": ("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", "E0707"),
    "code": ("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}", "E0702"),
    "shape is code": ("{'descr': '<f4', 'fortran_order': False, 'shape': (f(),)}", "E0702"),
    "digits": (f"{{'descr':'<f4','fortran_order':False,'shape':({'9' * 99},)}}", "E0702"),
    "too large": ("{'descr':'<f4','fortran_order':False,'shape':(9999999999,)}", "E0705"),
    "claims more": ("{'descr':'<f4','fortran_order':False,'shape':(2,)}", "E0703"),
    "claims less": ("{'descr':'<f4','fortran_order':False,'shape':(0,)}", "E0703"),
    "nothing": ("", "E0702"),
}


@pytest.mark.parametrize("case", NPY)
def test_npy_headers_are_not_evaluated(tmp_path, case):
    header, code = NPY[case]
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy(header, b"0000"))
    with pytest.raises(DataError) as error:
        load_state(path)
    assert code_of(error) == code


def test_fortran_order_is_understood(tmp_path):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    np.savez(tmp_path / "f.npz", a=np.asfortranarray(array))
    found, _ = load_state(tmp_path / "f.npz")
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].flags.c_contiguous


def test_a_zip_bomb_is_refused_by_its_announced_size(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, a=np.zeros(30_000_000, np.uint8))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"28\.6 MiB .* limit is 19\.1 MiB") as error:
        load_state(path, max_bytes=20_000_000)
    assert code_of(error) == "E0705"


def test_missing_folder_pipe_and_impossible_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", "nul\0", tmp_path / ("x" * 999)):
        with pytest.raises(DataError) as error:
            load_state(path)
        assert code_of(error) == "E0701"


def test_what_cannot_be_stored_is_an_error_and_changes_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    save_state(path, {"a": np.ones(1, np.float32)})
    before = path.read_bytes()
    with pytest.raises(TypeError, match="complex128"):
        save_state(path, {"a": np.ones(1, np.complex128)})
    with pytest.raises(TypeError, match="object"):
        save_state(path, {"a": np.array([None])})
    with pytest.raises(TypeError, match="metadata"):
        save_state(path, {}, {"step": 3})
    for name in ("", "a\x1b[2J", "__metadata__", "x" * 600):
        with pytest.raises(ValueError, match=r"name|reserved"):
            save_state(path, {name: np.ones(1)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_saving_keeps_permissions_follows_links_and_leaves_nothing_behind(tmp_path):
    real = tmp_path / "deep" / "real.safetensors"
    save_state(real, {"a": np.ones(1)})
    expected = 0o666 & ~current_umask()
    assert stat.S_IMODE(real.stat().st_mode) == expected
    real.chmod(0o640)
    link = tmp_path / "link.safetensors"
    link.symlink_to(real)
    save_state(link, {"a": np.zeros(1)}, previous=tmp_path / "deep" / "before")
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert load_state(real)[0]["a"][0] == 0
    assert load_state(tmp_path / "deep" / "before")[0]["a"][0] == 1
    assert sorted(os.listdir(tmp_path / "deep")) == ["before", "real.safetensors"]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(DataError, match="cannot write") as error:
        save_state(tmp_path / "w.safetensors", {"a": np.ones(1)})
    assert code_of(error) == "E0710"
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_write_that_does_not_read_back_is_not_installed(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_state(path, {"a": np.ones(3)})

    def wrong(tensors, target, metadata=None):
        changed = {name: array + 1 for name, array in tensors.items()}
        safetensors.numpy.save_file(changed, target, metadata=metadata)

    monkeypatch.setattr("cnncc.io.safetensors.save_file", wrong)
    with pytest.raises(DataError, match="does not read back") as error:
        save_state(path, {"a": np.ones(3)})
    assert code_of(error) == "E0710"
    np.testing.assert_array_equal(load_state(path)[0]["a"], np.ones(3))
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_every_code_of_the_readers_is_explained():
    from cnncc.errors import CODES
    from cnncc.io import files

    used = {
        value
        for name, value in vars(files).items()
        if name.isupper() and isinstance(value, str) and value.startswith("E07")
    }
    assert len(used) == 10
    assert used <= set(CODES)
