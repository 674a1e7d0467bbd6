"""Normalisation: once, the same in NumPy and in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.preprocessing import Preprocessing


def images():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_numpy_equals_jax_and_the_formula(order):
    preprocessing = Preprocessing(
        channel_order=order, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)
    )
    ours = preprocessing.normalise(images())
    assert ours.dtype == np.float32
    on_device = jax.jit(preprocessing.normalise)(jnp.asarray(images()))
    np.testing.assert_allclose(on_device, ours, rtol=1e-6)
    ordered = images()[..., ::-1] if order == "bgr" else images()
    expected = (ordered - np.array([1, 2, 3])) / np.array([4, 5, 6])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_default_gives_minus_one_to_one():
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, -1)
    scaled = Preprocessing().normalise(ends)
    assert (scaled.min(), scaled.max()) == (-1, 1)


def per_image_standardization(image):
    """tf.image's published formula, in double precision."""
    image = image.astype(np.float64)
    deviation = max(image.std(), 1 / np.sqrt(image.size))
    return (image - image.mean()) / deviation


def test_standardisation_is_tensorflows():
    pictures = np.concatenate(
        [
            images(),
            np.full((1, 4, 5, 3), 200, np.uint8),
            # One value apart: a deviation below 1 / sqrt(60), which is used instead.
            np.eye(60, dtype=np.uint8)[:1].reshape(1, 4, 5, 3),
        ]
    )
    expected = np.stack([per_image_standardization(picture) for picture in pictures])
    standardise = Preprocessing(standardise=True, mean=(9.0,) * 3).normalise
    ours = standardise(pictures)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(standardise)(jnp.asarray(pictures)), expected, atol=1e-5
    )
    np.testing.assert_allclose(standardise(pictures[0]), expected[0], atol=1e-5)


def test_standardisation_travels_with_the_weights():
    preprocessing = Preprocessing(standardise=True)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
