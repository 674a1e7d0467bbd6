"""Losses per example, metrics as sums that add across batches and devices, and what is
measured on the logits of a whole split.

A network tells K classes apart by K logits, or two by one logit, that of the second
class: its sigmoid is that class's probability (binary cross-entropy). Losses and sums
take either; `class_logits` makes the one the other.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.typing import Metrics, Row

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits `[B, K]` or `[B, 1]`, labels `[B]` int32) -> loss of each example `[B]`
float32."""


def make_cross_entropy(
    *, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
) -> Loss:
    """Cross-entropy of the softmax, or of the sigmoid of one logit, in nats.

    Args:
      class_weights: one factor a class; each example's loss is multiplied by the
        factor of its class. As in Keras, the mean then divides by the number of
        examples, not by the sum of the weights, so that the weights n/(n_c·|c|)
        leave the scale of the loss as it was.
      label_smoothing: share of the target that is spread evenly over all classes
        (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567), in [0, 1).
    """
    weights = None if class_weights is None else tuple(map(float, class_weights))
    return _CrossEntropy(weights, label_smoothing)


@dataclasses.dataclass(frozen=True)
class _CrossEntropy:
    """A loss that equals another one of the same values, so that they share programs.

    Arguments as of `make_cross_entropy`.
    """

    class_weights: tuple[float, ...] | None
    label_smoothing: float

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        import optax  # which predicting need not wait for

        logits = logits.astype(jnp.float32)
        num_classes = max(logits.shape[-1], 2)
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, num_classes, dtype=jnp.float32),
            self.label_smoothing,
        )
        if logits.shape[-1] == 1:
            # Not the softmax of (0, logit), whose gradient is lost beyond logits of 17.
            losses = optax.sigmoid_binary_cross_entropy(logits[..., 0], targets[..., 1])
        else:
            losses = optax.softmax_cross_entropy(logits, targets)
        if self.class_weights is None:
            return losses
        return losses * jnp.asarray(self.class_weights, jnp.float32)[labels]


def class_logits(logits: jax.Array) -> jax.Array:
    """`[..., K]` as they are; one logit `[..., 1]` as those of two classes `[..., 2]`.

    The first class's is 0: softmax then gives the second what the sigmoid would.
    """
    if logits.shape[-1] != 1:
        return logits
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """n / (n_c · |c|) for each class c: every class weighs the same in the loss.

    Args:
      labels: `[N]` class indices of the training images; every class occurs.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return tuple(float(len(labels) / (count * num_classes)) for count in counts)


def class_frequencies(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """`[num_classes]` float64, share of each class; they sum to 1.

    Args:
      labels: `[N]` class indices, N at least 1.
    """
    return np.bincount(labels, minlength=num_classes) / len(labels)


def classification_sums(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, losses: jax.Array
) -> Metrics:
    """Sums over the examples whose mask is 1: `loss`, `correct` and `count`.

    Args:
      logits: `[B, K]` or `[B, 1]`; labels: `[B]` int32; mask: `[B]` 0 or 1;
      losses: `[B]`.
    """
    mask = mask.astype(jnp.float32)
    named = jnp.argmax(class_logits(logits), axis=-1)
    correct = (named == labels).astype(jnp.float32)
    return {
        # where and not a product: 0 · NaN of a filling example would be NaN.
        "loss": jnp.sum(jnp.where(mask > 0, losses, 0.0)),
        "correct": jnp.sum(correct * mask),
        "count": jnp.sum(mask),
    }


def summarize(sums: Mapping[str, float]) -> Row:
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


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """How well each class is told from the others; scikit-learn's definitions.

    precision: `[K]`, share of the images named so that are of the class.
    recall: `[K]`, share of the class's images that are named so.
    f1: `[K]`, harmonic mean of the two. Each of the three is 0 where there is nothing
        to divide by.
    support: `[K]` int, images of the class.
    balanced_accuracy: mean recall of the classes that have images.
    macro_f1: mean F1 of the classes that have images or are named.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    balanced_accuracy: float
    macro_f1: float


