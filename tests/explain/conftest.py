"""What the tests of explanations share: small networks, and the originals in torch."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvision.explain.methods import TrainedNetwork
from jaxvision.models import create_model
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.state import init_variables

# The reference implementations, with the images and weights that are drawn for them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pretrained"))


@pytest.fixture(scope="session")
def make_network() -> Callable[..., TrainedNetwork]:
    """(name, size, classes, preprocessing's fields, model's options) -> a network with
    random weights; the same arguments give the same one."""

    def make(
        name: str,
        size: int = 12,
        num_classes: int = 3,
        fields: dict | None = None,
        **options: object,
    ) -> TrainedNetwork:
        fields = {"resize_mode": "stretch", **(fields or {})}
        preprocessing = Preprocessing(size=(size, size), **fields)
        model = create_model(name, num_classes, **options)
        channels = 1 if preprocessing.gray else 3
        variables = init_variables(model, 0, (size, size, channels))
        # Biases and statistics that are not zero and one.
        variables = jax.tree.map(_moved, jax.device_get(variables))
        return TrainedNetwork(model, variables, preprocessing)

    return make


def _moved(leaf: np.ndarray) -> np.ndarray:
    if leaf.ndim > 1:
        return leaf
    generator = np.random.default_rng(leaf.size)
    return leaf + np.float32(0.1) * np.abs(
        generator.standard_normal(leaf.shape, np.float32)
    )


@pytest.fixture(scope="session")
def make_images() -> Callable[..., np.ndarray]:
    """(count, size, channels) -> uint8 noise, always the same."""

    def make(count: int, size: int = 12, channels: int = 3) -> np.ndarray:
        generator = np.random.default_rng(count)
        return generator.integers(0, 256, (count, size, size, channels), np.uint8)

    return make


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    """EfficientNet-Lite0 as published."""
    from jaxvision.pretrained import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXVISION_CACHE", str(tmp_path_factory.mktemp("cache")))
        pretrained = load("efficientnet_lite0")
    source = pretrained.source
    model = create_model(source.model, source.num_classes)
    return TrainedNetwork(model, pretrained.variables, source.preprocessing)


def resized(network: TrainedNetwork, size: int) -> TrainedNetwork:
    """The same network for smaller images."""
    preprocessing = dataclasses.replace(network.preprocessing, size=(size, size))
    return dataclasses.replace(network, preprocessing=preprocessing)
