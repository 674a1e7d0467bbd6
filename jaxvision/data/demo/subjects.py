"""What the invented painters paint: the plain design under the brush strokes.

Every subject draws a fresh composition on a canvas, in the unit square, with a
palette's colors.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxvision.data.demo.canvas import (
    Canvas,
    Color,
    Points,
    curve,
    ellipse,
    jitter,
    mix,
    moved,
    points,
    rotation,
    shade,
)


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colors of an image, by what they are for in a landscape."""

    sky: Color
    horizon: Color
    far: Color
    middle: Color
    near: Color
    accent: Color
    light: Color

    def varied(self, rng: np.random.Generator, spread: float = 12.0) -> "Palette":
        """The same palette on another day."""
        colors = dataclasses.astuple(self)
        return Palette(*(jitter(rng, color, spread) for color in colors))


def _ground(size: int, top: Color, bottom: Color) -> Canvas:
    """A canvas shaded from the first color to the second."""
    steps = [mix(top, bottom, share) for share in np.linspace(0, 1, 8)]
    column = np.array(steps, np.uint8)[:, None]
    return Canvas(size, np.repeat(column, 2, axis=1))


def _ridge(rng: np.random.Generator, height: float, rough: float, n: int) -> Points:
    """The outline of land below an uneven line around y = `height`."""
    y = height + rng.uniform(-rough, rough, n)
    line = curve(np.stack([np.linspace(-0.05, 1.05, n), y], 1))
    return np.concatenate([line, points((1.05, 1.05), (-0.05, 1.05))])


