"""Reads torch's `.pth` files without torch and without executing anything.

A `.pth` file is a pickle that describes tensors, and their bytes beside it: in a zip
archive since torch 1.6, in one stream before (the legacy format). A pickle is a
program; it is run by a machine that imports nothing and calls nothing from the file
(`jaxvision.pretrained.pickle_machine`). The few names it accepts here stand for
dictionaries, tensors and their storages.

Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py, which has
the same idea in `torch/_weights_only_unpickler.py`.
"""

import dataclasses
import math
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from jaxvision.errors import InputError
from jaxvision.pretrained.pickle_machine import (
    MAX_RANK,
    Global,
    Machine,
    Refused,
    damaged,
    is_count,
    refuse,
)

MAX_PICKLE_BYTES = 16 * 2**20
"""Bound of the tensors' description: AlexNet's has 3 KB, that of 5,000 tensors 1 MB."""

MAX_SHARED = 2
"""Tied weights are tensors that share a storage: all but twice what is held."""

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of the two formats begin; the second is a pickle of the magic number."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

NESTS = ("state_dict", "model_state_dict", "model")
"""Where training checkpoints have the state dict, beside epoch and optimizer."""

# Storage class -> NumPy dtype (little-endian) of its bytes.
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # NumPy has no bfloat16: `_values` widens it
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<u1",
}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a torch state dict, by name, in the file's order.

    Args:
      path: a file that `torch.save(model.state_dict(), path)` wrote, in either format;
        or a training checkpoint that has the state dict as one of `NESTS`.

    Returns:
      Arrays in the file's dtypes, bfloat16 widened to float32. Those of a training
      checkpoint are named as `state_dict.conv1.weight`.

    Raises:
      InputError: the file is missing, truncated, damaged, holds anything but a
        dictionary of tensors, or declares what its bytes don't bear out.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == ZIP_START
            file.seek(0)
            return (_read_zip if is_zip else _read_legacy)(file, path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except Refused as refused:
        raise InputError(f"{path}: {refused}") from None


# -- What a pickle may hold -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    length: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Offset and strides in elements, as torch counts them."""


def _ordered_dict(*args: Any) -> dict:
    if args:
        refuse("an OrderedDict with arguments, which torch does not write")
    return {}


def _rebuild_tensor(*args: Any) -> _Tensor:
    # (storage, offset, shape, strides); v2 adds (requires_grad, hooks[, metadata]).
    if len(args) not in (4, 6, 7):
        refuse(f"a tensor described by {len(args)} values, not 4, 6 or 7")
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, _Storage):
        refuse("a tensor without a storage")
    if not is_count(offset):
        refuse("a tensor whose offset is no whole number from 0 on")
    for numbers in (shape, strides):
        if not isinstance(numbers, tuple) or not all(map(is_count, numbers)):
            refuse("a tensor whose shape or strides are not whole numbers from 0 on")
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        refuse(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
    tensor = _Tensor(storage, offset, shape, strides)
    size = math.prod(shape)
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    # An empty tensor reaches nothing, but NumPy still bounds its other dimensions.
    if math.prod(max(n, 1) for n in shape) >= 2**40:
        refuse(f"a tensor of shape {shape}, which is absurd")
    if size and (reach > storage.length or size > storage.length):
        refuse(
            f"a tensor of shape {shape} at offset {offset} with strides {strides}"
            f" does not lie in its storage of {storage.length} elements"
        )
    return tensor


def _rebuild_parameter(*args: Any) -> _Tensor:
    if len(args) != 3 or not isinstance(args[0], _Tensor):
        refuse("a parameter that holds no tensor")
    return args[0]


_NAMESPACE = Global("argparse", "Namespace")
"""The flags of a training, which many checkpoints hold; nothing here reads them."""


class _Machine(Machine):
    """Knows what a state dict needs."""

    rebuilders: ClassVar = {
        Global("collections", "OrderedDict"): _ordered_dict,
        Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    }
    names: ClassVar = frozenset(
        {*(Global("torch", name) for name in STORAGES), _NAMESPACE}
    )
    holds = "a dictionary of tensors"
    advice = " Save the state dict alone: torch.save(model.state_dict(), file)"

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[str, _Storage] = {}

    # Files that Python 2 wrote hold their names in these.
    op_binstring = op_short_binstring = Machine.push

    def op_newobj(self, _: None) -> None:
        """An object before its attributes."""
        arguments, kind = self.pop(), self.pop()
        if kind != _NAMESPACE or arguments != ():
            refuse("its pickle makes an object that is no part of a state dict")
        self.push({})

    def op_build(self, _: None) -> None:
        """Attributes of a dictionary, torch's `_metadata`, or of flags; nothing here
        reads them."""
        if not isinstance(self.pop(), dict):
            refuse("its pickle sets the state of an object")
        self.top(dict)

    def op_binpersid(self, _: None) -> None:
        """A storage: ("storage", class, key, device, length[, view])."""
        fields = self.pop()
        if not isinstance(fields, tuple) or len(fields) not in (5, 6):
            refuse("a storage that is not described by 5 or 6 values")
        tag, kind, key, _, length = fields[:5]
        if tag != "storage" or not isinstance(kind, Global):
            refuse("a reference to something that is no storage")
        if kind not in self.names or type(key) is not str or not is_count(length):
            refuse("a storage whose class, key or length is none")
        if fields[5:] not in ((), (None,)):
            refuse("a storage that is a view of another: save the file again")
        storage = _Storage(kind.name, key, length)
        if self.storages.setdefault(key, storage) != storage:
            refuse(f"the storage {key!r:.100} is described twice, differently")
        self.push(storage)


# -- The two formats ------------------------------------------------------------------


def _read_zip(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, path.stat().st_size)
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                refuse(f"a zip archive with {len(pickles)} files data.pkl: not torch's")
            folder = pickles[0].removesuffix("data.pkl")
            order = entries.get(folder + "byteorder")
            if order is not None and archive.read(order) != b"little":
                refuse("its numbers are big-endian; save it on a usual machine")
            if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
                refuse(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
            value, _ = _Machine().run(archive.read(entries[pickles[0]]))
            tensors = _named_tensors(value)
            contents: dict[str, bytes] = {}
            for storage in {tensor.storage for tensor in tensors.values()}:
                entry = entries.get(f"{folder}data/{storage.key}")
                if entry is None:
                    damaged(f"the storage {storage.key!r:.100} is missing")
                if entry.file_size != _num_bytes(storage):
                    damaged(
                        f"the storage {storage.key!r:.100} has {entry.file_size} bytes"
                        f" where {_num_bytes(storage)} are declared"
                    )
                contents[storage.key] = archive.read(entry)
            return _all_values(tensors, contents)
    # What zipfile raises on damaged archives, besides its own error.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
        EOFError,
        struct.error,
    ) as error:
        damaged(f"its zip archive cannot be read ({str(error)[:100]!r})")


def _checked_entries(
    archive: zipfile.ZipFile, file_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            refuse(f"its zip archive has {entry.filename!r:.100} twice")
        # torch stores without compression, so there is nothing to blow up.
        stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if not stored or entry.file_size != entry.compress_size:
            refuse(f"{entry.filename!r:.100} in its zip archive is compressed")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > file_bytes:
        damaged("its zip archive declares more bytes than the file has")
    return entries


def _read_legacy(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    position = 0

    def next_pickle(machine: _Machine) -> Any:
        nonlocal position
        file.seek(position)
        value, length = machine.run(file.read(MAX_PICKLE_BYTES))
        position += length
        return value

    try:
        magic = next_pickle(_Machine())
    except Refused:
        magic = None
    if magic != LEGACY_MAGIC:
        refuse("not a torch file; it should begin as a zip archive or torch's pickle")
    if next_pickle(_Machine()) != LEGACY_PROTOCOL:
        refuse("a torch file of an unknown protocol: save it again")
    system = next_pickle(_Machine())
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        refuse("its numbers are big-endian; save it on a usual machine")
    machine = _Machine()
    tensors = _named_tensors(next_pickle(machine))
    keys = next_pickle(_Machine())
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        damaged("the list of its storages is none")
    if len(set(keys)) != len(keys) or set(keys) != set(machine.storages):
        damaged("the list of its storages is not that of its tensors")

    file_bytes = path.stat().st_size
    contents: dict[str, bytes] = {}
    for key in keys:
        storage = machine.storages[key]
        if position + 8 + _num_bytes(storage) > file_bytes:
            damaged(f"it ends in the middle of the storage {key!r:.100}")
        file.seek(position)
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            damaged(
                f"the storage {key!r:.100} has {length} elements where"
                f" {storage.length} are declared"
            )
        contents[key] = file.read(_num_bytes(storage))
        position += 8 + _num_bytes(storage)
    if position != file_bytes:
        damaged(f"{file_bytes - position} bytes follow its last storage")
    return _all_values(tensors, contents)


def _named_tensors(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, dict):
        refuse(f"it holds a {type(value).__name__}, not a dictionary of tensors")
    if not value:
        refuse("it holds no tensors")
    for nest in NESTS:
        inside = value.get(nest)
        if isinstance(inside, dict) and inside:
            # Once, for what a hostile file nests has no end.
            tensors = _only_tensors(inside)
            return {f"{nest}.{name}": tensor for name, tensor in tensors.items()}
    return _only_tensors(value)


def _only_tensors(value: dict) -> dict[str, _Tensor]:
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            refuse(
                f"{name!r:.100} is a {type(tensor).__name__.lstrip('_')}, not a named"
                " tensor: save the state dict alone,"
                " torch.save(model.state_dict(), file)"
            )
    return value


def _num_bytes(storage: _Storage) -> int:
    return storage.length * _item_bytes(storage)


def _item_bytes(storage: _Storage) -> int:
    return np.dtype(STORAGES[storage.kind]).itemsize


def _all_values(
    tensors: dict[str, _Tensor], contents: dict[str, bytes]
) -> dict[str, np.ndarray]:
    """Arrays by name; they may be views of one storage, but not of more bytes in all
    than `MAX_SHARED` times what the file holds."""
    held = sum(map(len, contents.values()))
    wanted = sum(math.prod(t.shape) * _item_bytes(t.storage) for t in tensors.values())
    if wanted > MAX_SHARED * held:
        refuse(f"its tensors have {wanted} bytes, but it holds only {held}")
    return {name: _values(tensor, contents) for name, tensor in tensors.items()}


def _values(tensor: _Tensor, contents: dict[str, bytes]) -> np.ndarray:
    dtype = np.dtype(STORAGES[tensor.storage.kind])
    flat = np.frombuffer(contents[tensor.storage.key], dtype)
    if math.prod(tensor.shape) == 0:
        array = np.zeros(tensor.shape, dtype)
    else:
        # `_rebuild_tensor` has checked that every element lies in the storage.
        array = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :],
            tensor.shape,
            [stride * dtype.itemsize for stride in tensor.strides],
            writeable=False,
        )
    array = np.ascontiguousarray(array).reshape(tensor.shape)
    if tensor.storage.kind == "BFloat16Storage":
        # A bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    if tensor.storage.kind == "BoolStorage":
        return array != 0
    return array
