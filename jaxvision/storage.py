"""Files and folders that are whole or not there, and where caches lie.

A folder is written under a temporary name, with the SHA-256 of every file in it, and
renamed at the end. Orbax restores flipped bits silently, so whatever it wrote is
checked before use.
"""

import atexit
import csv
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxvision.errors import InputError

CACHE_VARIABLE = "JAXVISION_CACHE"

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Where downloads, converted weights and compiled programs are kept.

    The environment variable JAXVISION_CACHE, or `~/.cache/jaxvision`. A user without a
    home folder, as in some containers, gets a folder that this process removes.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    try:
        return Path.home() / ".cache" / "jaxvision"
    except RuntimeError:
        return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="jaxvision-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    print(
        "this user has no home folder: what is cached goes with this process; set "
        f"{CACHE_VARIABLE} to a folder to keep it",
        file=sys.stderr,
    )
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an `OSError` into an `InputError` that names the folder and the fix."""
    try:
        yield
    except OSError as error:
        cached = folder.is_relative_to(cache_folder())
        elsewhere = f"set {CACHE_VARIABLE} to" if cached else "choose"
        raise InputError(
            f"can't write into {folder} ({error.strerror or error}); free some space "
            f"there or {elsewhere} another folder"
        ) from error


def temporary(path: Path) -> Path:
    """What a file or folder is called beside its place until it is whole; see
    `remove_leftovers`."""
    name = path.name
    if len(os.fsencode(name)) > _LONG_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{os.getpid()}.part")


@contextmanager
def only_process(folder: Path, doing: str) -> Iterator[None]:
    """No other process does the same in the folder meanwhile; the system forgets those
    that are killed.

    On file systems that lock no folders, as some of several machines, nobody is kept
    out.

    Raises:
      InputError: another process does; `doing` says what: "preparing it".
    """
    import fcntl  # not on Windows, where the rest of this module works

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is {doing}; wait for it, or stop it"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


_LONG_NAME = 200
"""Bytes of a name that has no room for more: systems allow 255."""

_LEFTOVER = re.compile(r"\..*\.(\d+)\.part", re.DOTALL)


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that are no more had begun to write into a folder, as
    `temporary` calls it."""
    try:
        for path in list(folder.iterdir()):
            if (match := _LEFTOVER.fullmatch(path.name)) and not _lives(int(match[1])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    except OSError:  # no such folder, or somebody else's
        return


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Removes the files of a folder that have not been read for longest, until the
    rest is small enough."""
    entries = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process is at the same
            continue
        used = max(status.st_atime, status.st_mtime)
        entries.append((used, path, status.st_size))
    total = sum(size for _, _, size in entries)
    for _, path, size in sorted(entries):
        if total <= most_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size


def _lives(process: int) -> bool:
    if not hasattr(os, "getuid"):  # Windows, where asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def check_replaceable(path: Path) -> None:
    """Raises InputError where no file can be written for what the path is: a folder, a
    device or a pipe, or in no folder."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is there and no plain file; give another name")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replaces the file as a whole: a reader or a crash meets the old or the new.

    content: in one piece, or in pieces as they come.

    Raises InputError: it can't be written; the old file is then untouched.
    """
    check_replaceable(path)
    part = temporary(path)
    with writing(path.parent):
        try:
            with open(part, "wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
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


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. A cell that a spreadsheet program would take for a formula gets an
    apostrophe in front, which `csv_cell` takes away."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_neutral(cell) for cell in row] for row in rows)
    return buffer.getvalue()


_FORMULA = re.compile(r"'*[=+@\t\r-]")


def _neutral(cell: Any) -> Any:
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _is_number(cell):
        return cell
    return f"'{cell}"


def csv_cell(text: str) -> str:
    """The inverse of what `csv_text` does to a cell."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(
    writing: Path, target: Path, about: Mapping[str, Any] | None = None
) -> None:
    """Gives a finished folder its final name, with a manifest, flushed to the disk.

    Args:
      writing: a folder beside `target`, under a temporary name.
      target: the final name; must not be there.
      about: plain values that the manifest says beside the hashes.

    Raises:
      OSError: the disk is full, or somebody else has published `target` meanwhile.
    """
    write_manifest(writing, about)
    for folder, _, files in os.walk(writing):
        for name in files:
            _fsync(Path(folder, name))
        _fsync(Path(folder))
    os.rename(writing, target)
    _fsync(target.parent)


def write_manifest(folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes `manifest.json`: the SHA-256 of every other file, after `about`."""
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    write_json(folder / MANIFEST, {**(about or {}), "sha256": files})


def find_damage(folder: Path) -> str | None:
    """What is wrong with a folder by its manifest, in words; None if nothing is."""
    try:
        wanted = json.loads((folder / MANIFEST).read_text())["sha256"]
        found = {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in folder.rglob("*")
            if path.is_file() and path != folder / MANIFEST
        }
    except FileNotFoundError:
        return "it has no manifest (its writing was cut short)"
    except (ValueError, KeyError, TypeError):
        return "its manifest cannot be read"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not isinstance(wanted, dict) or set(found) != set(wanted):
        return "files are missing or added"
    for name, digest in found.items():
        if digest != wanted[name]:
            return f"{name} has changed since it was written"
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
