"""Writes torch files by hand, byte for byte, right ones and wrong ones; needs no torch.

Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    return pickle.LONG1 + b"\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE


def reference(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def storage(kind: str, key: str, length: int) -> bytes:
    fields = (
        text("storage")
        + reference("torch", kind)
        + text(key)
        + text("cpu")
        + number(length)
    )
    return pickle.MARK + fields + pickle.TUPLE + pickle.BINPERSID


def tensor(
    key: str,
    shape: tuple[int, ...],
    *,
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    length: int | None = None,
    kind: str = "FloatStorage",
) -> bytes:
    """A tensor's description; what is not given is what it should be."""
    size = int(np.prod(shape))
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return call(
        reference("torch._utils", "_rebuild_tensor_v2"),
        storage(kind, key, size if length is None else length),
        number(offset),
        numbers(shape),
        numbers(strides),
        pickle.NEWFALSE,
        call(reference("collections", "OrderedDict")),
    )


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """A whole pickle: a dict of described values."""
    pairs = b"".join(text(name) + value for name, value in items.items())
    return program(pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS)


def program(instructions: bytes) -> bytes:
    return pickle.PROTO + b"\x02" + instructions + pickle.STOP


def write_zip(
    path: Path,
    data_pickle: bytes,
    storages: Mapping[str, bytes],
    *,
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data_pickle)
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")


def write_legacy(
    path: Path,
    data_pickle: bytes,
    storages: Mapping[str, bytes],
    *,
    little_endian: bool = True,
    protocol: int = 1001,
    item_bytes: int = 4,
) -> None:
    system = {"protocol_version": 1001, "little_endian": little_endian}
    parts = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(protocol, 2),
        pickle.dumps(system, 2),
        data_pickle,
        pickle.dumps(list(storages), 2),
    ]
    for data in storages.values():
        parts += [struct.pack("<q", len(data) // item_bytes), data]
    path.write_bytes(b"".join(parts))


WRITERS = {"zip": write_zip, "legacy": write_legacy}