def _clouds(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform((0, 0.02), (1, 0.35))
        for _ in range(4):
            puff = rng.normal((x, y), (0.07, 0.015))
            shape = ellipse(puff, rng.uniform(0.05, 0.14), rng.uniform(0.02, 0.05))
            canvas.fill(shape, palette.light, alpha=0.4)


def _tree(
    canvas: Canvas,
    palette: Palette,
    rng: np.random.Generator,
    foot: tuple[float, float],
    height: float,
) -> None:
    x, y = foot
    top = y - height
    trunk = points((x, y), (x + 0.05 * height, y - 0.5 * height), (x, top))
    bark = shade(palette.near, 0.5)
    canvas.line(curve(trunk), bark, [0.09 * height, 0.03 * height])
    leaf = mix(palette.near, palette.middle, rng.uniform(0, 1))
    for _ in range(14):
        at = rng.normal((x, top + 0.22 * height), (0.16 * height, 0.14 * height))
        tone = shade(leaf, rng.uniform(0.65, 1.2))
        canvas.dot(at, rng.uniform(0.07, 0.15) * height, tone)


def _house(
    canvas: Canvas, palette: Palette, rng: np.random.Generator, x: float, y: float
) -> None:
    wide, tall = rng.uniform(0.06, 0.13), rng.uniform(0.05, 0.1)
    wall = points((x, y), (x, y - tall), (x + wide, y - tall), (x + wide, y))
    canvas.fill(wall, palette.light)
    roof = points(
        (x - 0.01, y - tall),
        (x + wide / 2, y - 1.7 * tall),
        (x + wide + 0.01, y - tall),
    )
    canvas.fill(roof, palette.accent)


def landscape(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Hills, a path or river, trees, perhaps a house and a sun."""
    canvas = _ground(size, palette.sky, palette.horizon)
    horizon = rng.uniform(0.35, 0.6)
    if rng.random() < 0.4:
        sun = rng.uniform((0.15, 0.08), (0.85, horizon))
        canvas.dot(sun, rng.uniform(0.04, 0.08), palette.light)
    _clouds(canvas, palette, rng)
    canvas.fill(_ridge(rng, horizon, 0.06, 7), palette.far)
    canvas.fill(_ridge(rng, horizon + 0.13, 0.05, 6), palette.middle)
    canvas.fill(_ridge(rng, horizon + 0.28, 0.05, 5), palette.near)
    if rng.random() < 0.5:
        start, end = rng.uniform(0.2, 0.8, 2)
        bends = points(
            (end, 1.05), (rng.uniform(0.2, 0.8), 0.82), (start, horizon + 0.12)
        )
        canvas.line(curve(bends), palette.light, [0.22, 0.09, 0.01])
    for _ in range(int(rng.integers(0, 3))):
        _house(canvas, palette, rng, rng.uniform(0.05, 0.8), horizon + 0.16)
    for _ in range(int(rng.integers(1, 6))):
        depth = rng.uniform(0.15, 0.45)
        foot = (rng.uniform(0, 1), min(0.98, horizon + depth))
        _tree(canvas, palette, rng, foot, 0.3 + 0.9 * depth * rng.uniform(0.6, 1.1))
    return canvas


def sea(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """A horizon, waves, ships, a cliff or a sun over the water."""
    canvas = _ground(size, palette.sky, palette.horizon)
    horizon = rng.uniform(0.35, 0.65)
    sun = None
    if rng.random() < 0.5:
        sun = rng.uniform(0.2, 0.8)
        canvas.dot((sun, horizon - rng.uniform(0, 0.2)), 0.06, palette.light)
    _clouds(canvas, palette, rng)
    canvas.fill(_ridge(rng, horizon, 0.004, 4), palette.far)
    canvas.fill(
        _ridge(rng, horizon + 0.15, 0.02, 7), mix(palette.far, palette.middle, 0.6)
    )
    canvas.fill(_ridge(rng, horizon + 0.32, 0.03, 7), palette.middle)
    for _ in range(40):
        y = rng.uniform(horizon + 0.02, 1)
        long = 0.03 + 0.15 * (y - horizon)
        x = (
            rng.uniform(0, 1)
            if sun is None or rng.random() < 0.4
            else rng.normal(sun, 0.05)
        )
        wave = curve(points((x - long, y), (x, y - 0.15 * long), (x + long, y)))
        tone = palette.light if rng.random() < 0.6 else palette.near
        canvas.line(wave, tone, [0, 0.012 + 0.02 * (y - horizon), 0], alpha=0.7)
    if rng.random() < 0.45:
        side = rng.choice([-1.0, 1.0])
        cliff = points((0.55, 0.0), (0.5, -0.1), (0.36, -0.12), (0.3, -0.02),
                       (0.16, 0.02), (0.12, 0.08), (0.55, 0.12))  # fmt: skip
        scale = rng.uniform(0.8, 1.6)
        canvas.fill(moved(cliff * [side, scale], 0.5, horizon), palette.near)
    for _ in range(int(rng.integers(0, 4))):
        _ship(canvas, palette, rng, horizon)
    return canvas


def _ship(
    canvas: Canvas, palette: Palette, rng: np.random.Generator, horizon: float
) -> None:
    x, depth = rng.uniform(0.1, 0.9), rng.uniform(0.02, 0.25)
    y, long = horizon + depth, 0.04 + 0.4 * depth
    hull = moved(points((-1, -0.1), (1, -0.1), (0.7, 0.3), (-0.7, 0.3)) * long, x, y)
    sail = moved(points((0.05, -0.2), (0.05, -2.2), (0.9, -0.3)) * long, x, y)
    jib = moved(points((-0.05, -0.2), (-0.05, -1.7), (-0.7, -0.3)) * long, x, y)
    canvas.fill(hull, shade(palette.near, 0.5))
    canvas.fill(sail, palette.light)
    canvas.fill(jib, mix(palette.light, palette.accent, 0.6))


def portrait(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Head and shoulders, lit from one side, before a wall or a window."""
    canvas = _ground(size, mix(palette.far, palette.near, rng.random()), palette.near)
    side = rng.choice([-1.0, 1.0])
    x, y, tall = rng.uniform((0.38, 0.3, 0.13), (0.62, 0.4, 0.22))
    if rng.random() < 0.4:
        _window(canvas, palette, rng, 0.5 - 0.36 * np.sign(x - 0.5))
    place = np.array([x, y])
    skin = jitter(rng, mix((216, 164, 124), palette.light, 0.35), 10)
    dark = shade(palette.near, 0.5)
    _bust(canvas, palette, rng, place, tall)
    hair = shade(mix(palette.near, palette.middle, rng.random()), rng.uniform(0.4, 1.0))
    long = rng.uniform(0.0, 0.7)
    locks = ellipse(
        moved(place, 0, (0.3 * long - 0.2) * tall), 0.9 * tall, (1.0 + long) * tall
    )
    canvas.fill(locks, hair)
    canvas.fill(
        ellipse(moved(place, 0, 0.95 * tall), 0.36 * tall, 0.55 * tall),
        shade(skin, 0.66),
    )
    turned = side * tall * np.array([1.0, 0.0])
    canvas.fill(
        ellipse(place + 0.05 * turned, 0.68 * tall, 0.93 * tall), shade(skin, 0.62)
    )
    canvas.fill(ellipse(place + 0.2 * turned, 0.52 * tall, 0.86 * tall), skin)
    fringe = ellipse(
        place - [0, 0.3 * tall], 0.76 * tall, 0.66 * tall, start=180, end=360
    )
    canvas.fill(fringe, hair)
    for eye in (-0.16, 0.4):
        at = place + eye * turned
        lid = curve(np.array([[-0.13, 0.02], [0, -0.05], [0.13, 0.02]]) * tall + at)
        canvas.fill(ellipse(at, 0.12 * tall, 0.055 * tall), shade(skin, 1.5))
        canvas.dot(at, 0.05 * tall, dark)
        canvas.line(lid, shade(hair, 0.8), 0.035 * tall)
    nose = np.array([[0.14, 0.05], [0.27, 0.32], [0.12, 0.36]]) * [side, 1] * tall
    canvas.line(curve(nose + place), shade(skin, 0.66), 0.05 * tall)
    lips = ellipse(
        moved(place + 0.13 * turned, 0, 0.56 * tall), 0.17 * tall, 0.055 * tall
    )
    canvas.fill(lips, mix(palette.accent, skin, 0.4))
    if rng.random() < 0.4:
        _hat(canvas, mix(dark, palette.accent, rng.uniform(0, 0.6)), rng, place, tall)
    return canvas


def _window(
    canvas: Canvas, palette: Palette, rng: np.random.Generator, x: float
) -> None:
    wide, tall = rng.uniform((0.1, 0.2), (0.16, 0.34))
    corners = points((-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall))
    canvas.fill(moved(corners, x, 0.3), palette.horizon)
    canvas.fill(_ridge(rng, 0.3, 0.05, 4).clip((x - wide, 0), (x + wide, 0.3 + tall)),
                palette.middle)  # fmt: skip


def _bust(
    canvas: Canvas,
    palette: Palette,
    rng: np.random.Generator,
    head: np.ndarray,
    tall: float,
) -> None:
    """Shoulders and what they wear, perhaps a collar, buttons or folded hands."""
    dark = shade(palette.near, 0.55)
    choice = np.array([palette.accent, palette.middle, palette.far, dark])
    cloth = tuple(choice[rng.integers(0, 4)].tolist())
    low = head[1] + 1.25 * tall
    wide = rng.uniform(1.5, 2.0) * tall
    half = points((0.35 * tall, 0), (0.75 * wide, 0.25 * tall), (wide, 0.9 * tall),
                  (1.25 * wide, 1.0))  # fmt: skip
    side = curve(half)
    outline = moved(np.concatenate([side, side[::-1] * [-1, 1]]), head[0], low)
    canvas.fill(outline, cloth)
    for reach in rng.uniform(-0.9, 0.9, 4):
        start = moved(head, 0.5 * reach * tall, 2.0 * tall)
        fold = curve(
            np.stack(
                [
                    start,
                    moved(start, 0.4 * reach * tall, 0.2),
                    [head[0] + reach * wide, 1.05],
                ]
            )
        )
        canvas.line(fold, shade(cloth, 0.72), [0, 0.02, 0.03], alpha=0.7)
    kind = rng.choice(["collar", "shawl", "plain"])
    if kind == "collar":
        canvas.fill(
            ellipse(moved(head, 0, 1.3 * tall), 0.75 * tall, 0.24 * tall), palette.light
        )
    elif kind == "shawl":
        for way in (-1, 1):
            band = points((0.3, 1.15), (0.9, 1.5), (0.1, 2.9)) * [way, 1] * tall + head
            canvas.line(curve(band), palette.light, 0.2 * tall)
    if rng.random() < 0.5:
        skin = mix((196, 146, 108), palette.light, 0.3)
        canvas.fill(ellipse((head[0] + rng.uniform(-0.1, 0.1), 0.9), 0.11, 0.045), skin)


def _hat(
    canvas: Canvas,
    color: Color,
    rng: np.random.Generator,
    head: np.ndarray,
    tall: float,
) -> None:
    high = rng.uniform(0.4, 0.8)
    canvas.fill(ellipse(head - [0, 0.75 * tall], 0.82 * tall, high * tall), color)
    brim = ellipse(head - [0, 0.62 * tall], rng.uniform(0.95, 1.5) * tall, 0.2 * tall)
    canvas.fill(brim, shade(color, 0.8))


def still_life(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Fruit, a bottle and a bowl on a table with a cloth."""
    back = mix(palette.near, palette.horizon, rng.uniform(0, 0.7))
    canvas = _ground(size, back, mix(palette.far, back, 0.5))
    edge = rng.uniform(0.5, 0.65)
    canvas.fill(_ridge(rng, edge, 0.006, 4), palette.middle)
    if rng.random() < 0.7:
        x = rng.uniform(0.2, 0.6)
        cloth = points((x - 0.2, edge + 0.06), (x + 0.25, edge), (x + 0.36, 1.05),
                       (x + 0.05, 0.9), (x - 0.15, 1.05))  # fmt: skip
        canvas.fill(curve(cloth, closed=True), palette.light)
        crease = curve(points((x, edge + 0.1), (x + 0.08, 0.8), (x + 0.05, 0.95)))
        canvas.line(crease, shade(palette.light, 0.7), 0.02)
    for _ in range(int(rng.integers(1, 3))):
        _vessel(canvas, palette, rng, edge)
    fruit = (palette.accent, palette.light, palette.horizon, palette.sky)
    for _ in range(int(rng.integers(3, 10))):
        at = rng.uniform((0.12, edge + 0.04), (0.88, 0.85))
        radius = rng.uniform(0.045, 0.085)
        color = mix(fruit[int(rng.integers(0, 4))], palette.accent, rng.uniform(0, 0.7))
        canvas.fill(ellipse(moved(at, 0.02, 0.8 * radius), 1.1 * radius, 0.3 * radius),
                    shade(palette.middle, 0.6))  # fmt: skip
        canvas.dot(at, radius, shade(color, 0.7))
        canvas.dot(at - 0.15 * radius, 0.82 * radius, color)
        canvas.dot(at - 0.38 * radius, 0.24 * radius, shade(color, 1.5))
    return canvas


def _vessel(
    canvas: Canvas, palette: Palette, rng: np.random.Generator, edge: float
) -> None:
    x, foot = rng.uniform(0.15, 0.85), edge + rng.uniform(0.03, 0.12)
    tall, wide = rng.uniform(0.22, 0.42), rng.uniform(0.05, 0.1)
    neck = rng.uniform(0.25, 0.9)
    half = points((wide, 0), (wide, -0.5 * tall), (neck * wide, -0.7 * tall),
                  (neck * wide, -tall))  # fmt: skip
    side = moved(curve(half), x, foot)
    other = moved(curve(half * [-1, 1]), x, foot)
    color = mix(palette.sky, palette.near, rng.uniform(0.1, 0.6))
    canvas.fill(np.concatenate([side, other[::-1]]), color)
    shine = points(
        (x - 0.5 * wide, foot - 0.1 * tall), (x - 0.5 * wide, foot - 0.5 * tall)
    )
    canvas.line(shine, shade(color, 1.45), [0, 0.02, 0])


def city(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Rows of houses and towers along a street or a canal."""
    canvas = _ground(size, palette.sky, palette.horizon)
    _clouds(canvas, palette, rng)
    street = rng.uniform(0.6, 0.78)
    canvas.fill(_ridge(rng, street, 0.004, 3), mix(palette.far, palette.horizon, 0.3))
    for row, tone in ((0.0, palette.far), (0.5, palette.middle), (1.0, palette.near)):
        x = rng.uniform(-0.1, 0.1)
        while x < 1.0:
            wide = rng.uniform(0.08, 0.2)
            tall = rng.uniform(0.15, 0.42) * (1.25 - 0.55 * row)
            if rng.random() < 0.7:
                _building(
                    canvas, palette, rng, x, street + 0.04 * row, wide, tall, tone
                )
            x += wide
    if rng.random() < 0.6:
        for _ in range(26):
            x, y = rng.uniform((0, street + 0.05), (1, 1))
            gleam = points((x, y), (x + rng.uniform(0.03, 0.12), y))
            tone = (palette.light, palette.near, palette.accent)[
                int(rng.integers(0, 3))
            ]
            canvas.line(gleam, tone, [0, 0.014, 0], alpha=0.7)
    else:
        for _ in range(int(rng.integers(2, 9))):
            x, y = rng.uniform((0.05, street + 0.06), (0.95, 0.95))
            walker = points((x, y - 0.08), (x, y))
            canvas.line(walker, shade(palette.near, 0.4), [0.015, 0.03])
            canvas.dot((x, y - 0.09), 0.012, palette.accent)
    return canvas


def _building(
    canvas: Canvas,
    palette: Palette,
    rng: np.random.Generator,
    x: float,
    foot: float,
    wide: float,
    tall: float,
    tone: Color,
) -> None:
    top = foot - tall
    wall = points((x, foot), (x, top), (x + wide, top), (x + wide, foot))
    tone = mix(jitter(rng, tone, 8), palette.accent, rng.uniform(0, 0.35))
    canvas.fill(wall, tone)
    if rng.random() < 0.6:
        peak = top - rng.uniform(0.03, 0.15)
        roof = points((x, top), (x + wide / 2, peak), (x + wide, top))
        canvas.fill(roof, shade(palette.accent, 0.8))
    lamp = palette.light if rng.random() < 0.6 else shade(tone, 0.5)
    for wx in np.arange(x + 0.02, x + wide - 0.02, 0.04):
        for wy in np.arange(top + 0.03, foot - 0.04, 0.07):
            pane = points(
                (wx, wy), (wx + 0.018, wy), (wx + 0.018, wy + 0.03), (wx, wy + 0.03)
            )
            canvas.fill(pane, lamp)


def mountains(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Peaks with snow, firs before them."""
    canvas = _ground(size, palette.sky, palette.horizon)
    for base, tone in ((0.64, palette.far), (0.76, palette.middle)):
        for _ in range(int(rng.integers(2, 4))):
            _peak(canvas, rng, (rng.uniform(0, 1), base), tone, palette.light)
    canvas.fill(_ridge(rng, 0.76, 0.03, 6), palette.near)
    for _ in range(int(rng.integers(3, 12))):
        x, y = rng.uniform((0, 0.78), (1, 0.98))
        tall = rng.uniform(0.08, 0.2)
        for step in (0.0, 0.3, 0.6):
            wide = tall * (0.12 + 0.2 * step)
            high, low = y - tall * (1 - 0.5 * step), y - tall * (0.76 - 0.6 * step)
            tier = points((x, high), (x + wide, low), (x - wide, low))
            canvas.fill(tier, shade(palette.near, 0.55))
    return canvas


def _peak(
    canvas: Canvas,
    rng: np.random.Generator,
    foot: tuple[float, float],
    tone: Color,
    snow: Color,
) -> None:
    """One mountain with ragged slopes, its right side in the shade."""
    tall = rng.uniform(0.2, 0.5)
    wide = tall * rng.uniform(0.7, 1.3)
    down = np.linspace(0, 1, 9)[:, None]
    ragged = rng.normal(0, 0.035, (3, 9, 1)) * tall * (down > 0) * (down < 1)
    # Left slope, the ridge in between, right slope; from the summit down.
    left, ridge, right = (
        np.concatenate([reach * wide * down + shift, tall * (1.3 * down - 1)], 1)
        for reach, shift in zip((-1, rng.uniform(-0.2, 0.4), 1), ragged, strict=True)
    )
    left, ridge, right = (moved(slope, *foot) for slope in (left, ridge, right))
    canvas.fill(np.concatenate([left, ridge[::-1]]), tone)
    canvas.fill(np.concatenate([ridge, right[::-1]]), shade(tone, 0.68))
    cap = int(rng.integers(2, 5))
    canvas.fill(np.concatenate([left[:cap], ridge[: cap + 1][::-1]]), snow)
    canvas.fill(np.concatenate([ridge[: cap + 1], right[:cap][::-1]]), shade(snow, 0.8))


def abstract(size: int, palette: Palette, rng: np.random.Generator) -> Canvas:
    """Overlapping rectangles, discs and bars."""
    canvas = _ground(size, palette.light, mix(palette.light, palette.horizon, 0.5))
    colors = dataclasses.astuple(palette)
    lean = rng.uniform(-35, 35)
    for _ in range(int(rng.integers(7, 14))):
        at, color = rng.uniform(0.05, 0.95, 2), colors[int(rng.integers(0, 6))]
        wide, tall = rng.uniform(0.05, 0.28, 2)
        if rng.random() < 0.65:
            corners = points((-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall))
            turned = corners @ rotation(lean + rng.normal(0, 5)) + at
            canvas.fill(turned, color, alpha=0.9)
        else:
            canvas.dot(at, 0.7 * wide, color, alpha=0.9)
    for _ in range(int(rng.integers(2, 6))):
        bar = points((-0.6, 0), (0.6, 0)) @ rotation(lean + 90 * rng.integers(0, 2))
        canvas.line(
            bar + rng.uniform(0.1, 0.9, 2), (30, 26, 30), rng.uniform(0.006, 0.03)
        )
    return canvas


SUBJECTS: dict[str, Callable[[int, Palette, np.random.Generator], Canvas]] = {
    "abstract": abstract,
    "city": city,
    "landscape": landscape,
    "mountains": mountains,
    "portrait": portrait,
    "sea": sea,
    "still_life": still_life,
}
