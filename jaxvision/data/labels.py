"""Labels from a CSV: columns path and label, and perhaps split."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvision.data.csv_file import read_lines
from jaxvision.data.folder import FolderIndex, find_images
from jaxvision.data.splits import SPLIT_NAMES
from jaxvision.errors import InputError

PATH_COLUMNS = ("path", "file", "filename", "image", "id")
LABEL_COLUMNS = ("label", "class", "target", "category")
SPLIT_COLUMN = "split"


def folder_and_csv(
    root: Path | None, labels: Path | None
) -> tuple[Path | None, Path | None]:
    """Where images and their labels are: a `root` that is a CSV is the labels, and
    labels without `root` are those of the images in their own folder."""
    if labels is None and root is not None and root.suffix.lower() == ".csv":
        root, labels = None, root
    if labels is not None and root is None:
        root = labels.parent
    return root, labels


def index_labels(path: Path, root: Path) -> FolderIndex:
    """Finds the images that a CSV labels, anywhere below a folder.

    The first line names the columns, in any case and order; others are passed over. The
    image of a row is given by its path relative to `root` or the end of it, with or
    without the file's ending. Labels are names, also where they are numbers.

    Args:
      path: the CSV, in UTF-8, separated by commas.
      root: folder of the images.

    Returns:
      Classes sorted by name, images sorted within a class. With a column split the
      images come divided.

    Raises:
      InputError: not such a CSV; a row without label, without image, or of an image
        that another row has; fewer than two classes.
    """
    rows, has_split = _read(path)
    files, ignored = find_images(root)
    find = _Finder(files)
    found = [(line, name, find(name)) for line, name, _, _ in rows]
    absent = [(line, name) for line, name, images in found if not images]
    what = f"names {{name!r}}, and no such image lies below {root}"
    fix = "fix these rows, or give the folder of the images as `data.root`"
    _check(path, absent, what, fix)
    unclear = [(line, name) for line, name, images in found if len(images) > 1]
    what = "names {name!r}, and several images are called so"
    _check(path, unclear, what, f"write their paths from {root} on")
    labels: dict[str, str] = {}
    splits: dict[str, str] = {}
    again, conflicts = [], []
    for (line, name, label, split), (_, _, (image, *_)) in zip(
        rows, found, strict=True
    ):
        if image in labels:
            same = (labels[image], splits[image]) == (label, split)
            (again if same else conflicts).append((line, name))
        labels.setdefault(image, label)
        splits.setdefault(image, split)
    what = "gives {name!r} another label or split than an earlier row"
    _check(path, conflicts, what, "leave one row per image")
    _check(path, again, "lists {name!r} a second time", "leave one row per image")
    classes = tuple(sorted(set(labels.values())))
    if len(classes) == 1:
        raise InputError(
            f"{path}: only one class, {classes[0]!r}: add images of another one"
        )
    images = sorted(labels, key=lambda image: (labels[image], image))
    label_of = {name: number for number, name in enumerate(classes)}
    if unlisted := len(files) - len(images):
        ignored = {**ignored, f"images that {path.name} does not list": unlisted}
    return FolderIndex(
        root,
        classes,
        tuple(images),
        tuple(label_of[labels[image]] for image in images),
        ignored,
        tuple(splits[image] for image in images) if has_split else (),
    )


Row = tuple[int, str, str, str]
"""Number of the line, image, label and split."""


def _read(path: Path) -> tuple[list[Row], bool]:
    """The rows of a CSV, and whether it has a column split."""
    lines = read_lines(path, "path,label")
    header = [name.strip().lower() for name in lines[0][1]]
    of_path, of_label = (
        _column(path, header, names) for names in (PATH_COLUMNS, LABEL_COLUMNS)
    )
    of_split = header.index(SPLIT_COLUMN) if SPLIT_COLUMN in header else None
    rows: list[Row] = []
    wrong: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, line in lines[1:]:
        if len(line) != len(header):
            wrong[f"has not the {len(header)} fields of the first one"].append(
                (number, "")
            )
            continue
        name, label = line[of_path].strip(), line[of_label].strip()
        split = "" if of_split is None else line[of_split].strip().lower()
        if not name or not label:
            wrong["lacks an image or a label"].append((number, name))
        elif of_split is not None and split not in SPLIT_NAMES:
            wrong["has a split that is none of " + ", ".join(SPLIT_NAMES)].append(
                (number, name)
            )
        rows.append((number, name, label, SPLIT_NAMES.get(split, "")))
    for what, several in wrong.items():
        _check(path, several, what, "fix or remove these rows")
    if not rows:
        raise InputError(f"{path}: lists no image")
    return rows, of_split is not None


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """Place of the first of some columns that is there."""
    for name in names:
        if name in header:
            return header.index(name)
    raise InputError(
        f"{path}: no column {names[0]} (or {', '.join(names[1:])}) among "
        f"{', '.join(header)}; name it so in the first line"
    )


class _Finder:
    """Images by the end of their path, with or without their ending."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = frozenset(files)
        self._by_end: Mapping[str, list[str]] = defaultdict(list)
        for file in files:
            end = file
            while end:
                self._by_end[end].append(file)
                if (stem := os.path.splitext(end)[0]) != end:
                    self._by_end[stem].append(file)
                end = end.partition("/")[2]

    def __call__(self, name: str) -> list[str]:
        name = name.removeprefix("./")
        if name in self._files:
            return [name]
        return self._by_end.get(name, [])


def _check(path: Path, rows: Sequence[tuple[int, str]], what: str, fix: str) -> None:
    """Raises `InputError` for the first of some rows, with their number."""
    if not rows:
        return
    line, name = rows[0]
    more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
    raise InputError(f"{path}: line {line} {what.format(name=name)}{more}; {fix}")
