"""Config dataclasses as the plain values that JSON holds, and back."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np


def to_plain(value: Any) -> Any:
    """`value` as JSON can hold it.

    Dataclasses become dicts, paths strings, tuples lists, sets sorted lists, enums
    their values, NumPy scalars numbers; numbers that are not finite become None.

    Raises TypeError for anything else: a config holds plain values only.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(to_plain, value))
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{value!r} is no plain value")


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for config dataclasses.

    Args:
      kind: a dataclass of plain values, or the type of one of its fields.
      value: what `to_plain` made of it.

    Raises:
      KeyError, TypeError, ValueError: it is not of that kind.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        if unknown := set(value) - names:
            raise KeyError(f"no setting {sorted(unknown)[0]}")
        return kind(**{name: from_plain(hints[name], value[name]) for name in names})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return from_plain(kind, value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is none of {arguments}")
        return value
    if origin is tuple:
        return tuple(from_plain(arguments[0], item) for item in value)
    if value is None:
        raise TypeError(f"no value where {kind.__name__} is expected")
    return kind(value)
