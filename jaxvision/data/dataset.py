"""From a folder of images to batches: `load_dataset`."""

import dataclasses
import functools
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL

from jaxvision.data import decode
from jaxvision.data.folder import FolderIndex, index_folder
from jaxvision.data.prepared import Prepared, read_prepared
from jaxvision.data.splits import (
    SplitConfig,
    SplitRow,
    Splits,
    apply_splits,
    find_identical,
    find_pairs,
    is_paired,
    make_splits,
    merge_groups,
    pair_name,
    read_splits,
    write_splits,
)
from jaxvision.data.store import ImageStore, LazyImages
from jaxvision.data.transforms import AugmentConfig, augment, check_augment
from jaxvision.data.workers import map_in_order
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from jaxvision.data.loader import Batches

DEMO_FOLDER = Path("data/demo")
"""Where the built-in sets are drawn, one subfolder per kind."""

Progress = Callable[[int, int], None]
"""Told (images done, images in all)."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, how they are divided, and what they may cost."""

    root: Path | None = None
    """Folder with one subfolder per class, or with `train` and `test` of
    which each is such a folder, or prepared by `python -m jaxvision.data.prepare`;
    none: the built-in drawn set."""
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    splits: Path | None = None
    """A splits.csv of an earlier run, to be used again exactly, in place of `split`."""
    pairs: bool = True
    """Two classes of images with the same names are split by pair, so that a face
    and its own comic stay on one side; no: each image by itself."""
    on_bad: Literal["skip", "error"] = "skip"
    """An image that can't be decoded is left out and listed, or ends the run."""
    limit: int | None = None
    """At most this many images of each class, for trials."""
    largest_classes: int | None = None
    """Only this many classes: those with the most images."""
    decode: Literal["first", "while_training"] = "first"
    """first: all images before training, and the bad ones are left out before they
    are divided; while_training: each when it is first needed, so that an accelerator
    works meanwhile, but a bad one ends the run. A prepared set needs neither."""
    cache_mb: int = 1024
    """Decoded images are held in memory up to this many MiB, beyond it in a file."""
    cache_dir: Path | None = None
    """Folder of that file; the system's temporary folder if none."""
    num_threads: int = 4
    """Threads that decode images and make batches; the batches don't depend on it."""
    num_workers: int = 0
    """Processes that make batches, each with `num_threads`; 0: none but this one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Decoded images with labels and splits.

    Attributes:
      name: of the folder, or of the drawn set.
      root: the folder.
      classes: names; a label is an index into them.
      images: paths relative to `root`, those that can be used.
      labels: `[N]` int32.
      splits: ascending int32 indices for "train", "val" and "test".
      parts: the split of each image by its folder, where that comes divided; else
        nothing.
      bad: (path relative to `root`, reason) of each image that can't be used.
      duplicates: groups of paths with identical content, kept within one split.
      conflicts: those of `duplicates` whose images carry different labels.
      pairs: of a paired set (see `splits.is_paired`) the paths of each pair, kept
        within one split if `config.pairs`.
      left_out: images that a given splits file doesn't list.
      ignored: number of further files in the folder, by reason.
      is_demo: whether the images were drawn by this package.
      fingerprint: SHA-256 over paths, contents and preprocessing: a key for what is
        computed from the images. It does not depend on the splits.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: np.ndarray
    splits: Splits
    parts: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]
    ignored: Mapping[str, int]
    is_demo: bool
    fingerprint: str
    preprocessing: Preprocessing
    config: DataConfig
    _store: Sequence[np.ndarray] = dataclasses.field(repr=False)

    @property
    def groups(self) -> list[list[int]]:
        """Disjoint groups of indices of images that stay within one split."""
        index_of = {image: index for index, image in enumerate(self.images)}
        kept = [*self.duplicates, *(self.pairs if self.config.pairs else ())]
        return merge_groups([[index_of[path] for path in group] for group in kept])

    @property
    def pairs_note(self) -> str:
        """What the splits did with the pairs of a paired set; empty for other sets."""
        if not self.pairs:
            return ""
        split_of = {
            self.images[index]: name
            for name, indices in self.splits.items()
            for index in indices
        }
        sides = [{split_of[p] for p in pair if p in split_of} for pair in self.pairs]
        apart = sum(len(names) > 1 for names in sides)
        found = f"{len(self.pairs)} pairs of images of the same name, "
        return found + (f"{apart} of them apart" if apart else "each within one split")

    def image(self, index: int) -> np.ndarray:
        """`[H, W, C]` uint8, as the network sees it in evaluation."""
        return decode.center_crop(self._store[index], self.preprocessing)

    def batches(
        self,
        split: str | np.ndarray,
        *,
        batch_size: int,
        seed: int = 0,
        train: bool,
        augment: AugmentConfig | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> "Batches":
        """Batches of a split; see `jaxvision.data.loader.Batches` for their order.

        Args:
          split: "train", "val" or "test", or the indices of any images.
          batch_size: of the global batch.
          seed: of order and augmentation.
          train: shuffled and endless, or in order and once.
          augment: random changes of each image; none if None.
          process_index: this process's part of each batch.
          process_count: number of parts.

        Raises:
          InputError: a batch size that can't be divided, an empty split, or a strength
            of augmentation that means nothing.
        """
        # Grain takes a second to import, which --help must not wait for.
        from jaxvision.data.loader import Batches

        if augment is not None:
            check_augment(augment)
        return Batches(
            self.splits[split] if isinstance(split, str) else split,
            self.labels,
            functools.partial(_load_image, self._store, self.preprocessing, augment),
            batch_size=batch_size,
            seed=seed,
            train=train,
            process_index=process_index,
            process_count=process_count,
            num_threads=self.config.num_threads,
            num_workers=self.config.num_workers,
        )

    def resplit(self, config: SplitConfig) -> "Dataset":
        """The same images, not decoded again, in other splits."""
        splits = make_splits(
            config,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
            groups=self.groups,
            parts=self.parts,
        )
        config = dataclasses.replace(self.config, split=config, splits=None)
        return dataclasses.replace(self, splits=splits, left_out=(), config=config)

    def write_splits(self, path: Path) -> None:
        """Writes the splits as CSV for `--data.splits`."""
        write_splits(
            path,
            self.splits,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
        )


def load_dataset(
    config: DataConfig,
    preprocessing: Preprocessing,
    *,
    demo_kind: str = "faces",
    progress: Progress | None = None,
) -> Dataset:
    """Finds, decodes and splits the images of a folder.

    Unless `config.decode` or a prepared set says otherwise, every image is decoded
    here, once: so the bad ones are known before the split, and the first epoch is as
    quick as every later one.

    Args:
      config: which images and how.
      preprocessing: the geometry they are decoded to.
      demo_kind: the built-in set for a config without `root`, drawn at first use.
      progress: called as images are decoded.

    Raises:
      InputError: nothing usable there, with what would fix it.
    """
    decode.check_geometry(preprocessing)
    _check(config)
    root = _draw_demo(demo_kind) if config.root is None else config.root
    prepared = read_prepared(root)
    demo = read_demo_marker(root) if prepared is None else prepared.demo
    name = root.resolve().name if prepared is None else prepared.name
    whole = index_folder(root) if prepared is None else prepared.folder_index
    whole = _largest(whole, config.largest_classes)
    paired = not whole.parts and is_paired(whole.images, whole.labels, whole.classes)
    folder_index = _limit(
        whole, config.limit, pair_name if paired and config.pairs else str
    )
    rows, left_out = None, ()
    if config.splits is not None:
        rows = read_splits(config.splits)
        folder_index, left_out = _only_listed(folder_index, rows, config.splits)
    if prepared is None and config.decode == "first":
        found = _decode_all(folder_index, preprocessing, config, progress)
    elif prepared is None:
        found = _decode_later(folder_index, preprocessing, config, progress)
    else:
        found = _take_prepared(prepared, folder_index, preprocessing, config)
    kept = found.kept
    images = tuple(folder_index.images[index] for index in kept)
    labels = [folder_index.labels[index] for index in kept]
    parts = (
        tuple(folder_index.parts[index] for index in kept) if folder_index.parts else ()
    )
    identical = find_identical(found.digests)
    pairs = find_pairs(images, labels) if paired else []
    if rows is None:
        check_classes(folder_index, labels, found.bad)
        splits = make_splits(
            config.split,
            images=images,
            labels=labels,
            classes=folder_index.classes,
            groups=merge_groups([*identical, *(pairs if config.pairs else [])]),
            parts=parts,
        )
    else:
        splits = apply_splits(
            rows,
            source=config.splits,
            images=images,
            labels=labels,
            classes=folder_index.classes,
        )
    return Dataset(
        name=name if demo is None else f"drawn {demo['kind']}",
        root=root,
        classes=folder_index.classes,
        images=images,
        labels=np.array(labels, np.int32),
        splits=splits,
        parts=parts if rows is None else (),
        bad=found.bad,
        duplicates=tuple(tuple(images[i] for i in group) for group in identical),
        conflicts=tuple(
            tuple(images[i] for i in group)
            for group in identical
            if len({labels[i] for i in group}) > 1
        ),
        pairs=tuple(tuple(images[i] for i in group) for group in pairs),
        left_out=left_out,
        ignored=folder_index.ignored,
        is_demo=demo is not None,
        fingerprint=_fingerprint(images, found, preprocessing),
        preprocessing=preprocessing,
        config=config,
        _store=found.store,
    )


def _load_image(
    store: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    config: AugmentConfig | None,
    index: int,
    generator: np.random.Generator,
) -> np.ndarray:
    if config is None:
        return decode.center_crop(store[index], preprocessing)
    return augment(store[index], config, generator, preprocessing)


def _check(config: DataConfig) -> None:
    for flag, value, least in (
        ("limit", config.limit, 1),
        ("cache-mb", config.cache_mb, 0),
        ("num-threads", config.num_threads, 0),
        ("num-workers", config.num_workers, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"--data.{flag} {value}: must be at least {least}")
    if config.decode == "while_training" and config.num_workers:
        raise InputError(
            "--data.decode while_training: threads share what they decode, processes "
            "cannot; leave --data.num-workers at 0"
        )
    for flag, value in (
        ("limit", config.limit),
        ("largest-classes", config.largest_classes),
    ):
        if value is not None and config.splits is not None:
            raise InputError(
                f"--data.{flag} and --data.splits exclude each other: a splits file "
                "says itself which images are used"
            )


def _draw_demo(kind: str) -> Path:
    folder = DEMO_FOLDER / kind
    if not (folder / "DEMO.json").is_file():
        from jaxvision.data.demo import write_demo

        write_demo(kind, folder)
    return folder


def read_demo_marker(root: Path) -> dict[str, str] | None:
    """What `jaxvision.data.demo` wrote last into a folder that it drew."""
    marker = root / "DEMO.json"
    if not marker.is_file():
        return None
    try:
        return {"kind": str(json.loads(marker.read_text("utf-8"))["kind"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{marker}: damaged; remove the folder to have it drawn again"
        ) from error


def _largest(folder_index: FolderIndex, count: int | None) -> FolderIndex:
    """The `count` classes with the most images, of equal ones the first by name."""
    if count is None:
        return folder_index
    sizes = Counter(folder_index.labels)
    if not 2 <= count <= len(sizes):
        raise InputError(
            f"--data.largest-classes {count}: must be at least 2 and at most "
            f"{len(sizes)}, the number of classes in {folder_index.root}"
        )
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    chosen = sorted(order[:count])
    kept = [index for index, label in enumerate(folder_index.labels) if label in chosen]
    left_out = len(folder_index.images) - len(kept)
    return dataclasses.replace(
        _subset(folder_index, kept),
        classes=tuple(folder_index.classes[label] for label in chosen),
        labels=tuple(chosen.index(folder_index.labels[index]) for index in kept),
        ignored={**folder_index.ignored, "images of smaller classes": left_out},
    )


def _subset(folder_index: FolderIndex, kept: Sequence[int]) -> FolderIndex:
    """Some of the images, of the same classes."""
    return dataclasses.replace(
        folder_index,
        images=tuple(folder_index.images[index] for index in kept),
        labels=tuple(folder_index.labels[index] for index in kept),
        parts=tuple(folder_index.parts[index] for index in kept)
        if folder_index.parts
        else (),
    )


def _limit(
    folder_index: FolderIndex, limit: int | None, name: Callable[[str], str]
) -> FolderIndex:
    """The first `limit` of each class in the order of a hash of `name(path)`; of a
    folder that comes divided, of each class in each part."""
    if limit is None:
        return folder_index
    by_class: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, label in enumerate(folder_index.labels):
        by_class[label, folder_index.parts[index] if folder_index.parts else ""].append(
            index
        )

    def rank(index: int) -> bytes:
        return hashlib.sha256(os.fsencode(name(folder_index.images[index]))).digest()

    kept = sorted(
        index
        for members in by_class.values()
        for index in sorted(members, key=rank)[:limit]
    )
    return _subset(folder_index, kept)


def _only_listed(
    folder_index: FolderIndex, rows: Sequence[SplitRow], source: Path
) -> tuple[FolderIndex, tuple[str, ...]]:
    """What a splits file lists, with its classes alone, and the images left out."""
    # For its errors: they need not wait for the decoding.
    apply_splits(
        rows,
        source=source,
        images=folder_index.images,
        labels=folder_index.labels,
        classes=folder_index.classes,
    )
    listed = {row.path for row in rows}
    classes = tuple(sorted({row.label for row in rows}))
    kept = [index for index, path in enumerate(folder_index.images) if path in listed]
    restricted = dataclasses.replace(
        _subset(folder_index, kept),
        classes=classes,
        labels=tuple(
            classes.index(folder_index.classes[folder_index.labels[index]])
            for index in kept
        ),
    )
    return restricted, tuple(path for path in folder_index.images if path not in listed)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The usable ones among the images of a folder.

    kept: their indices in the folder index.
    digests: SHA-256 of each file.
    bad: (path, reason) of each of the others.
    store: pixels, as from `decode.decode_stored`.
    pillow: version that decoded them.
    """

    kept: list[int]
    digests: list[str]
    bad: tuple[tuple[str, str], ...]
    store: Sequence[np.ndarray]
    pillow: str


