"""From a folder of pictures to batches: `load_dataset`."""

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
from jaxvision.data.folder import Scan, scan_folder
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
from jaxvision.data.store import LazyPictures, PictureStore
from jaxvision.data.transforms import AugmentConfig, augment, check_augment
from jaxvision.data.workers import map_in_order
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from jaxvision.data.loader import Batches

DEMO_FOLDER = Path("data/demo")
"""Where the built-in sets are drawn, one sub-folder a kind."""

Progress = Callable[[int, int], None]
"""Told (pictures done, pictures in all)."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pictures, how they are divided, and what they may cost."""

    root: Path | None = None
    """Folder with one sub-folder of pictures a class, or with `train` and `test` of
    which each is such a folder, or prepared by `python -m jaxvision.data.prepare`;
    none: the built-in drawn set."""
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    splits: Path | None = None
    """A splits.csv of an earlier run, to be used again exactly, in place of `split`."""
    pairs: bool = True
    """Two classes of pictures with the same names are split by pair, so that a face
    and its own comic stay on one side; no: each picture by itself."""
    on_bad: Literal["skip", "error"] = "skip"
    """A picture that can't be decoded is left out and listed, or ends the run."""
    limit: int | None = None
    """At most this many pictures of each class, for trials."""
    largest_classes: int | None = None
    """Only so many classes: those with the most pictures."""
    decode: Literal["first", "while_training"] = "first"
    """first: all pictures before training, and the bad ones are left out before they
    are divided; while_training: each when it is first needed, so that an accelerator
    works meanwhile, but a bad one ends the run. A prepared set needs neither."""
    cache_mb: int = 1024
    """Decoded pictures are held in memory up to this many MiB, beyond it in a file."""
    cache_dir: Path | None = None
    """Folder of that file; the system's temporary folder if none."""
    num_threads: int = 4
    """Threads that decode pictures and make batches; the batches don't depend on it."""
    num_workers: int = 0
    """Processes that make batches, each with `num_threads`; 0: none but this one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Decoded pictures with labels and splits.

    Attributes:
      name: of the folder, or of the drawn set.
      root: the folder.
      classes: names; a label is an index into them.
      pictures: paths relative to `root`, those that can be used.
      labels: `[N]` int32.
      splits: ascending int32 indices for "train", "val" and "test".
      parts: the split of each picture by its folder, where that comes divided; else
        nothing.
      bad: (path relative to `root`, reason) of each picture that can't be used.
      duplicates: groups of paths with identical content, kept within one split.
      conflicts: those of `duplicates` whose pictures carry different labels.
      pairs: of a paired set (see `splits.is_paired`) the paths of each pair, kept
        within one split if `config.pairs`.
      left_out: pictures that a given splits file doesn't list.
      ignored: number of further files in the folder, by reason.
      is_demo: whether the pictures were drawn by this package.
      fingerprint: SHA-256 over paths, contents and preprocessing: a key for what is
        computed from the pictures. It does not depend on the splits.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    pictures: tuple[str, ...]
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
        """Disjoint groups of indices of pictures that stay within one split."""
        index_of = {picture: index for index, picture in enumerate(self.pictures)}
        kept = [*self.duplicates, *(self.pairs if self.config.pairs else ())]
        return merge_groups([[index_of[path] for path in group] for group in kept])

    @property
    def pairs_note(self) -> str:
        """What the splits did with the pairs of a paired set; empty for other sets."""
        if not self.pairs:
            return ""
        split_of = {
            self.pictures[index]: name
            for name, indices in self.splits.items()
            for index in indices
        }
        sides = [{split_of[p] for p in pair if p in split_of} for pair in self.pairs]
        apart = sum(len(names) > 1 for names in sides)
        found = f"{len(self.pairs)} pairs of pictures of the same name, "
        return found + (f"{apart} of them apart" if apart else "each within one split")

    def picture(self, index: int) -> np.ndarray:
        """`[H, W, C]` uint8, as the network sees it in evaluation."""
        return decode.finish(self._store[index], self.preprocessing)

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
          split: "train", "val" or "test", or the indices of any pictures.
          batch_size: of the global batch.
          seed: of order and augmentation.
          train: shuffled and endless, or in order and once.
          augment: random changes of each picture; none if None.
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
            functools.partial(_load_picture, self._store, self.preprocessing, augment),
            batch_size=batch_size,
            seed=seed,
            train=train,
            process_index=process_index,
            process_count=process_count,
            num_threads=self.config.num_threads,
            num_workers=self.config.num_workers,
        )

    def resplit(self, config: SplitConfig) -> "Dataset":
        """The same pictures, not decoded again, in other splits."""
        splits = make_splits(
            config,
            pictures=self.pictures,
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
            pictures=self.pictures,
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
    """Finds, decodes and splits the pictures of a folder.

    Unless `config.decode` or a prepared set says otherwise, every picture is decoded
    here, once: so the bad ones are known before the split, and the first epoch is as
    quick as every later one.

    Args:
      config: which pictures and how.
      preprocessing: the geometry they are decoded to.
      demo_kind: the built-in set for a config without `root`, drawn at first use.
      progress: called as pictures are decoded.

    Raises:
      InputError: nothing usable there, with what would mend it.
    """
    decode.check_geometry(preprocessing)
    _check(config)
    root = _draw_demo(demo_kind) if config.root is None else config.root
    prepared = read_prepared(root)
    demo = read_demo_marker(root) if prepared is None else prepared.demo
    name = root.resolve().name if prepared is None else prepared.name
    whole = scan_folder(root) if prepared is None else prepared.scan
    whole = _largest(whole, config.largest_classes)
    paired = not whole.parts and is_paired(whole.pictures, whole.labels, whole.classes)
    scan = _limit(whole, config.limit, pair_name if paired and config.pairs else str)
    rows, left_out = None, ()
    if config.splits is not None:
        rows = read_splits(config.splits)
        scan, left_out = _only_listed(scan, rows, config.splits)
    if prepared is None and config.decode == "first":
        found = _decode_all(scan, preprocessing, config, progress)
    elif prepared is None:
        found = _decode_later(scan, preprocessing, config, progress)
    else:
        found = _take_prepared(prepared, scan, preprocessing, config)
    kept = found.kept
    pictures = tuple(scan.pictures[index] for index in kept)
    labels = [scan.labels[index] for index in kept]
    parts = tuple(scan.parts[index] for index in kept) if scan.parts else ()
    identical = find_identical(found.digests)
    pairs = find_pairs(pictures, labels) if paired else []
    if rows is None:
        check_classes(scan, labels, found.bad)
        splits = make_splits(
            config.split,
            pictures=pictures,
            labels=labels,
            classes=scan.classes,
            groups=merge_groups([*identical, *(pairs if config.pairs else [])]),
            parts=parts,
        )
    else:
        splits = apply_splits(
            rows,
            source=config.splits,
            pictures=pictures,
            labels=labels,
            classes=scan.classes,
        )
    return Dataset(
        name=name if demo is None else f"drawn {demo['kind']}",
        root=root,
        classes=scan.classes,
        pictures=pictures,
        labels=np.array(labels, np.int32),
        splits=splits,
        parts=parts if rows is None else (),
        bad=found.bad,
        duplicates=tuple(tuple(pictures[i] for i in group) for group in identical),
        conflicts=tuple(
            tuple(pictures[i] for i in group)
            for group in identical
            if len({labels[i] for i in group}) > 1
        ),
        pairs=tuple(tuple(pictures[i] for i in group) for group in pairs),
        left_out=left_out,
        ignored=scan.ignored,
        is_demo=demo is not None,
        fingerprint=_fingerprint(pictures, found, preprocessing),
        preprocessing=preprocessing,
        config=config,
        _store=found.store,
    )


def _load_picture(
    store: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    config: AugmentConfig | None,
    index: int,
    generator: np.random.Generator,
) -> np.ndarray:
    if config is None:
        return decode.finish(store[index], preprocessing)
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
                "says itself which pictures are used"
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


def _largest(scan: Scan, count: int | None) -> Scan:
    """The `count` classes with the most pictures, of equal ones the first by name."""
    if count is None:
        return scan
    sizes = Counter(scan.labels)
    if not 2 <= count <= len(sizes):
        raise InputError(
            f"--data.largest-classes {count}: must be at least 2 and at most "
            f"{len(sizes)}, the number of classes in {scan.root}"
        )
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    chosen = sorted(order[:count])
    kept = [index for index, label in enumerate(scan.labels) if label in chosen]
    left_out = len(scan.pictures) - len(kept)
    return dataclasses.replace(
        _subset(scan, kept),
        classes=tuple(scan.classes[label] for label in chosen),
        labels=tuple(chosen.index(scan.labels[index]) for index in kept),
        ignored={**scan.ignored, "pictures of smaller classes": left_out},
    )


def _subset(scan: Scan, kept: Sequence[int]) -> Scan:
    """Some of the pictures, of the same classes."""
    return dataclasses.replace(
        scan,
        pictures=tuple(scan.pictures[index] for index in kept),
        labels=tuple(scan.labels[index] for index in kept),
        parts=tuple(scan.parts[index] for index in kept) if scan.parts else (),
    )


def _limit(scan: Scan, limit: int | None, name: Callable[[str], str]) -> Scan:
    """The first `limit` of each class in the order of a hash of `name(path)`; of a
    folder that comes divided, of each class in each part."""
    if limit is None:
        return scan
    by_class: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, label in enumerate(scan.labels):
        by_class[label, scan.parts[index] if scan.parts else ""].append(index)

    def rank(index: int) -> bytes:
        return hashlib.sha256(os.fsencode(name(scan.pictures[index]))).digest()

    kept = sorted(
        index
        for members in by_class.values()
        for index in sorted(members, key=rank)[:limit]
    )
    return _subset(scan, kept)


def _only_listed(
    scan: Scan, rows: Sequence[SplitRow], source: Path
) -> tuple[Scan, tuple[str, ...]]:
    """What a splits file lists, with its classes alone, and the pictures left out."""
    # For its errors: they need not wait for the decoding.
    apply_splits(
        rows,
        source=source,
        pictures=scan.pictures,
        labels=scan.labels,
        classes=scan.classes,
    )
    listed = {row.path for row in rows}
    classes = tuple(sorted({row.label for row in rows}))
    kept = [index for index, path in enumerate(scan.pictures) if path in listed]
    restricted = dataclasses.replace(
        _subset(scan, kept),
        classes=classes,
        labels=tuple(classes.index(scan.classes[scan.labels[index]]) for index in kept),
    )
    return restricted, tuple(path for path in scan.pictures if path not in listed)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The usable ones among the pictures of a scan.

    kept: their indices in the scan.
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
    scan: Scan,
    preprocessing: Preprocessing,
    config: DataConfig,
    progress: Progress | None,
) -> _Found:
    """Decodes every picture, once, into memory or a file."""
    store = PictureStore(
        config.cache_mb << 20, folder=config.cache_dir, shared=config.num_workers > 0
    )
    kept: list[int] = []
    digests: list[str] = []
    bad: list[tuple[str, str]] = []
    with decode.quiet_pillow():
        read = functools.partial(decode.read_stored, scan.root, preprocessing)
        for index, (digest, outcome) in enumerate(_map_threads(read, scan, config)):
            if isinstance(outcome, decode.BadPicture):
                if config.on_bad == "error":
                    raise _refusal(outcome)
                bad.append((scan.pictures[index], outcome.reason))
            else:
                store.append(outcome)
                kept.append(index)
                digests.append(digest)
            if progress is not None:
                progress(index + 1, len(scan.pictures))
    return _Found(kept, digests, tuple(bad), store, PIL.__version__)


def _decode_later(
    scan: Scan,
    preprocessing: Preprocessing,
    config: DataConfig,
    progress: Progress | None,
) -> _Found:
    """Reads every file for its digest alone; pixels come when they are asked for."""
    digests = []
    hashed = _map_threads(functools.partial(_digest, scan.root), scan, config)
    for digest in hashed:
        digests.append(digest)
        if progress is not None:
            progress(len(digests), len(scan.pictures))
    store = PictureStore(config.cache_mb << 20, folder=config.cache_dir)
    load = functools.partial(_decode_one, scan.root, scan.pictures, preprocessing)
    pictures = LazyPictures(load, len(scan.pictures), store)
    return _Found([*range(len(digests))], digests, (), pictures, PIL.__version__)


def _digest(root: Path, picture: str) -> str:
    try:
        return hashlib.sha256(decode.read_file(root / picture)[1]).hexdigest()
    except decode.BadPicture as bad:
        raise _met_in_training(bad) from bad


def _decode_one(
    root: Path, pictures: Sequence[str], preprocessing: Preprocessing, index: int
) -> np.ndarray:
    _, outcome = decode.read_stored(root, preprocessing, pictures[index])
    if isinstance(outcome, decode.BadPicture):
        raise _met_in_training(outcome)
    return outcome


def _met_in_training(bad: decode.BadPicture) -> InputError:
    return InputError(
        f"{bad}; mend or remove it, or have such pictures found and left out before "
        "training with --data.decode first"
    )


def _map_threads(
    function: Callable[[str], Any], scan: Scan, config: DataConfig
) -> Iterator[Any]:
    """The results of a function of each picture's path, in order."""
    if config.num_threads == 0:
        yield from map(function, scan.pictures)
        return
    with ThreadPoolExecutor(config.num_threads) as pool:
        ahead = 4 * config.num_threads
        yield from map_in_order(pool, function, scan.pictures, ahead=ahead)


