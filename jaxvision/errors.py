"""The one kind of error that is the user's to fix, and how it leaves a program."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Bad input from outside: a file, a folder, a flag.

    The message is one line that names the file or the flag, says what is wrong
    with it and what would fix it. Programs print it and exit with status 2;
    every other exception is a defect of ours and keeps its traceback.
    """


@contextmanager
def flags_renamed(old: str, new: str) -> Iterator[None]:
    """For a program that calls a flag otherwise than what it shares with others does:
    in the message of an `InputError`, `old` becomes `new`."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(old, new)) from error


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turns an `InputError` into `error: <message>` on stderr and exit status 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
