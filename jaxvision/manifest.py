"""Folders that are whole or not there: SHA-256 of every file, one rename at the end.

Orbax restores flipped bits silently, so whatever it wrote is checked before use.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvision.files import write_json

MANIFEST = "manifest.json"


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
