"""Files that are whole or not there, and the folder for what is kept between runs."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxvision.errors import InputError

CACHE_VARIABLE = "JAXVISION_CACHE"


def cache_folder() -> Path:
    """Where downloads, converted weights and compiled programs are kept.

    The environment variable JAXVISION_CACHE, or `~/.cache/jaxvision`.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jaxvision"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an `OSError` into an `InputError` that names the folder and the fix."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"can't write into {folder} ({error.strerror or error}); free some space "
            "there or choose another folder"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file as a whole: a reader or a crash meets the old or the new.

    Raises InputError: it can't be written; the old file is then untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path.parent):
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> Path:
    """Writes plain values as JSON, as `write_atomically` does; returns the path."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode("utf-8", "backslashreplace"))
    return path
