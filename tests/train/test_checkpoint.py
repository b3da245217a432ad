"""Checkpoints: exact, verified, and whole whenever the process is killed."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cnncc.io import DataError, TensorInfo, save_state
from cnncc.train.checkpoint import Checkpoint, load, load_or_previous, previous_path, save


def make(step: int = 7, size: int = 5) -> Checkpoint:
    values = np.arange(size, dtype=np.float32) + np.float32(step)
    return Checkpoint(
        params={"c1.weight": values.reshape(1, size), "c1.bias": np.float32(step).reshape(())},
        optimiser={"c1.weight.momentum": -values, "steps": np.array([step], np.int64)},
        step=step,
        epoch=step // 3,
        seed=(1 << 64) - 1,
        counters={"dropout": 1 << 40},
        config={"lr": 0.1, "batch": 64, "net": "lenet", "sizes": [1, 2], "none": None},
        history={"loss": [0.1 + 0.2, math.inf, math.nan]},
    )


def code_of(error: pytest.ExceptionInfo[DataError]) -> str:
    return error.value.diagnostics[0].code


def same(one: Checkpoint, two: Checkpoint) -> bool:
    def bits(state):
        return {k: (v.dtype, v.shape, v.tobytes()) for k, v in state.items()}

    def facts(c):
        return repr((c.step, c.epoch, c.seed, c.counters, c.config, c.history))

    return (
        bits(one.params) == bits(two.params)
        and bits(one.optimiser) == bits(two.optimiser)
        and facts(one) == facts(two)
    )


def test_everything_comes_back_exactly(tmp_path):
    path = tmp_path / "runs" / "a.ckpt"
    save(path, make())
    found = load(path)
    expected = make()
    object.__setattr__(expected, "config", dict(sorted(expected.config.items())))
    assert same(found, expected)


def test_the_same_state_is_the_same_file(tmp_path):
    save(tmp_path / "a", make())
    save(tmp_path / "b", make())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_safetensors_reader_can_open_it(tmp_path):
    save(tmp_path / "a", make())
    arrays = safetensors.numpy.load_file(tmp_path / "a")
    assert set(arrays) == {
        "params/c1.weight",
        "params/c1.bias",
        "optimiser/c1.weight.momentum",
        "optimiser/steps",
    }


def test_the_previous_one_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.ckpt"
    save(path, make(1))
    assert not previous_path(path).exists()
    save(path, make(2))
    save(path, make(3))
    assert load(path).step == 3
    assert load(previous_path(path)).step == 2
    save(path, make(4), keep_previous=False)
    assert load(path).step == 4
    assert load(previous_path(path)).step == 2
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "a.ckpt.previous"]


def test_keeping_the_previous_one_works_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("this file system has no hard links")

    monkeypatch.setattr(os, "link", no_links)
    save(tmp_path / "a", make(1))
    save(tmp_path / "a", make(2))
    assert load(tmp_path / "a").step == 2
    assert load(tmp_path / "a.previous").step == 1


def test_every_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    save(path, make())
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    # All bytes of the values, and every third of the header, each with one bit turned.
    for at in [*range(0, header, 3), *range(header, len(whole))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        if header > at and whole[at : at + 1].isspace():
            continue  # padding of the header says nothing
        with pytest.raises(DataError) as error:
            load(path)
        assert code_of(error) in ("E0702", "E0703", "E0705", "E0707", "E0708")


@pytest.mark.parametrize("size", [0, 3, 8, 100, -1])
def test_truncation_is_noticed_and_the_way_out_is_named(tmp_path, size):
    path = tmp_path / "a.ckpt"
    save(path, make(1))
    save(path, make(2))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="load_or_previous") as error:
        load(path)
    assert code_of(error) in ("E0702", "E0703")
    found, source = load_or_previous(path)
    assert found.step == 1
    assert source == previous_path(path)


def test_load_or_previous_takes_the_present_one_when_it_is_sound(tmp_path):
    path = tmp_path / "a.ckpt"
    save(path, make(1))
    save(path, make(2))
    found, source = load_or_previous(path)
    assert found.step == 2
    assert source == path


def test_load_or_previous_raises_the_first_error_when_both_are_bad(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(DataError, match="there is no file"):
        load_or_previous(path)
    path.write_bytes(b"x")
    previous_path(path).write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.ckpt has 1 bytes"):
        load_or_previous(path)


def test_another_networks_checkpoint_is_refused_and_not_replaced_by_the_previous(tmp_path):
    path = tmp_path / "a.ckpt"
    save(path, make(size=5))
    save(path, make(size=6))
    wanted = {
        "c1.weight": TensorInfo(np.dtype(np.float32), (1, 5)),
        "c1.bias": TensorInfo(np.dtype(np.float32), ()),
    }
    for read in (load, load_or_previous):
        with pytest.raises(DataError, match="does not fit") as error:
            read(path, expect_params=wanted)
        assert code_of(error) == "E0707"
    with pytest.raises(DataError, match="does not fit"):
        load(path, expect_optimiser={})
    assert load(previous_path(path), expect_params=wanted).step == 7


def test_weights_are_not_a_checkpoint(tmp_path):
    save_state(tmp_path / "w.safetensors", {"a": np.ones(1)})
    with pytest.raises(DataError, match="not a checkpoint of cnncc") as error:
        load(tmp_path / "w.safetensors")
    assert code_of(error) == "E0708"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99; this cnncc reads 1"),
        ({"step": -1}, "damaged"),
        ({"step": 1.5}, "damaged"),
        ({"step": True}, "damaged"),
        ({"counters": {"a": 1 << 64}}, "damaged"),
        ({"counters": [1]}, "damaged"),
        ({"history": {"loss": "x"}}, "damaged"),
        ({"config": []}, "damaged"),
        ({"more": 1}, "damaged"),
        ({"step": 8}, "does not match its digest"),
        ({"config": {"lr": 0.2}}, "does not match its digest"),
    ],
)
def test_foreign_metadata_is_refused(tmp_path, change, message):
    path = tmp_path / "a.ckpt"
    save(path, make())
    with safetensors.safe_open(path, "np") as file:
        facts = json.loads(file.metadata()["cnncc.checkpoint"])
    arrays = safetensors.numpy.load_file(path)
    save_state(path, arrays, {"cnncc.checkpoint": json.dumps({**facts, **change})})
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert code_of(error) == "E0708"


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "null", "NaN"])
def test_metadata_that_is_no_object_is_refused(tmp_path, text):
    save_state(tmp_path / "a", {}, {"cnncc.checkpoint": text})
    with pytest.raises(DataError) as error:
        load(tmp_path / "a")
    assert code_of(error) == "E0708"


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a.ckpt"
    for wrong in (
        Checkpoint({}, step=-1),
        Checkpoint({}, seed=1 << 64),
        Checkpoint({}, counters={"dropout": -1}),
    ):
        with pytest.raises(ValueError, match="whole number"):
            save(path, wrong)
    for config in ({"a": (1, 2)}, {1: 2}, {"a": object()}):
        with pytest.raises(TypeError):
            save(path, Checkpoint({}, config=config))
    assert not path.exists()


KILLED = """
import os, sys
import numpy as np
from cnncc.train.checkpoint import Checkpoint, load_or_previous, save
path, size = sys.argv[1], int(sys.argv[2])
# Everything is imported once; a child is forked for each life, so that a kill costs little.
for life in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        step = load_or_previous(path)[0].step if os.path.exists(path) else 0
        while True:
            step += 1
            values = np.full(size, step, np.float32)
            save(path, Checkpoint({"w": values}, {"m": values}, step=step))
            os.write(1, b"%d\\n" % step)
    sys.stdin.readline()
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


