"""CSV files that people edit elsewhere: read whole, or one line that names the fix."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from jaxvision.data.decode import BadImage, read_file
from jaxvision.data.limits import MAX_CSV_BYTES
from jaxvision.errors import InputError
from jaxvision.storage import csv_cell

Record = TypeVar("Record")

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


def read_records(
    path: Path,
    columns: Sequence[str],
    parse: Callable[[Mapping[str, str]], Record | None],
    *,
    what: str,
    rule: str,
) -> list[Record]:
    """What this package wrote of images, also after a spreadsheet program had it.

    The columns may stand in any order; sha256 may be missing, others are passed over.

    Args:
      path: the file.
      columns: their names, path and sha256 among them.
      parse: cells by column, of which that of the path is not empty -> what they say;
        None: they break the rule.
      what, rule: for messages: what the file should be, and what each line has to keep
        to, after "with".

    Raises:
      InputError: no such CSV, another header, a line against the rule, a path twice.
    """
    wanted = ",".join(columns)
    (_, first), *lines = read_lines(path, wanted, any_names=True)
    header = [name.strip().lower() for name in first]
    if not {*columns} - {"sha256"} <= {*header}:
        raise InputError(f"{path}: not {what}: its first line must be {wanted}")
    places = {name: header.index(name) for name in columns if name in header}
    records: dict[str, Record] = {}
    for number, line in lines:
        cells = dict.fromkeys(columns, "")
        if len(line) == len(header):
            cells |= {name: csv_cell(line[place]) for name, place in places.items()}
        image = cells["path"]
        record = parse(cells) if image else None
        if record is None:
            raise InputError(
                f"{path}: line {number} must be {','.join(header)}, with {rule}"
            )
        if image in records:
            raise InputError(f"{path}: line {number} lists {image} a second time")
        records[image] = record
    return list(records.values())


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