def _decode_all(
    folder_index: FolderIndex,
    preprocessing: Preprocessing,
    config: DataConfig,
    progress: Progress | None,
) -> _Found:
    """Decodes every image, once, into memory or a file."""
    store = ImageStore(
        config.cache_mb << 20, folder=config.cache_dir, shared=config.num_workers > 0
    )
    kept: list[int] = []
    digests: list[str] = []
    bad: list[tuple[str, str]] = []
    with decode.quiet_pillow():
        read = functools.partial(decode.read_stored, folder_index.root, preprocessing)
        for index, (digest, outcome) in enumerate(
            _map_threads(read, folder_index, config)
        ):
            if isinstance(outcome, decode.BadImage):
                if config.on_bad == "error":
                    raise _refusal(outcome)
                bad.append((folder_index.images[index], outcome.reason))
            else:
                store.append(outcome)
                kept.append(index)
                digests.append(digest)
            if progress is not None:
                progress(index + 1, len(folder_index.images))
    return _Found(kept, digests, tuple(bad), store, PIL.__version__)


def _decode_later(
    folder_index: FolderIndex,
    preprocessing: Preprocessing,
    config: DataConfig,
    progress: Progress | None,
) -> _Found:
    """Reads every file for its digest alone; pixels come when they are asked for."""
    digests = []
    hashed = _map_threads(
        functools.partial(_digest, folder_index.root), folder_index, config
    )
    for digest in hashed:
        digests.append(digest)
        if progress is not None:
            progress(len(digests), len(folder_index.images))
    store = ImageStore(config.cache_mb << 20, folder=config.cache_dir)
    load = functools.partial(
        _decode_one, folder_index.root, folder_index.images, preprocessing
    )
    images = LazyImages(load, len(folder_index.images), store)
    return _Found([*range(len(digests))], digests, (), images, PIL.__version__)


