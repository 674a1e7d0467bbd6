"""Which images are for training, which for validation, which for the test."""

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxvision.config import Bounds
from jaxvision.data.csv_file import read_records
from jaxvision.errors import InputError
from jaxvision.storage import csv_text, write_atomically, writing

SPLITS: tuple[str, ...] = ("train", "val", "test")
Splits = dict[str, np.ndarray]
"""For each name in `SPLITS` the ascending int32 indices of its images."""

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What splits are called in lower case, and which each name means."""

_HEADER = ["path", "label", "split", "sha256"]


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Fractions of every class, or a number for training and fractions of the rest."""

    train: Annotated[float, Bounds(0, 1)] = 0.7
    """Fraction of each class for training; `train_per_class` takes its place."""
    val: Annotated[float, Bounds(0, 1)] = 0.15
    """Fraction of each class for validation."""
    test: Annotated[float, Bounds(0, 1)] = 0.15
    """Fraction of each class for the test."""
    train_per_class: Annotated[int, Bounds(1)] | None = None
    """Exactly this many images of each class for training; the rest is divided
    between validation and test in the ratio of `val` to `test`."""
    seed: int = 0
    """Another seed is another split."""


def make_splits(
    config: SplitConfig,
    *,
    images: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    groups: Sequence[Sequence[int]] = (),
    parts: Sequence[str] = (),
) -> Splits:
    """Divides every class by `config`; deterministic.

    Within a class the images are ordered by a hash of the seed and their path, and
    the splits are taken off that order. So an image's place depends on nothing but
    its own path and how many precede it: when k images are added to a class, at most
    2k of those that were there change their split, at most k with `train_per_class`
    and one of `val` and `test` zero, and no image of another class does.

    Args:
      config: how much goes where.
      images: paths relative to the root.
      labels: index into `classes` for each image.
      classes: names, for messages.
      groups: disjoint lists of indices of images that must stay on one side, such as
        identical ones. They are placed before single images, so most of them go to
        training; counts stay exact as long as there are single images enough.
      parts: the split of each image, where images come divided. What is there for
        training is divided further, in the ratio of `train` to `val`, unless there
        are images for validation too.

    Returns:
      Indices for each of `SPLITS`; together every image once, but for images that
      come divided and are identical to one of a later split.

    Raises:
      InputError: impossible fractions, or a class that is too small for them.
    """
    if parts:
        return _complete(config, images, labels, classes, groups, parts)
    counts = Counter(labels)
    room = {
        label: dict(zip(SPLITS, _sizes(config, counts[label], name), strict=True))
        for label, name in enumerate(classes)
    }
    grouped = {index for group in groups for index in group}
    units = [list(group) for group in groups if group]
    units += [[index] for index in range(len(images)) if index not in grouped]
    members: dict[str, list[int]] = {name: [] for name in SPLITS}
    # Groups first: what remains is then filled up exactly by single images.
    for unit in sorted(
        units,
        key=lambda unit: (
            len(unit) == 1,
            _rank(config.seed, min(images[index] for index in unit)),
        ),
    ):
        needed = Counter(labels[index] for index in unit)
        split = _first_with_room(room, needed)
        members[split].extend(unit)
        for label, count in needed.items():
            room[label][split] -= count
    return {
        name: np.array(sorted(indices), np.int32) for name, indices in members.items()
    }


def _complete(
    config: SplitConfig,
    images: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    groups: Sequence[Sequence[int]],
    parts: Sequence[str],
) -> Splits:
    """The splits of images that come divided."""
    rank = [SPLITS.index(part) for part in parts]
    latest = {i: max(rank[i] for i in group) for group in groups for i in group}
    # What is seen in training must not be met again in the test.
    kept = [i for i in range(len(images)) if latest.get(i, rank[i]) == rank[i]]
    members = {name: [i for i in kept if parts[i] == name] for name in SPLITS}
    if "val" not in parts:
        rest = members["train"]
        place = {index: number for number, index in enumerate(rest)}
        whole = config.train + config.val
        if config.train_per_class is None and whole > 0:
            shares = {"train": config.train / whole, "val": config.val / whole}
            config = dataclasses.replace(config, **shares)
        divided = make_splits(
            dataclasses.replace(config, test=0.0),
            images=[images[i] for i in rest],
            labels=[labels[i] for i in rest],
            classes=classes,
            groups=[[place[i] for i in group if i in place] for group in groups],
        )
        for name in ("train", "val"):
            members[name] = [rest[number] for number in divided[name]]
    return {name: np.array(sorted(members[name]), np.int32) for name in SPLITS}


