"""Config dataclasses: as plain values, by dotted names, and within their bounds.

A field states the values it may have where it is declared:

    epochs: Annotated[int, Bounds(1)] = 10

and `check` holds every config to that, whichever way it came in.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from jaxvision.errors import InputError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The finite numbers that a setting may be.

    low, high: the ends.
    below: whether `high` itself is excluded.
    above: whether `low` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    below: bool = False
    above: bool = False

    def allow(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """In words: `at least 0 and below 1`."""
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        high = f"{'below' if self.below else 'at most'} {self.high:g}"
        ends = [
            words
            for words, end in ((low, self.low), (high, self.high))
            if math.isfinite(end)
        ]
        return " and ".join(ends) or "a finite number"


def check(config: Any, prefix: str = "") -> None:
    """Holds every field of a config dataclass, nested ones too, to its type and bounds.

    Args:
      config: the dataclass.
      prefix: of the names of its settings, such as "optim.".

    Raises:
      InputError: a value that its field does not allow; names the setting.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{name}.")
        else:
            _check_value(hints[field.name], value, name, None)


def make_paths(config: Any) -> None:
    """Makes `Path`s of the strings in the fields of a frozen config that hold paths.

    For `__post_init__`: in Python, a path is often written as a string.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        holds = (field.type, *typing.get_args(field.type))
        if isinstance(value, str) and Path in holds:
            object.__setattr__(config, field.name, Path(value))


def get(config: Any, name: str) -> Any:
    """The value of a setting such as "optim.learning_rate".

    Raises:
      AttributeError: there is no such setting.
    """
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replace(config: Config, name: str, value: Any) -> Config:
    """The config with another value of a setting such as "optim.learning_rate"."""
    first, _, rest = name.partition(".")
    if rest:
        value = replace(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})  # type: ignore[type-var]


def to_plain(value: Any) -> Any:
    """`value` as JSON can hold it.

    Dataclasses become dicts, paths strings, tuples lists, sets sorted lists, enums
    their values, NumPy scalars numbers; numbers that are not finite become None.

    Raises:
      TypeError: anything else: a config holds plain values only.
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


_ACCEPTED: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    Path: (str, Path),
}
"""Plain values of which a field of that type is made."""


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for config dataclasses.

    Args:
      kind: a dataclass of plain values, or the type of one of its fields.
      value: what `to_plain` made of it, in this version or an earlier one: a setting
        that is missing has its default, which is what was done before there was one.

    Raises:
      KeyError, TypeError, ValueError: it is not of that kind.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} is no table of settings")
        hints = typing.get_type_hints(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        if unknown := set(value) - names:
            raise KeyError(f"no setting {sorted(unknown)[0]}")
        defaults = {
            field.name for field in dataclasses.fields(kind) if _has_default(field)
        }
        fields = {
            name: from_plain(hints[name], value[name])
            for name in names
            if name in value or name not in defaults
        }
        return typing.cast(Any, kind)(**fields)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
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
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{value!r} is no list")
        return tuple(from_plain(arguments[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        inner = typing.get_origin(arguments[1])
        tables = inner is not None and issubclass(inner, Mapping)
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} is no table")
        for item in value.values() if tables else ():
            if not isinstance(item, Mapping):
                raise TypeError(f"{item!r} is no table")
        # Its values are any plain ones; a list in them was a tuple.
        return {
            str(key): tuple(item) if isinstance(item, list) else item
            for key, item in value.items()
        }
    accepted = _ACCEPTED.get(kind)
    # True is an int to Python, but no number here.
    if accepted and (type(value) is bool) != (kind is bool):
        accepted = ()
    if value is None or (accepted is not None and not isinstance(value, accepted)):
        raise TypeError(f"{value!r} where {kind.__name__} is expected")
    return kind(value)


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _check_value(hint: Any, value: Any, name: str, bounds: Bounds | None) -> None:
    if typing.get_origin(hint) is typing.Annotated:
        hint, *marks = typing.get_args(hint)
        bounds = next((m for m in marks if isinstance(m, Bounds)), bounds)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) == 1:
            _check_value(others[0], value, name, bounds)
    elif origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            raise InputError(f"must be one of {choices}", setting=name, value=value)
    elif origin is tuple and arguments[1:] == (Ellipsis,):
        for item in value:
            _check_value(arguments[0], item, name, bounds)
    elif hint in (int, float):
        number = isinstance(value, (int, float)) and type(value) is not bool
        if not number or (hint is int and value != int(value)):
            kind = "a whole number" if hint is int else "a number"
            raise InputError(f"must be {kind}", setting=name, value=value)
        if not (bounds or Bounds()).allow(value):
            raise InputError(f"must be {bounds or Bounds()}", setting=name, value=value)


def check_number(name: str, value: float, bounds: Bounds) -> None:
    """Raises `InputError` unless the setting `name` is within its bounds."""
    if not bounds.allow(value):
        raise InputError(f"must be {bounds}", setting=name, value=value)
