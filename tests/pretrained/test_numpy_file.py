"""The reader of pickled arrays: right files, and every wrong one refused in words."""

import builtins
import os
import pickle
import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch_writer import call, dictionary, number, numbers, program, reference, text

from jaxvision.errors import InputError
from jaxvision.pretrained.numpy_file import MAX_FILE_BYTES, read_arrays

VALUES = np.arange(12, dtype=np.float32)
ARRAYS = {"net": {"conv": {"kernel": VALUES.reshape(3, 4), "bias": VALUES[:2].copy()}}}


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_arrays(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Python writes protocol 4 and 5 alike, but for arrays.
@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_what_numpy_writes(tmp_path, protocol):
    path = tmp_path / "a.ckpt"
    rng = np.random.default_rng(0)
    kinds = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]
    arrays = {kind: (rng.random((5, 7)) * 3).astype(kind) for kind in kinds}
    arrays |= {
        "fortran": np.asfortranarray(rng.random((3, 5))),
        "turned": rng.random((4, 6)).T[1:, ::2],
        "empty": np.zeros((0, 3)),
        "scalar": np.array(3.0),
    }
    path.write_bytes(pickle.dumps({"a": arrays, "b": {"c": {}}}, protocol))
    read = read_arrays(path)
    assert list(read) == [f"a/{name}" for name in arrays]
    for name, expected in arrays.items():
        np.testing.assert_array_equal(read[f"a/{name}"], expected, strict=True)


def raw(data: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(data)) + data


def dtype(name: str = "f4", order: str = "<", *, extra: bytes = number(0)) -> bytes:
    begun = call(
        reference("numpy", "dtype"), text(name), pickle.NEWFALSE, pickle.NEWTRUE
    )
    nothing = pickle.NONE * 3
    state = number(3) + text(order) + nothing + number(-1) + number(-1) + extra
    return begun + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def begun(module: str = "numpy.core.multiarray") -> bytes:
    kind = reference("numpy", "ndarray")
    return call(reference(module, "_reconstruct"), kind, numbers((0,)), raw(b"b"))


def filled(
    *,
    shape: bytes = numbers((3, 4)),
    kind: bytes | None = None,
    data: bytes = VALUES.tobytes(),
    version: int = 1,
    is_fortran: bytes = pickle.NEWFALSE,
) -> bytes:
    """What follows `begun`."""
    kind = dtype() if kind is None else kind
    state = number(version) + shape + kind + is_fortran + raw(data)
    return pickle.MARK + state + pickle.TUPLE + pickle.BUILD


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_reads_what_an_older_numpy_wrote(tmp_path, module):
    path = tmp_path / "a.ckpt"
    path.write_bytes(dictionary({"weight": begun(module) + filled()}))
    np.testing.assert_array_equal(read_arrays(path)["weight"], VALUES.reshape(3, 4))


# -- Code in the file -----------------------------------------------------------------

SHELL = text("touch {marker}")
GADGETS = {
    "os.system": call(reference("os", "system"), SHELL),
    "posix.system": call(reference("posix", "system"), SHELL),
    "builtins.eval": call(reference("builtins", "eval"), text("1")),
    "builtins.getattr": call(reference("builtins", "getattr"), text("a"), text("b")),
    "subprocess.Popen": call(reference("subprocess", "Popen"), SHELL),
    "codecs": call(reference("_codecs", "encode"), text("a"), text("latin1")),
    "numpy.load": call(reference("numpy", "load"), text("/etc/passwd")),
    "numpy.fromfile": call(reference("numpy", "fromfile"), text("/etc/passwd")),
    "numpy dotted": call(reference("numpy", "ndarray.tofile"), text("/tmp/x")),
    "another ndarray": call(
        reference("numpy.core.multiarray", "_reconstruct"),
        reference("numpy", "dtype"),
        numbers((0,)),
        raw(b"b"),
    ),
    "a scalar": call(
        reference("numpy.core.multiarray", "scalar"), dtype(), raw(bytes(4))
    ),
    "frombuffer": call(
        reference("numpy._core.numeric", "_frombuffer"), raw(bytes(4)), dtype()
    ),
    "torch": call(reference("torch._utils", "_rebuild_tensor_v2"), number(1)),
    "a subclass": call(reference("numpy", "memmap"), text("/etc/passwd")),
    "calls ndarray": call(reference("numpy", "ndarray"), numbers((3,))),
    "only named": reference("os", "system"),
    "ndarray itself": reference("numpy", "ndarray"),
    "stack global": text("os") + text("system") + pickle.STACK_GLOBAL,
    "old instance": pickle.MARK + SHELL + pickle.INST + b"os\nsystem\n",
    "object": pickle.MARK + reference("os", "system") + SHELL + pickle.OBJ,
    "newobj": reference("numpy", "ndarray") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "extension": pickle.EXT1 + b"\x01",
    "persistent": text("a") + pickle.BINPERSID,
    "state of a dictionary": pickle.EMPTY_DICT + pickle.EMPTY_DICT + pickle.BUILD,
    "state of a name": reference("numpy", "ndarray") + pickle.EMPTY_DICT + pickle.BUILD,
    "an array of objects": begun() + filled(kind=dtype("O8", "|")),
    "a dtype of fields": begun() + filled(kind=dtype("V4", "|")),
}


