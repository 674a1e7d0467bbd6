"""Decodes a folder of images once, into shards that any training run reads.

The result is a folder that `data.root` takes in place of the images, with the same
numbers: ArrayRecord shards, `splits.csv`, and `manifest.json` with classes, counts,
splits, geometry, the SHA-256 of every source image and of every file, bad images,
and versions. It gets its name when it is whole; until then the work lies beside it, in
`.NAME.partial`, and the same command goes on from the last finished shard.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import PIL

import jaxvision
from jaxvision.config import Bounds, check
from jaxvision.data import decode
from jaxvision.data.folder import FolderIndex, index_folder, read_demo_marker
from jaxvision.data.labels import folder_and_csv, index_labels
from jaxvision.data.prepared import (
    FORMAT,
    VERSION,
    Prepared,
    describe,
    geometry,
    pack_record,
    read_prepared,
)
from jaxvision.data.selection import check_classes
from jaxvision.data.similar import difference_hash
from jaxvision.data.splits import (
    SplitConfig,
    Splits,
    find_identical,
    find_pairs,
    is_paired,
    make_splits,
    merge_groups,
    write_splits,
)
from jaxvision.data.workers import default_processes, map_in_processes
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing, ResizeMode
from jaxvision.storage import (
    MANIFEST,
    find_damage,
    only_process,
    publish,
    write_json,
    writing,
)
from jaxvision.typing import Progress

SHARD = 1024
"""Images of a shard: a kill costs at most the work on one of them."""
MOST_SHARDS = 256
"""Shards of larger sets have more images: each that is read keeps a file open."""
MOST_PROCESSES = 64
"""By default: what they decode, one process can still write."""

Row = dict[str, Any]
"""What the manifest says of one image: path, class, part (where the folder comes
divided), bytes, sha256, and hash, of `similar`, or bad, the reason why it can't be
used."""


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and how."""

    root: Path
    """Folder with one subfolder per class, or a CSV of labels."""
    out: Path
    """The prepared set, a new folder."""
    size: tuple[Annotated[int, Bounds(1)], ...]
    """Side of the network's input in pixels, or its height and width."""
    labels: Path | None = None
    """CSV with the columns path and label, of images below `root`."""
    resize_mode: ResizeMode = "stretch"
    """stretch: both sides to `size`; crop: shorter side to `resize`, then the center;
    pad: longer side to fit, black bars around."""
    resize: Annotated[int, Bounds(1)] | None = None
    """Shorter side before the crop, in pixels; 8/7 of `size` if none."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize, which antialiases."""
    gray: bool = False
    """One channel in place of three."""
    split: SplitConfig = SplitConfig()
    """Divides the images in `splits.csv` and the manifest. Training makes its own
    splits, and takes these where it is given the file."""
    pairs: bool = True
    """Two classes of images with the same names are split by pair; no: each image by
    itself."""
    on_bad: Literal["skip", "error"] = "skip"
    """Bad images are left out and listed, or end the work."""
    shard: Annotated[int, Bounds(1)] = SHARD
    """Images of a shard; more in large sets."""
    processes: Annotated[int, Bounds(1)] | None = None
    """Processes that decode; by default one a core, at most 64."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The geometry; its normalization is any."""
        size = (self.size[0], self.size[-1])
        resize = self.resize or round(max(size) * 8 / 7)
        return Preprocessing(
            size, self.resize_mode, resize, self.interpolation, self.gray
        )

    @property
    def partial(self) -> Path:
        """Where the set grows."""
        return self.out.with_name(f".{self.out.name}.partial")


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """What `prepare` left behind.

    prepared: the set.
    new: whether anything had to be done.
    """

    prepared: Prepared
    new: bool


def prepare(
    config: PrepareConfig, *, progress: Progress | None = None
) -> PrepareResult:
    """Prepares a folder; see the module.

    The result is the same to the bit whatever the number of processes, and however
    often the work was stopped and continued.

    Args:
      config: what to prepare.
      progress: told (images done, images in all).

    Raises:
      InputError: nothing usable in the folder; `out` is something else, was prepared
        otherwise or is damaged; another process is at it; the disk is full.
    """
    _check(config)
    root, labels = folder_and_csv(config.root, config.labels)
    assert root is not None
    with _own_names():
        folder_index = index_labels(labels, root) if labels else index_folder(root)
        new = _prepare(config, folder_index, progress)
    prepared = read_prepared(config.out)
    assert prepared is not None
    return PrepareResult(prepared, new)


def _check(config: PrepareConfig) -> None:
    check(config)
    if not 1 <= len(config.size) <= 2:
        raise InputError("give one or two numbers", setting="size", value=config.size)
    if config.resize is not None and config.resize_mode != "crop":
        raise InputError(
            f"not used with `resize_mode` {config.resize_mode}; leave it out",
            setting="resize",
        )
    decode.check_geometry(config.preprocessing)


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """What training calls `data.split` and so on is `split` here."""
    try:
        yield
    except InputError as error:
        message = error.with_names(lambda name: f"`{name.removeprefix('data.')}`")
        raise InputError(message) from error