def _take_prepared(
    prepared: Prepared, scan: Scan, preprocessing: Preprocessing, config: DataConfig
) -> _Found:
    """The same from a prepared set, where it has been done."""
    prepared.check_geometry(preprocessing)
    bad = [(path, prepared.bad[path]) for path in scan.pictures if path in prepared.bad]
    if bad and config.on_bad == "error":
        raise _refusal(decode.BadPicture(*bad[0]))
    record = prepared.records
    kept = [index for index, path in enumerate(scan.pictures) if path in record]
    records = [record[scan.pictures[index]] for index in kept]
    digests = [prepared.digests[number] for number in records]
    store = prepared.store(records)
    return _Found(kept, digests, tuple(bad), store, prepared.pillow)


def _refusal(bad: decode.BadPicture) -> InputError:
    return InputError(
        f"{bad}; mend or remove it, or leave such pictures out with --data.on-bad skip"
    )


def check_classes(
    scan: Scan, labels: Sequence[int], bad: Sequence[tuple[str, str]]
) -> None:
    """Raises InputError if a class has lost all its pictures.

    Args:
      scan: the folder.
      labels: of the pictures that can be used.
      bad: (path, reason) of each of the others.
    """
    left = set(labels)
    for label, name in enumerate(scan.classes):
        if label not in left:
            path, reason = next(entry for entry in bad if f"/{name}/" in f"/{entry[0]}")
            raise InputError(
                f"class {name!r} has no usable picture ({path}: {reason}): "
                "add pictures or remove the folder"
            )


def _fingerprint(
    pictures: Sequence[str], found: _Found, preprocessing: Preprocessing
) -> str:
    # Pillow's version: its decoders and filters may change by a bit.
    content = json.dumps(
        [found.pillow, preprocessing.to_dict(), list(pictures), found.digests],
        sort_keys=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()
