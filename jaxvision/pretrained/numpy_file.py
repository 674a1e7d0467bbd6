"""Reads pickled dictionaries of NumPy arrays without executing anything.

Some ports to JAX publish their weights so: nested dictionaries, as Flax has them, with
arrays for leaves. As in `jaxvision.pretrained.torch_file`, the machine that runs the
pickle imports nothing and calls nothing from it. Three names are accepted, those with
which NumPy pickles an array, and they stand for descriptions of arrays and dtypes.

Format: `ndarray.__reduce__` and `dtype.__reduce__`, in
https://github.com/numpy/numpy/blob/main/numpy/_core/src/multiarray/methods.c and
descriptor.c.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar

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

MAX_FILE_BYTES = 2**30
"""The arrays stand in the pickle, so all of it is read."""

NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
"""Kinds of numbers that are read, as NumPy names them, without their byte order."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickle, in the file's order.

    Args:
      path: a file that `pickle.dump(nested_dictionary, file)` wrote, protocol 3 or 4.

    Returns:
      Arrays in the file's dtypes, by their keys, joined by "/".

    Raises:
      InputError: the file is missing, truncated, damaged, holds anything but
        dictionaries of arrays, or declares what its bytes don't bear out.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            refuse(f"it has more than {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
        value, length = _Machine().run(data)
        if length != len(data):
            damaged(f"{len(data) - length} bytes follow its pickle")
        return _flat(value)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except Refused as refused:
        raise InputError(f"{path}: {refused}") from None


# -- What a pickle may hold -----------------------------------------------------------


@dataclasses.dataclass
class _Dtype:
    name: str
    is_complete: bool = False


@dataclasses.dataclass
class _Array:
    """Empty as NumPy makes it; its state is set afterwards."""

    values: np.ndarray | None = None


NDARRAY = Global("numpy", "ndarray")


def _dtype(*args: Any) -> _Dtype:
    # dtype(name, align, copy)
    if len(args) != 3 or type(args[0]) is not str:
        refuse("a dtype without a name")
    if args[0] not in NUMBERS:
        refuse(f"a dtype {args[0]!r:.100}, which is no plain kind of number")
    return _Dtype(args[0])


def _reconstruct(*args: Any) -> _Array:
    if args != (NDARRAY, (0,), b"b"):
        refuse("an array that is not begun as NumPy begins one")
    return _Array()


def _complete_dtype(dtype: _Dtype, state: Any) -> None:
    # (version, byte order, subdtype, names, fields, item size, alignment, flags)
    if not isinstance(state, tuple) or len(state) != 8 or dtype.is_complete:
        refuse("a dtype in a state that is none")
    if state[1] == ">":
        refuse("its numbers are big-endian; save it on a usual machine")
    if state[1] != ("|" if dtype.name.endswith("1") else "<"):
        refuse("a dtype without a byte order")
    if state[2:] != (None, None, None, -1, -1, 0):
        refuse("a dtype that is more than a kind of number")
    dtype.is_complete = True


def _fill_array(array: _Array, state: Any) -> None:
    # (version, shape, dtype, whether in Fortran's order, bytes)
    if not isinstance(state, tuple) or len(state) != 5 or array.values is not None:
        refuse("an array in a state that is none")
    version, shape, dtype, is_fortran, data = state
    if version != 1 or type(is_fortran) is not bool:
        refuse("an array of an unknown version")
    if not isinstance(shape, tuple) or not all(map(is_count, shape)):
        refuse("an array whose shape is not of whole numbers from 0 on")
    if len(shape) > MAX_RANK:
        refuse(f"an array of {len(shape)} dimensions")
    if not isinstance(dtype, _Dtype) or not dtype.is_complete:
        refuse("an array without a dtype")
    kind = np.dtype("<" + dtype.name)
    # An empty array needs no bytes, but NumPy still bounds its other dimensions.
    if math.prod(max(n, 1) for n in shape) >= 2**40:
        refuse(f"an array of shape {shape}, which is absurd")
    if type(data) is not bytes or len(data) != math.prod(shape) * kind.itemsize:
        damaged(f"an array of shape {shape} and {dtype.name} has not its bytes")
    order = "F" if is_fortran else "C"
    array.values = np.frombuffer(data, kind).reshape(shape, order=order)


class _Machine(Machine):
    """Knows what dictionaries of arrays need."""

    rebuilders: ClassVar = {
        # NumPy 2 has it elsewhere.
        Global("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        Global("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        Global("numpy", "dtype"): _dtype,
    }
    names: ClassVar = frozenset({NDARRAY})
    holds = "a dictionary of NumPy arrays"

    op_binbytes = op_short_binbytes = op_binbytes8 = Machine.push

    def op_build(self, _: None) -> None:
        """Completes a dtype or an array."""
        state = self.pop()
        target = self.top(object)
        if isinstance(target, _Dtype):
            _complete_dtype(target, state)
        elif isinstance(target, _Array):
            _fill_array(target, state)
        else:
            refuse("its pickle sets the state of an object")


def _flat(value: Any) -> dict[str, np.ndarray]:
    """Arrays of nested dictionaries by their path."""
    if not isinstance(value, dict):
        refuse(f"it holds a {type(value).__name__.lstrip('_')}, not a dictionary")
    arrays: dict[str, np.ndarray] = {}
    # By hand and each dictionary once: they may be nested deeply, or in themselves.
    seen = {id(value)}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            for key, child in reversed(value.items()):
                if type(key) is not str or not key or "/" in key:
                    refuse(f"{key!r:.100} is no name of an array or a layer")
                if isinstance(child, dict) and id(child) in seen:
                    refuse(f"the dictionary {key!r:.100} stands in two places")
                seen.add(id(child))
                waiting.append((f"{path}/{key}" if path else key, child))
        elif isinstance(value, _Array) and value.values is not None:
            arrays[path] = value.values
        else:
            kind = type(value).__name__.lstrip("_")
            refuse(f"{path!r:.100} is a {kind}, not an array that is filled")
    if not arrays:
        refuse("it holds no arrays")
    return arrays
