"""Wrong labels are found by heads that have not seen them."""

import jax
import numpy as np
import pytest

from jaxvision.data.demo import class_counts, draw_image
from jaxvision.label_errors import (
    likely_wrong,
    out_of_fold_probabilities,
    suspicion_order,
)

FLIPPED = 0.05


def flip(labels, num_classes, seed):
    """Labels of which some are another class's, and which."""
    rng = np.random.default_rng(seed)
    flipped = np.zeros(len(labels), bool)
    count = round(FLIPPED * len(labels))
    flipped[rng.choice(len(labels), count, replace=False)] = True
    others = (labels + rng.integers(1, num_classes, len(labels))) % num_classes
    return np.where(flipped, others, labels), flipped


def judge(features, labels, num_classes, **options):
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    images = [f"{number}.png" for number in range(len(labels))]
    return out_of_fold_probabilities(
        features.astype(np.float32), labels, num_classes, images=images, **options
    )


def recall(probabilities, labels, flipped, share):
    first = suspicion_order(probabilities, labels)[: int(np.ceil(share * len(labels)))]
    return flipped[first].sum() / flipped.sum()


@pytest.fixture(scope="module")
def clusters():
    """Features `[N, F]` around the corners of a simplex, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 60)
    return 2 * np.eye(30)[labels] + 0.4 * rng.standard_normal((240, 30)), labels


def test_flipped_labels_come_first(clusters):
    features, truth = clusters
    labels, flipped = flip(truth, 4, seed=1)
    probabilities = judge(features, labels, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert recall(probabilities, labels, flipped, FLIPPED) == 1
    wrong = likely_wrong(probabilities, labels)
    assert wrong[flipped].mean() > 0.6
    assert not wrong[~flipped].any()
    np.testing.assert_array_equal(probabilities.argmax(1)[wrong], truth[wrong])


def test_more_images_than_features_give_the_same_head(clusters):
    """By either of the two equal systems of equations."""
    features, labels = clusters
    padded = np.concatenate([features, np.zeros((240, 300))], axis=1)
    np.testing.assert_allclose(
        judge(features, labels, 4), judge(padded, labels, 4), atol=1e-5
    )


def test_copies_do_not_vouch_for_each_other(clusters):
    """A wrong label that two copies share is found, as they lie in one fold."""
    features, labels = clusters[0].copy(), clusters[1].copy()
    features[1] = features[0]
    labels[:2] = 3
    apart = judge(features, labels, 4, groups=[[0, 1]])
    assert {*suspicion_order(apart, labels)[:2]} == {0, 1}


@pytest.mark.parametrize(
    ("labels", "num_classes"),
    [([0, 1], 2), ([0, 0, 0, 1], 2), ([0, 0, 1, 1], 5), ([0, 0], 1)],
)
def test_few_images_are_judged_too(labels, num_classes):
    features = np.eye(len(labels), 3) + 1
    probabilities = judge(features, np.array(labels), num_classes)
    assert np.isfinite(probabilities).all()
    assert likely_wrong(probabilities, np.array(labels)).shape == (len(labels),)


def test_most_flips_among_drawn_faces_are_in_the_first_tenth(monkeypatch, tmp_path):
    """Of 5 % flipped labels 90 % and more, by the features of a published network."""
    from jaxvision.models import create_model
    from jaxvision.pretrained import load

    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path))
    people, each = list(class_counts("faces"))[:8], 24
    truth = np.repeat(np.arange(8), each)
    published = load("efficientnet_lite0")
    model = create_model("efficientnet_lite0", 8)
    backbone = {name: tree["backbone"] for name, tree in published.variables.items()}
    normalize = published.source.preprocessing.normalize

    @jax.jit
    def look(images):
        return model.backbone.apply(backbone, normalize(images), train=False)

    drawn = (
        np.stack([draw_image("faces", name, i, size=128) for i in range(each)])
        for name in people
    )
    features = np.concatenate([look(images) for images in drawn])
    found = []
    for seed in range(5):
        labels, flipped = flip(truth, 8, seed)
        found.append(recall(judge(features, labels, 8), labels, flipped, 0.1))
    assert np.mean(found) >= 0.9
