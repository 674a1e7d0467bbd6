"""Faces or comics: the drawn people of `faces`, and each image again as a comic.

Image i of both classes shows the same: one is the other, drawn with the filter.
"""

import functools

import numpy as np

from jaxvision.data.comics import draw_comic
from jaxvision.data.demo import faces

COUNTS = {"comic": 1000, "face": 1000}


def draw(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a face, or its comic.

    Args:
      name: a key of `COUNTS`.
      rng: decides who is drawn and how; both classes are drawn with the same.
      size: S.

    Returns:
      `[S, S, 3]` uint8.
    """
    seed = rng.bit_generator.seed_seq
    assert isinstance(seed, np.random.SeedSequence)
    assert isinstance(seed.entropy, list)
    face = _face(tuple(seed.entropy), size)
    return face if name == "face" else draw_comic(face)


# The two images of a pair are drawn one after the other, the face only once.
@functools.lru_cache(maxsize=1)
def _face(key: tuple[int, ...], size: int) -> np.ndarray:
    rng = np.random.default_rng(key)
    face = faces.draw(rng.choice(list(faces.PEOPLE)), rng, size)
    face.flags.writeable = False
    return face