@pytest.mark.parametrize("gadget", GADGETS)
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_refused_and_not_run(tmp_path, gadget, nested, monkeypatch):
    def executed(*_: object, **__: object) -> None:
        raise AssertionError("executed")

    for module, name in ((os, "system"), (subprocess, "Popen"), (builtins, "eval")):
        monkeypatch.setattr(module, name, executed)
    value = GADGETS[gadget]
    if nested:
        value = pickle.EMPTY_DICT + text("inner") + value + pickle.SETITEM
    path = tmp_path / "a.ckpt"
    path.write_bytes(dictionary({"weight": begun() + filled(), "x": value}))
    refused(path)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_of_pythons_own_is_refused(tmp_path, protocol):
    path, marker = tmp_path / "a.ckpt", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"x": _Payload(marker)}, protocol))
    refused(path)
    assert not marker.exists()
    objects = {"x": np.array([_Payload(marker)])}
    path.write_bytes(pickle.dumps(objects, protocol))
    refused(path)
    assert not marker.exists()


# -- What does not fit together -------------------------------------------------------

DEEP = pickle.EMPTY_TUPLE + pickle.TUPLE1 * 200_000
WRONG = {
    "fewer bytes": filled(data=VALUES.tobytes()[:-4]),
    "more bytes": filled(data=VALUES.tobytes() + bytes(4)),
    "bytes of another dtype": filled(kind=dtype("f8")),
    "a negative shape": filled(shape=numbers((-3, -4))),
    "an absurd shape": filled(shape=numbers((2**40, 2**40)), data=b""),
    "empty but absurd": filled(shape=numbers((0, 2**60)), data=b""),
    "too many dimensions": filled(shape=numbers((1,) * 40), data=bytes(4)),
    "a shape that is none": filled(shape=number(12)),
    "a deep shape": filled(shape=DEEP),
    "a text for bytes": pickle.MARK
    + number(1)
    + numbers((3, 4))
    + dtype()
    + pickle.NEWFALSE
    + text("a" * 48)
    + pickle.TUPLE
    + pickle.BUILD,
    "another version": filled(version=2),
    "a number for Fortran": filled(is_fortran=number(1)),
    "another big-endian dtype": filled(kind=dtype("f4", ">")),
    "a native dtype": filled(kind=dtype("f4", "=")),
    "an unknown dtype": filled(kind=dtype("f3")),
    "an absurd dtype": filled(kind=dtype("f4" * 10_000)),
    "a complex dtype": filled(kind=dtype("c8")),
    "a dtype with flags": filled(kind=dtype(extra=number(63))),
    "a dtype with metadata": filled(kind=dtype(extra=number(0) + pickle.EMPTY_DICT)),
    "a dtype that is not complete": filled(
        kind=call(
            reference("numpy", "dtype"), text("f4"), pickle.NEWFALSE, pickle.NEWTRUE
        )
    ),
    "a dtype of a deep tuple": filled(
        kind=call(reference("numpy", "dtype"), DEEP, pickle.NEWFALSE, pickle.NEWTRUE)
    ),
    "no dtype": filled(kind=text("f4")),
    "state that is no tuple": pickle.EMPTY_DICT + pickle.BUILD,
    "filled twice": filled() + filled(),
    "not filled": b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_its_bytes_do_not_bear_out_is_refused(tmp_path, wrong):
    path = tmp_path / "a.ckpt"
    path.write_bytes(dictionary({"weight": begun() + WRONG[wrong]}))
    refused(path)


ARRAY = begun() + filled()
ABUSE = {
    # Python's own machine allocates 64 GB for this.
    "huge memo index": pickle.EMPTY_DICT + pickle.LONG_BINPUT + b"\xff\xff\xff\xff",
    "contains itself": pickle.EMPTY_DICT
    + pickle.BINPUT
    + b"\x00"
    + text("a")
    + pickle.BINGET
    + b"\x00"
    + pickle.SETITEM,
    # Each dictionary holds the one before it twice: 2**40 paths.
    "doubling dictionaries": pickle.EMPTY_DICT
    + b"".join(
        pickle.BINPUT
        + bytes([i])
        + pickle.EMPTY_DICT
        + (text("a") + pickle.BINGET + bytes([i]) + pickle.SETITEM)
        + (text("b") + pickle.BINGET + bytes([i]) + pickle.SETITEM)
        for i in range(40)
    ),
    "deep and empty": (pickle.EMPTY_DICT + text("a")) * 100_000
    + pickle.EMPTY_DICT
    + pickle.SETITEM * 100_000,
    "deep tuple as key": pickle.EMPTY_DICT + DEEP + number(1) + pickle.SETITEM,
    "number as key": pickle.EMPTY_DICT + number(1) + ARRAY + pickle.SETITEM,
    "slash in a key": pickle.EMPTY_DICT + text("a/b") + ARRAY + pickle.SETITEM,
    "empty key": pickle.EMPTY_DICT + text("") + ARRAY + pickle.SETITEM,
    "a list": pickle.EMPTY_DICT + text("a") + pickle.EMPTY_LIST + pickle.SETITEM,
    "a deep list": pickle.EMPTY_DICT
    + text("a")
    + pickle.EMPTY_LIST * 200_000
    + pickle.APPEND * 199_999
    + pickle.SETITEM,
    "the same name twice": pickle.EMPTY_DICT + (text("a") + ARRAY + pickle.SETITEM) * 2,
    "many instructions": pickle.NONE * 1_100_000,
    "bytes longer than the file": pickle.BINBYTES + b"\xff\xff\xff\x7f" + b"ab",
    "bytes of 2**62": pickle.BINBYTES8 + struct.pack("<Q", 2**62),
    "buffer beside the file": pickle.NEXT_BUFFER,
    "an array alone": ARRAY,
    "an empty dictionary": pickle.EMPTY_DICT,
    "nothing": b"",
}


@pytest.mark.parametrize("abuse", ABUSE)
def test_hostile_pickles_are_refused(tmp_path, abuse):
    path = tmp_path / "a.ckpt"
    path.write_bytes(program(ABUSE[abuse]))
    refused(path)


def test_a_file_beyond_the_bound_is_not_read(tmp_path):
    path = tmp_path / "a.ckpt"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no room
    assert "bytes" in refused(path)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    whole = pickle.dumps(ARRAYS, 3)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(whole + b"more")
    assert "4 bytes follow" in refused(path)


def test_mutated_bytes_are_read_or_refused_but_never_crash(tmp_path):
    path = tmp_path / "a.ckpt"
    whole = pickle.dumps(ARRAYS, 3)
    rng = random.Random(0)
    refusals = 0
    for _ in range(3000):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(mutated)
        try:
            arrays = read_arrays(path)
        except InputError:
            refusals += 1
            continue
        assert all(isinstance(a, np.ndarray) for a in arrays.values())
        assert all(a.dtype.kind in "fiub" for a in arrays.values())
    assert refusals > 1000


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"],
    ids=["empty", "html", "hdf5", "zip header"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    refused(path)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    refused(tmp_path / "none.ckpt")
    refused(tmp_path)
