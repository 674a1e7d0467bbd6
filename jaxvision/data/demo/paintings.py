"""Ten invented painters, told apart by palette, brush, format and subject.

No single trait names a painter: palettes and subjects are shared, and only a painter's
brush is wholly their own. As in sets of reproductions, images are square, padded
with black, and some painters left many more than others.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxvision.data.demo.canvas import (
    SUPERSAMPLE,
    grid,
    rotation,
    smooth_noise,
    to_uint8,
)
from jaxvision.data.demo.subjects import SUBJECTS, Palette

PALETTES: dict[str, Palette] = {
    "umber": Palette((92, 66, 40), (140, 100, 58), (78, 54, 36), (96, 64, 36),
                     (46, 30, 22), (150, 44, 30), (226, 190, 136)),
    "gold": Palette((196, 170, 112), (238, 208, 140), (170, 128, 70), (140, 98, 48),
                    (84, 58, 32), (186, 84, 40), (252, 236, 190)),
    "mist": Palette((176, 196, 208), (222, 226, 220), (150, 172, 184), (128, 152, 150),
                    (92, 110, 112), (196, 128, 96), (246, 244, 236)),
    "storm": Palette((62, 78, 92), (132, 144, 140), (48, 84, 96), (30, 66, 78),
                     (20, 38, 48), (172, 112, 48), (220, 226, 214)),
    "spring": Palette((130, 186, 226), (212, 230, 232), (122, 162, 140), (128, 178, 82),
                      (66, 124, 62), (226, 92, 106), (252, 240, 178)),
    "dusk": Palette((92, 76, 128), (238, 156, 108), (120, 82, 116), (146, 76, 76),
                    (58, 42, 70), (222, 92, 52), (254, 218, 140)),
    "candy": Palette((60, 120, 180), (248, 196, 84), (226, 110, 84), (62, 150, 130),
                     (44, 60, 110), (214, 48, 62), (250, 236, 214)),
    "slate": Palette((120, 128, 136), (180, 182, 178), (106, 112, 118), (128, 116, 104),
                     (60, 62, 66), (176, 80, 56), (230, 222, 200)),
    "grove": Palette((112, 150, 168), (190, 196, 160), (86, 118, 124), (106, 124, 66),
                     (50, 70, 46), (196, 112, 52), (230, 206, 148)),
    "night": Palette((22, 34, 82), (58, 86, 142), (30, 48, 92), (36, 66, 84),
                     (18, 24, 46), (226, 168, 52), (250, 232, 150)),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Painter:
    """A painter's habits; each is drawn anew for each image."""

    palettes: tuple[str, ...]
    """Keys of `PALETTES`, equally likely."""
    subjects: tuple[str, ...]
    """Keys of `SUBJECTS`, equally likely; repeated ones are more so."""
    brush: str
    """A key of `BRUSHES`."""
    formats: tuple[float, ...]
    """Favorite widths over heights; half the images have one of `FORMATS`."""


FORMATS = (0.75, 0.8, 1.0, 1.25, 1.4, 1.6)
"""Width over height of what any painter may use."""

PAINTERS: dict[str, Painter] = {
    "aldo_fermata": Painter(
        ("umber", "umber", "gold", "slate"),
        ("portrait", "portrait", "still_life", "landscape"),
        "glaze", (0.75, 0.8, 1.0),
    ),
    "berta_sund": Painter(
        ("mist", "spring", "slate"), ("sea", "sea", "landscape"),
        "wash", (1.4, 1.6, 1.0),
    ),
    "corvin_hale": Painter(
        ("storm", "night", "slate"), ("sea", "landscape", "mountains"),
        "swirls", (1.25, 1.5),
    ),
    "dunya_pell": Painter(
        ("spring", "spring", "grove", "candy"), ("landscape", "landscape", "sea"),
        "dots", (1.0, 1.25),
    ),
    "emil_vantongh": Painter(
        ("dusk", "slate", "gold", "night"), ("city", "city", "landscape"),
        "knife", (0.75, 1.0),
    ),
    "faye_osterlund": Painter(
        ("candy", "spring", "dusk"), ("still_life", "portrait", "city"),
        "outlines", (1.0, 1.25),
    ),
    "gustav_nimbus": Painter(
        ("gold", "dusk", "mist"), ("sea", "landscape", "city"),
        "haze", (1.4, 1.25),
    ),
    "hoku_arai": Painter(
        ("umber", "slate"), ("mountains", "mountains", "landscape"),
        "ink", (1.7, 1.4),
    ),
    "ines_calder": Painter(
        ("candy", "slate", "night"), ("abstract", "abstract", "city"),
        "facets", (1.0, 0.8),
    ),
    "jory_tamm": Painter(
        ("grove", "grove", "storm", "dusk"), ("landscape", "still_life", "portrait"),
        "hatching", (1.25, 0.8),
    ),
}  # fmt: skip