def find_identical(digests: Sequence[str]) -> list[list[int]]:
    """Groups of two and more images with the same digest of their content; an empty
    one is that of a file that can't be read."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest:
            members[digest].append(index)
    return [group for group in members.values() if len(group) > 1]


def is_paired(
    images: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> bool:
    """Whether of two classes every image of the smaller has a namesake in the other.

    A name is the path below the class's folder without its ending: `face/0007.jpg` and
    `comic/0007.png` are a pair. Images that lie elsewhere are none.
    """
    named = zip(images, labels, strict=True)
    if not all(path.startswith(f"{classes[label]}/") for path, label in named):
        return False
    sizes = Counter(labels)
    pairs = find_pairs(images, labels)
    return len(classes) == len(sizes) == 2 and any(
        sum(labels[index] == label for group in pairs for index in group) == count
        for label, count in sizes.items()
    )


def find_pairs(images: Sequence[str], labels: Sequence[int]) -> list[list[int]]:
    """Groups of images of one name in more than one class."""
    named: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        named[pair_name(image)].append(index)
    return [g for g in named.values() if len({labels[index] for index in g}) > 1]


def pair_name(image: str) -> str:
    """What the images of a pair have in common: `0007` of `face/0007.jpg`."""
    return os.path.splitext(image.partition("/")[2])[0]


def merge_groups(groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """Disjoint groups: those that share a member become one."""
    merged: dict[int, list[int]] = {}
    for group in groups:
        union = sorted({i for index in group for i in merged.get(index, [index])})
        for index in union:
            merged[index] = union
    return [union for index, union in sorted(merged.items()) if union[0] == index]


def make_folds(
    count: int,
    *,
    seed: int,
    images: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    groups: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """For each image its fold, `[N]` int32 from 0 to `count` - 1; deterministic.

    Classes are spread evenly over the folds, and folds are of nearly one size.

    Args:
      count: of folds, at least 2.
      seed: another seed is another division.
      images, labels, classes, groups: as in `make_splits`; a group stays in one fold.

    Raises:
      InputError: fewer than 2 folds, or a class with fewer images, of which those of a
        group count as one.
    """
    first = {index: min(group) for group in groups for index in group}
    apart = {(label, first.get(i, i)) for i, label in enumerate(labels)}
    sizes = Counter(label for label, _ in apart)
    smallest = min(range(len(classes)), key=lambda label: sizes[label])
    if not 2 <= count <= sizes[smallest]:
        raise InputError(
            f"must be at least 2 and at most {sizes[smallest]}: so many images has the "
            f"class {classes[smallest]!r}, where those that stay together count as one",
            setting="data.folds",
            value=count,
        )
    return deal_folds(count, seed=seed, images=images, labels=labels, groups=groups)


def deal_folds(
    count: int,
    *,
    seed: int,
    images: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """As `make_folds`, also where a class has fewer images than there are folds."""
    first = {index: min(group) for group in groups for index in group}
    heads = [i for i in range(len(images)) if first.get(i, i) == i]
    # Class after class, each in random order, dealt out one by one.
    heads.sort(key=lambda index: (labels[index], _rank(seed, images[index])))
    fold = {index: place % count for place, index in enumerate(heads)}
    return np.array([fold[first.get(i, i)] for i in range(len(images))], np.int32)


def _first_with_room(
    room: Mapping[int, Mapping[str, int]], needed: Mapping[int, int]
) -> str:
    for split in SPLITS:
        if all(room[label][split] >= count for label, count in needed.items()):
            return split
    # It fits nowhere: where it does least harm.
    return max(SPLITS, key=lambda split: min(room[label][split] for label in needed))


def _rank(seed: int, path: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{path}".encode(errors="surrogateescape")).digest()


def _sizes(config: SplitConfig, count: int, name: str) -> tuple[int, int, int]:
    """How many of a class of `count` go to each of `SPLITS`; each wanted gets one."""
    if config.train_per_class is not None:
        return _sizes_by_count(config, config.train_per_class, count, name)
    fractions = (config.train, config.val, config.test)
    wanted = [fraction > 0 for fraction in fractions]
    if abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            "`data.split.train`, `data.split.val` and `data.split.test` "
            f"({', '.join(map(str, fractions))}) add to {sum(fractions):g}, not to 1"
        )
    if count < sum(wanted):
        raise _too_small(name, count, sum(wanted))
    ends = np.floor(np.cumsum(fractions) * count + 0.5 + 1e-9).astype(int)
    sizes = np.diff(ends, prepend=0)
    for index in range(3):
        if wanted[index] and sizes[index] == 0:
            sizes[index] += 1
            sizes[np.argmax(sizes)] -= 1
    train, val, test = sizes.tolist()
    return train, val, test


def _sizes_by_count(
    config: SplitConfig, train: int, count: int, name: str
) -> tuple[int, int, int]:
    needed = train + (config.val > 0) + (config.test > 0)
    if count < needed:
        raise _too_small(name, count, needed)
    rest = count - train
    both = config.val + config.test
    if both == 0:
        raise InputError(
            "the rest has nowhere to go; give val or test a fraction above 0",
            setting="data.split.train_per_class",
        )
    val = int(np.floor(rest * config.val / both + 0.5 + 1e-9))
    # Each of the two that is wanted gets at least one.
    val = min(max(val, int(config.val > 0)), rest - int(config.test > 0))
    return train, val, rest - val


def _too_small(name: str, count: int, needed: int) -> InputError:
    return InputError(
        f"class {name!r} has {count} usable images, but the split needs {needed}: "
        "add images, remove the folder, or leave `data.split.val` or "
        "`data.split.test` at 0"
    )


@dataclasses.dataclass(frozen=True)
class SplitRow:
    """One line of a splits file: an image, its class and its split."""

    path: str
    """Relative to the root."""
    label: str
    """Name of the class."""
    split: str
    """One of `SPLITS`."""
    sha256: str = ""
    """Of the file; empty where it was not written down."""

    @property
    def key(self) -> str:
        """What the image is known by: its content, or else its path."""
        return self.sha256 or self.path


def write_splits(
    path: Path,
    splits: Splits,
    *,
    images: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    digests: Sequence[str],
) -> None:
    """Writes the splits of images as CSV; atomic.

    `read_splits` gives the same splits back, also when files were added since.
    """
    rows = (
        SplitRow(images[index], classes[labels[index]], name, digests[index])
        for name, indices in splits.items()
        for index in map(int, indices)
    )
    write_split_rows(path, sorted(rows, key=lambda row: (row.path, row.label)))


def write_split_rows(path: Path, rows: Iterable[SplitRow]) -> None:
    """Writes a CSV of path, label, split and sha256; atomic."""
    text = csv_text([_HEADER, *map(dataclasses.astuple, rows)])
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8", "surrogateescape"))


def read_splits(path: Path) -> list[SplitRow]:
    """Reads what `write_splits` wrote, also after a spreadsheet program had it.

    The columns may stand in any order; sha256 may be missing, others are passed over.

    Raises:
      InputError: no such CSV, another header, an unknown split, a path twice.
    """

    def parse(cells: Mapping[str, str]) -> SplitRow | None:
        split = SPLIT_NAMES.get(cells["split"].strip().lower())
        if not cells["label"] or split is None:
            return None
        return SplitRow(cells["path"], cells["label"], split, cells["sha256"].lower())

    rule = f"a split of {', '.join(SPLITS)}"
    rows = read_records(path, _HEADER, parse, what="a splits file", rule=rule)
    if not rows:
        raise InputError(f"{path}: lists no image")
    return rows


def apply_splits(
    rows: Sequence[SplitRow],
    *,
    source: Path,
    images: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    digests: Sequence[str] = (),
) -> Splits:
    """The splits of a file for the images at hand; others are in none of them.

    Args:
      rows: of the file.
      source: the file, for messages.
      images, labels, classes: as in `make_splits`.
      digests: SHA-256 of each image's file; nothing: contents are not compared.

    Raises:
      InputError: a listed image is missing, has changed, or is of another class.
    """
    index_of = {image: index for index, image in enumerate(images)}
    missing = [row.path for row in rows if row.path not in index_of]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        if any(not path.isprintable() for path in missing):
            more += " (is the file UTF-8? Save it as CSV UTF-8)"
        raise InputError(
            f"{source}: lists images that are not there or can't be used: "
            f"{', '.join(missing[:3])}{more}; restore them or make a new split"
        )
    members: dict[str, list[int]] = defaultdict(list)
    changed = []
    for row in rows:
        index = index_of[row.path]
        if classes[labels[index]] != row.label:
            raise InputError(
                f"{source}: {row.path} is labeled {row.label!r} in the split, but "
                f"{classes[labels[index]]!r} in the folder; make a new split"
            )
        if digests and row.sha256 and digests[index] != row.sha256:
            changed.append(row.path)
        members[row.split].append(index)
    if changed:
        count = f"{len(changed)} images" if len(changed) > 1 else "1 image"
        raise InputError(
            f"{source}: {count} changed since the split was made, first {changed[0]}; "
            "restore what they were or make a new split"
        )
    return {name: np.array(sorted(members[name]), np.int32) for name in SPLITS}