def test_a_killed_process_loses_no_acknowledged_save(tmp_path):
    """20 times: save in a loop, kill -9 at a random moment, look at what is there."""
    lives = 20
    path = tmp_path / "a.ckpt"
    rng = np.random.default_rng(0)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), "20000", str(lives)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    acknowledged, most = 0, 0
    with process:
        for _ in range(lives):
            acknowledged = max(acknowledged, int(process.stdout.readline()))
            time.sleep(rng.uniform(0, 0.03))
            process.stdin.write("kill\n")
            process.stdin.flush()
            while (line := process.stdout.readline()) != "dead\n":
                acknowledged = max(acknowledged, int(line))
            found = load(path)
            assert found.step >= acknowledged
            assert (found.params["w"] == found.step).all()
            assert (found.optimiser["m"] == found.step).all()
            assert found.step == 1 or load(previous_path(path)).step >= found.step - 1
            most = max(most, len(os.listdir(tmp_path)))
    assert process.returncode == 0
    assert acknowledged >= lives
    assert most <= 3  # the file, the previous one, and at most one leftover
    save(path, make())
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "a.ckpt.previous"]


EVERY_STEP = """
import os, sys
import numpy as np
import cnncc.io.replace as replace
from cnncc.train.checkpoint import Checkpoint, load, save

path = sys.argv[1]
STEPS = [(os, "replace"), (os, "link"), (os, "fsync"), (os, "open"), (os, "close"),
         (replace.tempfile, "mkdtemp"), (replace.shutil, "rmtree"), (replace.Path, "chmod")]


def die_at(number, late):
    passed = 0
    def dying(real):
        def call(*arguments, **keywords):
            nonlocal passed
            passed += 1
            if passed == number and not late:
                os._exit(9)
            result = real(*arguments, **keywords)
            if passed == number:
                os._exit(9)
            return result
        return call
    for home, name in STEPS:
        setattr(home, name, dying(getattr(home, name)))


save(path, Checkpoint({"w": np.ones(3)}, step=1))
for late in (False, True):
    number, code = 0, 9
    while code == 9:
        number += 1
        child = os.fork()
        if child == 0:
            die_at(number, late)
            save(path, Checkpoint({"w": np.ones(3)}, step=load(path).step + 1))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(number, code, load(path).step, flush=True)
"""