def class_metrics(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> ClassMetrics:
    """Precision, recall and F1 of each class, and their means over the classes.

    Args:
      labels, predictions: `[N]` class indices, N at least 1.
    """
    counts = confusion_matrix(labels, predictions, num_classes)
    right, support, named = np.diagonal(counts), counts.sum(1), counts.sum(0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(num_classes), where=whole > 0)

    recall, f1 = share(right, support), share(2 * right, named + support)
    return ClassMetrics(
        share(right, named),
        recall,
        f1,
        support,
        float(recall[support > 0].mean()),
        float(f1[named + support > 0].mean()),
    )


CALIBRATION_BINS = 15
"""Of Guo et al., arXiv:1706.04599."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How sure predictions are, and how often they are right, bin by bin.

    Bin m of M holds the predictions whose probability p, that of the class that is
    named, is (m - 1) / M < p <= m / M.

    counts: `[M]` int, predictions in each bin.
    confidence: `[M]`, their mean probability; 0 for an empty bin.
    accuracy: `[M]`, the share of them that is right; 0 for an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: how far accuracy and confidence lie apart in
        a bin, weighted by its predictions; from 0 to 1."""
        apart = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.counts * apart) / self.counts.sum())


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Bins of equal width by the probability of the class that is named (Guo et al.
    2017, https://arxiv.org/abs/1706.04599).

    Args:
      probabilities: `[N, K]`, N at least 1; rows sum to 1.
      labels: `[N]` class indices.
      bins: how many, at least 1.
    """
    sure = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidence, accuracy = (
        np.bincount(place, values, minlength=bins) / np.maximum(counts, 1)
        for values in (sure, right)
    )
    return Reliability(counts, confidence, accuracy)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of the softmax, in nats, in float64.

    Args:
      logits: `[N, K]`, N at least 1.
      labels: `[N]` class indices.
    """
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[:, None], -1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(-1)) - chosen))


TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest that are looked for."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """By what to divide logits so that probabilities are as sure as they are right.

    Temperature scaling (Guo et al. 2017): the temperature T with the least negative
    log-likelihood of the labels, summed over the images, plus (log T)² / 2. That term
    keeps T near 1 where images are few, and away from 0 where all are right.

    Args:
      logits: `[N, K]` of images that training has not seen.
      labels: `[N]` class indices.

    Returns:
      T; 1 where there is no image, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels) or not np.isfinite(logits).all():
        return 1.0

    def cost(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        loss = negative_log_likelihood(scaled, labels)
        return len(labels) * loss + log_temperature**2 / 2

    bounds = tuple(map(math.log, TEMPERATURES))
    found: Any = minimize_scalar(cost, bounds=bounds, method="bounded")
    return math.exp(float(found.x))


KNOWN_SHARE = 0.95
"""Part of the validation images that a threshold of "unknown" keeps."""


def fit_threshold(probabilities: np.ndarray, *, share: float = KNOWN_SHARE) -> float:
    """The probability below which an image may be of none of the classes.

    The highest value that at least `share` of the images reach with their most probable
    class (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136).

    Args:
      probabilities: `[N, K]` of images that training has not seen, of known classes.
      share: of the images that are kept, in (0, 1].

    Returns:
      The threshold; 0, which keeps everything, where there is no image or a
      probability is not finite.
    """
    if not len(probabilities) or not np.isfinite(probabilities).all():
        return 0.0
    sure = np.sort(probabilities.max(-1))
    return float(sure[len(sure) - math.ceil(share * len(sure))])


def wilson_interval(
    correct: int, count: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Where the true accuracy lies, given `correct` of `count` independent images.

    Wilson's score interval (J. Am. Stat. Assoc. 22, 1927, 209-212): unlike mean ± sd it
    keeps within 0 and 1 and says something when every image was right.

    Args:
      correct: from 0 to `count`, which is at least 1.
      confidence: share of such intervals that hold the true accuracy, in (0, 1).
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclasses.dataclass(frozen=True)
class RocCurve:
    """What becomes of two classes as the threshold between them moves.

    false_positive_rate: `[n]`, share of the first class that is named the second,
        ascending from 0 to 1.
    true_positive_rate: `[n]`, share of the second class that is named so.
    thresholds: `[n]`, descending from infinity; a score at or above names the second.
    auc: area under the curve: the probability that an image of the second class has a
        higher score than one of the first; .5 is guessing.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray
    auc: float


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> RocCurve:
    """The receiver operating characteristic of two classes.

    Args:
      labels: `[N]`, 0 or 1; both occur.
      scores: `[N]`, higher for class 1: its probability or, what keeps those apart
        that round to probability 1, its logit.

    Raises:
      ValueError: only one class occurs.
    """
    from sklearn import metrics

    if len(np.unique(labels)) != 2:
        raise ValueError("an ROC curve needs images of both classes")
    curve = metrics.roc_curve(labels, scores, drop_intermediate=False)
    return RocCurve(*curve, auc=float(metrics.roc_auc_score(labels, scores)))
