"""A folder with one subfolder per class: which images it has."""

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path

from jaxvision.data.decode import SUFFIXES
from jaxvision.errors import InputError


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """What an image folder holds.

    Attributes:
      root: the folder.
      classes: names of the subfolders, sorted.
      images: paths relative to `root` with "/" between the parts, sorted within a
        class, classes in order.
      labels: index into `classes` for each image.
      ignored: how many entries were left out, by reason.
      parts: "train", "val" or "test" for each image, where the folder comes divided;
        else nothing.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[int, ...]
    ignored: dict[str, int]
    parts: tuple[str, ...] = ()


MARKER = "DEMO.json"
"""What `jaxvision.data.demo` writes last into a folder that it draws."""

DIVISIONS = ({"train", "test"}, {"train", "val", "test"})
"""Names of subfolders, all of them, that make a folder one that comes divided."""


def index_folder(root: Path) -> FolderIndex:
    """Lists the images under `root`: each subfolder is a class, searched in depth.

    Where its subfolders are `train` and `test`, or `train`, `val` and `test`, and have
    subfolders themselves, those are the classes.

    Names that begin with a dot are hidden and skipped in silence; files whose ending is
    no image's are counted. A link to a file counts as the file if it stays inside
    `root`; links that leave it and links to folders are counted and not followed.

    Raises:
      InputError: no such folder, no class, only one, or a class without images.
    """
    _check_folder(root)
    ignored: Counter[str] = Counter()
    folders = _class_folders(root, ignored)
    parts = _parts(root, folders)
    if parts:
        folders = sorted({n for part in parts for n in _class_folders(part, ignored)})
    if not folders:
        loose = ignored["images outside any class"]
        links = ignored["links that are not followed"]
        found = f"; {loose} images lie directly in it" if loose else ""
        found += f"; {links} links in it are not followed" if links else ""
        raise InputError(
            f"{root}: no class in it{found}: put the images of each class into a "
            "subfolder of its name"
        )
    if len(folders) == 1:
        raise InputError(
            f"{root}: only one class, {folders[0]!r}: add a subfolder of images for "
            "each other class"
        )
    images: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(folders):
        found_here = []
        for folder in (part / name for part in parts or [root]):
            # A class may lack images for the test, but not for training.
            if folder.is_dir() or folder.parent.name == "train":
                found_here += _class_images(root, folder, ignored)
        images.extend(found_here)
        labels.extend([label] * len(found_here))
    of = tuple(image.split("/")[0] for image in images) if parts else ()
    return FolderIndex(
        root, tuple(folders), tuple(images), tuple(labels), dict(ignored), of
    )


def find_images(root: Path) -> tuple[list[str], dict[str, int]]:
    """All images below a folder, whatever its subfolders mean.

    What is hidden, linked or no image is passed over as in `index_folder`.

    Returns:
      Paths relative to `root`, sorted; how many other files there are, by reason.

    Raises:
      InputError: no such folder.
    """
    _check_folder(root)
    ignored: Counter[str] = Counter()
    return sorted(_images_below(root, root, ignored)), dict(ignored)


def read_demo_marker(root: Path) -> dict[str, str] | None:
    """What `jaxvision.data.demo` wrote last into a folder that it drew."""
    marker = root / MARKER
    if not marker.is_file():
        return None
    try:
        return {"kind": str(json.loads(marker.read_text("utf-8"))["kind"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{marker}: damaged; remove the folder to have it drawn again"
        ) from error


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise InputError(
            f"{root}: no such folder; give one that has one subfolder per class"
        )
    if not root.is_dir():
        raise InputError(
            f"{root}: is a file; give a folder that has one subfolder per class, or a "
            "CSV of labels"
        )


def _parts(root: Path, folders: list[str]) -> list[Path]:
    """The subfolders of a folder that comes divided; else nothing."""
    if set(folders) not in DIVISIONS:
        return []
    parts = [root / name for name in sorted(folders)]
    # Two painters could be called so.
    return parts if all(_class_folders(part, Counter()) for part in parts) else []


def _class_images(root: Path, folder: Path, ignored: Counter[str]) -> list[str]:
    found = sorted(_images_below(root, folder, ignored)) if folder.is_dir() else []
    if not found:
        raise InputError(
            f"{folder}: an empty class, no image in it: add images or remove the folder"
        )
    return found


def _class_folders(root: Path, ignored: Counter[str]) -> list[str]:
    names = []
    for entry in _entries(root):
        if entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
        elif entry.is_symlink():
            ignored["links that are not followed"] += 1
        elif _is_image(entry.name):
            ignored["images outside any class"] += 1
        else:
            ignored["files that are no images"] += 1
    return sorted(names)


def _images_below(root: Path, folder: Path, ignored: Counter[str]) -> list[str]:
    found = []
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            found.extend(_images_below(root, path, ignored))
        elif entry.is_symlink() and not _stays_inside(root, path):
            ignored["links that are not followed"] += 1
        elif _is_image(entry.name):
            found.append(path.relative_to(root).as_posix())
        else:
            ignored["files that are no images"] += 1
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}): fix its permissions "
            "or give another folder"
        ) from error


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _stays_inside(root: Path, link: Path) -> bool:
    target = link.resolve()
    return target.is_file() and target.is_relative_to(root.resolve())
