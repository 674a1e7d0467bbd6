"""Inputs and weights drawn by code, the same with torch and without."""

import numpy as np

from jaxvision.pretrained import SOURCES
from jaxvision.pretrained.golden import drawn_image

ALEXNET_SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}


VGG19_SHAPES = {
    f"features.{place}": (features, channels, 3, 3)
    for place, channels, features in (
        (0, 3, 64),
        (2, 64, 64),
        (5, 64, 128),
        (7, 128, 128),
        (10, 128, 256),
        *((place, 256, 256) for place in (12, 14, 16)),
        (19, 256, 512),
        *((place, 512, 512) for place in (21, 23, 25, 28, 30, 32, 34)),
    )
} | {
    "classifier.0": (4096, 25088),
    "classifier.3": (4096, 4096),
    "classifier.6": (1000, 4096),
}


def normalized_images(name: str) -> np.ndarray:
    """Two images as the network wants them: `[2, 224, 224, 3]` float32."""
    image = drawn_image(224)
    images = np.stack([image, image[::-1, :, ::-1]])
    return SOURCES[name].preprocessing.normalize(images)


def alexnet_state_dict() -> dict[str, np.ndarray]:
    return _state_dict(ALEXNET_SHAPES)


def vgg19_state_dict() -> dict[str, np.ndarray]:
    return _state_dict(VGG19_SHAPES)


def _state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights under torchvision's names; activations keep their size."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        bound = np.float32((6 / np.prod(shape[1:])) ** 0.5)
        weight = rng.random(shape, np.float32) * 2 - 1
        tensors[f"{name}.weight"] = weight * bound
        tensors[f"{name}.bias"] = rng.random(shape[:1], np.float32) - 0.5
    return tensors