COUNTS: dict[str, int] = dict(
    zip(PAINTERS, (40, 54, 36, 63, 28, 40, 70, 37, 20, 23), strict=True)
)
"""Images of each painter by default."""


# --- brushes ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Strokes:
    """Places, colors and directions of brush strokes over a design."""

    at: np.ndarray
    """`[N, 2]` x, y in pixels."""
    color: np.ndarray
    """`[N, 3]` uint8."""
    angle: np.ndarray
    """`[N]` radians."""


def _strokes(
    design: Image.Image,
    rng: np.random.Generator,
    *,
    count: int,
    angle: np.ndarray,
    spread: float,
) -> _Strokes:
    """Strokes spread evenly over the image in random order.

    Args:
      angle: `[h, w]` radians, a field of directions of any resolution.
      spread: how far colors stray from the design, on 0 to 255.
    """
    width, height = design.size
    across = max(1, round(math.sqrt(count * width / height)))
    down = max(1, round(count / across))
    cell = np.stack(np.meshgrid(np.arange(across), np.arange(down)), -1).reshape(-1, 2)
    unit = (rng.permutation(cell) + rng.random((across * down, 2))) / (across, down)
    column, row = (unit * (width, height)).astype(int).T
    below = np.asarray(design)[row, column].astype(np.float32)
    lightness = rng.normal(0, spread, (len(unit), 1))
    color = below + lightness + rng.normal(0, 0.5 * spread, (len(unit), 3))
    field = (unit[:, ::-1] * angle.shape).astype(int)
    return _Strokes(
        unit * (width, height), to_uint8(color), angle[field[:, 0], field[:, 1]]
    )


def _paint(
    design: Image.Image, strokes: _Strokes, *, length: float, width: float
) -> Image.Image:
    """Lays straight strokes over the design; lengths as shares of the image."""
    large = design.resize((SUPERSAMPLE * design.width, SUPERSAMPLE * design.height))
    unit = max(large.size)
    draw = ImageDraw.Draw(large)
    half = np.stack([np.cos(strokes.angle), np.sin(strokes.angle)], 1)
    half *= length * unit / 2
    middle = strokes.at * SUPERSAMPLE
    ends = np.concatenate([middle - half, middle + half], 1).tolist()
    thick = max(1, round(width * unit))
    for end, color in zip(ends, strokes.color.tolist(), strict=True):
        draw.line(end, fill=tuple(color), width=thick)
    return large.reduce(SUPERSAMPLE)


def _contours(design: Image.Image) -> np.ndarray:
    """`[32, 32]` radians: along the design's edges, as one models a form."""
    gray = design.convert("L").resize((32, 32), Image.Resampling.BOX)
    down, right = np.gradient(np.asarray(gray, np.float32))
    return np.arctan2(right, -down)


