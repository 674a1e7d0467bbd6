"""Damaged files of weights: torch's two formats, pickled arrays, HDF5."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from mutations import mutated
from torch_writer import dictionary, tensor, write_legacy
from torch_writer import write_zip as write_torch_zip

from jaxvision.errors import InputError
from jaxvision.pretrained.keras_file import read_weights
from jaxvision.pretrained.numpy_file import read_arrays
from jaxvision.pretrained.torch_file import read_state_dict

Read = Callable[[Path], object]


def originals(folder: Path) -> list[tuple[Read, bytes]]:
    values = np.arange(12, dtype="<f4")
    names = {f"layer{i}.weight": tensor(str(i), (3, 4)) for i in (0, 1)}
    storages = {str(i): values.tobytes() for i in (0, 1)}
    data_pickle = dictionary(names)
    write_torch_zip(folder / "zip", data_pickle, storages)
    write_legacy(folder / "legacy", data_pickle, storages)
    arrays = {"conv": {"kernel": values.reshape(3, 4), "bias": values[:4].copy()}}
    (folder / "pickle").write_bytes(pickle.dumps(arrays, 4))
    return [
        (read_state_dict, (folder / "zip").read_bytes()),
        (read_state_dict, (folder / "legacy").read_bytes()),
        (read_arrays, (folder / "pickle").read_bytes()),
    ]


def hdf5(path: Path) -> bytes:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1", b"dense"]
        for name in ("conv1", "dense"):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode()]
            group[f"{name}/kernel:0"] = np.ones((3, 4), np.float32)
    return path.read_bytes()


def check(read: Read, path: Path) -> None:
    message = ""
    try:
        read(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def test_damaged_torch_files_and_pickles(
    tmp_path: Path, cases: Callable[[int], Iterator[np.random.Generator]]
) -> None:
    known, path = originals(tmp_path), tmp_path / "weights"
    for read, data in known:
        path.write_bytes(data)
        assert read(path)
    for rng in cases(1500):
        read, data = known[rng.integers(len(known))]
        path.write_bytes(mutated(data, rng))
        check(read, path)


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGXCPU"), reason="no limits")
def test_damaged_hdf5(
    tmp_path: Path,
    cases: Callable[[int], Iterator[np.random.Generator]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jaxvision.pretrained.keras_file.CHILD_SECONDS", 3)
    data, path = hdf5(tmp_path / "good.h5"), tmp_path / "weights.h5"
    assert read_weights(tmp_path / "good.h5").is_ordered
    for rng in cases(8):
        path.write_bytes(mutated(data, rng))
        check(read_weights, path)
