"""Filters made of training images: against a plain reading of the paper."""

import jax
import numpy as np
import pytest

import jaxvision as jv
from jaxvision.models import create_model
from jaxvision.models.patches import CONTRAST_FLOOR, Patches
from jaxvision.typing import PyTree

NET = Patches(filters=5, kernel=3, threshold=0.2)


def smooth_images(count: int) -> np.ndarray:
    """`[count, 9, 8, 3]` float32 of -1 to 1, whose neighboring pixels are alike."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (count, 11, 10, 3))
    smooth = sum(noise[:, i : i + 9, j : j + 8] for i in range(3) for j in range(3)) / 9
    return smooth.astype(np.float32)


def answer(params: PyTree, images: np.ndarray) -> np.ndarray:
    return np.asarray(_answer(params, images))


@jax.jit
def _answer(params: PyTree, images: jax.Array) -> jax.Array:
    return NET.apply({"params": params}, images, train=False)


def test_each_patch_is_normalized_and_thresholded_both_ways():
    images = smooth_images(2)
    params = NET.fit(images, len(images), seed=0)
    kernel = np.asarray(params["patches"]["kernel"], np.float64)
    found = answer(params, images)
    assert found.shape == (2, 7, 6, 10)
    for image, maps in zip(images.astype(np.float64), found, strict=True):
        for row, column in ((0, 0), (3, 4), (6, 5)):
            patch = image[row : row + 3, column : column + 3]
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST_FLOOR)
            products = np.tensordot(patch, kernel, 3)
            wanted = np.maximum(np.concatenate([products, -products]) - 0.2, 0)
            np.testing.assert_allclose(maps[row, column], wanted, rtol=1e-3, atol=1e-4)


def test_filters_are_whitened():
    images = smooth_images(40)
    params = Patches(filters=50, kernel=3).fit(images, len(images), seed=0)
    kernel = np.asarray(params["patches"]["kernel"]).reshape(27, 50)
    np.testing.assert_allclose(kernel.sum(0), 0, atol=1e-4)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
    patches = np.moveaxis(windows, 3, -1).reshape(-1, 27)
    patches = patches - patches.mean(1, keepdims=True)
    patches /= np.sqrt((patches**2).mean(1, keepdims=True) + CONTRAST_FLOOR)

    def resemblance(filters: np.ndarray) -> float:
        """How alike two filters' products are, on average."""
        return float(np.abs(np.corrcoef(patches @ filters, rowvar=False)).mean())

    # Plain patches as filters all answer to the same few directions.
    plain = patches[np.random.default_rng(0).permutation(len(patches))[:50]].T
    assert resemblance(kernel) < 0.8 * resemblance(plain)


def test_contrast_and_brightness_do_not_count():
    images = smooth_images(2)
    params = NET.fit(images, len(images), seed=0)
    usual = answer(params, 20 * images)
    np.testing.assert_allclose(
        answer(params, 20 * images + 3), usual, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(answer(params, 40 * images), usual, rtol=1e-3, atol=1e-3)
    # What is flat answers to no filter.
    flat = np.full((2, 9, 8, 3), 0.7, np.float32)
    np.testing.assert_array_equal(answer(params, flat), 0)


def test_the_filters_are_a_function_of_images_and_seed():
    images = smooth_images(4)
    first, again, other = (NET.fit(images, 4, seed)["patches"] for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["kernel"], other["kernel"])


def test_the_head_sees_a_gram_matrix_unless_it_is_asked_for_means():
    assert create_model("patches", 2).pooling == "gram"
    assert create_model("patches", 2, pooling="mean").pooling == "mean"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "filters is 0"),
        ({"kernel": 0}, "kernel is 0"),
        ({"threshold": -1.0}, "threshold is -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(jv.InputError, match=message):
        create_model("patches", 2, **options)