def _prepare(
    config: PrepareConfig, folder_index: FolderIndex, progress: Progress | None
) -> bool:
    """Whether anything had to be done."""
    root = folder_index.root
    with writing(config.out.parent):
        sizes = [(root / image).stat().st_size for image in folder_index.images]
        if config.out.exists():
            _check_finished(config, folder_index, sizes)
            return False
        # For its errors, which need not wait for the decoding.
        _make_splits(config, folder_index, range(len(folder_index.images)), [])
        processes = config.processes or default_processes(
            len(folder_index.images), most=MOST_PROCESSES
        )
        with _alone(config):
            about = _read_about(config)
            if about is None:
                _check_settings(config, folder_index, sizes)
                shards = _decode(config, folder_index, sizes, processes, progress)
                about = _finish(config, folder_index, shards)
            shutil.rmtree(config.partial / _DONE, ignore_errors=True)
            (config.partial / _SETTINGS).unlink(missing_ok=True)
            publish(config.partial, config.out, about)
    return True


# The folder in which a set grows: shards, `done/` with what the manifest will say of
# the images of each finished one, `settings.json`; at last `manifest.json`.

_DONE = "done"
_SETTINGS = "settings.json"


@contextlib.contextmanager
def _alone(config: PrepareConfig) -> Iterator[None]:
    """The folder is there, and no other process works in it."""
    (config.partial / _DONE).mkdir(parents=True, exist_ok=True)
    with only_process(config.partial, f"preparing {config.out}"):
        for part in config.partial.rglob(".*.part"):
            part.unlink()
        yield


def _read_about(config: PrepareConfig) -> dict[str, Any] | None:
    """The manifest of a set that was killed when it lacked only its name."""
    path = config.partial / MANIFEST
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _check_settings(
    config: PrepareConfig, folder_index: FolderIndex, sizes: Sequence[int]
) -> None:
    """Refuses to continue what was begun with other images or settings."""
    entries = [*zip(folder_index.images, sizes, strict=True)]
    settings = {
        "version": VERSION,
        "preprocessing": geometry(config.preprocessing),
        "shard": config.shard,
        "images": hashlib.sha256(json.dumps(entries).encode()).hexdigest(),
        "Pillow": PIL.__version__,
    }
    path = config.partial / _SETTINGS
    if not path.is_file():
        write_json(path, settings)
    found = json.loads(path.read_text("utf-8"))
    different = [key for key in settings if found.get(key) != settings[key]]
    if different:
        raise InputError(
            f"{config.partial}: was begun with another state of {config.root} or other "
            f"settings ({', '.join(different)}); remove it to begin anew"
        )


