"""A machine for pickles that imports nothing and calls nothing.

A pickle is a program; Python's own machine for it calls whatever the file names. The
machine here knows only the instructions that dictionaries of arrays need. The few names
it accepts stand for themselves, a function of ours does what the named one would, and
everything else is refused by name.
"""

import dataclasses
import io
import pickletools
import struct
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

MAX_INSTRUCTIONS = 1_000_000
MAX_RANK = 8
"""Dimensions of an array."""


class Refused(Exception):
    """The reason why a file is not read; its reader adds the file's name."""


def refuse(reason: str) -> NoReturn:
    raise Refused(reason)


def damaged(what: str) -> NoReturn:
    refuse(f"{what}; the file is damaged or cut off: download it again")


@dataclasses.dataclass(frozen=True)
class Global:
    """A name in the pickle; stands for the class or function and is not it."""

    module: str
    name: str


def is_count(value: Any) -> bool:
    """Whether a value can be a length, a shape or a place."""
    return type(value) is int and 0 <= value < 2**62


class Machine:
    """Runs one pickle; each method `op_...` is an instruction of that name.

    A format's own machine adds `rebuilders`, `names` and the instructions that only it
    needs. Kept apart from Python's machine for what that does on hostile input besides
    calling: a memo index of 2**32 allocates 64 GB, and hashing a key of deeply nested
    tuples overflows the C stack. Keys are strings and whole numbers here.
    """

    rebuilders: ClassVar[dict[Global, Callable[..., Any]]] = {}
    """What stands here for the functions that a pickle may call."""
    names: ClassVar[frozenset[Global]] = frozenset()
    """What it may name besides; it is not called."""
    holds: ClassVar[str] = ""
    """What a good file holds, for people."""
    advice: ClassVar[str] = ""
    """How to make a good file, a sentence."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> tuple[Any, int]:
        """The value that `data` begins with, and the number of bytes it took."""
        stream = io.BytesIO(data)
        try:
            with warnings.catch_warnings():
                # Of escapes in texts of damaged files.
                warnings.simplefilter("ignore", DeprecationWarning)
                return self._run(stream)
        except (ValueError, OverflowError, struct.error):
            damaged("its pickle cannot be decoded")

    def _run(self, stream: io.BytesIO) -> tuple[Any, int]:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                refuse(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return self.pop(), stream.tell()
            instruction = getattr(self, f"op_{opcode.name.lower()}", None)
            if instruction is None:
                refuse(
                    f"the pickle instruction {opcode.name} is not allowed: only"
                    f" {self.holds} is read"
                )
            instruction(argument)
        damaged("its pickle has no end")

    # The stack.

    def pop(self) -> Any:
        if not self.stack or (self.marks and self.marks[-1] == len(self.stack)):
            damaged("its pickle takes more values than there are")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            damaged("its pickle lacks a mark")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            damaged(f"its pickle has no {kind.__name__} where one belongs")
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
            damaged("its pickle has a key without a value")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) not in (str, int):
                refuse(f"a dictionary with a {type(key).__name__} as its key")
            if key in target:
                refuse(f"a dictionary has the key {key!r:.100} twice")
            target[key] = value

    # The memo: values that are used again.

    def op_binput(self, index: int) -> None:
        if not self.stack:
            damaged("its pickle keeps a value that is not there")
        self.memo[index] = self.stack[-1]

    op_long_binput = op_binput

    def op_memoize(self, _: None) -> None:
        self.op_binput(len(self.memo))

    def op_binget(self, index: int) -> None:
        if index not in self.memo:
            damaged("its pickle asks for a value that it never kept")
        self.push(self.memo[index])

    op_long_binget = op_binget

    # What would import and call.

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_global(module, name)

    def op_stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            damaged("its pickle has a global whose name is no text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        known = Global(module, name)
        if known not in self.rebuilders and known not in self.names:
            refuse(
                f"it would call {f'{module}.{name}'!r:.100}, which is refused: only"
                f" {self.holds} is read.{self.advice}"
            )
        self.push(known)

    def op_reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function not in self.rebuilders:
            refuse("its pickle calls something that rebuilds nothing known")
        if not isinstance(arguments, tuple):
            damaged("its pickle calls a function without arguments")
        self.push(self.rebuilders[function](*arguments))
