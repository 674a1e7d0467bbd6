"""Gradients are those of the logits; integrated ones add up; bad input is refused."""

import dataclasses

import numpy as np
import pytest
from conftest import resized

from jaxvision.errors import InputError
from jaxvision.explain.methods import (
    METHODS,
    completeness_gap,
    find_method,
    gradient,
    gradient_times_input,
    integrated_gradients,
    smoothgrad,
)
from jaxvision.explain.sanity import randomize_head
from jaxvision.pretrained.golden import drawn_image

BGR = {"channel_order": "bgr", "mean": (100.0, 120.0, 140.0), "std": (50.0, 60.0, 70.0)}


def test_the_gradient_is_that_of_the_logit(make_network, make_images):
    """In terms of the image: one value of it is moved, as the network sees it."""
    network, images = make_network("mlp", fields=BGR, hidden=8), make_images(2)
    ours = np.asarray(gradient(network, images, [0, 2]))
    std = network.preprocessing.std[::-1]
    for number, label in ((0, 0), (1, 2)):
        for place in ((3, 4, 0), (7, 1, 2)):
            lower, upper = images[number].copy(), images[number].copy()
            value = int(np.clip(lower[place], 1, 254))
            lower[place], upper[place] = value - 1, value + 1
            scores = np.asarray(network.scores(np.stack([lower, upper]), label))
            step = 2 / std[place[-1]]
            expected = float(scores[1] - scores[0]) / step
            # The network is piecewise linear; so few pixels cross no kink.
            assert ours[number][place] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_gradient_times_input(make_network, make_images):
    network, images = make_network("mlp", fields=BGR, hidden=8), make_images(2)
    inputs = network.preprocessing.normalize(images)[..., ::-1]
    np.testing.assert_allclose(
        gradient_times_input(network, images, 1),
        inputs * np.asarray(gradient(network, images, 1)),
        rtol=1e-6,
    )


def test_smoothgrad_without_noise_is_the_gradient(make_network, make_images):
    network, images = make_network("mlp", hidden=8), make_images(2)
    np.testing.assert_allclose(
        smoothgrad(network, images, 1, samples=3, noise=0.0),
        gradient(network, images, 1),
        rtol=1e-5,
        atol=1e-7,
    )


def test_smoothgrad_of_an_image_does_not_depend_on_its_neighbors(
    make_network, make_images
):
    network, images = make_network("mlp", hidden=8), make_images(3)
    together = np.asarray(smoothgrad(network, images, [0, 1, 2], samples=4, seed=7))
    alone = np.asarray(smoothgrad(network, images[1:2], 1, samples=4, seed=7))
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-5, atol=1e-7)
    other = np.asarray(smoothgrad(network, images, [0, 1, 2], samples=4, seed=8))
    assert np.abs(other - together).max() > 0


@pytest.mark.parametrize("baseline", [0, 255, "image"])
def test_integrated_gradients_add_up(make_network, make_images, baseline):
    network = make_network("convnet", blocks=1, fields=BGR, norm="batch")
    images = make_images(2)
    start = make_images(4)[3] if baseline == "image" else baseline
    maps = integrated_gradients(network, images, [0, 1], baseline=start)
    gaps = completeness_gap(network, images, [0, 1], maps, baseline=start)
    assert np.abs(gaps).max() <= 0.01
    # From an image to itself there is nothing to divide up.
    nothing = integrated_gradients(network, images[:1], 0, steps=4, baseline=images[0])
    assert np.abs(nothing).max() < 1e-6


def test_parts_as_needed_reach_what_many_equal_parts_do(make_network, make_images):
    network, images = make_network("convnet", blocks=1), make_images(3)
    classes = [0, 1, 2]
    ours = np.asarray(integrated_gradients(network, images, classes))
    many = np.asarray(integrated_gradients(network, images, classes, steps=1000))
    size = np.abs(many).sum((1, 2, 3))
    assert (np.abs(ours - many).sum((1, 2, 3)) < 0.02 * size).all()
    alone = integrated_gradients(network, images[1:2], 1)
    np.testing.assert_array_equal(alone, ours[1:2])


def test_integrated_gradients_of_published_weights_add_up(lite0):
    """The whole network, whose gradient changes fast near a black image."""
    network = resized(lite0, 64)
    network = randomize_head(
        dataclasses.replace(network, model=network.model.clone(num_classes=5))
    )
    image = drawn_image(64)
    images = np.stack([image, image[::-1, :, ::-1]])
    maps = integrated_gradients(network, images, [1, 4])
    gaps = completeness_gap(network, images, [1, 4], maps)
    assert np.abs(gaps).max() <= 0.01


def test_one_logit_speaks_for_both_classes(make_network, make_images):
    network, images = make_network("mlp", num_classes=1, hidden=4), make_images(1)
    second = np.asarray(gradient(network, images, 1))
    np.testing.assert_array_equal(gradient(network, images, 0), -second)
    with pytest.raises(InputError, match="classes are 0 to 1"):
        gradient(network, images, 2)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_network_cannot_take_is_refused(make_network, make_images, method):
    network, images = make_network("convnet", blocks=1), make_images(2)
    explain = find_method(method).explain
    with pytest.raises(InputError, match="no class 3; the network's classes are 0 to"):
        explain(network, images, [0, 3])
    with pytest.raises(InputError, match="no class -1"):
        explain(network, images, -1)
    with pytest.raises(InputError, match="3 classes for 2 images"):
        explain(network, images, [0, 1, 2])
    with pytest.raises(InputError, match="2×13×13×3; the network takes B×12×12×3"):
        explain(network, make_images(2, 13), 0)
    with pytest.raises(InputError, match="12×12×1; the network takes"):
        explain(network, make_images(2, channels=1), 0)
    with pytest.raises(InputError, match="float32; give them as uint8"):
        explain(network, images.astype(np.float32), 0)


def test_numbers_that_mean_nothing_are_refused(make_network, make_images):
    network, images = make_network("mlp", hidden=2), make_images(1)
    with pytest.raises(InputError, match="0 samples"):
        smoothgrad(network, images, 0, samples=0)
    with pytest.raises(InputError, match="0 steps"):
        integrated_gradients(network, images, 0, steps=0)
    with pytest.raises(InputError, match="no method 'lime'; there are: gradient, "):
        find_method("lime")


def test_images_standardized_by_themselves_are_explained(make_network, make_images):
    network, images = make_network("mlp", hidden=4), make_images(2)
    preprocessing = dataclasses.replace(network.preprocessing, standardize=True)
    network = dataclasses.replace(network, preprocessing=preprocessing)
    maps = integrated_gradients(network, images, 1)
    gaps = completeness_gap(network, images, 1, maps)
    assert np.abs(gaps).max() <= 0.01
