"""From labeled images to batches: `load_dataset`, `Dataset.decode`, `batches`."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvision.config import check
from jaxvision.data import decode
from jaxvision.data.config import DataConfig, DemoKind
from jaxvision.data.corrections import (
    Correction,
    correct,
    correct_splits,
    read_corrections,
)
from jaxvision.data.folder import FolderIndex, index_folder, read_demo_marker
from jaxvision.data.labels import folder_and_csv, index_labels
from jaxvision.data.loader import Batches
from jaxvision.data.prepared import read_prepared
from jaxvision.data.reader import DecodedFiles, ImageReader
from jaxvision.data.selection import (
    check_classes,
    first_of_each_class,
    largest_classes,
    only_listed,
)
from jaxvision.data.similar import find_similar
from jaxvision.data.splits import (
    SplitRow,
    Splits,
    apply_splits,
    find_identical,
    find_pairs,
    is_paired,
    make_folds,
    make_splits,
    merge_groups,
    pair_name,
    read_splits,
    write_splits,
)
from jaxvision.data.store import Images
from jaxvision.data.transforms import AugmentConfig, augment
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import Progress

__all__ = ["DataConfig", "Dataset", "DecodedDataset", "load_dataset"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labeled images with splits; `decode` gives their pixels.

    Its properties read files where they must: `splits` and whatever depends on the
    contents hash all of them, once, unless a splits file without hashes says it all.

    Attributes:
      name: of the folder, or of the drawn set.
      root: the folder that paths are relative to.
      classes: names; a label is an index into them.
      images: paths relative to `root`, sorted within a class.
      labels: `[N]` int32.
      parts: the split of each image by its folder or its row, where the images come
        divided; else nothing.
      left_out: images that a given split doesn't list.
      ignored: what else is in the folder, counted by kind.
      notes: what a person should know of the folder's names, a sentence each.
      is_demo: whether the images were drawn by this package.
      config: where they come from.
      corrections: of labels, which are applied.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: np.ndarray
    parts: tuple[str, ...]
    left_out: tuple[str, ...]
    ignored: Mapping[str, int]
    notes: tuple[str, ...]
    is_demo: bool
    config: DataConfig
    corrections: tuple[Correction, ...]
    _index: FolderIndex
    _paired: bool
    _rows: tuple[SplitRow, ...] | None
    _rows_source: Path
    _reader: ImageReader

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self.images)} images of "
            f"{len(self.classes)} classes in {self.root}>"
        )

    @cached_property
    def splits(self) -> Splits:
        """Ascending int32 indices for "train", "val" and "test".

        Those of a decoded data set do without the images that can't be decoded; here
        they count as any other.

        Raises:
          InputError: a class that is too small; an image of a given split that is
            missing or has changed.
        """
        if self._rows is None:
            return make_splits(
                self.config.split,
                images=self.images,
                labels=self.labels.tolist(),
                classes=self.classes,
                groups=self.groups,
                parts=self.parts,
            )
        hashed = any(row.sha256 for row in self._rows)
        return apply_splits(
            self._rows,
            source=self._rows_source,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
            digests=self.digests if hashed else (),
        )

    @cached_property
    def fold(self) -> np.ndarray:
        """`[N]` int32, the fold of each image, from 0 to `config.folds` - 1.

        Raises:
          InputError: a class that is too small.
        """
        assert self.config.folds is not None
        return make_folds(
            self.config.folds,
            seed=self.config.split.seed,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
            groups=self.groups,
        )

    def fold_splits(self, number: int) -> Splits:
        """Of a fold: it is the test, and the other images are divided between training
        and validation in the ratio of `config.split`.

        Raises:
          InputError: a class that is too small.
        """
        return make_splits(
            self.config.split,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
            groups=self.groups,
            parts=["test" if fold == number else "train" for fold in self.fold],
        )

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's file; empty for one that can't be read."""
        return tuple(self._reader.digests(self.images))

    @cached_property
    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """Groups of paths with identical content, kept within one split."""
        return self._paths(find_identical(self.digests))

    @cached_property
    def conflicts(self) -> tuple[tuple[str, ...], ...]:
        """Those of `duplicates` whose images carry different labels."""
        return self._paths(
            group
            for group in find_identical(self.digests)
            if len({self.labels[index] for index in group}) > 1
        )

    @cached_property
    def pairs(self) -> tuple[tuple[str, ...], ...]:
        """Of a paired set (see `splits.is_paired`) the paths of each pair, kept within
        one split if `config.pairs`."""
        return self._paths(self._find_pairs())

    @cached_property
    def groups(self) -> list[list[int]]:
        """Disjoint groups of indices of images that stay within one split."""
        pairs = self._find_pairs() if self.config.pairs else []
        return merge_groups([*find_identical(self.digests), *pairs])

    @property
    def pairs_note(self) -> str:
        """What the splits did with the pairs of a paired set; empty for other sets."""
        if not self.pairs:
            return ""
        side_of = {self.images[index]: name for index, name in self._sides().items()}
        sides = [{side_of[p] for p in pair if p in side_of} for pair in self.pairs]
        apart = sum(len(names) > 1 for names in sides)
        found = f"{len(self.pairs)} pairs of images of the same name, "
        part = "fold" if self.config.folds else "split"
        return found + (
            f"{apart} of them apart" if apart else f"each within one {part}"
        )

    def with_seed(self, seed: int) -> "Dataset":
        """The same images in the split of another seed; unchanged where a splits file
        or `with_splits` fixes the split."""
        if self._rows is not None:
            return self
        split = dataclasses.replace(self.config.split, seed=seed)
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, split=split)
        )

    def with_folds(self, count: int) -> "Dataset":
        """The same images for a cross-validation; see `DataConfig.folds`.

        Raises:
          InputError: their splits are given.
        """
        if self._rows is not None:
            raise InputError(
                "the splits of these images are given; load them without",
                setting="folds",
            )
        config = dataclasses.replace(self.config, folds=count)
        check(config, "data.")
        return dataclasses.replace(self, config=config)

    def with_splits(self, rows: Sequence[SplitRow]) -> "Dataset":
        """The images that rows list, in their splits; the others are left out.

        Raises:
          InputError: a listed image is missing or of another class. One whose content
            has changed is found when `splits` are asked for, or in `decode`.
        """
        return self._with_rows(tuple(rows), self.root)

    def with_corrections(self, rows: Sequence[Correction], source: Path) -> "Dataset":
        """The images with corrected labels, without the bad ones.

        Args:
          rows: the corrections; a setting `data.corrections` gives them too.
          source: where they come from; begins the errors.

        Raises:
          InputError: an image or a class that there is not, or an image that has
            changed.
        """
        index = correct(self._index, rows, source=source, digest=self._reader.digest)
        return dataclasses.replace(
            self,
            images=index.images,
            labels=np.array(index.labels, np.int32),
            parts=index.parts,
            ignored=index.ignored,
            notes=index.notes,
            corrections=tuple(rows),
            _index=index,
        )

    def _with_rows(self, rows: tuple[SplitRow, ...], source: Path) -> "Dataset":
        index, left_out = only_listed(self._index, rows, source)
        return dataclasses.replace(
            self,
            classes=index.classes,
            images=index.images,
            labels=np.array(index.labels, np.int32),
            parts=(),
            left_out=left_out,
            _index=index,
            _rows=rows,
            _rows_source=source,
        )

    def write_splits(self, path: Path) -> None:
        """Writes the splits as CSV, which the setting `data.splits` takes."""
        write_splits(
            path,
            self.splits,
            images=self.images,
            labels=self.labels.tolist(),
            classes=self.classes,
            digests=self.digests,
        )

    def decode(
        self, preprocessing: Preprocessing, progress: Progress | None = None
    ) -> "DecodedDataset":
        """The images in the geometry of a network.

        Unless `config.decode` or a prepared set says otherwise, every image is decoded
        here, once: so the bad ones are known before the split, and the first epoch is
        as quick as every later one. The images of the last geometry are kept and used
        again.

        Args:
          preprocessing: the geometry.
          progress: told (images decoded, images in all).

        Raises:
          InputError: bad images, where they are to end the run; a class that has none
            left or too few; an image of a given split that is missing or has changed.
        """
        files = self._reader.decode(self.images, preprocessing, progress)
        decoded = _decoded(self, files, preprocessing)
        if self._rows is None:
            check_classes(self._index, decoded.labels.tolist(), decoded.bad)
        # For its errors, before training starts.
        _ = decoded.splits if self.config.folds is None else decoded.fold
        return decoded

    def _sides(self) -> dict[int, str]:
        """The split of each image that is in one, or its fold."""
        if self.config.folds is not None:
            return {i: f"fold {fold + 1}" for i, fold in enumerate(self.fold)}
        return {
            int(index): name for name, part in self.splits.items() for index in part
        }

    def _find_pairs(self) -> list[list[int]]:
        return find_pairs(self.images, self.labels.tolist()) if self._paired else []

    def _paths(self, groups: Iterable[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.images[index] for index in group) for group in groups)


