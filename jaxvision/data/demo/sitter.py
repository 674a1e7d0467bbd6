"""A person to be drawn: what is theirs, and the pose and mood of one image.

The head has its own coordinates: x to the right and y down from the middle of the
face, whose crown is at y = -1 and whose chin is near y = 1. The face is an ellipsoid,
so that features shift and narrow as the head turns.
"""

import dataclasses
import math

import numpy as np

from jaxvision.data.demo.canvas import (
    Canvas,
    Color,
    Points,
    curve,
    grid,
    points,
    rotation,
    shade,
)

INK = (44, 30, 34)
HEAD_DEPTH = 0.8
"""Distance from the head's axis to the tip of the face."""


@dataclasses.dataclass(frozen=True)
class Person:
    """What makes a face this person's; lengths in head coordinates."""

    skin: Color
    hair_color: Color
    hair: str
    """A key of `HAIR`."""
    width: float = 0.78
    """Half the width of the head at the cheekbones."""
    jaw: float = 0.8
    """Width at the mouth, as a share of `width`."""
    chin: float = 0.4
    """Width near the chin, as a share of `width`."""
    length: float = 1.0
    """Where the chin ends."""
    eye: float = 0.14
    """Half the width of an eye."""
    eye_open: float = 0.6
    """Height of an eye as a share of its width."""
    eye_gap: float = 0.34
    """From the middle of the face to the middle of an eye."""
    eye_slant: float = 0.0
    """Degrees by which the outer corners rise."""
    iris: Color = (92, 62, 40)
    lashes: bool = False
    brow: float = 0.06
    """Thickness of the brows."""
    brow_slant: float = 0.0
    """How much the outer ends rise."""
    brow_height: float = 0.26
    nose: float = 0.3
    """How far the nose's tip lies below the eyes."""
    nose_width: float = 0.13
    mouth: float = 0.3
    """Half the width of the mouth."""
    lips: float = 0.07
    lip_color: Color = (188, 96, 92)
    ear: float = 0.17
    glasses: str = ""
    """"round", "square" or none."""
    glasses_color: Color = INK
    beard: str = ""
    """A key of `BEARDS` or none."""
    freckles: bool = False
    mole: bool = False
    earrings: bool = False
    wrinkles: bool = False
    blush: float = 0.0


@dataclasses.dataclass(frozen=True)
class Mood:
    """An expression."""

    smile: float
    """-1 (sad) to 1; bends the mouth."""
    jaw_drop: float
    """0 (closed) to 1."""
    brow_raise: float
    """-1 (frown) to 1."""
    lids: float
    """Factor on how far the eyes are open; near 0 in a blink."""
    gaze: float
    """-1 (the image's left) to 1."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Mood":
        smile, brow, gaze = rng.uniform(-1, 1, 3)
        jaw_drop = rng.uniform(0.2, 1) if rng.random() < 0.35 else 0.0
        lids = 0.08 if rng.random() < 0.06 else rng.uniform(0.7, 1.15)
        return cls(0.25 + 0.75 * smile, jaw_drop, brow, lids, gaze)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the head is and where it looks."""

    center: tuple[float, float]
    scale: float
    """Length of one head unit, as a share of the image."""
    yaw: float
    """Degrees to the side; positive looks to the image's right."""
    pitch: float
    """Degrees down."""
    roll: float
    """Degrees clockwise."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Pose":
        x, y, yaw, pitch, roll = rng.normal(0, 1, 5).clip(-2.2, 2.2).tolist()
        return cls(
            center=(0.5 + 0.075 * x, 0.51 + 0.05 * y),
            scale=0.285 * math.exp(rng.uniform(-0.32, 0.24)),
            yaw=16 * yaw,
            pitch=9 * pitch,
            roll=11 * roll,
        )

    def place(self, drawn: Points) -> Points:
        """From the plane of the image in head units to the unit square."""
        return (drawn * self.scale) @ rotation(self.roll) + self.center

    def unplace(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Head units x, y `[S, S]` float32 of each pixel."""
        x, y = grid(size)
        # Python's floats: NumPy's would make all that follows float64, and slow.
        turn = (rotation(-self.roll) / self.scale).tolist()
        x, y = x - self.center[0], y - self.center[1]
        return x * turn[0][0] + y * turn[1][0], x * turn[0][1] + y * turn[1][1]


class Sitter:
    """One person in one pose and mood on a canvas; all shapes are in head units."""

    def __init__(self, person: Person, pose: Pose, mood: Mood, canvas: Canvas) -> None:
        self.person, self.pose, self.mood, self.canvas = person, pose, mood, canvas
        self._sin_yaw = math.sin(math.radians(pose.yaw))
        self._cos_yaw = math.cos(math.radians(pose.yaw))
        self._sin_pitch = math.sin(math.radians(pose.pitch))

    def on_face(self, shape: Points, lift: float = 0.0) -> Points:
        """Points that lie on the face, or `lift` in front of it, as seen."""
        x, y = shape[:, 0], shape[:, 1]
        inside = 1 - (x / (self.person.width * 1.05)) ** 2 - (y / 1.25) ** 2
        depth = HEAD_DEPTH * np.sqrt(np.maximum(inside, 0.0)) + lift
        seen = np.empty_like(shape)
        seen[:, 0] = x * self._cos_yaw + depth * self._sin_yaw
        seen[:, 1] = y + depth * self._sin_pitch
        return self.pose.place(seen)

    def flat(self, shape: Points, depth: float = 0.0) -> Points:
        """Points of a silhouette at one depth (0 at the ears, negative behind)."""
        shift = (depth * self._sin_yaw, depth * self._sin_pitch)
        moved = np.add(shape, shift)
        return self.pose.place(moved)

    def skin(self, outline: Points, factor: float = 1.0, alpha: float = 1.0) -> None:
        """Fills a placed outline with the person's skin, darker or lighter."""
        self.canvas.fill(outline, shade(self.person.skin, factor), alpha=alpha)

    def head(self) -> Points:
        """The outline of the head in head units."""
        person = self.person
        drop = 0.08 * self.mood.jaw_drop
        right = person.width * np.array(
            [0.52, 0.88, 1.0, 0.99, 0.5 + person.jaw / 2, person.jaw, person.chin]
        )
        y = np.array([-0.93, -0.66, -0.25, 0.1, 0.36, 0.6, 0.9])
        y = np.where(y > 0, y * person.length + drop * y, y)
        side = np.stack([right, y], 1)
        top, chin = points((0, -1.0)), points((0, person.length + drop))
        left = side[::-1] * [-1, 1]
        return curve(np.concatenate([top, side, chin, left]), closed=True, steps=7)
