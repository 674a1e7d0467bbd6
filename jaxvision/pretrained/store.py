"""Converted weights in the cache: an Orbax checkpoint with a card and a manifest."""

import json
import shutil
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jaxvision.errors import InputError
from jaxvision.pretrained.convert import Report, Variables
from jaxvision.pretrained.sources import Source
from jaxvision.storage import (
    CACHE_VARIABLE,
    cache_folder,
    find_damage,
    publish,
    remove_leftovers,
    temporary,
)

FORMAT = 1
"""Part of the folder's name: raised when what is stored or how changes."""


def converted_folder(source: Source, digest: str) -> Path:
    """Where the conversion of the file with that sum is kept."""
    return cache_folder() / "converted" / f"{source.name}-{digest[:16]}-v{FORMAT}"


def is_whole(folder: Path) -> bool:
    """Whether a conversion is there and unchanged since it was written."""
    return folder.is_dir() and find_damage(folder) is None


def save(
    folder: Path, variables: Variables, report: Report, source: Source, digest: str
) -> None:
    """Writes a conversion: all of it or nothing; one that is broken is replaced.

    Args:
      folder: from `converted_folder`.
      variables: NumPy arrays.
      report: what became of the file's tensors.
      source: what they are of.
      digest: sum of the file that was converted.

    Raises:
      InputError: the cache cannot be written.
    """
    from jaxvision.arrays import save_arrays

    remove_leftovers(folder.parent)
    writing = temporary(folder.with_name(uuid.uuid4().hex))
    try:
        writing.mkdir(parents=True)
        save_arrays(writing / "variables", variables)
        card = json.dumps(_card(source, digest, report), indent=2)
        (writing / "card.json").write_text(card)
        if folder.exists() and not is_whole(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            publish(writing, folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or set"
            f" {CACHE_VARIABLE} to another folder"
        ) from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def restore(folder: Path) -> tuple[Variables, Report]:
    """A conversion that `is_whole`: NumPy arrays, and what was kept of the file."""
    from jaxvision.arrays import restore_arrays

    variables = restore_arrays(folder / "variables")
    card = json.loads((folder / "card.json").read_text())
    return variables, Report(
        tuple(card["kept"]),
        ignored=tuple(card["ignored"]),
        prefix=card.get("prefix", ""),  # which an older version did not write
    )


def _card(source: Source, digest: str, report: Report) -> dict[str, Any]:
    """What a person or a program must know to use the variables."""
    packages = ("jaxvision-classics", "jax", "flax", "orbax-checkpoint", "numpy")
    return {
        "name": source.name,
        "model": source.model,
        "num_classes": source.num_classes,
        "origin": source.origin,
        "file": source.location.rsplit("/", 1)[-1],
        source.algorithm: digest,
        "is_published_file": digest == source.digest,
        "license": source.license,
        "note": source.note,
        "preprocessing": source.preprocessing.to_dict(),
        "kept": report.kept,
        "ignored": report.ignored,
        "prefix": report.prefix,
        "versions": {package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from the source, not installed
        return "not installed"