def _decode(
    config: PrepareConfig,
    folder_index: FolderIndex,
    sizes: Sequence[int],
    processes: int,
    progress: Progress | None,
) -> dict[str, list[Row]]:
    """Writes the shards that are missing; for each one its images' rows."""
    count = len(folder_index.images)
    length = max(config.shard, -(-count // MOST_SHARDS))
    shards = [range(i, min(i + length, count)) for i in range(0, count, length)]
    names = [f"images-{number:05d}.array_record" for number in range(len(shards))]
    done = [config.partial / _DONE / f"{name}.json" for name in names]
    finished = [path.is_file() for path in done]
    so_far = sum(len(s) for s, whole in zip(shards, finished, strict=True) if whole)
    if progress is not None:
        progress(so_far, count)
    missing = [number for number, whole in enumerate(finished) if not whole]
    images = [folder_index.images[index] for n in missing for index in shards[n]]
    read = functools.partial(_read, folder_index.root, config.preprocessing)
    with contextlib.closing(map_in_processes(read, images, processes)) as results:
        for number in missing:
            rows = []
            with _writer(config.partial / names[number]) as write:
                for index in shards[number]:
                    digest, outcome, similar = next(results)
                    rows.append(_row(folder_index, index, sizes[index], digest))
                    if isinstance(outcome, bytes):
                        rows[-1]["hash"] = similar
                        write(outcome)
                    elif config.on_bad == "error":
                        raise InputError(
                            f"{outcome}; fix or remove it, or set `on_bad` to skip, "
                            "which leaves such images out"
                        )
                    else:
                        rows[-1]["bad"] = outcome.reason
                    so_far += 1
                    if progress is not None:
                        progress(so_far, count)
            write_json(done[number], rows)
    rows = (json.loads(path.read_text("utf-8")) for path in done)
    return dict(zip(names, rows, strict=True))


def _read(
    root: Path, preprocessing: Preprocessing, image: str
) -> tuple[str, bytes | decode.BadImage, str]:
    """Runs in a worker: SHA-256 of a file, its record or what is wrong with it, and its
    difference hash."""
    with decode.quiet_pillow():
        digest, outcome = decode.read_stored(root, preprocessing, image)
    if isinstance(outcome, np.ndarray):
        return digest, pack_record(outcome), difference_hash(outcome).hex()
    return digest, outcome, ""


def _row(folder_index: FolderIndex, index: int, size: int, digest: str) -> Row:
    row = {
        "path": folder_index.images[index],
        "class": folder_index.classes[folder_index.labels[index]],
    }
    if folder_index.parts:
        row["part"] = folder_index.parts[index]
    return {**row, "bytes": size, "sha256": digest}


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Writes the records of a shard, which is whole or not there."""
    # At its first use: an import of what most programs never need.
    from array_record.python.array_record_module import ArrayRecordWriter

    part = path.with_name(f".{path.name}.part")
    # One record a group, for random access; and pixels hardly compress.
    writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")

    def write(record: bytes) -> None:
        with _full_disk():
            writer.write(record)

    yield write
    with _full_disk():
        writer.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    """ArrayRecord raises RuntimeError where a file cannot be written."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _finish(
    config: PrepareConfig,
    folder_index: FolderIndex,
    shards: Mapping[str, Sequence[Row]],
) -> dict[str, Any]:
    """Writes `splits.csv` and the manifest; what that says."""
    rows = [row for rows in shards.values() for row in rows]
    kept = [index for index, row in enumerate(rows) if "bad" not in row]
    labels = [folder_index.labels[index] for index in kept]
    bad = [(row["path"], row["bad"]) for row in rows if "bad" in row]
    check_classes(folder_index, labels, bad)
    digests = [rows[index]["sha256"] for index in kept]
    splits = _make_splits(config, folder_index, kept, digests)
    write_splits(
        config.partial / "splits.csv",
        splits,
        images=[folder_index.images[index] for index in kept],
        labels=labels,
        classes=folder_index.classes,
        digests=digests,
    )
    sizes = Counter(folder_index.classes[label] for label in labels)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "name": folder_index.root.resolve().name,
        "demo": read_demo_marker(folder_index.root),
        "classes": folder_index.classes,
        "counts": {name: sizes[name] for name in folder_index.classes},
        "ignored": folder_index.ignored,
        "preprocessing": geometry(config.preprocessing),
        "splits": {
            "file": "splits.csv",
            "config": dataclasses.asdict(config.split),
            "pairs": config.pairs and _is_paired(folder_index),
            "counts": {name: len(indices) for name, indices in splits.items()},
        },
        "versions": {
            "jaxvision": jaxvision.__version__,
            "Pillow": PIL.__version__,
            "NumPy": np.__version__,
            "array_record": version("array_record"),
            "Python": platform.python_version(),
        },
        "shards": [
            {"file": name, "records": sum("bad" not in row for row in shard)}
            for name, shard in shards.items()
        ],
        "images": rows,
    }
    # Before what it was made from goes: a set that is killed then lacks its name alone.
    write_json(config.partial / MANIFEST, about)
    return about


def _is_paired(folder_index: FolderIndex) -> bool:
    return not folder_index.parts and is_paired(
        folder_index.images, folder_index.labels, folder_index.classes
    )


def _make_splits(
    config: PrepareConfig,
    folder_index: FolderIndex,
    kept: Sequence[int],
    digests: Sequence[str],
) -> Splits:
    """The splits that training would make of the usable images."""
    images = [folder_index.images[index] for index in kept]
    labels = [folder_index.labels[index] for index in kept]
    groups = find_identical(digests)
    if config.pairs and _is_paired(folder_index):
        groups += find_pairs(images, labels)
    return make_splits(
        config.split,
        images=images,
        labels=labels,
        classes=folder_index.classes,
        groups=merge_groups(groups),
        parts=[folder_index.parts[index] for index in kept]
        if folder_index.parts
        else (),
    )


def _check_finished(
    config: PrepareConfig, folder_index: FolderIndex, sizes: Sequence[int]
) -> None:
    """Raises InputError unless `out` is this very set, whole."""
    prepared = read_prepared(config.out) if config.out.is_dir() else None
    if prepared is None:
        raise InputError(
            f"{config.out}: is there and no prepared set; choose a new folder"
        )
    wanted = geometry(config.preprocessing)
    if prepared.geometry != wanted:
        raise InputError(
            f"{config.out}: was prepared with {describe(prepared.geometry)}, not "
            f"{describe(wanted)}; remove it or choose another folder"
        )
    if (prepared.folder_index.images, prepared.sizes) != (
        folder_index.images,
        tuple(sizes),
    ):
        raise InputError(
            f"{config.out}: the images in {config.root} have changed since it was "
            "prepared; remove it or choose another folder"
        )
    if damage := find_damage(config.out):
        raise InputError(f"{config.out}: damaged, {damage}; remove it to prepare anew")