class SimilarImages(NamedTuple):
    """Two images that are nearly the same, and where they are."""

    image: str
    split: str
    other: str
    other_split: str
    bits: int
    """Of 256 that differ."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DecodedDataset(Dataset):
    """Images in the geometry of a network; `batches` gives what training takes.

    `images` and what belongs to them are those that can be used.

    Attributes:
      preprocessing: of the images.
      bad: (path relative to `root`, reason) of each image that can't be used.
    """

    preprocessing: Preprocessing
    bad: tuple[tuple[str, str], ...]
    _undecoded: Dataset
    _files: DecodedFiles

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's file."""
        return tuple(self._files.digests[path] for path in self.images)

    @cached_property
    def similar(self) -> tuple[SimilarImages, ...]:
        """Pairs of nearly identical images of different content, such as copies that
        were recompressed or resized. They are found and not moved: each stays in its
        split. None where images are decoded while training."""
        hashes = self._files.hashes
        known = [i for i, path in enumerate(self.images) if path in hashes]
        found = find_similar([hashes[self.images[index]] for index in known])
        split_of = self._sides()
        return tuple(
            SimilarImages(
                self.images[a], split_of[a], self.images[b], split_of[b], bits
            )
            for a, b, bits in ((known[a], known[b], bits) for a, b, bits in found)
            if self.digests[a] != self.digests[b] and {a, b} <= split_of.keys()
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, contents and preprocessing: a key for what is computed
        from the images. It does not depend on the splits."""
        # Pillow's version: its decoders and filters may change by a bit.
        content = json.dumps(
            [
                self._files.pillow,
                self.preprocessing.to_dict(),
                list(self.images),
                list(self.digests),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def image(self, index: int) -> np.ndarray:
        """`[H, W, C]` uint8, as the network sees it in evaluation."""
        stored = self._files.store[int(self._places[index])]
        return decode.center_crop(stored, self.preprocessing)

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
    ) -> Batches:
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
        if augment is not None:
            check(augment, "augment.")
        return Batches(
            self.splits[split] if isinstance(split, str) else split,
            self.labels,
            functools.partial(
                _load_image,
                self._files.store,
                self._places,
                self.preprocessing,
                augment,
            ),
            batch_size=batch_size,
            seed=seed,
            train=train,
            process_index=process_index,
            process_count=process_count,
            num_threads=self.config.num_threads,
            num_workers=self.config.num_workers,
        )

    def with_seed(self, seed: int) -> "DecodedDataset":
        """As `Dataset.with_seed`; decodes nothing."""
        return self._of(self._undecoded.with_seed(seed))

    def with_folds(self, count: int) -> "DecodedDataset":
        """As `Dataset.with_folds`; decodes nothing."""
        return self._of(self._undecoded.with_folds(count))

    def with_splits(self, rows: Sequence[SplitRow]) -> "DecodedDataset":
        """As `Dataset.with_splits`; decodes nothing, and finds what has changed.

        Raises:
          InputError: a listed image is missing, of another class, or has changed.
        """
        decoded = self._of(self._undecoded.with_splits(rows))
        _ = decoded.splits  # for its errors
        return decoded

    def decode(
        self, preprocessing: Preprocessing, progress: Progress | None = None
    ) -> "DecodedDataset":
        """As `Dataset.decode`; itself for its own preprocessing."""
        if preprocessing == self.preprocessing:
            return self
        return self._undecoded.decode(preprocessing, progress)

    def _of(self, undecoded: Dataset) -> "DecodedDataset":
        return _decoded(undecoded, self._files, self.preprocessing)

    @cached_property
    def _places(self) -> np.ndarray:
        """`[N]` int64: where the pixels of each image lie in the store."""
        return np.array([self._files.places[path] for path in self.images], np.int64)


def load_dataset(
    config: DataConfig | str | Path, *, demo_kind: DemoKind = "faces"
) -> Dataset:
    """Finds the images of a folder or of a CSV of labels; decodes none.

    Args:
      config: which images and how; or the folder, or the CSV.
      demo_kind: the built-in set for a config without `root`, drawn at first use.

    Raises:
      InputError: a setting out of range, or nothing usable there, with what would fix
        it.
    """
    config = _checked(config)
    prepared = None
    root = _draw_demo(demo_kind) if config.root is None else config.root
    if config.labels is not None:
        index = index_labels(config.labels, root)
    else:
        prepared = read_prepared(root)
        index = index_folder(root) if prepared is None else prepared.folder_index
    demo = read_demo_marker(root) if prepared is None else prepared.demo
    name = root.resolve().name if prepared is None else prepared.name
    reader = ImageReader(root, prepared, config)
    corrections: tuple[Correction, ...] = ()
    paired = False
    if config.corrections is not None:
        # As the images lie: with one corrected label they would be no pairs any more.
        paired = _comes_in_pairs(index)
        corrections = tuple(read_corrections(config.corrections))
        index = correct(
            index, corrections, source=config.corrections, digest=reader.digest
        )
    if config.largest_classes is not None:
        index = largest_classes(index, config.largest_classes)
    paired = paired or _comes_in_pairs(index)
    if config.limit is not None:
        by_pair = paired and config.pairs
        index = first_of_each_class(index, config.limit, pair_name if by_pair else str)
    dataset = Dataset(
        name=name if demo is None else f"drawn {demo['kind']}",
        root=root,
        classes=index.classes,
        images=index.images,
        labels=np.array(index.labels, np.int32),
        parts=index.parts,
        left_out=(),
        ignored=index.ignored,
        notes=index.notes,
        is_demo=demo is not None,
        config=config,
        corrections=corrections,
        _index=index,
        _paired=paired,
        _rows=None,
        _rows_source=root,
        _reader=reader,
    )
    if config.splits is not None:
        rows = correct_splits(read_splits(config.splits), corrections)
        return dataset._with_rows(rows, config.splits)
    # For its errors: they need not wait for the decoding.
    listed = {
        "images": index.images, "labels": index.labels, "classes": index.classes,
    }  # fmt: skip
    if config.folds is None:
        make_splits(config.split, parts=index.parts, **listed)
    else:
        make_folds(config.folds, seed=config.split.seed, **listed)
    return dataset


def _checked(config: DataConfig | str | Path) -> DataConfig:
    """The config with its settings checked, and a CSV as `labels`."""
    if not isinstance(config, DataConfig):
        config = DataConfig(root=Path(config))
    check(config, "data.")
    if config.decode == "while_training" and config.num_workers:
        raise InputError(
            "threads share what they decode, processes cannot; leave "
            "`data.num_workers` at 0",
            setting="data.decode",
            value=config.decode,
        )
    if config.folds is not None and config.splits is not None:
        raise InputError(
            "`data.folds` and `data.splits` exclude each other: drop one of them"
        )
    for name in ("limit", "largest_classes"):
        if getattr(config, name) is not None and config.splits is not None:
            raise InputError(
                f"`data.{name}` and `data.splits` exclude each other: a splits file "
                "lists the images that are used"
            )
    root, labels = folder_and_csv(config.root, config.labels)
    return dataclasses.replace(config, root=root, labels=labels)


def _comes_in_pairs(index: FolderIndex) -> bool:
    return not index.parts and is_paired(index.images, index.labels, index.classes)


def _draw_demo(kind: DemoKind) -> Path:
    # What draws is needed once.
    from jaxvision.data.demo import DemoConfig, demo_folder, write_demo

    folder = demo_folder(kind)
    if read_demo_marker(folder) is None:
        write_demo(DemoConfig(kind, folder))
    return folder


def _decoded(
    undecoded: Dataset, files: DecodedFiles, preprocessing: Preprocessing
) -> DecodedDataset:
    """The usable images of a data set, of which `files` are all or more."""
    kept = [i for i, path in enumerate(undecoded.images) if path in files.places]
    fields = {
        field.name: getattr(undecoded, field.name)
        for field in dataclasses.fields(Dataset)
    }
    fields["images"] = tuple(undecoded.images[i] for i in kept)
    fields["labels"] = undecoded.labels[kept]
    if undecoded.parts:
        fields["parts"] = tuple(undecoded.parts[i] for i in kept)
    return DecodedDataset(
        **fields,
        preprocessing=preprocessing,
        bad=tuple((p, files.bad[p]) for p in undecoded.images if p in files.bad),
        _undecoded=undecoded,
        _files=files,
    )


def _load_image(
    store: Images,
    places: np.ndarray,
    preprocessing: Preprocessing,
    config: AugmentConfig | None,
    index: int,
    generator: np.random.Generator,
) -> np.ndarray:
    stored = store[int(places[index])]
    if config is None:
        return decode.center_crop(stored, preprocessing)
    return augment(stored, config, generator, preprocessing)
