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


VGG19_PLACES = (
    (0, 3, 64),
    (2, 64, 64),
    (5, 64, 128),
    (7, 128, 128),
    (10, 128, 256),
    *((place, 256, 256) for place in (12, 14, 16)),
    (19, 256, 512),
    *((place, 512, 512) for place in (21, 23, 25, 28, 30, 32, 34)),
)
VGG16_PLACES = (
    *VGG19_PLACES[:5],
    *((place, 256, 256) for place in (12, 14)),
    (17, 256, 512),
    *((place, 512, 512) for place in (19, 21, 24, 26, 28)),
)


def normalized_images(name: str) -> np.ndarray:
    """Two images as the network wants them: `[2, H, W, 3]` float32."""
    preprocessing = SOURCES[name].preprocessing
    image = drawn_image(preprocessing.size[0])
    return preprocessing.normalize(np.stack([image, image[::-1, :, ::-1]]))


def alexnet_state_dict() -> dict[str, np.ndarray]:
    return _state_dict(ALEXNET_SHAPES)


def vgg_state_dict(depth: int) -> dict[str, np.ndarray]:
    places = {16: VGG16_PLACES, 19: VGG19_PLACES}[depth]
    convolutions = {
        f"features.{place}": (features, channels, 3, 3)
        for place, channels, features in places
    }
    dense = {
        "classifier.0": (4096, 25088),
        "classifier.3": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    return _state_dict(convolutions | dense)


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
