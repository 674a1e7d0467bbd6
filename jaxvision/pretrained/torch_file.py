"""Reads torch's `.pth` files without torch and without executing anything.

A `.pth` file is a pickle that describes tensors, and their bytes beside it: in a zip
archive since torch 1.6, in one stream before (the legacy format). A pickle is a
program; Python's own machine for it calls whatever the file names. The machine here
knows only the instructions that a dictionary of tensors needs. It imports nothing and
calls nothing from the file: the few names it accepts stand for dictionaries, tensors
and their storages, and everything else is refused by name.

Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py, which has
the same idea in `torch/_weights_only_unpickler.py`.
"""

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from jaxvision.errors import InputError

MAX_PICKLE_BYTES = 16 * 2**20
"""Bound of the tensors' description: AlexNet's has 3 KB, that of 5,000 tensors 1 MB."""
MAX_INSTRUCTIONS = 1_000_000
MAX_RANK = 8

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

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
      path: a file that `torch.save(model.state_dict(), path)` wrote, in either format.

    Returns:
      Arrays in the file's dtypes, bfloat16 widened to float32.

    Raises:
      InputError: the file is missing, truncated, damaged, holds anything but a
        dictionary of tensors, or declares what its bytes don't bear out.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return (_read_zip if is_zip else _read_legacy)(file, path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except _Refused as refused:
        raise InputError(f"{path}: {refused}") from None


class _Refused(Exception):
    """The reason why a file is not read; `read_state_dict` adds its name."""


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


def _damaged(what: str) -> NoReturn:
    _refuse(f"{what}; the file is damaged or cut off: download it again")


# -- What a pickle may hold -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name in the pickle; stands for the class or function and is not it."""

    module: str
    name: str


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
        _refuse("an OrderedDict with arguments, which torch does not write")
    return {}


