"""CSV files that people edit elsewhere: read whole, or one line that names the fix."""

import csv
import io
from pathlib import Path

from jaxvision.data.decode import BadImage, read_file
from jaxvision.data.limits import MAX_CSV_BYTES
from jaxvision.errors import InputError

Lines = list[tuple[int, list[str]]]
"""Number and cells of each line that is not empty."""


def read_lines(path: Path, header: str, *, any_names: bool = False) -> Lines:
    """The lines of a CSV in UTF-8, separated by commas; a byte-order mark is none.

    Args:
      path: the file.
      header: what its first line should be, for messages.
      any_names: names of files that are no UTF-8 are taken as they are.

    Raises:
      InputError: it is missing or empty, or something else.
    """
    try:
        _, content = read_file(path)
    except BadImage as bad:
        raise InputError(f"{path}: {bad.reason}; give a CSV of {header}") from bad
    if len(content) > MAX_CSV_BYTES:
        raise InputError(f"{path}: has more than {MAX_CSV_BYTES:,} bytes; divide it")
    text = _text(path, content, any_names)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if any(line)]
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as a CSV: {error}") from error
    if not lines:
        raise InputError(f"{path}: is empty; its first line must be {header}")
    return lines


def _text(path: Path, content: bytes, any_names: bool) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise InputError(f"{path}: is UTF-16, not UTF-8; save the file as CSV UTF-8")
    try:
        text = content.decode("utf-8-sig", "surrogateescape" if any_names else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8; save the file as CSV UTF-8"
        ) from error
    first = text.partition("\n")[0]
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if mark in first and "," not in first:
            raise InputError(
                f"{path}: is separated by {name}; save it with commas between columns"
            )
    return text
