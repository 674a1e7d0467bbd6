"""Entries are whole or not there; damage is found; the newest good one is read."""

import json
import os
import random
import shutil
import subprocess
import sys

import chex
import numpy as np
import pytest

from jaxvision.errors import InputError
from jaxvision.storage import find_damage
from jaxvision.training.checkpoint import (
    CheckpointFolder,
    flatten,
    nest,
    unflatten_like,
)


def a_tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "params": {"head": {"kernel": rng.normal(size=(64, 8)).astype(np.float32)}},
        "step": np.asarray(seed, np.int32),
        "key": np.asarray([1, seed], np.uint32),
    }


def saved(folder, *steps, kind="last"):
    checkpoints = CheckpointFolder(folder)
    for step in steps:
        checkpoints.save(kind, step, a_tree(step), {"step": step})
    checkpoints.wait()
    return checkpoints


def test_round_trip(tmp_path):
    entry = saved(tmp_path / "run", 7).load("last")
    assert (entry.step, entry.info) == (7, {"step": 7})
    chex.assert_trees_all_equal(unflatten_like(a_tree(), entry.arrays), a_tree(7))
    chex.assert_trees_all_equal(nest(entry.arrays), a_tree(7))
    for name, array in flatten(a_tree()).items():
        assert entry.arrays[name].dtype == array.dtype


def test_two_newest_of_each_kind_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 10, 9)
    saved(tmp_path, 3, kind="best")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best-00000003", "last-00000009", "last-00000010"]


def test_nothing_saved_is_none(tmp_path):
    assert CheckpointFolder(tmp_path).load("last") is None


def test_one_flipped_bit_is_found_30_times_of_30(tmp_path):
    saved(tmp_path, 1, 2)
    files = [path for path in (tmp_path / "last-00000002").rglob("*") if path.is_file()]
    rng = random.Random(0)
    for i in range(30):
        path = files[i % len(files)]
        whole = path.read_bytes()
        if not whole:
            continue
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="last-00000002: passed over"):
            entry = CheckpointFolder(tmp_path).load("last")
        assert entry.step == 1
        chex.assert_trees_all_equal(nest(entry.arrays), a_tree(1))
        path.write_bytes(whole)
    assert CheckpointFolder(tmp_path).load("last").step == 2


def test_empty_half_deleted_and_unfinished_entries_are_never_chosen(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "last-00000100").mkdir()
    shutil.copytree(tmp_path / "last-00000002", tmp_path / "last-00000050")
    (tmp_path / "last-00000050" / "info.json").unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".abc.{ended.pid}.part"
    shutil.copytree(tmp_path / "last-00000002", left)
    written = tmp_path / f".abc.{os.getpid()}.part"
    shutil.copytree(left, written)
    with pytest.warns(UserWarning, match="passed over"):
        assert CheckpointFolder(tmp_path).load("last").step == 2
    assert not left.exists()
    assert written.exists()  # by a training that goes on, perhaps


@pytest.mark.parametrize("text", ["", "[]", '{"sha256": 3}', '{"sha256": {}}'])
def test_broken_manifest_is_damage(tmp_path, text):
    saved(tmp_path, 1)
    (tmp_path / "last-00000001" / "manifest.json").write_text(text)
    assert find_damage(tmp_path / "last-00000001") is not None


def test_failed_write_is_reported_and_harms_nothing(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxvision.storage.os.rename", full)
    checkpoints.save("last", 2, a_tree(2), {})
    with pytest.raises(InputError, match="No space left on device"):
        checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["last-00000001"]
    assert checkpoints.load("last").step == 1


def test_full_disk_inside_orbax_is_bad_input_too(tmp_path, monkeypatch):
    """TensorStore reports it so; its words are passed on and not read."""
    checkpoints = saved(tmp_path, 1)

    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    checkpoints.save("last", 2, a_tree(2), {})
    with pytest.raises(InputError, match="RESOURCE_EXHAUSTED: Failed to write"):
        checkpoints.wait()
    assert checkpoints.load("last").step == 1


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        CheckpointFolder(tmp_path / "file" / "run")


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = saved(tmp_path, 1)
    checkpoints.save("last", 1, a_tree(5), {"again": True})
    checkpoints.wait()
    assert checkpoints.load("last").info == {"again": True}


def test_another_network_is_refused_by_name(tmp_path):
    entry = saved(tmp_path, 1).load("last")
    template = a_tree()
    template["params"]["head"]["kernel"] = np.zeros((64, 9), np.float32)
    template["extra"] = np.zeros(3, np.float32)
    del template["key"]
    with pytest.raises(InputError) as error:
        unflatten_like(template, entry.arrays)
    for words in ("extra is missing", "key is not expected", "[64, 8]"):
        assert words in str(error.value)


def test_manifest_lists_every_file(tmp_path):
    saved(tmp_path, 1)
    folder = tmp_path / "last-00000001"
    listed = json.loads((folder / "manifest.json").read_text())["sha256"]
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(listed) == there - {"manifest.json"}
