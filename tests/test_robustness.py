"""Accuracy on changed images: exact counts, the same every time, clear refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.classifier import Classifier, ModelCard
from jaxvision.data.dataset import DataConfig, DecodedDataset, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import TRANSFORMS
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.robustness.measure import (
    ASSIGNMENT,
    BASELINE,
    measure_robustness,
    strengths_of,
    transformed,
)
from jaxvision.training.state import init_variables

PREPROCESSING = Preprocessing(size=(12, 12), resize_mode="stretch")
SPLIT = SplitConfig(train=0.5, val=0.5, test=0.0)
CHANGES = ("brighten", "translation", "invert", "perspective")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / name).mkdir()
        for number in range(11):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            pixels = pixels.repeat(4, axis=0).repeat(4, axis=1)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> DecodedDataset:
    return load_dataset(DataConfig(root=root, split=SPLIT)).decode(PREPROCESSING)


@pytest.fixture(scope="module")
def classifier(dataset: DecodedDataset) -> Classifier:
    """Not trained: its answers are arbitrary, which is all that counting needs."""
    card = ModelCard(
        network="mlp",
        options={"hidden": 8},
        classes=dataset.classes,
        preprocessing=PREPROCESSING,
        weights="fresh",
        data={},
        seed=0,
        batch_size=8,
    )
    model = card.create_model()
    return Classifier(model, init_variables(model, 0, (12, 12, 3)), card)


def test_counts_are_those_of_one_image_after_the_other(
    classifier: Classifier, dataset: DecodedDataset
) -> None:
    rows = measure_robustness(classifier, dataset, "val", transforms=CHANGES, seed=3)
    indices = dataset.splits["val"]
    assert [(row.transform, row.strength) for row in rows] == [
        (BASELINE, 0.0),
        *strengths_of(CHANGES),
    ]
    for row in rows:
        images = [
            transformed(dataset, int(i), row.transform, row.strength, seed=3)
            for i in indices
        ]
        names = [p.label for p in classifier.predict(images, batch_size=4)]
        truth = [dataset.classes[dataset.labels[i]] for i in indices]
        assert row.correct == sum(a == b for a, b in zip(names, truth, strict=True))
        assert row.num == len(indices)
        assert row.accuracy == row.correct / row.num
        unit = "" if row.transform == BASELINE else TRANSFORMS[row.transform].unit
        assert row.unit == unit


def test_baseline_is_the_plain_evaluation(
    classifier: Classifier, dataset: DecodedDataset
) -> None:
    for split in ("train", "val"):
        (row, *_) = measure_robustness(
            classifier, dataset, split, transforms=("invert",)
        )
        images = dataset.batches(split, batch_size=8, train=False)
        figures, _ = classifier.evaluate_batches(images)
        assert row.accuracy == figures["accuracy"]


def test_threads_and_batches_change_nothing(
    root: Path, classifier: Classifier, dataset: DecodedDataset
) -> None:
    rows = measure_robustness(classifier, dataset, "val", transforms=CHANGES)
    config = DataConfig(root=root, split=SPLIT, num_threads=0)
    single = load_dataset(config).decode(PREPROCESSING)
    card = dataclasses.replace(classifier.card, batch_size=4)
    other = dataclasses.replace(classifier, card=card)
    assert measure_robustness(other, single, "val", transforms=CHANGES) == rows


def test_every_change_of_the_assignment_is_measured_by_default(
    classifier: Classifier, dataset: DecodedDataset
) -> None:
    seen: list[tuple[int, int]] = []
    rows = measure_robustness(
        classifier, dataset, "val", progress=lambda *n: seen.append(n)
    )
    assert {row.transform for row in rows} == {BASELINE, *ASSIGNMENT}
    for name in ASSIGNMENT:
        strengths = [row.strength for row in rows if row.transform == name]
        assert len(strengths) in (1, 5)
        assert strengths == list(TRANSFORMS[name].strengths)
    total = len(rows) * len(dataset.splits["val"])
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_change_depends_on_seed_image_and_transform_alone(
    root: Path, dataset: DecodedDataset
) -> None:
    index = int(dataset.splits["val"][0])
    drawn = transformed(dataset, index, "erasing", 0.3, seed=1)
    np.testing.assert_array_equal(
        drawn, transformed(dataset, index, "erasing", 0.3, seed=1)
    )
    assert (drawn != transformed(dataset, index, "erasing", 0.3, seed=2)).any()
    # Among fewer images the same one has another index.
    fewer = load_dataset(DataConfig(root=root, split=SPLIT, limit=6)).decode(
        PREPROCESSING
    )
    path = next(path for path in reversed(fewer.images) if path.startswith("two"))
    before, after = dataset.images.index(path), fewer.images.index(path)
    assert before != after
    np.testing.assert_array_equal(
        transformed(dataset, before, "erasing", 0.3),
        transformed(fewer, after, "erasing", 0.3),
    )


def test_an_image_turns_the_same_way_at_every_strength(dataset: DecodedDataset) -> None:
    ways = set()
    for index in range(len(dataset.images)):
        left = [
            (transformed(dataset, index, "translation", s)[:, 0] == 0).all()
            for s in TRANSFORMS["translation"].strengths[1:]
        ]
        assert len(set(left)) == 1
        ways.add(left[0])
    assert ways == {True, False}


def test_bad_input_is_refused_in_one_line(
    root: Path, classifier: Classifier, dataset: DecodedDataset
) -> None:
    card = dataclasses.replace(classifier.card, classes=("one", "three"))
    other = dataclasses.replace(classifier, card=card)
    for arguments, words in (
        ((classifier, dataset, "test"), "`split` test: .* choose train or val"),
        ((other, dataset, "val"), "one, two.* are not those .*one, three"),
    ):
        with pytest.raises(InputError, match=words) as error:
            measure_robustness(*arguments)
        assert "\n" not in str(error.value)
    for transforms, words in (
        (("invert", "explode"), "'explode'; choose from .*brighten"),
        ((), "none given; choose from"),
    ):
        with pytest.raises(InputError, match=words):
            measure_robustness(classifier, dataset, "val", transforms=transforms)


def test_images_in_another_geometry_are_a_mistake_of_the_program(
    root: Path, classifier: Classifier
) -> None:
    other = dataclasses.replace(PREPROCESSING, size=(10, 10))
    dataset = load_dataset(DataConfig(root=root, split=SPLIT)).decode(other)
    with pytest.raises(ValueError, match="preprocessing"):
        measure_robustness(classifier, dataset, "val")
