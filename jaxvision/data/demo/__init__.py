"""Built-in demo sets: images drawn by code, written as a folder of classes.

Nothing here is a photograph or a painting, and the people and painters are invented.
An image depends on (seed, kind, class, index) alone, so that a larger set begins
with the images of the smaller one, and the number of processes changes nothing.

    python -m jaxvision.data.demo --kind faces --out data/demo_faces
    python -m jaxvision.data.demo --kind comics --out data/comics --size 1024
"""

import dataclasses
import io
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvision import storage
from jaxvision.data.demo import comics, faces, paintings
from jaxvision.data.workers import default_processes, map_in_processes
from jaxvision.errors import InputError

MARKER = "DEMO.json"
"""A folder with this file is a complete demo set; it is written last."""
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


KINDS: dict[str, Kind] = {
    "comics": Kind(comics.COUNTS, 128, comics.draw, paired=True),
    "faces": Kind(dict.fromkeys(faces.PEOPLE, 96), 128, faces.draw),
    "paintings": Kind(paintings.COUNTS, 256, paintings.draw),
}


def draw_image(
    kind: str, name: str, index: int, *, size: int | None = None, seed: int = 0
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


def class_counts(kind: str, count: int | None = None) -> dict[str, int]:
    """Images of each class when the largest class has `count` (default: as drawn)."""
    counts = _kind(kind).counts
    most = max(counts.values())
    wanted = most if count is None else count
    return {
        name: max(1, round(number * wanted / most)) for name, number in counts.items()
    }


def write_demo(
    kind: str,
    out: Path,
    *,
    count: int | None = None,
    size: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Writes a demo set: one subfolder of JPEGs per class, and last `DEMO.json`.

    A set that was interrupted is completed, and images missing from a complete one
    are drawn again; nothing is ever deleted or overwritten but files of its own.

    Args:
      kind: a key of `KINDS`.
      out: a new or empty folder, or one of an earlier call with the same parameters.
      count: images of the largest class; the other classes keep their proportion.
      size: width and height in pixels, 16 to 4096.
      seed: another seed, other images of the same classes.
      processes: worker processes; 1 draws in this one. Default: as
        `workers.default_processes` says.
      progress: called with (images done, images to draw) now and then.

    Returns:
      Whether anything had to be drawn.

    Raises:
      InputError: a bad parameter, a folder that holds anything else or can't be
        written (a full disk).
    """
    parameters = _parameters(kind, count, size, seed)
    _check_folder(out, parameters)
    counts = class_counts(kind, parameters["count"])
    missing = [
        (name, index)
        # Pairs one after the other: what they share is then drawn once.
        for index in range(max(counts.values()))
        for name, number in counts.items()
        if index < number and not (out / _file(name, index)).is_file()
    ]
    whole = (out / MARKER).is_file() and not (out / UNFINISHED_MARKER).exists()
    if whole and not missing:
        return False
    write = partial(_write_image, out, kind, parameters["size"], seed)
    with storage.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        storage.write_json(out / UNFINISHED_MARKER, parameters)
        (out / MARKER).unlink(missing_ok=True)
        for name in counts:
            (out / name).mkdir(exist_ok=True)
            _remove_leftovers(out / name)
        if processes is None:
            processes = default_processes(len(missing))
        for done, _ in enumerate(map_in_processes(write, missing, processes), 1):
            if progress and (done % 16 == 0 or done == len(missing)):
                progress(done, len(missing))
        storage.write_json(out / MARKER, parameters)
        (out / UNFINISHED_MARKER).unlink()
    return True


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


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise InputError(f"--kind {name}: no such demo set; one of {', '.join(KINDS)}")
    return KINDS[name]


def _parameters(
    kind: str, count: int | None, size: int | None, seed: int
) -> dict[str, Any]:
    """The marker's content: everything the images depend on."""
    chosen = _kind(kind)
    count = max(chosen.counts.values()) if count is None else count
    size = chosen.size if size is None else size
    if count < 1:
        raise InputError(f"--count {count}: must be at least 1")
    if not 16 <= size <= 4096:
        raise InputError(f"--size {size}: must be from 16 to 4096 pixels")
    if seed < 0:
        raise InputError(f"--seed {seed}: must not be negative")
    return {
        "kind": kind,
        "seed": seed,
        "size": size,
        "count": count,
        "version": VERSION,
        "note": NOTE,
    }


def _check_folder(out: Path, parameters: dict[str, Any]) -> None:
    """Refuses a folder that holds anything but this very demo set."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file; choose a folder for --out")
    marker = next(
        (out / name for name in (MARKER, UNFINISHED_MARKER) if (out / name).is_file()),
        None,
    )
    if marker is None:
        if any(out.iterdir()):
            raise InputError(
                f"{out}: holds files that are no demo set; choose a new or empty "
                "folder for --out"
            )
        return
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != parameters:
        raise InputError(
            f"{out}: {marker.name} says that it holds {_describe(found)}, not "
            f"{_describe(parameters)}; delete it or choose another folder for --out"
        )


def _describe(parameters: Any) -> str:
    if not isinstance(parameters, dict):
        return "a demo set that cannot be told"
    keys = ("kind", "count", "size", "seed", "version")
    return ", ".join(f"{key} {parameters.get(key)}" for key in keys)


def _file(name: str, index: int) -> Path:
    return Path(name) / f"{index:04d}.jpg"


def _write_image(
    out: Path, kind: str, size: int, seed: int, task: tuple[str, int]
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