def _digest(root: Path, image: str) -> str:
    try:
        return hashlib.sha256(decode.read_file(root / image)[1]).hexdigest()
    except decode.BadImage as bad:
        raise _met_in_training(bad) from bad


def _decode_one(
    root: Path, images: Sequence[str], preprocessing: Preprocessing, index: int
) -> np.ndarray:
    _, outcome = decode.read_stored(root, preprocessing, images[index])
    if isinstance(outcome, decode.BadImage):
        raise _met_in_training(outcome)
    return outcome


def _met_in_training(bad: decode.BadImage) -> InputError:
    return InputError(
        f"{bad}; fix or remove it, or have such images found and left out before "
        "training with --data.decode first"
    )


def _map_threads(
    function: Callable[[str], Any], folder_index: FolderIndex, config: DataConfig
) -> Iterator[Any]:
    """The results of a function of each image's path, in order."""
    if config.num_threads == 0:
        yield from map(function, folder_index.images)
        return
    with ThreadPoolExecutor(config.num_threads) as pool:
        ahead = 4 * config.num_threads
        yield from map_in_order(pool, function, folder_index.images, ahead=ahead)


def _take_prepared(
    prepared: Prepared,
    folder_index: FolderIndex,
    preprocessing: Preprocessing,
    config: DataConfig,
) -> _Found:
    """The same from a prepared set, where it has been done."""
    prepared.check_geometry(preprocessing)
    bad = [
        (path, prepared.bad[path])
        for path in folder_index.images
        if path in prepared.bad
    ]
    if bad and config.on_bad == "error":
        raise _refusal(decode.BadImage(*bad[0]))
    record = prepared.records
    kept = [index for index, path in enumerate(folder_index.images) if path in record]
    records = [record[folder_index.images[index]] for index in kept]
    digests = [prepared.digests[number] for number in records]
    store = prepared.store(records)
    return _Found(kept, digests, tuple(bad), store, prepared.pillow)


def _refusal(bad: decode.BadImage) -> InputError:
    return InputError(
        f"{bad}; fix or remove it, or leave such images out with --data.on-bad skip"
    )


def check_classes(
    folder_index: FolderIndex, labels: Sequence[int], bad: Sequence[tuple[str, str]]
) -> None:
    """Raises InputError if a class has lost all its images.

    Args:
      folder_index: the folder.
      labels: of the images that can be used.
      bad: (path, reason) of each of the others.
    """
    left = set(labels)
    for label, name in enumerate(folder_index.classes):
        if label not in left:
            path, reason = next(entry for entry in bad if f"/{name}/" in f"/{entry[0]}")
            raise InputError(
                f"class {name!r} has no usable image ({path}: {reason}): "
                "add images or remove the folder"
            )


def _fingerprint(
    images: Sequence[str], found: _Found, preprocessing: Preprocessing
) -> str:
    # Pillow's version: its decoders and filters may change by a bit.
    content = json.dumps(
        [found.pillow, preprocessing.to_dict(), list(images), found.digests],
        sort_keys=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()
