"""What the page is told of the data set."""

import dataclasses

import numpy as np
import pytest
from served_pages import image_file, open_page

from jaxvision.classifier import load_training_data
from jaxvision.explain.methods import TrainedNetwork
from jaxvision.explain.weights import top_activating_images
from jaxvision.serve.survey import EXCITING, Exciting
from jaxvision.transfer import extract_features


@pytest.fixture
def surveyed(page):
    assert page.wait_for_data()["state"] == "ready"
    return page


@pytest.fixture(scope="module")
def dataset(classifier):
    return load_training_data(classifier)


def test_units_are_excited_by_the_images_of_the_report(surveyed, classifier, dataset):
    network = TrainedNetwork.of(classifier)
    everything = np.arange(len(dataset.images), dtype=np.int32)
    for layer, shape in network.trace.outputs.items():
        expected = top_activating_images(
            network, dataset, everything, layer=layer, units=range(shape[-1])
        )
        for one in expected:
            found = surveyed.ask("data/exciting", layer=layer, unit=one.unit)["images"]
            assert len(found) == EXCITING
            values = [image["value"] for image in found]
            np.testing.assert_allclose(values, one.values, rtol=1e-4, atol=1e-5)
            if one.places is not None and one.values[0] > 1.001 * one.values[1]:
                assert found[0]["index"] == one.indices[0]
                row, column = one.places[0]
                assert found[0]["down"] == (row + 0.5) / shape[0]
                assert found[0]["across"] == (column + 0.5) / shape[1]


def test_an_image_of_the_data_set_is_nearest_to_itself(surveyed, classifier, dataset):
    content = (dataset.root / dataset.images[7]).read_bytes()
    image = surveyed.ask("images", content)["image"]
    found = surveyed.ask(f"images/{image}/nearest")["images"]
    assert found[0]["path"] == dataset.images[7]
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-5)
    features = extract_features(classifier.model, classifier.variables, dataset)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.sort(features @ features[7])[::-1]
    assert [one["cosine"] for one in found] == pytest.approx(cosines[:5], abs=1e-5)
    split = next(name for name, part in dataset.splits.items() if 7 in part)
    assert found[0]["split"] == split


def test_images_of_the_data_set_are_shown_as_the_network_sees_them(surveyed, dataset):
    np.testing.assert_array_equal(surveyed.ask("data/3.png"), dataset.image(3))
    assert surveyed.refusal("data/999.png")[0] == 404
    assert surveyed.refusal("data/exciting?layer=x&unit=0")[0] == 400
    assert surveyed.refusal("data/exciting?layer=conv1&unit=99")[0] == 400


def test_without_the_data_set_all_else_works(classifier, tmp_path):
    card = classifier.card
    moved = dataclasses.replace(
        card, data={**card.data, "root": str(tmp_path / "gone")}
    )
    with open_page(dataclasses.replace(classifier, card=moved)) as page:
        image = page.ask("images", image_file())["image"]
        assert page.refusal(f"images/{image}/nearest") == (
            409,
            "the data set is not read yet",
        )
        status = page.wait_for_data()
        assert status["state"] == "absent"
        assert "gone" in status["said"]
        assert page.ask(f"images/{image}/classes")["classes"]


def test_the_most_exciting_images_are_kept_whatever_the_batches():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 3)).astype(np.float32)
    found = Exciting.none(3)
    for start in range(0, 40, 7):
        indices = np.arange(start, min(start + 7, 40))
        found = found.with_images(values[indices], indices, np.stack([indices] * 3, 1))
    expected = np.argsort(-values, axis=0)[:EXCITING]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.places, expected)
    np.testing.assert_array_equal(
        found.values, np.take_along_axis(values, expected, axis=0)
    )
