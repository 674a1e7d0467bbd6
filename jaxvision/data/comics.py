"""A comic filter, and the set "faces or comics" made with it from a folder of faces.

`write_comics` writes `face/NAME` and `comic/NAME.jpg` for each image, pairs by name.
"""

import dataclasses
import io
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from jaxvision.config import Bounds, check
from jaxvision.data import decode
from jaxvision.data.sniff import SUFFIXES
from jaxvision.data.workers import default_processes, map_in_processes
from jaxvision.errors import InputError
from jaxvision.storage import write_atomically, writing
from jaxvision.typing import Progress

WORK = 256
"""Longer side in pixels at which areas and lines are found: so a comic looks alike at
every size, and a large one costs little more than a small one."""
RADIUS = 2
"""Reach of the smoothing, in pixels of the work size."""
COLORS = 12
"""Colors of a comic, beside that of its lines."""
INK = (24, 18, 28)
"""Color of the lines."""

_BICUBIC = Image.Resampling.BICUBIC


def draw_comic(image: np.ndarray) -> np.ndarray:
    """Draws an image as a comic: flat areas of few colors, dark outlines.

    Edge-preserving smoothing (Kuwahara et al. 1976, in Digital Processing of Biomedical
    Images), a palette of `COLORS`, and outlines where a difference of Gaussians falls
    off (XDoG, Winnemöller et al. 2012, https://doi.org/10.1016/j.cag.2012.03.004).

    Args:
      image: `[H, W, 3]` uint8.

    Returns:
      `[H, W, 3]` uint8, a function of the image alone.
    """
    height, width = image.shape[:2]
    scale = WORK / max(height, width)
    work = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(image).resize(work, _BICUBIC, reducing_gap=2.0)
    small = ImageEnhance.Color(small).enhance(1.4)
    smooth = _smooth(np.asarray(small, np.float32))
    lines = _outlines(smooth)
    areas, palette = _few_colors(_smooth(smooth))
    # Areas and lines are enlarged as soft masks and cut afterwards: sharp at any size.
    drawn = (max(width, work[0]), max(height, work[1]))
    comic = Image.fromarray(palette[_enlarged(areas, len(palette), drawn)])
    comic.paste(INK, mask=_sharpened(lines, drawn))
    return np.asarray(comic.resize((width, height), _BICUBIC))


def _smooth(image: np.ndarray) -> np.ndarray:
    """Kuwahara's filter on `[h, w, 3]` float32.

    Each pixel becomes the mean of that of four squares of `RADIUS` + 1 pixels, with the
    pixel in a corner, which varies least.
    """
    radius = RADIUS
    height, width = image.shape[:2]
    around = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), "edge")
    means = _window_means(around, radius + 1)
    gray = around.mean(2, keepdims=True)
    variances = (
        _window_means(gray**2, radius + 1) - _window_means(gray, radius + 1) ** 2
    )
    corners = [(0, 0), (0, radius), (radius, 0), (radius, radius)]
    best = np.full((height, width, 1), np.inf, np.float32)
    result = np.empty_like(image)
    for top, left in corners:
        quadrant = np.s_[top : top + height, left : left + width]
        better = variances[quadrant] < best
        best = np.where(better, variances[quadrant], best)
        result = np.where(better, means[quadrant], result)
    return result


def _window_means(image: np.ndarray, side: int) -> np.ndarray:
    """`[h - side + 1, w - side + 1, C]`: means of all square windows of that side."""
    zero = np.zeros((), image.dtype)
    rows = sum((image[i : len(image) - side + 1 + i] for i in range(side)), zero)
    width = image.shape[1] - side + 1
    return sum((rows[:, i : width + i] for i in range(side)), zero) / side**2


