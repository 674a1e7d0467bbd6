"""Corrections of labels: a CSV beside the images, which stay as they are."""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxvision.data.csv_file import read_records
from jaxvision.data.folder import FolderIndex
from jaxvision.data.selection import subset
from jaxvision.data.splits import SplitRow
from jaxvision.errors import InputError
from jaxvision.storage import csv_text, write_atomically

Action = Literal["label", "bad", "keep"]
"""label: the image is of another class; bad: it is left out; keep: it was looked at."""

ACTIONS: tuple[Action, ...] = typing.get_args(Action)

_HEADER = ["path", "action", "label", "sha256"]


@dataclasses.dataclass(frozen=True)
class Correction:
    """What a person said of an image.

    path: relative to the root of the data set.
    action: what is done.
    label: name of the right class, with the action "label"; else empty.
    sha256: of the file that the person saw; empty where it was not written down.
    """

    path: str
    action: Action
    label: str = ""
    sha256: str = ""


def read_corrections(path: Path) -> list[Correction]:
    """Reads what `write_corrections` wrote, also after a spreadsheet program had it.

    The columns may stand in any order; sha256 may be missing, others are passed over.

    Raises:
      InputError: no such CSV, another header, an unknown action, a path twice.
    """

    def parse(cells: Mapping[str, str]) -> Correction | None:
        action = cells["action"].strip().lower()
        if action not in ACTIONS or bool(cells["label"]) != (action == "label"):
            return None
        return Correction(
            cells["path"], action, cells["label"], cells["sha256"].lower()
        )

    rule = f"an action of {', '.join(ACTIONS)}, and a label for the action label alone"
    return read_records(path, _HEADER, parse, what="a file of corrections", rule=rule)


def write_corrections(path: Path, rows: Iterable[Correction]) -> None:
    """Writes a CSV of path, action, label and sha256; atomic.

    Raises:
      InputError: it cannot be written; the old file is then untouched.
    """
    text = csv_text([_HEADER, *map(dataclasses.astuple, rows)])
    write_atomically(path, text.encode("utf-8", "surrogateescape"))


def correct(
    index: FolderIndex,
    rows: Sequence[Correction],
    *,
    source: Path,
    digest: Callable[[str], str],
) -> FolderIndex:
    """The images with their right labels, without the bad ones; noted among what is
    ignored and told.

    Args:
      index: the images as they lie in the folder.
      rows: what is corrected.
      source: where the rows come from; begins the errors.
      digest: path -> SHA-256 of the file; asked for rows that have one.

    Raises:
      InputError: an image or a class that there is not, an image that has changed
        since, or a class that is left without images.
    """
    _check(index, rows, source, digest)
    row_of = {row.path: row for row in rows}
    label_of = {name: label for label, name in enumerate(index.classes)}
    bad = {row.path for row in rows if row.action == "bad"}
    labels = [
        label_of[row_of[path].label]
        if path in row_of and row_of[path].action == "label"
        else label
        for path, label in zip(index.images, index.labels, strict=True)
    ]
    changed = sum(
        label != before for label, before in zip(labels, index.labels, strict=True)
    )
    kept = [i for i, path in enumerate(index.images) if path not in bad]
    # Sorted within a class, as they were.
    kept.sort(key=lambda i: labels[i])
    found = subset(dataclasses.replace(index, labels=tuple(labels)), kept)
    if empty := sorted(set(range(len(index.classes))) - set(found.labels)):
        raise InputError(
            f"{source}: leaves class {index.classes[empty[0]]!r} without images; "
            "remove its folder or some of the rows"
        )
    ignored, notes = dict(index.ignored), index.notes
    if bad:
        ignored[f"images that {source.name} calls bad"] = len(bad)
    if changed:
        many = f"{changed} labels are" if changed > 1 else "1 label is"
        notes = (*notes, f"{many} corrected by {source.name}")
    return dataclasses.replace(found, ignored=ignored, notes=notes)


def correct_splits(
    splits: Sequence[SplitRow], rows: Sequence[Correction]
) -> tuple[SplitRow, ...]:
    """The rows of a split that was made before the corrections, as they are now."""
    row_of = {row.path: row for row in rows if row.action != "keep"}
    return tuple(
        dataclasses.replace(split, label=row_of[split.path].label)
        if split.path in row_of
        else split
        for split in splits
        if split.path not in row_of or row_of[split.path].action == "label"
    )


def _check(
    index: FolderIndex,
    rows: Sequence[Correction],
    source: Path,
    digest: Callable[[str], str],
) -> None:
    known = set(index.images)
    if missing := [row.path for row in rows if row.path not in known]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{source}: corrects images that are not in {index.root}: "
            f"{', '.join(missing[:3])}{more}; give the file of this data set, or "
            "remove these rows"
        )
    for row in rows:
        if row.action == "label" and row.label not in index.classes:
            raise InputError(
                f"{source}: gives {row.path} the class {row.label!r}, which "
                f"{index.root} does not have; fix the row"
            )
    changed = [
        row.path for row in rows if row.sha256 and digest(row.path) != row.sha256
    ]
    if changed:
        raise InputError(
            f"{source}: {changed[0]} has changed since it was looked at "
            f"({len(changed)} such images); look again, or remove these rows"
        )
