"""Losses against PyTorch and their definitions; sums that add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.metrics import (
    balanced_class_weights,
    class_frequencies,
    class_logits,
    class_metrics,
    classification_sums,
    confusion_matrix,
    fit_temperature,
    fit_threshold,
    make_cross_entropy,
    negative_log_likelihood,
    reliability,
    roc_curve,
    summarize,
    wilson_interval,
)

LOGITS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0, 2], np.int32)
ONE_LOGIT = np.array([[-3.0], [0.2], [1.5], [-0.1], [40.0], [-40.0]], np.float32)
TWO_CLASSES = np.array([0, 1, 0, 1, 1, 1], np.int32)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy():
    expected = -log_softmax(LOGITS)[np.arange(7), LABELS]
    np.testing.assert_allclose(make_cross_entropy()(LOGITS, LABELS), expected, 1e-5)


def test_label_smoothing_equals_torch():
    torch = pytest.importorskip("torch")
    ours = make_cross_entropy(label_smoothing=0.1)(LOGITS, LABELS)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS),
        torch.tensor(LABELS).long(),
        label_smoothing=0.1,
        reduction="none",
    )
    np.testing.assert_allclose(ours, theirs, 1e-5)


def test_class_weights_multiply_each_examples_loss():
    weights = (0.5, 1.0, 4.0)
    plain = make_cross_entropy()(LOGITS, LABELS)
    weighted = make_cross_entropy(class_weights=weights)(LOGITS, LABELS)
    np.testing.assert_allclose(weighted, plain * np.array(weights)[LABELS], 1e-6)


def test_balanced_weights_give_every_class_the_same_say():
    weights = np.array(balanced_class_weights(LABELS, 3))
    counts = np.bincount(LABELS)
    np.testing.assert_allclose(weights * counts, 7 / 3)
    assert np.mean(weights[LABELS]) == pytest.approx(1)


def test_balanced_weights_are_those_of_the_formula():
    # n / (n_c |c|): 7 images, 3 classes of 4, 2 and 1.
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    np.testing.assert_allclose(
        balanced_class_weights(labels, 3), [7 / 12, 7 / 6, 7 / 3]
    )
    np.testing.assert_allclose(class_frequencies(labels, 4), [4 / 7, 2 / 7, 1 / 7, 0])


def test_sums_count_what_the_mask_counts_even_beside_nan():
    losses = np.where(np.arange(7) < 5, 1.0, np.nan).astype(np.float32)
    mask = (np.arange(7) < 5).astype(np.float32)
    sums = classification_sums(
        jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask), losses
    )
    expected = (LOGITS.argmax(-1) == LABELS)[:5].sum()
    assert (sums["loss"], sums["correct"], sums["count"]) == (5, expected, 5)
    assert summarize(sums) == {"loss": 1.0, "accuracy": expected / 5}


def test_nothing_counted_is_nan():
    summary = summarize({"loss": 0.0, "correct": 0.0, "count": 0.0})
    assert np.isnan(list(summary.values())).all()


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_logit_is_binary_cross_entropy_as_in_torch(smoothing):
    torch = pytest.importorskip("torch")
    targets = TWO_CLASSES * (1 - smoothing) + smoothing / 2
    loss = make_cross_entropy(label_smoothing=smoothing)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(ONE_LOGIT[:, 0]),
        torch.tensor(targets, dtype=torch.float32),
        reduction="none",
    )
    np.testing.assert_allclose(loss(ONE_LOGIT, TWO_CLASSES), theirs, 1e-5)


def test_one_logit_is_the_softmax_of_its_class_logits():
    loss = make_cross_entropy(class_weights=(0.5, 3.0), label_smoothing=0.2)
    two = class_logits(jnp.asarray(ONE_LOGIT))
    assert two.shape == (6, 2)
    expected = loss(two, TWO_CLASSES)
    np.testing.assert_allclose(loss(ONE_LOGIT, TWO_CLASSES), expected, 1e-5)
    np.testing.assert_array_equal(class_logits(LOGITS), LOGITS)


def test_a_very_sure_logit_still_has_a_gradient():
    loss = make_cross_entropy()
    gradient = jax.grad(lambda z: loss(z, np.array([1])).sum())(jnp.array([[20.0]]))
    np.testing.assert_allclose(gradient, -1 / (1 + np.exp(20.0)), 1e-5)


def test_one_logit_names_the_second_class_above_zero():
    ones = np.ones(6, np.float32)
    sums = classification_sums(jnp.asarray(ONE_LOGIT), TWO_CLASSES, ones, ones)
    assert sums["correct"] == 3


def test_wilson_interval_is_that_of_the_literature():
    """R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I."""
    for correct, count, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0, 0.1611)):
        interval = wilson_interval(correct, count)
        assert interval == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1
    assert wilson_interval(9, 10, confidence=0.5)[0] > wilson_interval(9, 10)[0]


def test_roc_curve_counts_every_threshold():
    labels = np.array([0, 0, 1, 1, 0, 1])
    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.35, 0.9])
    curve = roc_curve(labels, scores)
    for fpr, tpr, threshold in zip(
        curve.false_positive_rate, curve.true_positive_rate, curve.thresholds,
        strict=True,
    ):  # fmt: skip
        named = scores >= threshold
        assert (fpr, tpr) == (named[labels == 0].mean(), named[labels == 1].mean())
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    assert curve.auc == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    assert roc_curve(labels, labels).auc == 1
    with pytest.raises(ValueError, match="both classes"):
        roc_curve(np.ones(3), np.arange(3))


def test_class_metrics_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    named = np.array([0, 0, 0, 1, 1, 0, 2, 1])
    figures = class_metrics(labels, named, 4)
    np.testing.assert_allclose(figures.precision, [3 / 4, 1 / 3, 1, 0])
    np.testing.assert_allclose(figures.recall, [3 / 4, 1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(figures.f1, [3 / 4, 2 / 5, 2 / 3, 0])
    assert figures.support.tolist() == [4, 2, 2, 0]
    # The fourth class neither has images nor is named: it does not count.
    assert figures.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert figures.macro_f1 == pytest.approx((3 / 4 + 2 / 5 + 2 / 3) / 3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_class_metrics_are_scikit_learns(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    # Of one seed in four a class is only named, never true.
    labels = rng.choice(4 if seed else 3, 30)
    named = np.where(rng.random(30) < 0.6, labels, rng.choice(4, 30))
    ours = class_metrics(labels, named, 4)
    assert ours.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(labels, named)
    )
    report = metrics.classification_report(
        labels, named, output_dict=True, zero_division=0
    )
    assert ours.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])
    for c in range(4):
        theirs = report[str(c)]
        assert ours.precision[c] == pytest.approx(theirs["precision"])
        assert ours.recall[c] == pytest.approx(theirs["recall"])
        assert ours.f1[c] == pytest.approx(theirs["f1-score"])
        assert ours.support[c] == theirs["support"]


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_that_of_a_plain_loop(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(3, 0.4), 200)
    probabilities[:2] = [[1, 0, 0], [0.25, 0.25, 0.5]]  # on the edges of bins
    labels = rng.integers(0, 3, 200)
    found = reliability(probabilities, labels, bins=bins)
    error = 0.0
    for bin in range(bins):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if bin / bins < row.max() <= (bin + 1) / bins
        ]
        assert found.counts[bin] == len(members)
        if members:
            confidence, accuracy = np.mean(members, 0)
            assert found.confidence[bin] == pytest.approx(confidence)
            assert found.accuracy[bin] == pytest.approx(accuracy)
            error += len(members) / 200 * abs(confidence - accuracy)
    assert found.counts.sum() == 200
    assert found.error == pytest.approx(error)


def test_a_temperature_undoes_what_made_logits_too_sure():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 4)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) < rng.random((4000, 1))).sum(1)
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, abs=0.3)

    def cost(temperature):
        loss = negative_log_likelihood(logits / temperature, labels)
        return 4000 * loss + np.log(temperature) ** 2 / 2

    best = fit_temperature(logits, labels)
    assert cost(best) < min(cost(best * 1.01), cost(best / 1.01))


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (19, 19), (20, 19), (100, 95)])
def test_a_threshold_keeps_95_percent_and_no_image_more(count, kept):
    sure = np.random.default_rng(0).permutation(np.linspace(0.5, 0.9, count))
    probabilities = np.stack([sure, 1 - sure], -1)
    threshold = fit_threshold(probabilities)
    assert threshold in sure
    assert (sure >= threshold).sum() == kept


def test_a_threshold_turns_nothing_away_where_nothing_is_there_to_fit_it_to():
    assert fit_threshold(np.zeros((0, 3))) == 0
    assert fit_threshold(np.full((6, 3), np.nan)) == 0


def test_a_temperature_keeps_its_senses_where_all_are_right_or_none_are_there():
    labels = np.arange(6) % 3
    sure = np.eye(3)[labels] * 6
    assert 0.1 < fit_temperature(sure, labels) < 1
    assert fit_temperature(sure[:0], labels[:0]) == 1
    assert fit_temperature(np.full((6, 3), np.nan), labels) == 1
