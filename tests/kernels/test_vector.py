"""The vector type: compiled primitives give the bits of their NumPy twins, stay inside their
memory and become the instructions that they are meant to be."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import TypingError

sys.path.insert(0, str(Path(__file__).parent))
import primitives

from cnncc.targets.cpu import vector
from cnncc.targets.cpu.machine import detect
from cnncc.targets.cpu.vector import __all__ as words
from cnncc.targets.cpu.vector import twins
from cnncc.targets.load import load_module

WIDTHS = [
    ("f32", 16),
    ("f32", 8),
    ("f32", 4),
    ("f32", 1),
    ("f64", 8),
    ("f64", 4),
    ("f64", 2),
    ("f64", 1),
]
ROOT = Path(__file__).parents[2]


def meaning(text: str):
    """The kernel in a text with every word replaced by its NumPy twin."""
    names = {word: getattr(twins, word, None) or getattr(vector, word) for word in words}
    names["compiled"] = lambda signature: lambda function: function
    body = "\n".join(line for line in text.splitlines() if not line.startswith("from "))
    exec(compile(body, "<twin>", "exec"), names)

    def run(*arguments):
        with np.errstate(all="ignore"):
            names["every"](*arguments)

    return run


@pytest.mark.parametrize(("element", "lanes"), WIDTHS)
def test_compiled_primitives_have_the_bits_of_their_twins(element, lanes):
    text = primitives.float_kernel(element, lanes)
    compiled, twin = load_module(text, kind="kernel").every, meaning(text)
    dtype = primitives.FLOATS[element]
    loads = ["load_tail", "load_strided", "load_strided_tail", "load_second", "load_second_tail"]
    names = [*primitives.FLOAT_RESULTS, *loads, "splat"]
    for seed in range(40):
        arrays = primitives.inputs(element, seed)
        count = seed % (lanes + 3) - 1  # from -1 to one above the lanes
        results = [np.full(primitives.out_size(lanes), -77, dtype) for _ in range(2)]
        compiled(*arrays, results[0], count)
        twin(*arrays, results[1], count)
        for k, name in enumerate(names):
            part = slice(lanes * k, lanes * (k + 1))
            assert primitives.same_bits(results[0][part], results[1][part]), (
                f"{name}: {results[0][part]} is not {results[1][part]}, seed {seed}"
            )
        assert primitives.same_bits(*results), (
            f"folds or partial stores, seed {seed}, count {count}"
        )
        assert np.count_nonzero(results[1] != -77) > len(primitives.FLOAT_RESULTS)


def test_integer_vectors_have_the_bits_of_their_twins():
    text = primitives.integer_kernel()
    compiled, twin = load_module(text, kind="kernel").every, meaning(text)
    dtypes = {"u8": np.uint8, "u16": np.uint16, "i32": np.int32, "f32": np.float32}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a = primitives.inputs("f32", seed)[0]
        a[:4] = (300.7, -5, 3e9, 254.999)
        bytes_ = rng.integers(0, 256, 64, dtype=np.uint8)
        integers = rng.integers(-(2**31), 2**31, 64).astype(np.int32)
        outs = [
            [
                np.zeros(16 * len(primitives.INTEGER_RESULTS[name]), dtype)
                for name, dtype in dtypes.items()
            ]
            for _ in range(2)
        ]
        compiled(a, bytes_, integers, *outs[0])
        twin(a, bytes_, integers, *outs[1])
        for ours, expected, name in zip(*outs, dtypes, strict=True):
            for k, text_ in enumerate(primitives.INTEGER_RESULTS[name]):
                part = slice(16 * k, 16 * (k + 1))
                assert primitives.same_bits(ours[part], expected[part]), (
                    f"{text_}: {ours[part]} is not {expected[part]}"
                )


def test_scalar_integers_wrap_like_vectors():
    text = primitives.scalar_integer_kernel()
    given = np.array([123456789, 2**31 - 1, 3], np.int32)
    ours, expected = np.zeros(2, np.int32), np.zeros(2, np.int32)
    load_module(text, kind="kernel").every(given, ours)
    meaning(text)(given, expected)
    np.testing.assert_array_equal(ours, expected)
    h = 123456789 * 2654435769 % 2**32
    h = ((h ^ h >> 15) + 4000000000) % 2**32
    assert int(ours[0]) % 2**32 == h


def test_folds_combine_halves():
    x = np.float32([2.0**24, 1, 1, 1, -(2.0**24), 1, 1, 1])
    # (2^24 - 2^24), (1 + 1), (1 + 1), (1 + 1); then 0 + 2, 2 + 2; then 2 + 4.  Left to right would
    # give 3.
    assert twins.hsum(x) == 6


def test_every_word_has_a_twin():
    numbers = {"shape", "f32", "f64", "u8", "u16", "u32", "u64", "i32", "i64"}
    assert [
        word for word in words if word not in numbers and not callable(getattr(twins, word))
    ] == []


TILE = """
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *


@compiled("void({element}*, {element}*, {element}*, i64)")
def tile(x, w, y, channels):
{start}
    for c in range(channels):
        {rolled}
        w_0 = load{lanes}(w, c * {lanes})
{steps}
{end}
"""


def tile_assembly(rows: int, lanes: int, rolled: bool) -> str:
    every = range(rows)
    text = TILE.format(
        element="f32",
        lanes=lanes,
        rolled="keep_rolled()" if rolled else "pass",
        start="\n".join(f"    acc_{r} = load{lanes}(y, {r * lanes})" for r in every),
        steps="\n".join(f"        acc_{r} = fma(load1(x, c + {r}), w_0, acc_{r})" for r in every),
        end="\n".join(f"    store(y, {r * lanes}, acc_{r})" for r in every),
    )
    return load_module(text, kind="kernel").tile.assembly()


def test_a_tile_becomes_one_fma_instruction_per_step():
    machine = detect()
    assembly = tile_assembly(12, machine.lanes_f32, rolled=True)
    assert not re.search(r"\bfmaf?\b", assembly), "fma became a call"
    if machine.isa in ("avx512", "avx2"):
        register = {"avx512": "zmm", "avx2": "ymm"}[machine.isa]
        assert len(re.findall(rf"vfmadd\d+ps\b.*{register}", assembly)) == 12
        assert "%rsp)" not in "".join(re.findall(r"vmov.ps.*", assembly)), "registers were spilled"


def run_python(code: str, **environment: str) -> str:
    """What a new Python process prints; its working folder is the checkout."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DIGEST = """
