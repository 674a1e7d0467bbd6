"""What stands around a person and how the image is taken: wall, light, camera."""

import math

import numpy as np
from PIL import Image, ImageFilter

from jaxvision.data.demo.canvas import (
    Canvas,
    grid,
    points,
    random_color,
    rotation,
    smooth_noise,
    to_uint8,
)
from jaxvision.data.demo.sitter import Pose

_WALL = 48
"""Soft backgrounds are computed at this size and enlarged."""


def wall(rng: np.random.Generator, size: int) -> Canvas:
    """A canvas with a background: a gradient, clouds, lights, stripes or tiles."""
    corners = rng.uniform(10, 245, (2, 2, 3))
    if rng.random() < 0.5:
        # Most walls are dull.
        corners = 0.35 * corners + 0.65 * corners.mean(2, keepdims=True)
    at = (np.arange(_WALL) + 0.5) / _WALL
    ramp = np.stack([1 - at, at], 1)
    soft = ramp @ np.tensordot(ramp, corners, 1)
    pattern = rng.choice(["plain", "clouds", "stripes", "lights", "tiles"])
    if pattern == "clouds":
        cells, strength = int(rng.integers(3, 16)), rng.uniform(10, 45)
        soft += strength * smooth_noise(rng, cells, _WALL)[..., None]
    elif pattern == "lights":
        x, y = grid(_WALL)
        for cx, cy, radius in rng.uniform((0, 0, 0.05), (1, 1, 0.22), (8, 3)):
            away = ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
            soft += np.clip(1.2 - away, 0, 1)[..., None] * rng.uniform(-90, 130, 3)
    canvas = Canvas(size, to_uint8(soft))
    if pattern == "stripes":
        _stripes(canvas, rng)
    elif pattern == "tiles":
        _tiles(canvas, rng)
    return canvas


def _stripes(canvas: Canvas, rng: np.random.Generator) -> None:
    turn, color = rotation(rng.uniform(0, 180)), random_color(rng)
    pace, alpha = rng.uniform(0.07, 0.2), rng.uniform(0.2, 0.7)
    for offset in np.arange(-0.75, 0.75, pace):
        bar = points((-0.75, offset), (0.75, offset)) @ turn + 0.5
        canvas.line(bar, color, pace / 2, alpha=alpha)


def _tiles(canvas: Canvas, rng: np.random.Generator) -> None:
    """Books on a shelf, panes, posters: rectangles on a grid."""
    cells = int(rng.integers(3, 8))
    for _ in range(14):
        low = rng.integers(0, cells, 2) / cells
        high = low + rng.integers(1, 3, 2) / cells
        corners = points(tuple(low), (high[0], low[1]), tuple(high), (low[0], high[1]))
        canvas.fill(corners, random_color(rng), alpha=rng.uniform(0.2, 0.8))


def lit(
    image: np.ndarray, mask: np.ndarray, pose: Pose, rng: np.random.Generator
) -> np.ndarray:
    """Lights the head as an ellipsoid from one side, and throws shadows.

    Args:
      image: `[S, S, 3]` uint8, evenly lit.
      mask: `[S, S]` float32, 1 on the person.

    Returns:
      `[S, S, 3]` float32, 0 to 255 and above.
    """
    size = len(image)
    x, y = pose.unplace(size)
    x, y = x / 1.25, y / 1.7
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0.02))
    light = rng.uniform((-1.2, -0.9, 0.3), (1.2, 0.35, 1.0))
    light = (light / np.linalg.norm(light)).tolist()
    lambert = np.clip(x * light[0] + y * light[1] + z * light[2], 0, 1)
    ambient = rng.uniform(0.2, 0.7)
    factor = 1 + mask * (ambient - 1 + (1.35 - ambient) * lambert)
    if rng.random() < 0.6:
        thrown = _moved(mask, -0.12 * light[0], -0.08 * light[1]) * (1 - mask)
        factor *= 1 - rng.uniform(0.2, 0.6) * thrown
    if rng.random() < 0.35:
        factor *= _cast_shadow(rng, size)
    return image * factor[..., None]


def _moved(mask: np.ndarray, right: float, down: float) -> np.ndarray:
    """The mask shifted by shares of the image; what enters repeats the edge."""
    size = len(mask)
    columns = (np.arange(size) - round(right * size)).clip(0, size - 1)
    rows = (np.arange(size) - round(down * size)).clip(0, size - 1)
    return mask[rows][:, columns]


def _cast_shadow(rng: np.random.Generator, size: int) -> np.ndarray:
    """`[S, S]` float32 of 0.35 to 1: the edge of a wall's shadow, or of blinds'."""
    x, y = grid(size)
    turn, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-0.2, 0.2)
    along = (x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn)
    edge = 20 * (along - offset)
    if rng.random() < 0.4:
        edge = 3 * np.sin(rng.uniform(18, 40) * along + 6 * offset)
    dark = rng.uniform(0.35, 0.75)
    return dark + (1 - dark) / (1 + np.exp(-edge))


def photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Takes the image: exposure, contrast, white balance, saturation, blur, noise.

    Args:
      image: `[S, S, 3]` float32, 0 to 255 and above.

    Returns:
      `[S, S, 3]` uint8.
    """
    size = len(image)
    warmth, tint = rng.normal(0, 0.15), rng.normal(0, 0.06)
    balance = np.exp([warmth, tint, -warmth])
    saturation = 0.0 if rng.random() < 0.07 else rng.uniform(0.5, 1.2)
    contrast, middle = rng.uniform(0.65, 1.15), rng.uniform(110, 140)
    gain = contrast * math.exp(rng.normal(0, 0.25))
    gray = np.full((3, 3), (1 - saturation) / 3)
    colors = gain * balance[:, None] * (gray + saturation * np.eye(3))
    image = image @ colors.astype(np.float32)
    image += np.float32(middle - 118 * contrast)
    if rng.random() < 0.35:
        soft = ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * size)
        image = np.asarray(Image.fromarray(to_uint8(image)).filter(soft), np.float32)
    grain = rng.uniform(0, 8) * rng.standard_normal((size, size, 1), np.float32)
    return to_uint8(image + grain.astype(np.float32))
