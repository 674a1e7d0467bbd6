"""Weights of units as images, and what excites them."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.dataset import load_dataset
from jaxvision.errors import InputError
from jaxvision.explain.weights import (
    first_filters,
    hidden_weights,
    most_weighted_units,
    neighbor_correlation,
    top_activating_images,
    unit_responses,
)

BGR = {"channel_order": "bgr", "mean": (100.0, 120.0, 140.0), "std": (50.0, 60.0, 70.0)}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_hidden_weights_and_responses_are_what_the_unit_adds_up(
    make_network, make_images, batch_norm
):
    """Up to the bias, the sum of weight times value is what goes into the ReLU."""
    network = make_network("mlp", fields=BGR, hidden=5, batch_norm=batch_norm)
    images = make_images(2)
    weights = hidden_weights(network)
    assert weights.shape == (5, 12, 12, 3)
    sums = unit_responses(network, images, [4, 1]).sum((2, 3, 4))
    black = unit_responses(network, np.zeros_like(images), [4, 1]).sum((2, 3, 4))
    hidden = _before_relu(network, images)[:, [4, 1]]
    hidden_black = _before_relu(network, np.zeros_like(images))[:, [4, 1]]
    np.testing.assert_allclose(
        sums - black, hidden - hidden_black, rtol=1e-4, atol=1e-4
    )


def _before_relu(network, images: np.ndarray) -> np.ndarray:
    variables = jax.tree.map(np.asarray, network.variables)
    params = variables["params"]["backbone"]
    x = network.preprocessing.normalize(images).reshape(len(images), -1)
    y = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    if "bn1" in params:
        stats = variables["batch_stats"]["backbone"]["bn1"]
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["bn1"]["scale"]
    return y


def test_the_most_most_weighted_units_have_the_largest_outgoing_weights(make_network):
    network = make_network("mlp", hidden=5)
    kernel = np.array([[0, 3, 0], [0, -9, 0], [0, 1, 0], [0, 7, 0], [0, 2, 0]], float)
    params = {**network.variables["params"], "head": {"logits": {"kernel": kernel}}}
    network = dataclasses.replace(network, variables={"params": params})
    assert most_weighted_units(network, 1, 3).tolist() == [3, 0, 4]
    with pytest.raises(InputError, match="no class 3"):
        most_weighted_units(network, 3, 1)


def test_first_filters(make_network):
    network = make_network("convnet", blocks=1, fields=BGR)
    filters = first_filters(network)
    kernel = network.variables["params"]["backbone"]["conv1"]["kernel"]
    assert filters.shape == (16, 3, 3, 3)
    # The network's first channel is blue, an image's last.
    np.testing.assert_array_equal(filters[5, 1, 2, 2], kernel[1, 2, 0, 5])
    with pytest.raises(InputError, match="MLP has no convolution"):
        first_filters(make_network("mlp", hidden=2))


def test_units_that_do_not_exist_are_refused(make_network, make_images):
    network = make_network("mlp", hidden=5)
    with pytest.raises(InputError, match="no unit 5; the layer's units are 0 to 4"):
        unit_responses(network, make_images(1), [5])
    with pytest.raises(InputError, match="for ConvNet look at its filters"):
        hidden_weights(make_network("convnet", blocks=1))


def test_neighbor_correlation_tells_images_from_noise():
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((1, 28, 28, 3))
    smooth = np.broadcast_to(np.linspace(-1, 1, 28)[:, None, None], (1, 28, 28, 3))
    both = np.concatenate([noise, smooth])
    first, second = neighbor_correlation(both)
    assert abs(first) < 0.1
    assert second > 0.85
    np.testing.assert_allclose(neighbor_correlation(5 * both), [first, second])


def test_the_images_that_excite_a_unit_most(make_network, tmp_path):
    """A filter that answers to red: the reddest image first, and where it is red."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            pixels = generator.integers(0, 60, (12, 12, 3), np.uint8)
            if label == "b":
                pixels[6:9, 3:6, 0] = 100 + 50 * number
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    network = make_network("convnet", blocks=1, filters=2)
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[:, :, 0, 1] = 1
    backbone = network.variables["params"]["backbone"]
    conv1 = {"kernel": kernel, "bias": np.array([0, 9], np.float32)}
    params = {**network.variables["params"], "backbone": {**backbone, "conv1": conv1}}
    network = dataclasses.replace(network, variables={"params": params})
    dataset = load_dataset(tmp_path).decode(network.preprocessing)
    told = []
    (found,) = top_activating_images(
        network,
        dataset,
        np.arange(8, dtype=np.int32),
        layer="conv1",
        units=[1],
        count=3,
        batch_size=3,
        progress=lambda done, total: told.append((done, total)),
    )
    names = [dataset.images[index] for index in found.indices]
    assert names == ["b/3.png", "b/2.png", "b/1.png"]
    assert found.places.tolist() == [[6, 3]] * 3
    assert (np.diff(found.values) < 0).all()
    assert told[-1] == (8, 8)

    (flat,) = top_activating_images(
        network, dataset, found.indices, layer="fc1", units=[0], count=9
    )
    assert flat.places is None
    assert len(flat.indices) == 3
    for options, words in (
        ({"layer": "conv7", "units": [0]}, "no layer 'conv7' is run; there are: conv1"),
        ({"layer": "conv1", "units": [2]}, "no unit 2; the layer's units are 0 to 1"),
    ):
        with pytest.raises(InputError, match=words):
            top_activating_images(network, dataset, found.indices, **options)
