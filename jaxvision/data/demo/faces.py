"""Twelve invented people, drawn: who they are is fixed, the rest varies by image.

A person is a head shape, a hair style, eyes, brows, nose, mouth, ears, and perhaps
glasses, a beard, freckles. Pose, expression, light, background, clothes, occlusion,
blur and noise are drawn anew for each image. Skin and hair colors are shared by
several people and the light moves them further, so that color alone names nobody.
"""

import dataclasses

import numpy as np

from jaxvision.data.demo import camera
from jaxvision.data.demo.canvas import jitter
from jaxvision.data.demo.features import (
    BEARDS,
    body,
    brows,
    earrings,
    ears,
    eyes,
    glasses,
    mouth,
    nose,
    skin_marks,
)
from jaxvision.data.demo.hair import HAIR
from jaxvision.data.demo.occlusion import OCCLUSIONS
from jaxvision.data.demo.sitter import Mood, Person, Pose, Sitter

PALE, FAIR, OLIVE, TAN, BROWN, DARK = (
    (246, 216, 196),
    (236, 196, 166),
    (216, 172, 132),
    (196, 142, 100),
    (152, 102, 70),
    (106, 70, 50),
)
BLACK, CHESTNUT, AUBURN, BLOND, SILVER = (
    (40, 34, 36),
    (88, 56, 38),
    (150, 74, 40),
    (214, 174, 100),
    (182, 180, 180),
)
INK = (44, 30, 34)
HEAD_DEPTH = 0.8
"""Distance from the head's axis to the tip of the face."""


PEOPLE: dict[str, Person] = {
    "alma_quill": Person(
        PALE, AUBURN, "bun", width=0.7, jaw=0.76, chin=0.34, length=1.06,
        eye=0.14, eye_gap=0.31, iris=(84, 126, 84), brow=0.04, brow_slant=0.04,
        nose=0.34, nose_width=0.1, mouth=0.24, lips=0.05, glasses="round",
        freckles=True, blush=0.3,
    ),
    "boris_tandem": Person(
        FAIR, CHESTNUT, "side_part", width=0.84, jaw=0.95, chin=0.6, eye=0.12,
        eye_open=0.5, eye_gap=0.33, iris=(92, 128, 160), brow=0.1,
        nose=0.36, nose_width=0.18, mouth=0.3, beard="full",
    ),
    "cleo_marrow": Person(
        BROWN, BLACK, "afro", width=0.74, jaw=0.78, chin=0.36, eye=0.17,
        eye_open=0.68, eye_gap=0.35, lashes=True, brow=0.05, brow_slant=0.06,
        nose=0.29, nose_width=0.16, mouth=0.3, lips=0.12, lip_color=(158, 62, 70),
        earrings=True,
    ),
    "dov_lantern": Person(
        OLIVE, SILVER, "tonsure", width=0.8, jaw=0.9, chin=0.5, eye=0.11,
        eye_gap=0.31, brow=0.09, brow_slant=-0.06, nose=0.42, nose_width=0.22,
        mouth=0.27, ear=0.24, beard="mustache", wrinkles=True,
    ),
    "edda_fjord": Person(
        PALE, BLOND, "braids", width=0.86, jaw=0.88, chin=0.46, length=0.94,
        eye=0.15, eye_open=0.66, eye_gap=0.37, iris=(96, 140, 176), brow=0.045,
        nose=0.22, nose_width=0.12, mouth=0.26, lips=0.07, blush=0.8,
    ),
    "femi_okapi": Person(
        DARK, BLACK, "buzz", width=0.68, jaw=0.84, chin=0.5, length=1.1, eye=0.14,
        eye_gap=0.31, brow=0.07, brow_slant=0.03, nose=0.34, nose_width=0.2,
        mouth=0.3, lips=0.1, lip_color=(128, 70, 66), beard="goatee",
    ),
    "goro_pebble": Person(
        OLIVE, BLACK, "bowl", width=0.9, jaw=0.9, chin=0.52, length=0.93, eye=0.11,
        eye_open=0.42, eye_gap=0.34, eye_slant=6, brow=0.05, nose=0.24,
        nose_width=0.15, mouth=0.2, lips=0.06, glasses="square",
    ),
    "hana_nettle": Person(
        FAIR, BLACK, "long_fringe", width=0.74, jaw=0.76, chin=0.3, eye=0.15,
        eye_open=0.5, eye_gap=0.34, eye_slant=9, lashes=True, brow=0.04,
        nose=0.27, nose_width=0.1, mouth=0.22, lips=0.09, lip_color=(196, 54, 64),
        mole=True,
    ),
    "ivo_saffron": Person(
        FAIR, AUBURN, "curls", width=0.72, jaw=0.8, chin=0.36, length=1.08,
        eye=0.12, eye_gap=0.28, iris=(96, 120, 90), brow=0.06, brow_slant=0.07,
        nose=0.46, nose_width=0.13, mouth=0.34, lips=0.045, ear=0.22,
        freckles=True,
    ),
    "juno_bracken": Person(
        TAN, CHESTNUT, "bob", width=0.79, jaw=0.92, chin=0.44, eye=0.15,
        eye_gap=0.36, brow=0.1, brow_slant=-0.02, brow_height=0.23, nose=0.3,
        nose_width=0.15, mouth=0.34, lips=0.1, lip_color=(170, 74, 84),
    ),
    "kiri_ember": Person(
        BROWN, CHESTNUT, "waves", width=0.76, jaw=0.74, chin=0.24, length=1.04,
        eye=0.17, eye_open=0.46, eye_gap=0.38, eye_slant=12, iris=(120, 100, 50),
        lashes=True, brow=0.05, brow_slant=0.1, nose=0.31, nose_width=0.11,
        mouth=0.28, lips=0.09, lip_color=(160, 70, 76), mole=True,
    ),
    "lumi_tarn": Person(
        TAN, SILVER, "spikes", width=0.76, jaw=0.86, chin=0.4, length=1.02,
        eye=0.13, eye_open=0.55, eye_gap=0.34, iris=(100, 120, 130), brow=0.07,
        brow_slant=0.05, nose=0.33, nose_width=0.14, mouth=0.29, earrings=True,
        beard="stubble", wrinkles=True,
    ),
}  # fmt: skip


def draw(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a new image of a person.

    Args:
      name: a key of `PEOPLE`.
      rng: decides pose, expression, light, background and what is in the way.
      size: S.

    Returns:
      `[S, S, 3]` uint8.
    """
    person, pose, mood = PEOPLE[name], Pose.random(rng), Mood.random(rng)
    person = dataclasses.replace(
        person,
        skin=jitter(rng, person.skin, 9),
        hair_color=jitter(rng, person.hair_color, 12),
    )
    canvas = camera.wall(rng, size)
    sitter = Sitter(person, pose, mood, canvas)
    hair_back, hair_front = HAIR[person.hair]
    hair_back(sitter)
    body(sitter, rng)
    ears(sitter)
    canvas.fill(sitter.flat(sitter.head()), person.skin, solid=True)
    skin_marks(sitter)
    if person.beard:
        BEARDS[person.beard](sitter)
    mouth(sitter)
    eyes(sitter)
    nose(sitter)
    brows(sitter)
    hair_front(sitter)
    if person.earrings:
        earrings(sitter)
    if person.glasses:
        glasses(sitter)
    if rng.random() < 0.33:
        OCCLUSIONS[rng.choice(list(OCCLUSIONS))](sitter, rng)
    image = camera.lit(canvas.image(), canvas.mask(), pose, rng)
    return camera.photographed(image, rng)