def _glaze(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Fine strokes along the form, and a dark varnish towards the edges."""
    strokes = _strokes(design, rng, count=500, angle=_contours(design), spread=5)
    painted = _paint(design, strokes, length=0.04, width=0.008)
    soft = painted.filter(ImageFilter.GaussianBlur(0.006 * max(design.size)))
    width, height = design.size
    x, y = grid(64)
    away = (x - rng.uniform(0.35, 0.65)) ** 2 + (y - rng.uniform(0.3, 0.5)) ** 2
    light = np.clip(1.25 - 2.2 * away, 0.2, 1.1)
    varnish = Image.fromarray(light).resize((width, height))
    return Image.fromarray(to_uint8(np.asarray(soft) * np.asarray(varnish)[..., None]))


def _wash(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Watercolor: pale flowing color with darker rims on rough paper."""
    extent = max(design.size)
    flowing = design.filter(ImageFilter.GaussianBlur(0.006 * extent))
    flowing = flowing.filter(ImageFilter.ModeFilter(5))
    color = np.asarray(flowing, np.float32)
    wider = flowing.filter(ImageFilter.GaussianBlur(0.02 * extent))
    rim = np.abs(color - np.asarray(wider, np.float32)).mean(2)
    pools = smooth_noise(rng, 9, extent)[: design.height, : design.width]
    paper = smooth_noise(rng, 90, extent)[: design.height, : design.width]
    strength = np.clip(0.62 + 0.12 * pools, 0.2, 1)[..., None]
    washed = 246 + (color - 246) * strength
    washed -= (1.8 * np.minimum(rim, 30) - 3 * paper)[..., None]
    return Image.fromarray(to_uint8(washed))


def _swirls(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Long strokes that turn around a few centers."""
    x, y = grid(48)
    angle = 0.35 * smooth_noise(rng, 3, 48)
    for cx, cy in rng.uniform(0.1, 0.9, (3, 2)):
        near = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05)
        angle = angle + near * (np.arctan2(y - cy, x - cx) + math.pi / 2)
    coarse = _strokes(design, rng, count=260, angle=angle, spread=16)
    painted = _paint(design, coarse, length=0.13, width=0.026)
    fine = _strokes(design, rng, count=420, angle=angle, spread=26)
    return _paint(painted, fine, length=0.1, width=0.011)


def _dots(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Points of pure, unmixed color."""
    pale = Image.blend(design, Image.new("RGB", design.size, (250, 244, 226)), 0.35)
    flat = np.zeros((2, 2))
    strokes = _strokes(design, rng, count=1100, angle=flat, spread=22)
    return _paint(pale, strokes, length=0.02, width=0.02)


def _knife(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Broad upright slabs, each with a lit ridge."""
    upright = math.pi / 2 + 0.16 * smooth_noise(rng, 5, 32)
    slabs = _strokes(design, rng, count=640, angle=upright, spread=12)
    painted = _paint(design, slabs, length=0.06, width=0.02)
    ridge = dataclasses.replace(
        slabs,
        at=slabs.at + np.array([0.009 * max(design.size), 0]),
        color=to_uint8(slabs.color * 0.75 + 50.0),
    )
    kept = rng.random(len(slabs.at)) < 0.35
    ridge = _Strokes(ridge.at[kept], ridge.color[kept], ridge.angle[kept])
    return _paint(painted, ridge, length=0.05, width=0.005)


def _outlines(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flat areas of few colors inside dark outlines."""
    del rng
    extent = max(design.size)
    smooth = design.filter(ImageFilter.GaussianBlur(0.004 * extent))
    flat = np.round(np.asarray(smooth, np.float32) / 26) * 26 + 8
    gray = np.asarray(smooth.convert("L"), np.float32)
    down, right = np.gradient(gray * (extent / 256))
    line = to_uint8(255 * np.clip(np.hypot(down, right) / 14 - 0.9, 0, 1))
    soft = Image.fromarray(line).filter(ImageFilter.GaussianBlur(0.0022 * extent))
    strength = np.clip(np.asarray(soft, np.float32) / 120, 0, 1)[..., None]
    return Image.fromarray(to_uint8(flat * (1 - strength) + (26, 22, 40) * strength))


def _haze(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Forms dissolved in light, level strokes, a glow."""
    extent = max(design.size)
    soft = design.filter(ImageFilter.GaussianBlur(0.013 * extent))
    level = 0.12 * smooth_noise(rng, 4, 32)
    strokes = _strokes(soft, rng, count=420, angle=level, spread=9)
    painted = _paint(soft, strokes, length=0.09, width=0.012)
    painted = painted.filter(ImageFilter.GaussianBlur(0.006 * extent))
    x, y = grid(64)
    cx, cy = rng.uniform((0.2, 0.2), (0.8, 0.6))
    glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.09)
    glow = np.asarray(Image.fromarray(glow).resize(design.size))[..., None]
    image = np.asarray(painted, np.float32)
    return Image.fromarray(to_uint8(image + 0.75 * glow * ((255, 240, 206) - image)))


def _ink(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pen lines on tinted paper: outlines, and hatching in the shade."""
    width, height = design.size
    extent = max(width, height)
    paper = np.array([(206, 170, 126), (222, 200, 164), (190, 176, 156)])
    paper = paper[rng.integers(0, 3)] + 6 * smooth_noise(rng, 40, extent)[..., None]
    sheet = Image.fromarray(to_uint8(paper[:height, :width]))
    gray = np.asarray(design.convert("L"), np.float32)
    low, high = np.percentile(gray, (2, 90))
    shade = np.clip((high - gray) / (high - low + 1), 0, 1) ** 2
    slant = np.full((2, 2), rng.choice([0.9, -0.9, 2.4]))
    hatch = _strokes(design, rng, count=900, angle=slant, spread=0)
    column, row = hatch.at.astype(int).T
    dark = rng.random(len(row)) < shade[row, column]
    pen = np.full((int(dark.sum()), 3), (74, 54, 44), np.uint8)
    hatch = _Strokes(hatch.at[dark], pen, hatch.angle[dark])
    drawn = _paint(sheet, hatch, length=0.035, width=0.003)
    down, right = np.gradient(gray * (extent / 256))
    edge = np.clip(np.hypot(down, right) / 9 - 0.35, 0, 0.85)[..., None]
    image = np.asarray(drawn, np.float32)
    return Image.fromarray(to_uint8(image + edge * ((58, 42, 36) - image)))


def _facets(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The plane cut into slanting quadrilaterals, each of nearly one color."""
    width, height = design.size
    cells = 9
    knots = np.stack(np.meshgrid(*2 * [np.arange(-2, cells + 4)]), -1).astype(float)
    knots += rng.uniform(-0.36, 0.36, knots.shape)
    knots = (knots @ rotation(rng.uniform(-25, 25)) - 0.5) / cells
    quads = [knots[:-1, :-1], knots[:-1, 1:], knots[1:, 1:], knots[1:, :-1]]
    quads = np.stack(quads, 2).reshape(-1, 4, 2)
    middle = quads.mean(1).clip(0, 0.999) * (width, height)
    column, row = middle.astype(int).T
    tilt = rng.normal(0, 18, (len(quads), 1))
    colors = to_uint8(np.asarray(design)[row, column] + tilt).tolist()
    size = (SUPERSAMPLE * width, SUPERSAMPLE * height)
    cut = design.resize(size)
    draw = ImageDraw.Draw(cut, "RGBA")
    for corners, color in zip((quads * size).reshape(-1, 8), colors, strict=True):
        draw.polygon(corners.tolist(), fill=(*color, 120))
    return cut.reduce(SUPERSAMPLE)


def _hatching(design: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Patches of short parallel slanting strokes."""
    slant = -0.8 + 0.25 * np.round(1.2 * smooth_noise(rng, 6, 12))
    coarse = _strokes(design, rng, count=420, angle=slant, spread=14)
    painted = _paint(design, coarse, length=0.06, width=0.028)
    fine = _strokes(painted, rng, count=420, angle=slant, spread=14)
    return _paint(painted, fine, length=0.05, width=0.012)


BRUSHES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "dots": _dots,
    "facets": _facets,
    "glaze": _glaze,
    "hatching": _hatching,
    "haze": _haze,
    "ink": _ink,
    "knife": _knife,
    "outlines": _outlines,
    "swirls": _swirls,
    "wash": _wash,
}


def draw(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Paints a new image in a painter's manner.

    Args:
      name: a key of `PAINTERS`.
      rng: decides palette, subject, composition, format and every stroke.
      size: S.

    Returns:
      `[S, S, 3]` uint8; black bars fill what the format leaves free.
    """
    painter = PAINTERS[name]
    palette = PALETTES[rng.choice(painter.palettes)].varied(rng)
    canvas = SUBJECTS[rng.choice(painter.subjects)](size, palette, rng)
    formats = painter.formats if rng.random() < 0.5 else FORMATS
    ratio = rng.choice(formats) * rng.uniform(0.94, 1.06)
    shape = (min(1.0, ratio), min(1.0, 1 / ratio))
    width, height = (max(1, round(size * share)) for share in shape)
    design = Image.fromarray(canvas.image()).resize((width, height))
    painted = BRUSHES[painter.brush](design, rng)
    square = Image.new("RGB", (size, size))
    square.paste(painted, ((size - width) // 2, (size - height) // 2))
    return np.asarray(_reproduced(square, rng))


def _reproduced(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photographer's exposure and white balance; black bars stay black."""
    gain = np.exp(rng.normal(0, 0.05, 3) + rng.normal(-0.06, 0.17))
    return Image.fromarray(to_uint8(np.asarray(image) * gain.astype(np.float32)))
