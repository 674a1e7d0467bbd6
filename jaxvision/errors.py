"""The one kind of error that the user can fix, and how it leaves a program."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SETTING = re.compile(r"`([a-z][a-z0-9_.]*)`")

_UNSET = object()


class InputError(Exception):
    """Bad input from outside: a file, a folder, a setting.

    The message is one line that names the file or the setting, says what is wrong with
    it and how to fix it. Programs print it and exit with status 2; every other
    exception is a defect of ours and keeps its traceback.

    Settings stand in the message between backticks, such as `optim.learning_rate`. The
    command line shows them as its flags; see `with_names`.
    """

    def __init__(
        self, message: str, *, setting: str | None = None, value: object = _UNSET
    ) -> None:
        """
        Args:
          message: what is wrong, and the fix.
          setting: the setting that is wrong; opens the message.
          value: its value, which stands beside it.
        """
        if setting is not None:
            shown = "" if value is _UNSET else f" {value}"
            message = f"`{setting}`{shown}: {message}"
        super().__init__(message)
        self.setting = setting

    def with_names(self, name_of: Callable[[str], str | None]) -> str:
        """The message with other names for settings.

        Args:
          name_of: setting -> what to write in its place; None: leave it.
        """
        return with_names(str(self), name_of)


def with_names(text: str, name_of: Callable[[str], str | None]) -> str:
    """A text with other names for settings; see `InputError.with_names`."""
    return _SETTING.sub(lambda m: name_of(m[1]) or m[0], text)


@contextmanager
def exit_on_input_error(
    name_of: Callable[[str], str | None] = lambda setting: None,
) -> Iterator[None]:
    """Turns an `InputError` into `error: <message>` on stderr and exit status 2.

    Args:
      name_of: how the program calls a setting; see `InputError.with_names`.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {error.with_names(name_of)}", file=sys.stderr)
        raise SystemExit(2) from None
