"""Things in the way of a face."""

import math
from collections.abc import Callable

import numpy as np

from jaxvision.data.demo.canvas import (
    curve,
    ellipse,
    points,
    random_color,
    rotation,
    shade,
)
from jaxvision.data.demo.features import glasses
from jaxvision.data.demo.hair import crown
from jaxvision.data.demo.sitter import Sitter


def _hand(sitter: Sitter, rng: np.random.Generator) -> None:
    """A hand in front of one cheek."""
    side = rng.choice([-1, 1])
    skin, scale = shade(sitter.person.skin, 0.95), sitter.pose.scale
    palm = ellipse((side * 0.72, 1.1), 0.34, 0.42)
    sitter.canvas.fill(sitter.flat(palm, 0.5), skin, solid=True)
    for i in range(4):
        base = np.array([side * (0.5 + 0.15 * i), 0.95])
        tip = np.add(base, (-side * 0.1, -0.55 - 0.1 * math.sin(i)))
        finger = sitter.flat(np.stack([base, tip]), 0.5)
        sitter.canvas.line(finger, shade(skin, 0.7), 0.17 * scale, solid=True)
        sitter.canvas.line(finger, skin, 0.14 * scale, solid=True)
        sitter.canvas.dot(finger[1], 0.075 * scale, skin, solid=True)


def _scarf(sitter: Sitter, rng: np.random.Generator) -> None:
    """A scarf up to the mouth."""
    width, color = sitter.person.width, random_color(rng)
    high = rng.uniform(0.62, 0.9)
    wrap = curve(
        points(
            (-1.1 * width, high), (0, high + 0.12), (1.1 * width, high),
            (1.2 * width, 1.5), (0, 1.75), (-1.2 * width, 1.5),
        ),
        closed=True,
    )  # fmt: skip
    sitter.canvas.fill(sitter.flat(wrap, 0.3), color, solid=True)
    for y in (0.2, 0.45):
        fold = curve(
            points((-width, high + y), (0, high + y + 0.14), (width, high + y))
        )
        sitter.canvas.line(
            sitter.flat(fold, 0.4), shade(color, 0.65), 0.05 * sitter.pose.scale
        )


def _hat(sitter: Sitter, rng: np.random.Generator) -> None:
    """A knitted cap or a hat with a brim."""
    color = random_color(rng)
    brim_y = -0.48
    dome = crown(sitter, rng.uniform(1.12, 1.22), 200, 340)
    edge = points((sitter.person.width, brim_y), (0, brim_y - 0.06),
                  (-sitter.person.width, brim_y))  # fmt: skip
    outline = np.concatenate([sitter.flat(dome), sitter.on_face(curve(edge))])
    sitter.canvas.fill(outline, color, solid=True)
    wide = 1.0 if rng.random() < 0.5 else 1.45
    band = curve(edge * [1.08 * wide, 1])
    sitter.canvas.line(
        sitter.flat(band, 0.35), shade(color, 0.7), 0.2 * sitter.pose.scale, solid=True
    )


def _sunglasses(sitter: Sitter, rng: np.random.Generator) -> None:
    del rng
    glasses(sitter, dark=True)


def _bar(sitter: Sitter, rng: np.random.Generator) -> None:
    """Something long in front of the image: a post, a rail, a leaf's edge."""
    angle, offset = rng.uniform(0, 180), rng.uniform(-0.3, 0.3)
    along = points((-1, offset), (1, offset)) @ rotation(angle) + 0.5
    width = rng.uniform(0.04, 0.1)
    color = random_color(rng)
    sitter.canvas.line(along, color, width, solid=True)
    edge = along + np.array([[0, width / 3]]) @ rotation(angle)
    sitter.canvas.line(edge, shade(color, 0.7), width / 3)


OCCLUSIONS: dict[str, Callable[[Sitter, np.random.Generator], None]] = {
    "hand": _hand,
    "scarf": _scarf,
    "hat": _hat,
    "sunglasses": _sunglasses,
    "bar": _bar,
}
