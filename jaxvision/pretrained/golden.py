"""What a network with its published weights answers to an image drawn by code.

It tells a right conversion from one that only has the right shapes, with neither
images nor the original implementation at hand.
"""

import math

import jax
import numpy as np

from jaxvision.models import create_model
from jaxvision.pretrained.convert import Variables
from jaxvision.pretrained.sources import Source

# Written by tests/pretrained/make_golden.py from the original implementations in torch:
# for the drawn image, the answers at `golden_places`. They are logits, or where the
# weights have no classifier, the means of their last layer's channels.
GOLDEN_ANSWERS: dict[str, tuple[float, ...]] = {
    "efficientnet_lite0": (
        -0.10172,
        -2.34495,
        -0.31706,
        0.36372,
        0.3388,
        0.40888,
        -0.58175,
        0.40333,
        -0.6536,
        -0.03603,
        0.067,
        -2.84003,
        -2.32372,
        -0.0854,
        0.82018,
    ),
    "efficientnet_lite1": (
        -0.18787,
        -0.65137,
        -1.90318,
        -0.21182,
        0.2691,
        -0.13125,
        0.07476,
        1.74006,
        -0.87178,
        -2.37912,
        -0.83572,
        -1.64737,
        -1.31864,
        -1.47317,
        0.67456,
    ),
    "efficientnet_lite2": (
        -0.7443,
        -2.04391,
        -1.33253,
        -0.28576,
        -0.15519,
        -1.28037,
        -1.0509,
        0.40008,
        -2.78336,
        -1.3095,
        -1.41686,
        -0.51062,
        -0.52678,
        -1.55664,
        -0.3825,
    ),
    "alexnet_features": (
        0.13157,
        0.05935,
        3.22651,
        0.0,
        2.46017,
        0.0,
        4.9317,
        0.58261,
        0.30702,
        4.608,
        0.41296,
        0.49109,
        0.99742,
        0.65455,
        0.51922,
    ),
    "vgg16_features": (
        0.03837,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.00164,
        0.07872,
        0.29343,
        0.0005,
        0.0,
        0.0,
        0.0,
        0.0,
        0.10975,
    ),
}


def golden_places(size: int) -> tuple[int, ...]:
    """Fifteen places that are spread over a network's `size` answers."""
    return tuple(range(0, size, math.ceil(size / 15)))


def drawn_image(size: int) -> np.ndarray:
    """Waves, rings and blocks in color: `[size, size, 3]` uint8, always the same.

    Whole-number arithmetic only, so that every machine draws the same bytes.
    """
    y, x = np.mgrid[:size, :size]
    waves = (x * x + 3 * y) // 7 % 256
    rings = ((2 * x - size) ** 2 + (2 * y - size) ** 2) // 97 % 256
    blocks = (x // 16 * 37 + y // 16 * 91) % 256
    return np.stack([waves, rings, blocks], axis=-1).astype(np.uint8)


def answer_error(source: Source, variables: Variables) -> float:
    """How far the network's answers to the drawn image are off the reference's.

    Args:
      source: one of those in `GOLDEN_ANSWERS`.
      variables: converted from its file.
    """
    image = drawn_image(source.preprocessing.size[0])
    images = source.preprocessing.normalize(image[None])
    model = create_model(source.model, max(source.num_classes, 1))
    layer = source.last_layer

    def answer(variables: Variables, images: np.ndarray) -> jax.Array:
        if layer is None:
            return model.apply(variables, images, train=False)[0]
        backbone = {"params": variables["params"]["backbone"]}
        x = model.backbone.apply(backbone, images, train=False, stop_at=layer)
        return x[0].mean((0, 1))

    with jax.default_matmul_precision("highest"):
        answers = np.asarray(jax.jit(answer)(variables, images))
    found = answers[list(golden_places(len(answers)))]
    return float(np.abs(found - np.array(GOLDEN_ANSWERS[source.name])).max())
