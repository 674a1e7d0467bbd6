"""Linear heads that are solved, not trained: ridge and logistic regression on features.

Both work in the principal components of the features, of which there are no more than
images: so the width of the features hardly matters. All is computed in float64.

With several rows per image (views of it), `blocks` says which belong together: what is
left out is left out with all of its rows.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import optimize
from threadpoolctl import threadpool_limits

from jaxvision.metrics import fit_temperature, negative_log_likelihood

RIDGE_SHARES = np.geomspace(1e-4, 30, 23)
"""Penalties of ridge regression that are compared, as shares of the mean square length
of the centered features."""

LOGISTIC_SHARES = np.geomspace(1e-6, 1, 9)
"""As `RIDGE_SHARES`, of logistic regression."""

SHARPNESS = 10.0
"""What the scores of ridge regression, which aim at 0 and 1, are multiplied by for
logits; a temperature that is fitted to left-out images corrects it."""

COMPARED, EXACT = 1e-7, 1e-12
"""By what share of the loss the last step of logistic regression changes it: to compare
penalties, and in the end."""

_CHUNK = 8192
"""Columns of features that are made float64 at once."""


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """A dense layer, and what its kind of head gives images that it has not seen.

    kernel: `[F, K]` float64.
    bias: `[K]` float64.
    penalty: added to the eigenvalues, or half the factor of the squared weights, where
        the loss is the sum over the rows; of those compared the best.
    held_out: `[n, K]` logits of each row by a head that was fitted without its block.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    held_out: np.ndarray


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    blocks: np.ndarray | None = None,
    shares: np.ndarray = RIDGE_SHARES,
) -> LinearHead:
    """Least squares on one-hot targets with an L2 penalty on the kernel.

    The penalty is that with the least squared error of left-out images, which has a
    closed form (Allen's PRESS, Technometrics 16, 1974, 125-127). The logits are the
    scores times what makes left-out images' labels the most probable.

    Args:
      features: `[n, F]`.
      labels: `[n]` class indices.
      num_classes: K.
      blocks: `[n]` int; rows with the same number are left out together. None: each by
        itself.
      shares: penalties to compare.
    """
    blocks = np.arange(len(labels)) if blocks is None else blocks
    targets = np.eye(num_classes)[labels]
    parts = _components(features)
    found = []
    for share in shares:
        penalty = float(share * parts.scale)
        scores = _leave_out(parts, targets, penalty, blocks)
        found.append((float(np.square(scores - targets).mean()), penalty, scores))
    _, penalty, scores = min(found, key=lambda entry: entry[0])
    mean = targets.mean(0)
    weights = parts.rows.T @ (targets - mean) / (parts.values + penalty)[:, None]
    kernel = parts.kernel(features, weights)
    bias = mean - parts.mean @ kernel
    factor = SHARPNESS / fit_temperature(scores * SHARPNESS, labels)
    return LinearHead(kernel * factor, bias * factor, penalty, scores * factor)


def ridge_scores(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    blocks: np.ndarray,
    share: float,
) -> np.ndarray:
    """What `fit_ridge` with one penalty gives each row without its block.

    Args:
      share: the penalty, as one of `RIDGE_SHARES`.

    Returns:
      `[n, K]` float64 scores, which aim at 0 and 1.
    """
    parts = _components(features)
    targets = np.eye(num_classes)[labels]
    return _leave_out(parts, targets, share * parts.scale, blocks)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    fold: np.ndarray,
    shares: np.ndarray = LOGISTIC_SHARES,
) -> LinearHead:
    """Multinomial logistic regression with an L2 penalty on the kernel, to convergence.

    The least of sum of cross-entropies + penalty / 2 · |kernel|², by L-BFGS. The
    penalty is that with the least cross-entropy of left-out folds.

    Args:
      features: `[n, F]`.
      labels: `[n]` class indices.
      num_classes: K.
      fold: `[n]` int, of two or more folds, by which penalties are compared.
      shares: penalties to compare.
    """
    parts = _components(features)
    size = np.sqrt(parts.scale) or 1.0
    rows = parts.rows / size
    held_out = np.zeros((len(shares), len(labels), num_classes))
    # NumPy and SciPy have a BLAS each, whose threads keep the cores from the other's:
    # with one thread each, these small products take a tenth of the time.
    with threadpool_limits(1, "blas"):
        for number in np.unique(fold):
            left = fold == number
            start = np.zeros((rows.shape[1] + 1, num_classes))
            # From strong penalties to weak ones, each from the solution of the last.
            for place in np.argsort(-shares):
                share = float(shares[place])
                start = _logistic(rows[~left], labels[~left], share, start, COMPARED)
                held_out[place, left] = rows[left] @ start[:-1] + start[-1]
        losses = [negative_log_likelihood(logits, labels) for logits in held_out]
        best = int(np.argmin(losses))
        start = np.zeros((rows.shape[1] + 1, num_classes))
        solution = _logistic(rows, labels, float(shares[best]), start, EXACT)
    kernel = parts.kernel(features, solution[:-1] / size)
    bias = solution[-1] - parts.mean @ kernel
    return LinearHead(kernel, bias, float(shares[best] * parts.scale), held_out[best])


