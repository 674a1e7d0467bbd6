"""Which of a folder's images are used."""

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxvision.data.folder import FolderIndex
from jaxvision.data.splits import SplitRow, apply_splits
from jaxvision.errors import InputError


def subset(index: FolderIndex, kept: Sequence[int]) -> FolderIndex:
    """Some of the images, of the same classes."""
    return dataclasses.replace(
        index,
        images=tuple(index.images[i] for i in kept),
        labels=tuple(index.labels[i] for i in kept),
        parts=tuple(index.parts[i] for i in kept) if index.parts else (),
    )


def largest_classes(index: FolderIndex, count: int) -> FolderIndex:
    """The `count` classes with the most images, of equal ones the first by name.

    Raises:
      InputError: there are not as many classes.
    """
    sizes = Counter(index.labels)
    if not 2 <= count <= len(sizes):
        raise InputError(
            f"must be at least 2 and at most {len(sizes)}, the number of classes in "
            f"{index.root}",
            setting="data.largest_classes",
            value=count,
        )
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    chosen = sorted(order[:count])
    kept = [i for i, label in enumerate(index.labels) if label in chosen]
    left_out = len(index.images) - len(kept)
    return dataclasses.replace(
        subset(index, kept),
        classes=tuple(index.classes[label] for label in chosen),
        labels=tuple(chosen.index(index.labels[i]) for i in kept),
        ignored={**index.ignored, "images of smaller classes": left_out},
    )


def first_of_each_class(
    index: FolderIndex, limit: int, name: Callable[[str], str] = str
) -> FolderIndex:
    """The first `limit` images of each class in the order of a hash of `name(path)`; of
    a folder that comes divided, of each class in each part."""
    by_class: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, label in enumerate(index.labels):
        by_class[label, index.parts[i] if index.parts else ""].append(i)

    def rank(i: int) -> bytes:
        return hashlib.sha256(os.fsencode(name(index.images[i]))).digest()

    members = (sorted(group, key=rank)[:limit] for group in by_class.values())
    return subset(index, sorted(i for group in members for i in group))


def only_listed(
    index: FolderIndex, rows: Sequence[SplitRow], source: Path
) -> tuple[FolderIndex, tuple[str, ...]]:
    """What the rows of a split list, with its classes alone, and the images left out.

    Args:
      source: where the rows come from; begins the errors.

    Raises:
      InputError: a listed image is missing, or of another class.
    """
    # For its errors: they need not wait for the decoding.
    apply_splits(
        rows,
        source=source,
        images=index.images,
        labels=index.labels,
        classes=index.classes,
    )
    listed = {row.path for row in rows}
    classes = tuple(sorted({row.label for row in rows}))
    kept = [i for i, path in enumerate(index.images) if path in listed]
    label_of = {name: label for label, name in enumerate(classes)}
    restricted = dataclasses.replace(
        subset(index, kept),
        classes=classes,
        labels=tuple(label_of[index.classes[index.labels[i]]] for i in kept),
    )
    return restricted, tuple(path for path in index.images if path not in listed)


def check_classes(
    index: FolderIndex, labels: Sequence[int], bad: Sequence[tuple[str, str]]
) -> None:
    """Raises InputError if a class has lost all its images.

    Args:
      index: the folder.
      labels: of the images that can be used.
      bad: (path, reason) of each of the others.
    """
    left = set(labels)
    label_of = dict(zip(index.images, index.labels, strict=True))
    for label, name in enumerate(index.classes):
        if label not in left:
            path, reason = next(entry for entry in bad if label_of[entry[0]] == label)
            raise InputError(
                f"class {name!r} has no usable image ({path}: {reason}): "
                "add images or remove the folder"
            )
