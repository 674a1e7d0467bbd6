"""Explanations from gradients of a class's logit by the network's input.

Each takes uint8 images `[B, H, W, C]` and a class for all of them or one for each,
and gives float32 `[B, H, W, C]`: a value for each pixel and channel (RGB), above zero
where more of it speaks for the class.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError
from jaxvision.explain.network import (
    Classes,
    TrainedNetwork,
    input_gradient,
    make_score,
    network_inputs,
)
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

SMOOTHGRAD_SAMPLES = 25
SMOOTHGRAD_NOISE = 0.15
"""Standard deviation of the noise, as a share of the image's range; the paper finds
.1 to .2 good."""


def gradient(
    network: TrainedNetwork, images: np.ndarray, classes: Classes
) -> jax.Array:
    """How the class's logit changes with each value (arXiv:1312.6034).

    Raises:
      InputError: images or classes are not the network's.
    """
    return _gradient(*network.arguments(images, classes))


def gradient_times_input(
    network: TrainedNetwork, images: np.ndarray, classes: Classes
) -> jax.Array:
    """The gradient times the normalized value itself (arXiv:1605.01713).

    Raises:
      InputError: images or classes are not the network's.
    """
    _, preprocessing, _, checked, _ = network.arguments(images, classes)
    return network_inputs(preprocessing, checked) * gradient(network, images, classes)


def smoothgrad(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    samples: int = SMOOTHGRAD_SAMPLES,
    noise: float = SMOOTHGRAD_NOISE,
    seed: int = 0,
) -> jax.Array:
    """Mean gradient of noisy copies of an image (arXiv:1706.03825).

    Args:
      network, images, classes: as everywhere.
      samples: noisy copies an image.
      noise: standard deviation, as a share of the range of the image's values.
      seed: of the noise, which is the same for all images of a batch: an image's
        explanation does not depend on its neighbors.

    Raises:
      InputError: images or classes are not the network's, or no sample is asked for.
    """
    if samples < 1:
        raise InputError(f"smoothgrad: {samples} samples; take at least 1")
    arguments = network.arguments(images, classes)
    return _smoothgrad(*arguments, samples, noise, jax.random.key(seed))


@partial(jax.jit, static_argnums=(0, 1))
def _gradient(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
) -> jax.Array:
    score = make_score(model, preprocessing, variables, classes)
    return input_gradient(score)(network_inputs(preprocessing, images))


@partial(jax.jit, static_argnums=(0, 1, 5))
def _smoothgrad(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
    samples: int,
    noise: jax.Array,
    key: jax.Array,
) -> jax.Array:
    of_input = input_gradient(make_score(model, preprocessing, variables, classes))
    inputs = network_inputs(preprocessing, images)
    pixels = (1, 2, 3)
    spread = inputs.max(pixels, keepdims=True) - inputs.min(pixels, keepdims=True)

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        # Drawn flat, which compiles ten times as fast on CPUs.
        drawn = jax.random.normal(jax.random.fold_in(key, number), (inputs[0].size,))
        noisy = inputs + noise * spread * drawn.reshape(1, *inputs.shape[1:])
        return total + of_input(noisy)

    total = jax.lax.fori_loop(0, samples, add, jnp.zeros_like(inputs))
    return total / samples