@dataclasses.dataclass(frozen=True)
class _Components:
    """Centered features `[n, F]` as `rows @ axes.T`, with orthonormal axes `[F, r]`.

    mean: `[F]` of the features.
    rows: `[n, r]`, whose columns are orthogonal.
    values: `[r]`, their square lengths.
    scale: mean square length of the centered features.
    """

    mean: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    scale: float

    def kernel(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """`[F, K]`, of weights `[r, K]` on the components: `axes @ weights`."""
        of_rows = self.rows @ (weights / self.values[:, None])
        of_rows -= of_rows.mean(0)  # as good as centering the features
        return np.concatenate([chunk.T @ of_rows for chunk in _chunks(features)])


def _components(features: np.ndarray) -> _Components:
    mean = features.mean(0, dtype=np.float64)
    count, width = features.shape
    # The smaller of the two matrices with the same eigenvalues.
    centered = None if count <= width else features - mean
    if centered is None:
        gram = np.zeros((count, count))
        for place, chunk in enumerate(_chunks(features)):
            chunk -= mean[place * _CHUNK : place * _CHUNK + chunk.shape[1]]
            gram += chunk @ chunk.T
    else:
        gram = centered.T @ centered
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    rows = vectors * np.sqrt(values) if centered is None else centered @ vectors
    return _Components(mean, rows, values, max(float(values.sum()) / count, 1e-12))


def _chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Float64 copies of a number of columns at once."""
    for start in range(0, features.shape[1], _CHUNK):
        yield features[:, start : start + _CHUNK].astype(np.float64)


def _leave_out(
    parts: _Components, targets: np.ndarray, penalty: float, blocks: np.ndarray
) -> np.ndarray:
    """What ridge regression gives each row without the rows of its block `[n, K]`.

    With the matrix H that makes fitted values of targets, the errors of a block that is
    left out are (1 - H_bb)⁻¹ times those of the fit.
    """
    shrunk = parts.rows / (parts.values + penalty)
    mean = targets.mean(0)
    errors = targets - mean - parts.rows @ (shrunk.T @ (targets - mean))
    scores = np.empty_like(errors)
    order = np.argsort(blocks, kind="stable")
    _, starts, counts = np.unique(blocks[order], return_index=True, return_counts=True)
    if len(counts) == 1:
        return np.zeros_like(errors)  # nothing is left to learn from
    for size in np.unique(counts):
        members = order[starts[counts == size][:, None] + np.arange(size)]
        hat = shrunk[members] @ parts.rows[members].transpose(0, 2, 1)
        system = np.eye(size) - hat - 1 / len(targets)
        left_out = np.linalg.solve(system, errors[members])
        scores[members] = targets[members] - left_out
    return scores


def _logistic(
    rows: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    start: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Weights and, below them, biases `[r + 1, K]` of the least penalized loss."""
    targets = np.eye(start.shape[1])[labels]
    # The curvature is at most a quarter of the squares' sum plus the penalty (Böhning,
    # Ann. Inst. Statist. Math. 44, 1992, 197-200): by its root all are alike.
    scale = np.append(np.square(rows).sum(0) / 4 + penalty, len(rows) / 4)
    scale = 1 / np.sqrt(scale)[:, None]

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(start.shape) * scale
        weights = solution[:-1]
        logits = rows @ weights + solution[-1]
        logits -= logits.max(1, keepdims=True)
        chances = np.exp(logits)
        sums = chances.sum(1, keepdims=True)
        loss = np.sum(np.log(sums)) - np.sum(logits * targets)
        slope = chances / sums - targets
        gradient = np.vstack([rows.T @ slope + penalty * weights, slope.sum(0)])
        loss += penalty / 2 * np.square(weights).sum()
        return float(loss), (gradient * scale).ravel()

    options = {"maxiter": 1000, "ftol": tolerance, "gtol": 1e-6}
    found: Any = optimize.minimize(
        cost, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return found.x.reshape(start.shape) * scale
