"""Explanations from gradients of a class's logit by the network's input.

Each takes uint8 pictures `[B, H, W, C]` and a class for all of them or one for each,
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
    Network,
    input_gradient,
    make_score,
    network_inputs,
)
from jaxvision.models import Classifier
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

SMOOTHGRAD_SAMPLES = 25
SMOOTHGRAD_NOISE = 0.15
"""Standard deviation of the noise, as a share of the picture's range; the paper finds
.1 to .2 good."""

INTEGRATION_STEPS = (64, 512)
"""Gradients a picture of integrated gradients, at first and at most."""

COMPLETENESS = 0.01
"""Share of the difference of logits by which integrated gradients may miss it."""


def gradient(network: Network, images: np.ndarray, classes: Classes) -> jax.Array:
    """How the class's logit changes with each value (arXiv:1312.6034).

    Raises:
      InputError: pictures or classes are not the network's.
    """
    return _gradient(*network.arguments(images, classes))


def gradient_times_input(
    network: Network, images: np.ndarray, classes: Classes
) -> jax.Array:
    """The gradient times the normalised value itself (arXiv:1605.01713).

    Raises:
      InputError: pictures or classes are not the network's.
    """
    _, preprocessing, _, checked, _ = network.arguments(images, classes)
    return network_inputs(preprocessing, checked) * gradient(network, images, classes)


def smoothgrad(
    network: Network,
    images: np.ndarray,
    classes: Classes,
    *,
    samples: int = SMOOTHGRAD_SAMPLES,
    noise: float = SMOOTHGRAD_NOISE,
    seed: int = 0,
) -> jax.Array:
    """Mean gradient of noisy copies of a picture (arXiv:1706.03825).

    Args:
      network, images, classes: as everywhere.
      samples: noisy copies a picture.
      noise: standard deviation, as a share of the range of the picture's values.
      seed: of the noise, which is the same for all pictures of a batch: a picture's
        explanation does not depend on its neighbours.

    Raises:
      InputError: pictures or classes are not the network's, or no sample is asked for.
    """
    if samples < 1:
        raise InputError(f"smoothgrad: {samples} samples; take at least 1")
    arguments = network.arguments(images, classes)
    return _smoothgrad(*arguments, samples, noise, jax.random.key(seed))


def integrated_gradients(
    network: Network,
    images: np.ndarray,
    classes: Classes,
    *,
    steps: int | None = None,
    baseline: int | np.ndarray = 0,
) -> jax.Array:
    """Each value's part in the difference of two logits (arXiv:1703.01365).

    The mean gradient on the straight way from the baseline to the picture, times the
    way's length: the values add up to the difference of the class's logits at its two
    ends, but for the error of the sum (trapezoids), see `completeness_gap`.

    Args:
      network, images, classes: as everywhere.
      steps: parts of the way; None: from 64 on twice as many, until the sum misses the
        difference by at most `COMPLETENESS`, or at 512, picture by picture.
      baseline: 0 to 255, one value for all (0: black), or a uint8 picture `[H, W, C]`.

    Raises:
      InputError: pictures or classes are not the network's, or no step is asked for.
    """
    if steps is not None and steps < 1:
        raise InputError(f"integrated gradients: {steps} steps; take at least 1")
    arguments = *network.arguments(images, classes), _picture(network, baseline)
    count, most = (steps, steps) if steps else INTEGRATION_STEPS
    ends = _along_path(*arguments, 1, 1.0) - _along_path(*arguments, 1, 0.0)
    left = _along_path(*arguments, count, 0.0)
    maps = left + ends / (2 * count)
    while count < most:
        gaps = completeness_gap(network, images, classes, maps, baseline=baseline)
        missed = np.abs(gaps) > COMPLETENESS
        if not missed.any():
            break
        # The middles of the parts: with them, as many parts again.
        left = (left + _along_path(*arguments, count, 0.5)) / 2
        count *= 2
        finer = left + ends / (2 * count)
        maps = jnp.where(missed[:, None, None, None], finer, maps)
    return maps


def completeness_gap(
    network: Network,
    images: np.ndarray,
    classes: Classes,
    attributions: np.ndarray,
    *,
    baseline: int | np.ndarray = 0,
) -> np.ndarray:
    """By how much attributions miss the difference of logits that they divide up.

    Args:
      network, images, classes, baseline: as given to `integrated_gradients`.
      attributions: `[B, H, W, C]`, its answer.

    Returns:
      `[B]`: sum of the attributions less the difference, as a share of the difference;
      infinite or NaN where there is none.
    """
    start = np.broadcast_to(_picture(network, baseline), images.shape)
    ends = network.scores(images, classes), network.scores(start, classes)
    difference = np.subtract(*(np.asarray(end, np.float64) for end in ends))
    total = np.asarray(attributions, np.float64).sum((1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (total - difference) / np.abs(difference)


def _picture(network: Network, baseline: int | np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(baseline, np.uint8), network.image_shape)


@partial(jax.jit, static_argnums=(0, 1))
def _gradient(
    model: Classifier,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
) -> jax.Array:
    score = make_score(model, preprocessing, variables, classes)
    return input_gradient(score)(network_inputs(preprocessing, images))


@partial(jax.jit, static_argnums=(0, 1, 5))
def _smoothgrad(
    model: Classifier,
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
        noisy = inputs + noise * spread * drawn.reshape(inputs.shape[1:])
        return total + of_input(noisy)

    total = jax.lax.fori_loop(0, samples, add, jnp.zeros_like(inputs))
    return total / samples


@partial(jax.jit, static_argnums=(0, 1))
def _along_path(
    model: Classifier,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
    baseline: jax.Array,
    count: jax.Array,
    offset: jax.Array,
) -> jax.Array:
    """Mean gradient at (i + offset) / count of the way for each i below count, times
    the way."""
    of_input = input_gradient(make_score(model, preprocessing, variables, classes))
    end = network_inputs(preprocessing, images)
    start = network_inputs(preprocessing, jnp.broadcast_to(baseline, images.shape))

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        return total + of_input(start + (number + offset) / count * (end - start))

    total = jax.lax.fori_loop(0, count, add, jnp.zeros_like(end))
    return (end - start) * total / count
