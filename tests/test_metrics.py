"""Losses against PyTorch and their definitions; sums that add up."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.metrics import (
    balanced_class_weights,
    classification_sums,
    confusion_matrix,
    make_cross_entropy,
    summarise,
)

LOGITS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0, 2], np.int32)


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


def test_sums_count_what_the_mask_counts_even_beside_nan():
    losses = np.where(np.arange(7) < 5, 1.0, np.nan).astype(np.float32)
    mask = (np.arange(7) < 5).astype(np.float32)
    sums = classification_sums(
        jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask), losses
    )
    expected = (LOGITS.argmax(-1) == LABELS)[:5].sum()
    assert (sums["loss"], sums["correct"], sums["count"]) == (5, expected, 5)
    assert summarise(sums) == {"loss": 1.0, "accuracy": expected / 5}


def test_nothing_counted_is_nan():
    summary = summarise({"loss": 0.0, "correct": 0.0, "count": 0.0})
    assert np.isnan(list(summary.values())).all()


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]
