"""What a network with its published weights answers to an image drawn by code.

It tells a right conversion from one that only has the right shapes, with neither
images nor the original implementation at hand.
"""

import jax
import numpy as np

from jaxvision.models import create_model
from jaxvision.pretrained.convert import Variables
from jaxvision.pretrained.sources import Source

GOLDEN_CLASSES = tuple(range(0, 1000, 67))

# Written by tests/pretrained/make_golden.py from the original implementation in torch:
# the logits of GOLDEN_CLASSES for `drawn_image(224)`.
GOLDEN_LOGITS: dict[str, tuple[float, ...]] = {
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
}


def drawn_image(size: int) -> np.ndarray:
    """Waves, rings and blocks in color: `[size, size, 3]` uint8, always the same.

    Whole-number arithmetic only, so that every machine draws the same bytes.
    """
    y, x = np.mgrid[:size, :size]
    waves = (x * x + 3 * y) // 7 % 256
    rings = ((2 * x - size) ** 2 + (2 * y - size) ** 2) // 97 % 256
    blocks = (x // 16 * 37 + y // 16 * 91) % 256
    return np.stack([waves, rings, blocks], axis=-1).astype(np.uint8)


def logits_error(source: Source, variables: Variables) -> float:
    """How far the network's logits of the drawn image are off the reference's.

    Args:
      source: one of those in `GOLDEN_LOGITS`.
      variables: converted from its file.
    """
    images = source.preprocessing.normalize(
        drawn_image(source.preprocessing.size[0])[None]
    )
    model = create_model(source.model, source.num_classes)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    found = np.asarray(logits)[0, list(GOLDEN_CLASSES)]
    return float(np.abs(found - np.array(GOLDEN_LOGITS[source.name])).max())
