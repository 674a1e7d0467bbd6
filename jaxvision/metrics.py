"""Losses per example, and metrics as sums that add across batches and devices."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision.typing import Metrics

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits `[B, K]`, labels `[B]` int32) -> loss of each example `[B]` float32."""


def make_cross_entropy(
    *, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
) -> Loss:
    """Cross-entropy of softmax, in nats.

    Args:
      class_weights: one factor a class; each example's loss is multiplied by the
        factor of its class. As in Keras, the mean then divides by the number of
        examples, not by the sum of the weights, so that the weights n/(n_c·|c|)
        leave the scale of the loss as it was.
      label_smoothing: share of the target that is spread evenly over all classes
        (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567), in [0, 1).
    """
    weights = None if class_weights is None else np.asarray(class_weights, np.float32)

    def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32),
            label_smoothing,
        )
        losses = optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
        return losses if weights is None else losses * jnp.asarray(weights)[labels]

    return cross_entropy


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """n / (n_c · |c|) for each class c: every class weighs the same in the loss.

    Args:
      labels: `[N]` class indices of the training pictures; every class occurs.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return tuple(float(len(labels) / (count * num_classes)) for count in counts)


def classification_sums(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, losses: jax.Array
) -> Metrics:
    """Sums over the examples whose mask is 1: `loss`, `correct` and `count`.

    Args:
      logits: `[B, K]`; labels: `[B]` int32; mask: `[B]` 0 or 1; losses: `[B]`.
    """
    mask = mask.astype(jnp.float32)
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return {
        # where and not a product: 0 · NaN of a filling example would be NaN.
        "loss": jnp.sum(jnp.where(mask > 0, losses, 0.0)),
        "correct": jnp.sum(correct * mask),
        "count": jnp.sum(mask),
    }


def summarise(sums: dict[str, float]) -> dict[str, float]:
    """Mean `loss` and `accuracy` from the sums of `classification_sums`.

    Both are NaN where nothing was counted.
    """
    count = float(sums["count"])
    if count == 0:
        return {"loss": math.nan, "accuracy": math.nan}
    return {
        "loss": float(sums["loss"]) / count,
        "accuracy": float(sums["correct"]) / count,
    }


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts `[num_classes, num_classes]` int64: rows are true, columns predicted.

    Args:
      labels, predictions: `[N]` class indices.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix
