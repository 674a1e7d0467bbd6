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