def _rebuild_tensor(*args: Any) -> _Tensor:
    # (storage, offset, shape, strides); v2 adds (requires_grad, hooks[, metadata]).
    if len(args) not in (4, 6, 7):
        _refuse(f"a tensor described by {len(args)} values, not 4, 6 or 7")
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, _Storage):
        _refuse("a tensor without a storage")
    if not _is_count(offset):
        _refuse("a tensor whose offset is no whole number from 0 on")
    for numbers in (shape, strides):
        if not isinstance(numbers, tuple) or not all(map(_is_count, numbers)):
            _refuse("a tensor whose shape or strides are not whole numbers from 0 on")
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        _refuse(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
    tensor = _Tensor(storage, offset, shape, strides)
    size = math.prod(shape)
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    # An empty tensor reaches nothing, but NumPy still bounds its other dimensions.
    if math.prod(max(n, 1) for n in shape) >= 2**40:
        _refuse(f"a tensor of shape {shape}, which is absurd")
    if size and (reach > storage.length or size > storage.length):
        _refuse(
            f"a tensor of shape {shape} at offset {offset} with strides {strides}"
            f" does not lie in its storage of {storage.length} elements"
        )
    return tensor


def _rebuild_parameter(*args: Any) -> _Tensor:
    if len(args) != 3 or not isinstance(args[0], _Tensor):
        _refuse("a parameter that holds no tensor")
    return args[0]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


REBUILDERS: dict[_Global, Callable[..., Any]] = {
    _Global("collections", "OrderedDict"): _ordered_dict,
    _Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    _Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    _Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
STORAGE_CLASSES = {_Global("torch", name) for name in STORAGES}


# -- The machine ----------------------------------------------------------------------


class _Machine:
    """Runs one pickle; each method `op_...` is an instruction of that name.

    Kept apart from Python's machine for what that does on hostile input besides
    calling: a memo index of 2**32 allocates 64 GB, and hashing a key of deeply nested
    tuples overflows the C stack. Keys are strings and whole numbers here.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def run(self, data: bytes) -> tuple[Any, int]:
        """The value that `data` begins with, and the number of bytes it took."""
        stream = io.BytesIO(data)
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count > MAX_INSTRUCTIONS:
                    _refuse(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
                if opcode.name == "STOP":
                    return self.pop(), stream.tell()
                instruction = getattr(self, f"op_{opcode.name.lower()}", None)
                if instruction is None:
                    _refuse(
                        f"the pickle instruction {opcode.name} is not allowed: only a"
                        " dictionary of tensors is read"
                    )
                instruction(argument)
        except (ValueError, OverflowError, struct.error):
            _damaged("its pickle cannot be decoded")
        _damaged("its pickle has no end")

    # The stack.

    def pop(self) -> Any:
        if not self.stack or (self.marks and self.marks[-1] == len(self.stack)):
            _damaged("its pickle takes more values than there are")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            _damaged("its pickle lacks a mark")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            _damaged(f"its pickle has no {kind.__name__} where one belongs")
        return self.stack[-1]

    def op_proto(self, _: int) -> None:
        """Says which protocol follows; the instructions say it themselves."""

    op_frame = op_proto

    def op_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    # Plain values.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    op_binint = op_binint1 = op_binint2 = op_long1 = op_binfloat = push
    op_binunicode = op_short_binunicode = push
    # Files that Python 2 wrote hold their names in these.
    op_binstring = op_short_binstring = push

    def op_none(self, _: None) -> None:
        self.push(None)

    def op_newtrue(self, _: None) -> None:
        self.push(True)

    def op_newfalse(self, _: None) -> None:
        self.push(False)

    # Containers.

    def op_empty_tuple(self, _: None) -> None:
        self.push(())

    def op_empty_list(self, _: None) -> None:
        self.push([])

    def op_empty_dict(self, _: None) -> None:
        self.push({})

    def op_tuple(self, _: None) -> None:
        self.push(tuple(self.pop_to_mark()))

    def op_tuple1(self, _: None) -> None:
        self.push((self.pop(),))

    def op_tuple2(self, _: None) -> None:
        second, first = self.pop(), self.pop()
        self.push((first, second))

    def op_tuple3(self, _: None) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.push((first, second, third))

    def op_append(self, _: None) -> None:
        value = self.pop()
        self.top(list).append(value)

    def op_appends(self, _: None) -> None:
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def op_setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def op_setitems(self, _: None) -> None:
        self.set_items(self.pop_to_mark())

    def set_items(self, flat: list[Any]) -> None:
        target = self.top(dict)
        if len(flat) % 2:
            _damaged("its pickle has a key without a value")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) not in (str, int):
                _refuse(f"a dictionary with a {type(key).__name__} as its key")
            if key in target:
                _refuse(f"a dictionary has the key {key!r:.100} twice")
            target[key] = value

    # The memo: values that are used again.

    def op_binput(self, index: int) -> None:
        if not self.stack:
            _damaged("its pickle keeps a value that is not there")
        self.memo[index] = self.stack[-1]

    op_long_binput = op_binput

    def op_memoize(self, _: None) -> None:
        self.op_binput(len(self.memo))

    def op_binget(self, index: int) -> None:
        if index not in self.memo:
            _damaged("its pickle asks for a value that it never kept")
        self.push(self.memo[index])

    op_long_binget = op_binget

    # What would import and call.

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_global(module, name)

    def op_stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            _damaged("its pickle has a global whose name is no text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        known = _Global(module, name)
        if known not in REBUILDERS and known not in STORAGE_CLASSES:
            _refuse(
                f"it would call {f'{module}.{name}'!r:.100}, which is refused: only"
                " tensors are read. Save the state dict alone:"
                " torch.save(model.state_dict(), file)"
            )
        self.push(known)

    def op_reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or function not in REBUILDERS:
            _refuse("its pickle calls something that is no tensor-rebuilding function")
        if not isinstance(arguments, tuple):
            _damaged("its pickle calls a function without arguments")
        self.push(REBUILDERS[function](*arguments))

    def op_build(self, _: None) -> None:
        """Attributes of a dictionary: torch's `_metadata`, which nothing here reads."""
        if not isinstance(self.pop(), dict):
            _refuse("its pickle sets the state of an object")
        self.top(dict)

    def op_binpersid(self, _: None) -> None:
        """A storage: ("storage", class, key, device, length[, view])."""
        fields = self.pop()
        if not isinstance(fields, tuple) or len(fields) not in (5, 6):
            _refuse("a storage that is not described by 5 or 6 values")
        tag, kind, key, _, length = fields[:5]
        if tag != "storage" or not isinstance(kind, _Global):
            _refuse("a reference to something that is no storage")
        if kind not in STORAGE_CLASSES or type(key) is not str or not _is_count(length):
            _refuse("a storage whose class, key or length is none")
        if fields[5:] not in ((), (None,)):
            _refuse("a storage that is a view of another: save the file again")
        storage = _Storage(kind.name, key, length)
        if self.storages.setdefault(key, storage) != storage:
            _refuse(f"the storage {key!r:.100} is described twice, differently")
        self.push(storage)


# -- The two formats ------------------------------------------------------------------


def _read_zip(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, path.stat().st_size)
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                _refuse(
                    f"a zip archive with {len(pickles)} files data.pkl: not torch's"
                )
            folder = pickles[0].removesuffix("data.pkl")
            order = entries.get(folder + "byteorder")
            if order is not None and archive.read(order) != b"little":
                _refuse("its numbers are big-endian; save it on a usual machine")
            if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
                _refuse(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
            value, _ = _Machine().run(archive.read(entries[pickles[0]]))
            tensors = _named_tensors(value)
            contents: dict[str, bytes] = {}
            for storage in {tensor.storage for tensor in tensors.values()}:
                entry = entries.get(f"{folder}data/{storage.key}")
                if entry is None:
                    _damaged(f"the storage {storage.key!r:.100} is missing")
                if entry.file_size != _num_bytes(storage):
                    _damaged(
                        f"the storage {storage.key!r:.100} has {entry.file_size} bytes"
                        f" where {_num_bytes(storage)} are declared"
                    )
                contents[storage.key] = archive.read(entry)
            return {name: _values(t, contents) for name, t in tensors.items()}
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
        _damaged(f"its zip archive cannot be read ({str(error)[:100]!r})")


def _checked_entries(
    archive: zipfile.ZipFile, file_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            _refuse(f"its zip archive has {entry.filename!r:.100} twice")
        # torch stores without compression, so there is nothing to blow up.
        stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if not stored or entry.file_size != entry.compress_size:
            _refuse(f"{entry.filename!r:.100} in its zip archive is compressed")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > file_bytes:
        _damaged("its zip archive declares more bytes than the file has")
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
    except _Refused:
        magic = None
    if magic != LEGACY_MAGIC:
        _refuse("not a torch file; it should begin as a zip archive or torch's pickle")
    if next_pickle(_Machine()) != LEGACY_PROTOCOL:
        _refuse("a torch file of an unknown protocol: save it again")
    system = next_pickle(_Machine())
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        _refuse("its numbers are big-endian; save it on a usual machine")
    machine = _Machine()
    tensors = _named_tensors(next_pickle(machine))
    keys = next_pickle(_Machine())
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        _damaged("the list of its storages is none")
    if len(set(keys)) != len(keys) or set(keys) != set(machine.storages):
        _damaged("the list of its storages is not that of its tensors")

    file_bytes = path.stat().st_size
    contents: dict[str, bytes] = {}
    for key in keys:
        storage = machine.storages[key]
        if position + 8 + _num_bytes(storage) > file_bytes:
            _damaged(f"it ends in the middle of the storage {key!r:.100}")
        file.seek(position)
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            _damaged(
                f"the storage {key!r:.100} has {length} elements where"
                f" {storage.length} are declared"
            )
        contents[key] = file.read(_num_bytes(storage))
        position += 8 + _num_bytes(storage)
    if position != file_bytes:
        _damaged(f"{file_bytes - position} bytes follow its last storage")
    return {name: _values(tensor, contents) for name, tensor in tensors.items()}


def _named_tensors(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, dict):
        _refuse(f"it holds a {type(value).__name__}, not a dictionary of tensors")
    if not value:
        _refuse("it holds no tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            _refuse(
                f"{name!r:.100} is a {type(tensor).__name__.lstrip('_')}, not a named"
                " tensor: save the state dict alone,"
                " torch.save(model.state_dict(), file)"
            )
    return value


def _num_bytes(storage: _Storage) -> int:
    return storage.length * np.dtype(STORAGES[storage.kind]).itemsize


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