import hashlib, numpy as np, primitives
from cnncc.targets.load import load_module
from cnncc.targets.cpu.machine import detect
kernel = load_module(primitives.float_kernel("f32", 4), kind="kernel").every
digest = hashlib.sha256()
for seed in range(10):
    out = np.zeros(primitives.out_size(4), np.float32)
    kernel(*primitives.inputs("f32", seed), out, seed % 5)
    digest.update(np.where(np.isnan(out), 1, out).tobytes())
print(digest.hexdigest(), detect().lanes_f32)
"""


def test_every_instruction_set_and_the_unjitted_form_give_the_same_bits():
    widest, lanes = run_python(DIGEST).split()
    assert run_python(DIGEST, NUMBA_DISABLE_JIT="1").split()[0] == widest
    narrower = {16: ["avx2", "sse"], 8: ["sse"]}.get(int(lanes), [])
    for isa in narrower:
        digest, isa_lanes = run_python(DIGEST, CNNCC_ISA=isa).split()
        assert int(isa_lanes) == {"avx2": 8, "sse": 4}[isa]
        assert digest == widest, isa


NARROW = """
import test_vector
print(test_vector.tile_assembly(6, 8, True))
"""


def test_a_narrower_instruction_set_uses_its_own_registers():
    if detect().lanes_f32 < 8:
        return  # nothing narrower to ask for
    assembly = run_python(NARROW, CNNCC_ISA="avx2")
    assert "zmm" not in assembly
    assert len(re.findall(r"vfmadd\d+ps\b.*ymm", assembly)) == 6


def test_an_unknown_instruction_set_is_refused():
    code = "try:\n    import cnncc.targets.cpu\nexcept ValueError as error:\n    print(error)"
    assert "one of avx512, avx2, sse" in run_python(code, CNNCC_ISA="mmx")


GUARD = """
import ctypes, mmap, sys
import numpy as np
from cnncc.targets.load import load_module
element, lanes = sys.argv[1], 16
body = '''
from cnncc.targets.cpu.compiled import compiled
from cnncc.targets.cpu.vector import *


@compiled("void({e}*, {e}*, i64, i64)")
def copy(x, y, at, count):
    store_tail(y, at, load_tail16(x, at, count), count)


@compiled("void({e}*, {e}*, i64, i64)")
def copy_strided(x, y, at, count):
    store_strided_tail(y, at, 1, load_strided_tail16(x, at, 1, count), count)
'''.format(e=element)
module = load_module(body, kind="kernel")
page = mmap.PAGESIZE
dtype = {"f32": np.float32, "u8": np.uint8}[element]

def guarded():
    memory = mmap.mmap(-1, 3 * page)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(address, page, 0) == 0 and protect(address + 2 * page, page, 0) == 0
    return np.frombuffer(memory, np.uint8)[page:2 * page].view(dtype)

x, y = guarded(), guarded()
x[:] = np.arange(len(x))
for kernel in (module.copy, module.copy_strided):
    for count in range(17):
        for at in (0, len(x) - count):  # at the first and the last byte that may be touched
            y[:] = 0
            kernel(x, y, at, count)
            assert (y[at:at + count] == x[at:at + count]).all() and np.count_nonzero(y) <= count
print("inside")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="uses mprotect")
@pytest.mark.parametrize("element", ["f32", "u8"])
@pytest.mark.parametrize("isa", ["", "sse"])
def test_partial_loads_and_stores_touch_nothing_beyond_their_count(element, isa):
    code = GUARD.replace("sys.argv[1]", repr(element))
    if isa and detect().isa not in ("avx512", "avx2", "sse"):
        isa = ""
    assert run_python(code, CNNCC_ISA=isa).strip() == "inside"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("load8(x, 0) + load8(z, 0)", "one type"),
        ("fma(load8(x, 0), load8(z, 0), load8(x, 0))", "one type"),
        ("load8(x, 0) + load4(x, 0)", "one type"),
        ("load8(x, 0) * f64(0.5)", "one type"),
        ("sqrt(to_i32(load8(x, 0)))", "floating-point"),
        ("select(to_i32(load8(x, 0)), load8(x, 0), load8(x, 0))", "mask"),
    ],
)
def test_mixed_operands_are_refused_not_converted(body, complaint):
    text = (
        "from cnncc.targets.cpu.compiled import compiled\n"
        "from cnncc.targets.cpu.vector import *\n\n\n"
        f'@compiled("void(f32*, f64*)")\ndef wrong(x, z):\n    v = {body}\n'
    )
    with pytest.raises(TypingError, match=complaint):
        load_module(text, kind="kernel")


def test_twins_refuse_an_index_outside():
    x = np.arange(20, dtype=np.float32)
    for wrong in (
        lambda: twins.load16(x, 5),
        lambda: twins.load1(x, -1),
        lambda: twins.store(x, 17, x[:4]),
    ):
        with pytest.raises(IndexError):
            wrong()
    with pytest.raises(TypeError):
        twins.store(x, 0, np.zeros(4))
