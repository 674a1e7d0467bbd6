"""Normalization: once, the same in NumPy and in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.preprocessing import Preprocessing


def random_images():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_numpy_equals_jax_and_the_formula(order):
    preprocessing = Preprocessing(
        channel_order=order, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)
    )
    ours = preprocessing.normalize(random_images())
    assert ours.dtype == np.float32
    on_device = jax.jit(preprocessing.normalize)(jnp.asarray(random_images()))
    np.testing.assert_allclose(on_device, ours, rtol=1e-6)
    ordered = random_images()[..., ::-1] if order == "bgr" else random_images()
    expected = (ordered - np.array([1, 2, 3])) / np.array([4, 5, 6])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_default_gives_minus_one_to_one():
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, -1)
    scaled = Preprocessing().normalize(ends)
    assert (scaled.min(), scaled.max()) == (-1, 1)


def per_image_standardization(image):
    """tf.image's published formula, in double precision."""
    image = image.astype(np.float64)
    deviation = max(image.std(), 1 / np.sqrt(image.size))
    return (image - image.mean()) / deviation


def test_standardization_is_tensorflows():
    images = np.concatenate(
        [
            random_images(),
            np.full((1, 4, 5, 3), 200, np.uint8),
            # One value apart: a deviation below 1 / sqrt(60), which is used instead.
            np.eye(60, dtype=np.uint8)[:1].reshape(1, 4, 5, 3),
        ]
    )
    expected = np.stack([per_image_standardization(image) for image in images])
    standardize = Preprocessing(standardize=True, mean=(9.0,) * 3).normalize
    ours = standardize(images)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(standardize)(jnp.asarray(images)), expected, atol=1e-5
    )
    np.testing.assert_allclose(standardize(images[0]), expected[0], atol=1e-5)


def test_standardization_travels_with_the_weights():
    preprocessing = Preprocessing(standardize=True)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
