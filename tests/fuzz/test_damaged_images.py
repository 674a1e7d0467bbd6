"""Damaged images through the whole `load_dataset` and its decoding."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mutations import mutated
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.sniff import FORMATS
from jaxvision.preprocessing import Preprocessing

BATCH = 50
MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "F")


def originals() -> list[bytes]:
    """Small images in every format and mode that it takes."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (24, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for format, mode in itertools.product(FORMATS, MODES):
        image = pixels.convert("I").convert("I;16") if mode == "I;16" else None
        image = image or pixels.convert("RGB" if mode == "LA" else mode)
        image = image.convert("LA") if mode == "LA" else image
        for options in ({}, {"exif": exif}, {"progressive": True, "interlace": 1}):
            buffer = io.BytesIO()
            try:
                image.save(buffer, format, **options)
            except (OSError, ValueError, KeyError):
                continue
            found.append(buffer.getvalue())
    frames = [pixels.rotate(90 * turn) for turn in range(3)]
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        buffer = io.BytesIO()
        frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
        found.append(buffer.getvalue())
    return found


@pytest.mark.filterwarnings("ignore")
def test_damaged_images_end_no_run(
    tmp_path: Path, cases: Callable[[int], Iterator[np.random.Generator]]
) -> None:
    known, good = originals(), Image.new("RGB", (8, 8), "red")
    pending = cases(300)
    for number in itertools.count():
        root = tmp_path / "photos"
        for name in ("a", "b"):
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(3):
                good.putpixel((i, 0), (i, len(name), ord(name)))
                good.save(root / name / f"good{i}.png")
        written = 0
        for rng in itertools.islice(pending, BATCH):
            data = mutated(known[rng.integers(len(known))], rng)
            # With an ending, and by content alone.
            name = f"{written}{('.png', '')[written % 2]}"
            (root / "ab"[written % 2] / name).write_bytes(data)
            written += 1
        if not written:
            break
        mode = ("stretch", "crop", "pad")[number % 3]
        geometry = Preprocessing((16, 16), mode, 18, gray=bool(number % 2))
        config = DataConfig(root, num_threads=0)
        # Time and memory are measured by `cases`: all of them together.
        dataset = load_dataset(config).decode(geometry)
        assert len(dataset.images) + len(dataset.bad) >= 6
        _ = dataset.similar, dataset.duplicates
        for path in root.rglob("*"):
            if path.is_file():
                path.unlink()