def _few_colors(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[h, w]` uint8 indices into `[n, 3]` uint8 colors, n at most `COLORS`."""
    whole = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    few = whole.quantize(COLORS, Image.Quantize.MEDIANCUT)
    colors = np.array(few.getpalette("RGB"), np.uint8).reshape(-1, 3)
    few = few.filter(ImageFilter.ModeFilter(2 * RADIUS + 1))
    return np.asarray(few), colors


def _outlines(image: np.ndarray) -> np.ndarray:
    """`[h, w]` uint8, 255 in the middle of a line."""
    gray = image @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    fine, coarse = _blurred(gray, 0.8), _blurred(gray, 1.6)
    edge = fine - 0.98 * coarse
    ink = np.clip(-60 * (edge - 0.002), 0, 1)
    return np.rint(255 * ink).astype(np.uint8)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of `[h, w]` float32; edges are repeated."""
    reach = round(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for _ in range(2):
        around = np.pad(image, ((reach, reach), (0, 0)), "edge")
        shifted = (k * around[i : i + len(image)] for i, k in enumerate(kernel))
        image = sum(shifted, np.zeros((), np.float32)).T
    return image


def _enlarged(areas: np.ndarray, count: int, size: tuple[int, int]) -> np.ndarray:
    """Indices `[H, W]` of the areas at another size, with smooth borders."""
    most = np.zeros((size[1], size[0]), np.uint8)
    best = np.zeros_like(most)
    for index in range(count):
        mask = Image.fromarray(np.where(areas == index, 255, 0).astype(np.uint8))
        share = np.asarray(mask.resize(size, Image.Resampling.BILINEAR))
        better = share > most
        most[better], best[better] = share[better], index
    return best


def _sharpened(lines: np.ndarray, size: tuple[int, int]) -> Image.Image:
    mask = Image.fromarray(lines).resize(size, Image.Resampling.BILINEAR)
    return mask.point([min(255, max(0, 3 * (value - 85))) for value in range(256)])


@dataclasses.dataclass(frozen=True)
class ComicsConfig:
    """Which faces to draw as comics, and where."""

    faces: Path
    """Folder of images; its subfolders are not searched."""
    out: Path
    """Folder to write `face/` and `comic/` into."""
    processes: Annotated[int, Bounds(1)] | None = None
    """Worker processes; by default one a core, at most 8."""


@dataclasses.dataclass(frozen=True)
class WrittenComics:
    """What `write_comics` left behind.

    pairs: how many faces there are now with their comics.
    bad: the faces that can't be read.
    """

    pairs: int
    bad: list[decode.BadImage]


def write_comics(
    config: ComicsConfig, *, progress: Progress | None = None
) -> WrittenComics:
    """Writes each face of a folder and its comic, as the classes "face" and "comic".

    Faces are copied as they are. What is there already is left alone, so that the same
    call completes an interrupted set.

    Args:
      config: which faces, and where.
      progress: told (pairs done, pairs in all).

    Raises:
      InputError: no image in the folder, two of the same name, or `out` can't be
        written.
    """
    check(config)
    source, out = config.faces, config.out
    faces = _find_faces(source)
    with writing(out):
        for name in ("face", "comic"):
            (out / name).mkdir(parents=True, exist_ok=True)
            for part in (out / name).glob(".*.part"):
                part.unlink()
    processes = config.processes or default_processes(len(faces))
    bad: list[decode.BadImage] = []
    results = map_in_processes(partial(_write_pair, out), faces, processes)
    for done, result in enumerate(results, 1):
        if result is not None:
            bad.append(result)
        if progress is not None:
            progress(done, len(faces))
    if len(bad) == len(faces):
        raise InputError(f"{source}: no image can be read; the first: {bad[0]}")
    return WrittenComics(len(faces) - len(bad), bad)


def _find_faces(source: Path) -> list[Path]:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give a folder of faces")
    faces = sorted(
        path
        for path in source.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not faces:
        raise InputError(f"{source}: no image in it; give a folder of faces")
    stems: dict[str, Path] = {}
    for path in faces:
        if (other := stems.setdefault(path.stem, path)) != path:
            raise InputError(
                f"{source}: {other.name} and {path.name} would be one pair; "
                "rename one of them"
            )
    return faces


def _write_pair(out: Path, path: Path) -> decode.BadImage | None:
    """Writes a face and its comic; returns what is wrong with the face."""
    face, comic = out / "face" / path.name, out / "comic" / f"{path.stem}.jpg"
    if face.is_file() and comic.is_file():
        return None
    try:
        _, data = decode.read_file(path)
        drawn = draw_comic(decode.decode_whole(path))
    except decode.BadImage as bad:
        return bad
    content = io.BytesIO()
    Image.fromarray(drawn).save(content, "JPEG", quality=92)
    write_atomically(comic, content.getvalue())
    write_atomically(face, data)
    return None
