"""Drawing in the unit square: curves, ribbons, smooth noise, an antialiased canvas.

Coordinates run from (0, 0) at the top left to (1, 1) at the bottom right, and widths
and radii are in the same unit, so that a drawing looks alike at every size.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""
Points = np.ndarray
"""`[N, 2]` float64: x to the right, y down."""

SUPERSAMPLE = 2
"""A canvas is drawn this many times larger and averaged down (antialiasing)."""


def points(*pairs: tuple[float, float]) -> Points:
    """The pairs (x, y) as one array."""
    return np.array(pairs, np.float64)


@functools.cache
def _spline_basis(steps: int) -> np.ndarray:
    """`[steps, 4]`: how a span's points weigh its four neighboring knots."""
    t = np.arange(steps)[:, None] / steps
    powers = np.concatenate([t**0, t, t**2, t**3], 1)
    catmull_rom = [[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]
    return powers @ np.array(catmull_rom) / 2


def moved(shape: Points, right: float, down: float) -> Points:
    """One point or many, moved."""
    return np.add(shape, (right, down))


def curve(through: Points, *, closed: bool = False, steps: int = 6) -> Points:
    """A smooth curve through the points (uniform Catmull-Rom spline).

    Args:
      through: `[N, 2]`, N at least 2.
      closed: whether the last point is joined to the first.
      steps: points of the result for each span.
    """
    if closed:
        knots = np.concatenate([through[-1:], through, through[:2]])
    else:
        knots = np.concatenate([through[:1], through, through[-1:]])
    spans = len(knots) - 3
    neighbors = np.stack([knots[i : spans + i] for i in range(4)], 1)
    smooth = (_spline_basis(steps) @ neighbors).reshape(-1, 2)
    return smooth if closed else np.concatenate([smooth, through[-1:]])


def ribbon(along: Points, widths: float | Sequence[float] | np.ndarray) -> Points:
    """The outline of a stroke of the given width (one, or several along its length)."""
    direction = np.empty_like(along)
    direction[1:-1] = along[2:] - along[:-2]
    direction[0], direction[-1] = along[1] - along[0], along[-1] - along[-2]
    x, y = direction[:, 0], direction[:, 1]
    length = np.hypot(x, y) + 1e-12
    profile = np.atleast_1d(np.asarray(widths, np.float64))
    if len(profile) > 1:
        at = np.arange(len(along)) * ((len(profile) - 1) / (len(along) - 1))
        profile = np.interp(at, np.arange(len(profile)), profile)
    half = profile / (2 * length)
    aside = np.stack([-y * half, x * half], 1)
    return np.concatenate([along + aside, (along - aside)[::-1]])


@functools.cache
def _unit_arc(start: float, end: float, corners: int) -> np.ndarray:
    turn = np.linspace(start, end, corners, endpoint=end - start < 360)
    angle = np.radians(turn)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def rounded_box(half_width: float, half_height: float) -> Points:
    """A rectangle with round corners about (0, 0): a superellipse of degree 5."""
    arc = _unit_arc(0.0, 360.0, 48)
    return np.sign(arc) * np.abs(arc) ** 0.4 * (half_width, half_height)


def ellipse(
    center: tuple[float, float] | Points,
    radius_x: float,
    radius_y: float | None = None,
    *,
    start: float = 0.0,
    end: float = 360.0,
    corners: int = 36,
) -> Points:
    """An ellipse, or an arc of it: degrees, clockwise from the right."""
    radii = (radius_x, radius_x if radius_y is None else radius_y)
    return _unit_arc(start, end, corners) * radii + center


def mix(first: Color, second: Color, share: float) -> Color:
    """`first` at share 0, `second` at share 1."""
    red, green, blue = (
        round(min(255, max(0, a + (b - a) * share)))
        for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    """Darker for a factor below 1; lighter, towards white, above 1."""
    if factor <= 1:
        return mix((0, 0, 0), color, factor)
    return mix(color, (255, 255, 255), factor - 1)


def jitter(rng: np.random.Generator, color: Color, spread: float) -> Color:
    """A color near this one; `spread` is a standard deviation on 0 to 255."""
    moved = np.asarray(color) + rng.normal(0, spread, 3)
    red, green, blue = (int(value) for value in np.clip(moved, 0, 255))
    return red, green, blue


def random_color(rng: np.random.Generator) -> Color:
    """Any color but the darkest and the brightest."""
    return tuple(rng.integers(20, 236, 3).tolist())


def resized(field: np.ndarray, size: int) -> np.ndarray:
    """`[h, w]` float32, enlarged smoothly to `[size, size]`."""
    image = Image.fromarray(np.asarray(field, np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """`[size, size]` float32 about -2 to 2, varying over 1/`cells` of the image."""
    return resized(rng.standard_normal((cells + 1, cells + 1), np.float32), size)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The x `[1, size]` and y `[size, 1]` of pixel centers, float32."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    return at[None, :], at[:, None]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float values of 0 to 255, rounded and clipped."""
    rounded = image + 0.5
    return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


class Canvas:
    """A square image being drawn, with a mask of what is not background."""

    def __init__(self, size: int, ground: np.ndarray) -> None:
        """Starts from `ground` `[n, n, 3]` uint8, enlarged smoothly to any size."""
        self._scale = size * SUPERSAMPLE
        large = (self._scale, self._scale)
        linear = Image.Resampling.BILINEAR
        self._image = Image.fromarray(ground).resize(large, linear)
        self._mask = Image.new("L", large)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._draw_mask = ImageDraw.Draw(self._mask)

    def fill(
        self,
        outline: Points,
        color: Color,
        *,
        alpha: float = 1.0,
        solid: bool = False,
    ) -> None:
        """Fills a polygon; `solid` adds it to the mask."""
        corners = (outline * self._scale).ravel().tolist()
        self._draw.polygon(corners, fill=(*color, round(255 * alpha)))
        if solid:
            self._draw_mask.polygon(corners, fill=255)

    def line(
        self,
        along: Points,
        color: Color,
        widths: float | Sequence[float] | np.ndarray,
        *,
        alpha: float = 1.0,
        solid: bool = False,
    ) -> None:
        """Draws a stroke, at least about a pixel wide."""
        least = 1.0 / self._scale
        wide = np.maximum(np.atleast_1d(widths), least)
        self.fill(ribbon(along, wide), color, alpha=alpha, solid=solid)

    def dab(self, along: Points, color: Color, width: float) -> None:
        """A plain straight brush stroke: much faster than `line`, for thousands."""
        pixels = max(1, round(width * self._scale))
        corners = (along * self._scale).ravel().tolist()
        self._draw.line(corners, fill=color, width=pixels)

    def dot(
        self,
        center: tuple[float, float] | Points,
        radius: float,
        color: Color,
        *,
        alpha: float = 1.0,
        solid: bool = False,
    ) -> None:
        """Fills a circle."""
        x, y = (float(value) * self._scale for value in center)
        reach = max(radius * self._scale, 0.5)
        box = (x - reach, y - reach, x + reach, y + reach)
        self._draw.ellipse(box, fill=(*color, round(255 * alpha)))
        if solid:
            self._draw_mask.ellipse(box, fill=255)

    def image(self) -> np.ndarray:
        """`[S, S, 3]` uint8."""
        return np.asarray(self._image.reduce(SUPERSAMPLE))

    def mask(self) -> np.ndarray:
        """`[S, S]` float32, 1 where something solid was drawn."""
        return np.asarray(self._mask.reduce(SUPERSAMPLE), np.float32) / 255


def rotation(degrees: float) -> np.ndarray:
    """`[2, 2]`; `points @ rotation(d)` turns the points clockwise on the image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, sin], [-sin, cos]])
