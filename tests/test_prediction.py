"""Predictions as a stream: in order, in constant memory, whatever the files are."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_images import write_images

from jaxvision.classifier import Classifier, ModelCard, softmax
from jaxvision.data.dataset import load_dataset
from jaxvision.errors import InputError
from jaxvision.prediction import predictions
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.state import init_variables
from jaxvision.tta import Versions

SMALL = Preprocessing((6, 6), resize_mode="stretch")
CLASSES = ("dark", "light")


class Network:
    """Tells light images from dark ones, and remembers the shapes that it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, batch: np.ndarray) -> jax.Array:
        self.shapes.append(batch.shape)
        light = batch.mean((1, 2, 3)) / 255
        return jnp.stack([1 - light, light], -1)

    def predict(self, images, batch_size=8, on_bad=None):
        return predictions(
            images, self, CLASSES, SMALL, batch_size=batch_size, on_bad=on_bad
        )


def drawn(count: int) -> list[np.ndarray]:
    return [np.full((6, 6, 3), i % 256, np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", per_class=4)


def untrained(classes: tuple[str, ...], **options) -> Classifier:
    card = ModelCard(
        **{
            "network": "simple_cnn",
            "options": {},
            "classes": classes,
            "preprocessing": Preprocessing((32, 32), resize_mode="stretch"),
            "weights": "fresh",
            "data": {"is_demo": False},
            "seed": 0,
            "batch_size": 4,
            **options,
        }
    )
    model = card.create_model()
    return Classifier(model, init_variables(model, 0, (32, 32, 3)), card)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return untrained(("blue", "green", "red"))


@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_predictions_come_in_order(count):
    found = list(Network().predict(drawn(count)))
    light = [one.probabilities["light"] for one in found]
    np.testing.assert_allclose(light, np.arange(count) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, {1}), (3, {4}), (8, {8}), (9, {8}), (20, {8}), (0, set())]
)
def test_all_batches_have_one_shape(count, sizes):
    network = Network()
    assert len(list(network.predict(drawn(count)))) == count
    assert {shape[0] for shape in network.shapes} == sizes


def test_images_are_taken_as_they_are_needed():
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        for image in itertools.cycle(drawn(5)):
            taken += 1
            yield image

    found = Network().predict(endless())
    for _ in range(100):
        next(found)
    # Those given out, two batches on the way, and two that are decoded ahead.
    assert taken <= 100 + 4 * 8 + 1
    found.close()
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


def test_files_without_an_image_are_told_and_left_out(root, tmp_path):
    good = sorted(root.glob("*/*.png"))
    bad = [tmp_path / "bad.png", tmp_path / "gone.png"]
    bad[0].write_text("no image")
    images = [bad[0], *good, bad[1]]
    told = []
    found = list(Network().predict(images, on_bad=told.append))
    assert [one.path for one in found] == good
    assert [one.path for one in told] == [str(path) for path in bad]
    assert told[1].reason == "cannot be read: No such file or directory"
    found = Network().predict([*good, bad[0]], batch_size=4)
    with pytest.raises(InputError, match=r"bad\.png: not an image"):
        list(found)


@pytest.mark.parametrize(
    "image", [np.zeros((6, 6, 3)), np.zeros((6, 7, 3), np.uint8), np.zeros((1, 6, 6))]
)
def test_an_array_of_another_geometry_is_refused(image):
    with pytest.raises(InputError, match=r"or uint8 \[6, 6, 3\]"):
        list(Network().predict([image]))


def test_one_image_and_several_get_the_same(classifier, root):
    paths = sorted(root.glob("*/*.png"))
    one_by_one = [classifier.predict(str(path)) for path in paths]
    together = list(classifier.predict(iter(paths), batch_size=4))
    assert [one.path for one in together] == paths
    for one, other in zip(one_by_one, together, strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    arrays = [classifier.decode(path) for path in paths]
    assert [one.path for one in classifier.predict(arrays)] == [None] * len(paths)
    with pytest.raises(InputError, match="`batch_size` 0: must be at least 1"):
        classifier.predict(paths, batch_size=0)


@pytest.mark.parametrize("binary", [False, True])
def test_flip_averages_probabilities(binary):
    classifier = untrained(("a", "b"), binary=binary)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    mirrored = image[:, ::-1]
    both = classifier.predict(image, tta="flip")
    here, there = classifier.predict(image), classifier.predict(mirrored)
    assert here.probability != there.probability
    for name, p in both.probabilities.items():
        mean = (here.probabilities[name] + there.probabilities[name]) / 2
        assert p == pytest.approx(mean, abs=1e-6)
    again = classifier.predict(mirrored, tta="flip")
    assert again.probabilities == pytest.approx(both.probabilities, abs=1e-6)


@pytest.mark.parametrize("tta", ["five-crops", "ten-crops"])
@pytest.mark.parametrize("mode", ["crop", "stretch"])
def test_crops_average_calibrated_probabilities(tta, mode):
    """Against NumPy, one crop after the other."""
    preprocessing = Preprocessing((32, 32), resize_mode=mode, resize=40)
    classifier = untrained(("a", "b"), preprocessing=preprocessing, temperature=1.7)
    side = {"crop": 40, "stretch": 37}[mode]
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    edge, middle = side - 32, round((side - 32) / 2)
    places = [(middle, middle), (0, 0), (0, edge), (edge, 0), (edge, edge)]
    crops = [image[y : y + 32, x : x + 32] for y, x in places]
    if tta == "ten-crops":
        crops += [crop[:, ::-1] for crop in crops]
    found = classifier.predict(crops)
    expected = np.mean([list(one.probabilities.values()) for one in found], axis=0)
    one = classifier.predict(image, tta=tta)
    np.testing.assert_allclose(list(one.probabilities.values()), expected, atol=1e-6)
    with pytest.raises(InputError, match=rf"or uint8 \[{side}, {side}, 3\]"):
        classifier.predict(crops[0], tta=tta)


def test_each_crop_is_standardized_by_itself():
    versions = Versions("five-crops", Preprocessing((8, 8), standardize=True))
    side = versions.source.size[0]
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    made = np.asarray(versions(jnp.asarray(images)))
    assert made.shape == (10, 8, 8, 3)
    np.testing.assert_allclose(made.mean((1, 2, 3)), 0, atol=1e-6)


def test_an_unknown_augmentation_is_named(classifier):
    with pytest.raises(InputError, match="`tta` six: there are: flip, five-crops, ten"):
        classifier.predict([], tta="six")


@pytest.mark.parametrize("tta", ["flip", "ten-crops"])
def test_tta_is_measured_as_it_is_predicted(classifier, root, tta):
    data = load_dataset(root)
    found = classifier.evaluate(data, tta=tta)
    assert found.tta == tta
    answers = list(classifier.predict([root / i for i in found.images], tta=tta))
    rows = [[one.probabilities[name] for name in found.classes] for one in answers]
    np.testing.assert_allclose(found.probabilities, rows, atol=1e-6)
    right = [
        one.label == found.classes[label]
        for one, label in zip(answers, found.labels, strict=True)
    ]
    assert found.accuracy == pytest.approx(np.mean(right))
    true = np.array(rows)[np.arange(len(rows)), found.labels]
    assert found.loss == pytest.approx(-np.log(true).mean(), abs=1e-5)
    np.testing.assert_allclose(softmax(found.logits), rows, atol=1e-6)
