"""Which labels are likely wrong: by heads on features that have not seen them.

Confident learning (Northcutt et al., arXiv:1911.00068): each image is judged by a head
that was fitted without it, and those whose own label is the least probable come first.
The head is ridge regression on the features at length 1, which needs no iterations.
"""

from collections.abc import Sequence

import numpy as np

from jaxvision.data.splits import deal_folds
from jaxvision.linear_heads import SHARPNESS, ridge_scores
from jaxvision.metrics import fit_temperature

FOLDS = 10

RIDGE = 0.3
"""The penalty, as a share of the mean square length of the centered features. Of .1 to
3 the best on FaceScrub and paintings with 5 % of the labels flipped; half or twice it
is as good."""


def out_of_fold_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    images: Sequence[str],
    groups: Sequence[Sequence[int]] = (),
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """Probabilities of the classes, each image's by a head fitted on the other folds.

    Args:
      features: `[N, F]` float32, rows of length 1.
      labels: `[N]` int.
      num_classes: K.
      images: paths; they decide the folds.
      groups: lists of indices of images that stay in one fold, such as copies.
      folds: how many, 2 or more.
      seed: of the folds.

    Returns:
      `[N, K]` float32; rows sum to 1. How sharp they are is chosen so that the labels
      are the most probable.
    """
    labels = np.asarray(labels)
    fold = deal_folds(
        folds, seed=seed, images=images, labels=labels.tolist(), groups=groups
    )
    scores = SHARPNESS * ridge_scores(
        features, labels, num_classes, blocks=fold, share=RIDGE
    )
    logits = scores / fit_temperature(scores, labels)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities.astype(np.float32)


def suspicion_order(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of the images, those first whose own label is the least probable.

    Args:
      probabilities: `[N, K]`, from heads that have not seen the images.
      labels: `[N]` int.
    """
    own = np.take_along_axis(probabilities, np.asarray(labels)[:, None], axis=1)[:, 0]
    return np.argsort(own, kind="stable")


def likely_wrong(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[N]` bool: another class is confidently found, see arXiv:1911.00068.

    A class is found with confidence where its probability reaches the mean that it has
    over the images that carry it; of several such classes the most probable counts.
    """
    labels = np.asarray(labels)
    mean = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels):
        mean[label] = probabilities[labels == label, label].mean()
    confident = np.where(probabilities >= mean, probabilities, -1)
    return (confident.max(1) >= 0) & (confident.argmax(1) != labels)
