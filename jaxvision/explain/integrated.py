"""Integrated gradients: each value's part in the difference of two logits.

The mean gradient on the straight way from a baseline to the image, times the way
(arXiv:1703.01365). In exact arithmetic the values add up to the difference of the
logits at the way's two ends; here they do so within `COMPLETENESS`.
"""

from collections.abc import Callable, Iterable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError
from jaxvision.explain.network import (
    Classes,
    TrainedNetwork,
    input_gradient,
    make_score,
    network_inputs,
)
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

COMPLETENESS = 0.01
"""Share of the difference of logits by which integrated gradients may miss it."""

PARTS_MISS = 0.03
"""Share of it by which the parts of the way may miss theirs, all together, some above
and some below: errors that cancel in the sum are errors of the map all the same."""

FIRST_POINTS = 32
"""Points of the way that are looked at in any case, evenly spaced."""

MOST_POINTS = 512
"""After this many the map is given as it is; 300 MiB of gradients at 224×224."""

AT_ONCE = 8
"""Points of an image's way whose gradients are computed together."""


def integrated_gradients(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    steps: int | None = None,
    baseline: int | np.ndarray = 0,
) -> jax.Array:
    """Each value's part in the difference of two logits (arXiv:1703.01365).

    The integral is a sum of trapezoids. By how much each of them misses is known, as
    the logits at its ends are: so the parts of the way that miss most are halved until
    the map adds up. Near a black image the gradient of a deep network changes a
    thousand times as fast as elsewhere, which equal parts do not get hold of.

    Args:
      network, images, classes: as everywhere.
      steps: that many equal parts; None: parts as needed, image by image, until
        the sum misses the difference by at most `COMPLETENESS` and the parts by at
        most `PARTS_MISS`, or `MOST_POINTS` have been looked at.
      baseline: 0 to 255, one value for all (0: black), or a uint8 image `[H, W, C]`.

    Raises:
      InputError: images or classes are not the network's, or no step is asked for.
    """
    if steps is not None and steps < 1:
        raise InputError(f"integrated gradients: {steps} steps; take at least 1")
    model, preprocessing, variables, checked, labels = network.arguments(
        images, classes
    )
    ends = network_inputs(preprocessing, checked)
    start = network_inputs(preprocessing, _image(network, baseline)[None])[0]
    maps = []
    for end, label in zip(ends, labels, strict=True):

        def look(points: np.ndarray, end=end, label=label) -> list[np.ndarray]:
            filled = np.resize(points, AT_ONCE).astype(np.float32)
            found = _look(model, preprocessing, variables, start, end, label, filled)
            return [np.asarray(part)[: len(points)] for part in found]

        mean = _mean_of_parts(look, steps) if steps else _mean_as_needed(look)
        maps.append((end - start) * mean)
    return jnp.stack(maps)


def logit_difference(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    baseline: int | np.ndarray = 0,
) -> np.ndarray:
    """`[B]`, float64: the class's logit of each image less that of the baseline.

    Args:
      network, images, classes, baseline: as given to `integrated_gradients`.
    """
    start = np.broadcast_to(_image(network, baseline), images.shape)
    ends = network.scores(images, classes), network.scores(start, classes)
    return np.subtract(*(np.asarray(end, np.float64) for end in ends))


def completeness_gap(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    attributions: np.ndarray,
    *,
    baseline: int | np.ndarray = 0,
) -> np.ndarray:
    """By how much attributions miss the difference of logits that they divide up.

    Args:
      network, images, classes, baseline: as given to `integrated_gradients`.
      attributions: `[B, H, W, C]`, its answer.

    Returns:
      `[B]`: sum of the attributions less the difference, as a share of the difference;
      infinite or NaN where there is none, and large where it is small beside the
      changes of the logit on the way.
    """
    difference = logit_difference(network, images, classes, baseline=baseline)
    total = np.asarray(attributions, np.float64).sum((1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (total - difference) / np.abs(difference)


def _image(network: TrainedNetwork, baseline: int | np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(baseline, np.uint8), network.image_shape)


Look = Callable[[np.ndarray], list[np.ndarray]]
"""Points of the way, 0 to 1, `[n]` with n up to `AT_ONCE` -> the class's logit `[n]`,
how it changes along the way `[n]`, and the gradients `[n, H, W, C]`."""


def _mean_of_parts(look: Look, steps: int) -> np.ndarray:
    """`[H, W, C]`, from that many equal parts."""
    points = np.linspace(0, 1, steps + 1)
    weights = _weights(points)
    parts = (slice(i, i + AT_ONCE) for i in range(0, len(points), AT_ONCE))
    return _sum(
        np.tensordot(weights[some], look(points[some])[-1], 1) for some in parts
    )


def _mean_as_needed(look: Look) -> np.ndarray:
    """`[H, W, C]`, from parts that are halved where they miss most."""
    points = np.linspace(0, 1, FIRST_POINTS)
    found = [look(some) for some in np.split(points, FIRST_POINTS // AT_ONCE)]
    while len(points) < MOST_POINTS:
        order = np.argsort(points)
        scores, slopes = (
            np.concatenate([each[which] for each in found])[order].astype(np.float64)
            for which in (0, 1)
        )
        parts = np.diff(points[order])
        misses = parts * (slopes[1:] + slopes[:-1]) / 2 - np.diff(scores)
        difference = abs(scores[-1] - scores[0])
        if (
            abs(misses.sum()) <= COMPLETENESS * difference
            and abs(misses).sum() <= PARTS_MISS * difference
        ):
            break
        worst = np.argsort(-abs(misses))[:AT_ONCE]
        middles = (points[order][worst] + points[order][worst + 1]) / 2
        found.append(look(middles))
        points = np.append(points, middles)
    weights = np.split(_weights(points), len(found))
    return _sum(
        np.tensordot(some, each[-1], 1)
        for some, each in zip(weights, found, strict=True)
    )


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """One after the other, so that only two of them are held."""
    return reduce(np.add, arrays)


def _weights(points: np.ndarray) -> np.ndarray:
    """Of the trapezoids' sum, float32: half of the parts on either side of a point."""
    order = np.argsort(points)
    halves = np.diff(points[order]) / 2
    weights = np.zeros(len(points), np.float32)
    weights[order] = np.append(halves, 0) + np.append(0, halves)
    return weights


@partial(jax.jit, static_argnums=(0, 1))
def _look(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    start: jax.Array,
    end: jax.Array,
    label: jax.Array,
    points: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`Look`, of the way from `start` to `end`, `[H, W, C]` as the network sees it."""
    way = (end - start)[None]
    inputs = start[None] + points[:, None, None, None] * way
    labels = jnp.broadcast_to(label, points.shape)
    score = make_score(model, preprocessing, variables, labels)
    gradients = input_gradient(score)(inputs)
    return score(inputs), (gradients * way).sum((1, 2, 3)), gradients