def test_a_crash_at_any_single_step_leaves_a_whole_checkpoint(tmp_path):
    """Die before and after each call that changes the disk, one after the other."""
    path = tmp_path / "a.ckpt"
    done = subprocess.run(
        [sys.executable, "-c", EVERY_STEP, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [code for _, code, _ in outcomes].count(0) == 2
    assert max(number for number, _, _ in outcomes) >= 10
    steps = [step for _, _, step in outcomes]
    assert steps == sorted(steps)
    assert steps[0] == 1  # the first call comes before anything is installed
    assert steps[-1] > 2


def test_a_save_in_progress_is_not_taken_for_a_leftover(tmp_path, monkeypatch):
    """While one save writes, another one to the same path must leave its folder alone."""
    path = tmp_path / "a.ckpt"
    real = safetensors.numpy.save_file
    nested = []

    def save_twice(*arguments, **keywords):
        if not nested:
            nested.append(True)
            other = subprocess.run(
                [sys.executable, "-c", ONE_SAVE, str(path)],
                cwd=Path(__file__).parents[2],
                check=False,
            )
            nested.append(other.returncode)
        real(*arguments, **keywords)

    monkeypatch.setattr("cnncc.io.safetensors.save_file", save_twice)
    save(path, make(9))
    assert nested == [True, 0]
    assert load(path).step == 9
    assert load(previous_path(path)).step == 1


ONE_SAVE = """
import sys
from cnncc.train.checkpoint import Checkpoint, save
save(sys.argv[1], Checkpoint({}, step=1))
"""
