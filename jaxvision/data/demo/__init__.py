"""Built-in demo sets: images drawn by code, written as a folder of classes.

Nothing here is a photograph or a painting, and the people and painters are invented.
An image depends on (seed, kind, class, index) alone, so that a larger set begins
with the images of the smaller one, and the number of processes changes nothing.

The sets that stand in where no folder of images is given lie in `demo_folder`.
"""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvision import storage
from jaxvision.config import Bounds, check
from jaxvision.data.config import DemoKind
from jaxvision.data.demo import comics, faces, paintings
from jaxvision.data.folder import MARKER
from jaxvision.data.workers import default_processes, map_in_processes
from jaxvision.errors import InputError
from jaxvision.typing import Progress

UNFINISHED_MARKER = "DEMO.json.partial"
"""Written first, and gone once the set is complete."""
VERSION = 1
"""Rises whenever the same seed would draw other images."""
NOTE = (
    "Drawn by jaxvision.data.demo: neither photographs nor paintings; "
    "the people and the painters are invented."
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One demo set."""

    counts: dict[str, int]
    """Images of each class by default."""
    size: int
    """Width and height by default, in pixels."""
    draw: Callable[[str, np.random.Generator, int], np.ndarray]
    """(class name, generator, size) to `[size, size, 3]` uint8."""
    paired: bool = False
    """Whether image i of every class is drawn with the same generator."""


KINDS: dict[DemoKind, Kind] = {
    "comics": Kind(comics.COUNTS, 128, comics.draw, paired=True),
    "faces": Kind(dict.fromkeys(faces.PEOPLE, 96), 128, faces.draw),
    "paintings": Kind(paintings.COUNTS, 256, paintings.draw),
}


def draw_image(
    kind: DemoKind, name: str, index: int, *, size: int | None = None, seed: int = 0
) -> np.ndarray:
    """Draws one image of a demo set.

    Args:
      kind: a key of `KINDS`.
      name: a class of that kind.
      index: which of the class's images, from 0.
      size: S; the kind's own by default. The same image, larger or smaller.

    Returns:
      `[S, S, 3]` uint8.
    """
    chosen = _kind(kind)
    shared = "" if chosen.paired else name
    key = [seed, zlib.crc32(kind.encode()), zlib.crc32(shared.encode()), index]
    return chosen.draw(name, np.random.default_rng(key), size or chosen.size)


def class_counts(kind: DemoKind, count: int | None = None) -> dict[str, int]:
    """Images of each class when the largest class has `count` (default: as drawn)."""
    counts = _kind(kind).counts
    most = max(counts.values())
    wanted = most if count is None else count
    return {
        name: max(1, round(number * wanted / most)) for name, number in counts.items()
    }


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Which demo set to draw, and where."""

    kind: DemoKind
    """Which set."""
    out: Path
    """A new or empty folder, or one that holds a part of this very set."""
    count: Annotated[int, Bounds(1)] | None = None
    """Images of the largest class; the others keep their proportion."""
    size: Annotated[int, Bounds(16, 4096)] | None = None
    """Width and height in pixels; the kind's own by default."""
    seed: Annotated[int, Bounds(0)] = 0
    """Another seed, other images of the same classes."""
    processes: Annotated[int, Bounds(1)] | None = None
    """Worker processes; by default one a core, at most 8."""
    contact_sheet: Path | None = None
    """Also write an image (PNG) with a labeled row of examples of each class."""


@dataclasses.dataclass(frozen=True)
class WrittenDemo:
    """What `write_demo` left behind.

    counts: images of each class.
    drawn: whether anything had to be drawn.
    """

    counts: dict[str, int]
    drawn: bool


def demo_folder(kind: DemoKind) -> Path:
    """Where the set lies that stands in where no folder of images is given."""
    return storage.cache_folder() / "demo" / kind


def write_demo(config: DemoConfig, *, progress: Progress | None = None) -> WrittenDemo:
    """Writes a demo set: one subfolder of JPEGs per class, and last `DEMO.json`.

    A set that was interrupted is completed, and images missing from a complete one
    are drawn again; nothing is ever deleted or overwritten but files of its own. Of two
    processes that draw the same set one waits for the other.

    Args:
      config: which set, and where.
      progress: told (images done, images to draw) now and then.

    Raises:
      InputError: a bad parameter, a folder that holds anything else or can't be
        written (a full disk).
    """
    check(config)
    parameters = _parameters(config)
    counts = class_counts(config.kind, parameters["count"])
    if config.out.is_file():
        raise InputError(f"{config.out}: is a file; choose a folder")
    with storage.writing(config.out), _locked(config.out):
        drawn = not _is_whole(config.out, parameters, counts)
        if drawn:
            _draw(config, parameters, counts, progress)
    if config.contact_sheet is not None:
        content = io.BytesIO()
        contact_sheet(config.out).save(content, "PNG")
        storage.write_atomically(config.contact_sheet, content.getvalue())
    return WrittenDemo(counts, drawn)


def _is_whole(out: Path, parameters: dict[str, Any], counts: dict[str, int]) -> bool:
    """Whether all of a set is there; refuses a folder that holds anything else."""
    _check_folder(out, parameters)
    marked = (out / MARKER).is_file() and not (out / UNFINISHED_MARKER).exists()
    return marked and not _missing(out, counts)


def _missing(out: Path, counts: dict[str, int]) -> list[tuple[str, int]]:
    """(class, index) of the images to draw."""
    return [
        (name, index)
        # Pairs one after the other: what they share is then drawn once.
        for index in range(max(counts.values()))
        for name, number in counts.items()
        if index < number and not (out / _file(name, index)).is_file()
    ]


def _draw(
    config: DemoConfig,
    parameters: dict[str, Any],
    counts: dict[str, int],
    progress: Progress | None,
) -> None:
    out = config.out
    missing = _missing(out, counts)
    write = partial(_write_image, out, config.kind, parameters["size"], config.seed)
    storage.write_json(out / UNFINISHED_MARKER, parameters)
    (out / MARKER).unlink(missing_ok=True)
    for name in counts:
        (out / name).mkdir(exist_ok=True)
        _remove_leftovers(out / name)
    processes = config.processes or default_processes(len(missing))
    for done, _ in enumerate(map_in_processes(write, missing, processes), 1):
        if progress and (done % 16 == 0 or done == len(missing)):
            progress(done, len(missing))
    storage.write_json(out / MARKER, parameters)
    (out / UNFINISHED_MARKER).unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder is there, and no other process draws in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def contact_sheet(root: Path, per_class: int = 8, tile: int = 128) -> Image.Image:
    """The first images of every class of a folder, a labeled row a class.

    Args:
      root: a folder with one subfolder per class.
      per_class: images in a row.
      tile: width and height of an image on the sheet, in pixels.

    Raises:
      InputError: no such folder, or no class in it.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if not folders:
        raise InputError(f"{root}: no class folders to show; write a demo set there")
    gap, label_width, title_height = max(1, tile // 32), round(1.6 * tile), tile // 2
    step = tile + gap
    shape = (
        label_width + per_class * step + gap,
        title_height + len(folders) * step + gap,
    )
    sheet = Image.new("RGB", shape, (250, 248, 244))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=tile / 8)
    is_demo = (root / MARKER).is_file()
    title = f"{root.name}: {NOTE}" if is_demo else root.name
    middle = title_height / 2
    draw.text((2 * gap, middle), title, (40, 36, 40), font=font, anchor="lm")
    for row, folder in enumerate(folders):
        top = title_height + row * step
        label = folder.name.replace("_", " ")
        position = (2 * gap, top + tile / 2)
        draw.text(position, label, (40, 36, 40), font=font, anchor="lm")
        images = sorted(p for p in folder.iterdir() if p.suffix == ".jpg")
        for column, path in enumerate(images[:per_class]):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((tile, tile))
            sheet.paste(small, (label_width + column * step, top))
    return sheet


def _kind(name: DemoKind) -> Kind:
    if name not in KINDS:
        raise InputError(
            f"no such demo set; one of {', '.join(KINDS)}", setting="kind", value=name
        )
    return KINDS[name]


def _parameters(config: DemoConfig) -> dict[str, Any]:
    """The marker's content: everything the images depend on."""
    kind = _kind(config.kind)
    return {
        "kind": config.kind,
        "seed": config.seed,
        "size": config.size or kind.size,
        "count": config.count or max(kind.counts.values()),
        "version": VERSION,
        "note": NOTE,
    }


def _check_folder(out: Path, parameters: dict[str, Any]) -> None:
    """Refuses a folder that holds anything but this very demo set."""
    marker = next(
        (out / name for name in (MARKER, UNFINISHED_MARKER) if (out / name).is_file()),
        None,
    )
    if marker is None:
        if any(out.iterdir()):
            raise InputError(
                f"{out}: holds files that are no demo set; choose a new or empty folder"
            )
        return
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != parameters:
        raise InputError(
            f"{out}: {marker.name} says that it holds {_describe(found)}, not "
            f"{_describe(parameters)}; delete it or choose another folder"
        )


def _describe(parameters: Any) -> str:
    if not isinstance(parameters, dict):
        return "a demo set that cannot be told"
    keys = ("kind", "count", "size", "seed", "version")
    return ", ".join(f"{key} {parameters.get(key)}" for key in keys)


def _file(name: str, index: int) -> Path:
    return Path(name) / f"{index:04d}.jpg"


def _write_image(
    out: Path, kind: DemoKind, size: int, seed: int, task: tuple[str, int]
) -> None:
    name, index = task
    image = Image.fromarray(draw_image(kind, name, index, size=size, seed=seed))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92, comment=NOTE)
    storage.write_atomically(out / _file(name, index), content.getvalue())


def _remove_leftovers(folder: Path) -> None:
    """Removes what a killed process had begun: `.0007.jpg.4711.part` and the like."""
    for part in folder.glob(".[0-9][0-9][0-9][0-9]*.jpg.*.part"):
        part.unlink()
