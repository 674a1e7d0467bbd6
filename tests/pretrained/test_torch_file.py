"""The reader of torch files: right files, and every wrong one refused in words."""

import argparse
import builtins
import os
import pickle
import random
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_writer import (
    WRITERS,
    call,
    dictionary,
    number,
    numbers,
    program,
    reference,
    storage,
    tensor,
    text,
    write_legacy,
    write_zip,
)

from jaxvision.errors import InputError
from jaxvision.pretrained.torch_file import read_state_dict

VALUES = np.arange(12, dtype=np.float32)
GOOD = dictionary({"weight": tensor("0", (3, 4)), "bias": tensor("1", (2,))})
STORAGES = {"0": VALUES.tobytes(), "1": VALUES[:2].tobytes()}

both = pytest.mark.parametrize("format", WRITERS)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@both
def test_reads_what_was_written(tmp_path, format):
    path = tmp_path / "a.pth"
    WRITERS[format](path, GOOD, STORAGES)
    tensors = read_state_dict(path)
    assert list(tensors) == ["weight", "bias"]
    np.testing.assert_array_equal(tensors["weight"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(tensors["bias"], VALUES[:2])


@both
def test_offset_and_strides(tmp_path, format):
    path = tmp_path / "a.pth"
    turned = tensor("0", (4, 2), strides=(1, 4), offset=4, length=12)
    WRITERS[format](path, dictionary({"w": turned}), {"0": VALUES.tobytes()})
    expected = VALUES.reshape(3, 4).T[:, 1:]
    np.testing.assert_array_equal(read_state_dict(path)["w"], expected)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_what_torch_writes(tmp_path, is_zip, protocol):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    floats = ["float32", "float64", "half", "bfloat16"]
    kinds = [*floats, "int64", "int32", "int16", "int8", "uint8", "bool"]
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    tensors = {
        **model.state_dict(),
        **{k: (torch.randn(5, 7) * 3).to(getattr(torch, k)).T[1:, 2:] for k in kinds},
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    torch.save(
        tensors, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol
    )
    read = read_state_dict(path)
    assert list(read) == list(tensors)
    for name, expected in tensors.items():
        wide = expected.float() if name == "bfloat16" else expected
        wide = wide.detach().numpy()
        assert read[name].dtype == wide.dtype
        np.testing.assert_array_equal(read[name], wide, strict=True)


# -- Code in the file -----------------------------------------------------------------

SHELL = text("touch {marker}")
GADGETS = {
    "os.system": call(reference("os", "system"), SHELL),
    "posix.system": call(reference("posix", "system"), SHELL),
    "builtins.eval": call(reference("builtins", "eval"), text("1")),
    "builtins.exec": call(reference("builtins", "exec"), text("1")),
    "builtins.getattr": call(reference("builtins", "getattr"), text("a"), text("b")),
    "__builtin__.eval": call(reference("__builtin__", "eval"), text("1")),
    "subprocess.Popen": call(reference("subprocess", "Popen"), SHELL),
    "runpy.run_path": call(reference("runpy", "run_path"), text("/tmp/x.py")),
    "importlib.import_module": call(
        reference("importlib", "import_module"), text("os")
    ),
    "numpy": call(
        reference("numpy.core.multiarray", "_reconstruct"),
        reference("numpy", "ndarray"),
    ),
    "numpy.load": call(reference("numpy", "load"), text("/etc/passwd")),
    "torch.load": call(reference("torch", "load"), text("/etc/passwd")),
    "torch.hub": call(reference("torch.hub", "load"), text("a/b"), text("c")),
    "torch._utils other": call(reference("torch._utils", "_import_dotted_name")),
    "dotted name": call(reference("collections", "OrderedDict.__init__.__globals__")),
    "torch dotted": call(reference("torch", "FloatStorage.__class__")),
    "only named": reference("os", "system"),
    "stack global": text("os") + text("system") + pickle.STACK_GLOBAL,
    "old instance": pickle.MARK + SHELL + pickle.INST + b"os\nsystem\n",
    "object": pickle.MARK + reference("os", "system") + SHELL + pickle.OBJ,
    "newobj": reference("os", "system") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "extension": pickle.EXT1 + b"\x01",
    "calls a storage": call(reference("torch", "FloatStorage"), number(3)),
    "calls a text": call(text("os.system"), SHELL),
    "builds a tensor": tensor("0", (3, 4))
    + pickle.EMPTY_DICT
    + text("__class__")
    + number(1)
    + pickle.SETITEM
    + pickle.BUILD,
    "text persistent id": pickle.PERSID + b"storage\n",
}


@both
@pytest.mark.parametrize("gadget", GADGETS)
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_refused_and_not_run(tmp_path, format, gadget, nested, monkeypatch):
    def executed(*_: object, **__: object) -> None:
        raise AssertionError("executed")

    for module, name in ((os, "system"), (subprocess, "Popen"), (builtins, "eval")):
        monkeypatch.setattr(module, name, executed)
    value = GADGETS[gadget]
    if nested:
        # Inside a list, inside the attributes of the dictionary.
        value = pickle.EMPTY_LIST + value + pickle.APPEND
        attributes = pickle.EMPTY_DICT + text("_metadata") + value + pickle.SETITEM
        data = program(pickle.EMPTY_DICT + attributes + pickle.BUILD)
    else:
        data = dictionary({"weight": tensor("0", (3, 4)), "x": value})
    path = tmp_path / "a.pth"
    WRITERS[format](path, data, {"0": VALUES.tobytes()})
    refused(path)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_malicious_file_of_torchs_own_is_refused_by_name(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    path, marker = tmp_path / "a.pth", tmp_path / "executed"
    bad = {"weight": torch.zeros(3), "x": _Payload(marker)}
    torch.save(bad, path, _use_new_zipfile_serialization=is_zip)
    assert "posix.system" in refused(path)
    assert not marker.exists()


# -- What does not fit together -------------------------------------------------------

WRONG = {
    "reaches past its storage": tensor("0", (3, 5), length=12),
    "offset past its storage": tensor("0", (3, 4), offset=1, length=12),
    "strides past its storage": tensor("0", (3, 4), strides=(5, 1), length=12),
    "expanded from one value": tensor("0", (10**6, 10**6), strides=(0, 0), length=12),
    "negative shape": tensor("0", (-3, -4), strides=(4, 1), length=12),
    "negative strides": tensor("0", (3, 4), strides=(-4, 1), length=12),
    "negative offset": tensor("0", (3, 4), offset=-1, length=12),
    "fewer strides": tensor("0", (3, 4), strides=(1,), length=12),
    "too many dimensions": tensor("0", (1,) * 40, length=12),
    "empty but absurd": tensor("0", (0, 2**60, 2**60), strides=(1, 1, 1), length=12),
    "absurd storage": tensor("0", (2**40,), length=2**60),
    "longer storage than its bytes": tensor("0", (3, 4), length=13),
    "shorter storage than its bytes": tensor("0", (2, 4), length=8),
    "negative length": tensor("0", (0,), strides=(1,), length=-1),
    "other dtype than its bytes": tensor("0", (3, 4), kind="DoubleStorage"),
    "missing storage": tensor("9", (3, 4)),
    "a number": number(3),
    "a dictionary": pickle.EMPTY_DICT,
    "a bare storage": storage("FloatStorage", "0", 12),
    "tensor without storage": call(
        reference("torch._utils", "_rebuild_tensor"),
        number(1),
        number(0),
        numbers((3,)),
        numbers((1,)),
    ),
    "tensor of one argument": call(
        reference("torch._utils", "_rebuild_tensor_v2"), number(1)
    ),
    "parameter of nothing": call(
        reference("torch._utils", "_rebuild_parameter"), pickle.NONE
    ),
    "two storages under one key": tensor("0", (6,), kind="LongStorage"),
}


@both
@pytest.mark.parametrize("wrong", WRONG)
def test_what_its_bytes_do_not_bear_out_is_refused(tmp_path, format, wrong):
    path = tmp_path / "a.pth"
    items = {"weight": WRONG[wrong]}
    if wrong == "two storages under one key":
        items["bias"] = tensor("0", (3, 4))
    WRITERS[format](path, dictionary(items), {"0": VALUES.tobytes()})
    refused(path)


ABUSE = {
    # Python's own machine allocates 64 GB for this.
    "huge memo index": pickle.EMPTY_DICT + pickle.LONG_BINPUT + b"\xff\xff\xff\xff",
    # Hashing this would overflow the C stack.
    "deep tuple as key": pickle.EMPTY_DICT
    + pickle.EMPTY_TUPLE
    + pickle.TUPLE1 * 200_000
    + number(1)
    + pickle.SETITEM,
    "deep list": (pickle.EMPTY_LIST * 200_000) + pickle.APPEND * 199_999,
    # Hashing this would take 2**60 steps.
    "doubling tuple as key": pickle.EMPTY_DICT
    + pickle.EMPTY_TUPLE
    + (pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.TUPLE2) * 60
    + number(1)
    + pickle.SETITEM,
    "many instructions": pickle.NONE * 1_100_000,
    "text longer than the file": pickle.BINUNICODE + b"\xff\xff\xff\x7f" + b"ab",
    "bytes of 2**62": pickle.BINBYTES8 + struct.pack("<Q", 2**62),
    "long of 2**31": pickle.LONG4 + b"\xff\xff\xff\x7f",
    "decimal": pickle.INT + b"9" * 10_000 + b"\n",
    "text that is no UTF-8": pickle.BINUNICODE + b"\x02\x00\x00\x00\xff\xff",
    "list": pickle.EMPTY_LIST,
    "nothing": b"",
    "pop from nothing": pickle.TUPLE2,
    "mark from nothing": pickle.TUPLE,
    "items for a number": number(1) + pickle.MARK + text("a") + number(1) + b"u",
    "odd items": pickle.EMPTY_DICT + pickle.MARK + text("a") + pickle.SETITEMS,
    "unknown memo": pickle.BINGET + b"\x07",
    "unknown instruction": b"\xf0",
    "the same name twice": pickle.EMPTY_DICT
    + (text("a") + tensor("0", (3, 4)) + pickle.SETITEM) * 2,
    "contains itself": pickle.EMPTY_DICT
    + pickle.BINPUT
    + b"\x00"
    + text("a")
    + pickle.BINGET
    + b"\x00"
    + pickle.SETITEM,
    "line break in a name": reference("os\rerror: all is well", "system"),
}


@both
@pytest.mark.parametrize("abuse", ABUSE)
def test_hostile_pickles_are_refused(tmp_path, format, abuse):
    path = tmp_path / "a.pth"
    WRITERS[format](path, program(ABUSE[abuse]), {"0": VALUES.tobytes()})
    refused(path)


def test_a_pickle_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxvision.pretrained.torch_file.MAX_PICKLE_BYTES", 200)
    for format, write in WRITERS.items():
        path = tmp_path / f"{format}.pth"
        write(path, GOOD, STORAGES)
        refused(path)


# -- Archives and streams -------------------------------------------------------------


@both
def test_every_truncation_is_refused(tmp_path, format):
    path = tmp_path / "a.pth"
    WRITERS[format](path, GOOD, STORAGES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)


@both
def test_mutated_bytes_are_read_or_refused_but_never_crash(tmp_path, format):
    path = tmp_path / "a.pth"
    WRITERS[format](path, GOOD, STORAGES)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(600):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(mutated)
        try:
            tensors = read_state_dict(path)
        except InputError:
            continue
        assert all(isinstance(a, np.ndarray) for a in tensors.values())
        assert sum(a.nbytes for a in tensors.values()) <= len(whole)


def test_trailing_bytes_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_legacy(path, GOOD, STORAGES)
    path.write_bytes(path.read_bytes() + b"more")
    assert "4 bytes follow" in refused(path)


def test_big_endian_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_zip(path, GOOD, STORAGES, byteorder=b"big")
    assert "big-endian" in refused(path)
    write_legacy(path, GOOD, STORAGES, little_endian=False)
    assert "big-endian" in refused(path)


def test_unknown_protocol_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_legacy(path, GOOD, STORAGES, protocol=1002)
    assert "protocol" in refused(path)


def test_a_storage_of_another_length_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_legacy(path, GOOD, {"0": STORAGES["0"][:-4], "1": STORAGES["1"]})
    refused(path)
    write_legacy(path, GOOD, {"0": STORAGES["0"]})
    refused(path)
    write_legacy(path, GOOD, {**STORAGES, "2": b"four"})
    refused(path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    bomb = {"0": bytes(48 * 10**6), "1": STORAGES["1"]}
    write_zip(path, GOOD, bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    assert "compressed" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_an_entry_twice_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_zip(path, GOOD, STORAGES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", GOOD)
    assert "twice" in refused(path)


def test_an_archive_that_declares_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    write_zip(path, GOOD, STORAGES)
    data = path.read_bytes()
    # Both sizes in the central directory's entry of the first storage.
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    at = data.index(b"PK\x01\x02", at + 1)
    huge = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data[: at + 20] + huge + data[at + 28 :])
    refused(path)


def test_other_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not torch's" in refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", pickle.dumps({})],
    ids=["empty", "html", "hdf5", "zip header", "pickle"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    refused(path)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    refused(tmp_path / "none.pth")
    refused(tmp_path)


@pytest.mark.parametrize("form", WRITERS)
def test_thousands_of_views_of_one_storage_are_refused(tmp_path, form):
    values = np.arange(100_000, dtype="<f4")
    path = tmp_path / "views.pth"
    tied = {name: tensor("0", (100_000,)) for name in ("a", "b")}
    WRITERS[form](path, dictionary(tied), {"0": values.tobytes()})
    assert all((array == values).all() for array in read_state_dict(path).values())
    views = {f"w{i}": tensor("0", (100_000,)) for i in range(2000)}
    WRITERS[form](path, dictionary(views), {"0": values.tobytes()})
    with pytest.raises(InputError, match="have 800000000 bytes, but it holds only"):
        read_state_dict(path)


def nested(**beside: bytes) -> bytes:
    """A training checkpoint: the tensors of `GOOD` as `state_dict`, other things
    beside it."""
    inside = GOOD.removeprefix(pickle.PROTO + b"\x02").removesuffix(pickle.STOP)
    return dictionary({**beside, "state_dict": inside})


@both
def test_training_checkpoint(tmp_path, format):
    path = tmp_path / "a.pth"
    flags = (
        reference("argparse", "Namespace")
        + pickle.EMPTY_TUPLE
        + pickle.NEWOBJ
        + (pickle.EMPTY_DICT + pickle.MARK + text("lr") + pickle.BINFLOAT + bytes(8))
        + (pickle.SETITEMS + pickle.BUILD)
    )
    WRITERS[format](path, nested(epoch=number(3), args=flags), STORAGES)
    tensors = read_state_dict(path)
    assert list(tensors) == ["state_dict.weight", "state_dict.bias"]
    np.testing.assert_array_equal(tensors["state_dict.bias"], VALUES[:2])


def test_training_checkpoints_that_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.DataParallel(torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for key in ("state_dict", "model_state_dict", "model"):
        path = tmp_path / f"{key}.pth"
        checkpoint = {
            "epoch": 3,
            "best": 0.5,
            key: model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "args": argparse.Namespace(lr=0.1, names=["a"], resume=None),
        }
        torch.save(checkpoint, path)
        tensors = read_state_dict(path)
        assert list(tensors) == [f"{key}.module.weight", f"{key}.module.bias"]
        expected = model.module.weight.detach().numpy()
        np.testing.assert_array_equal(tensors[f"{key}.module.weight"], expected)


def test_checkpoints_within_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    # A dictionary that holds itself.
    itself = pickle.EMPTY_DICT + pickle.BINPUT + b"\0" + pickle.MARK + text("model")
    write_zip(path, program(itself + pickle.BINGET + b"\0" + pickle.SETITEMS), {})
    assert "'model' is a dict, not a named tensor" in refused(path)
