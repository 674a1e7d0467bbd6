"""How much of its accuracy a trained network keeps when its images are changed.

    classifier = load_classifier("checkpoints/part1_tuning/20260101-120000")
    for row in measure_robustness(classifier, dataset, "val"):
        print(row.transform, row.strength, row.accuracy)

The changes are those of `jaxvision.data.transforms.TRANSFORMS`, at its strengths. They
are applied to the image as the network sees it, after the resize to its input.
"""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Sequence

import numpy as np

from jaxvision.classifier import Classifier
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.loader import Batches
from jaxvision.data.transforms import TRANSFORMS
from jaxvision.errors import InputError
from jaxvision.typing import Progress

BASELINE = "none"
"""Name of the row of images that were left as they are."""

ASSIGNMENT = (
    "brighten",
    "darken",
    "more_contrast",
    "less_contrast",
    "color_jitter",
    "sharpen",
    "soften",
    "blur",
    "translation",
    "rotation",
    "zoom_in",
    "zoom_out",
    "affine",
    "perspective",
    "horizontal_flip",
    "vertical_flip",
    "invert",
)
"""The changes that the first part of the assignment and its two reports speak of."""

_SEEDED_AS = {"color_jitter": "colour_jitter"}
"""Under an earlier name, so that figures measured before it changed can be repeated."""


@dataclasses.dataclass(frozen=True)
class RobustnessRow:
    """Accuracy on a split whose images were all changed in one way.

    Attributes:
      transform: name in `TRANSFORMS`, or `BASELINE`.
      strength: how much, in units of `unit`.
      accuracy: `correct / num`, 0 to 1.
      num: images of the split.
      correct: those that were classified correctly.
    """

    transform: str
    strength: float
    unit: str
    accuracy: float
    num: int
    correct: int


def measure_robustness(
    classifier: Classifier,
    dataset: DecodedDataset,
    split: str,
    *,
    transforms: Sequence[str] = ASSIGNMENT,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[RobustnessRow]:
    """Accuracy on a split under every transform at every strength of the table.

    All of it is one pass through one compiled program; threads change the images.

    Args:
      classifier: the network.
      dataset: of the classifier's classes, in its preprocessing.
      split: "train", "val" or "test".
      transforms: names in `TRANSFORMS`.
      seed: of the places, directions and signs; see `transformed`.
      progress: told (images done, images in all) from any thread.

    Returns:
      The baseline, then a row a strength in the order of `transforms`.

    Raises:
      InputError: a transform that is not in the table, an empty split, or classes that
        are not the classifier's.
    """
    settings = [(BASELINE, 0.0), *strengths_of(transforms)]
    _check(classifier, dataset, split)
    indices = dataset.splits[split]
    total = len(settings) * len(indices)
    count = _Counter(total, progress)

    def load(place: int, generator: np.random.Generator) -> np.ndarray:
        # Not the loader's generator: an image is to be changed alike at all strengths.
        setting, position = divmod(place, len(indices))
        name, strength = settings[setting]
        index = int(indices[position])
        image = transformed(dataset, index, name, strength, seed=seed)
        count.add_one()
        return image

    batches = Batches(
        np.arange(total),
        np.tile(dataset.labels[indices], len(settings)),
        load,
        batch_size=classifier.card.batch_size,
        seed=seed,
        train=False,
        num_threads=dataset.config.num_threads,
    )
    _, logits = classifier.evaluate_batches(batches)
    predicted = logits.argmax(-1).reshape(len(settings), len(indices))
    correct = (predicted == dataset.labels[indices]).sum(axis=1)
    return [
        RobustnessRow(
            transform=name,
            strength=strength,
            unit="" if name == BASELINE else TRANSFORMS[name].unit,
            accuracy=int(right) / len(indices),
            num=len(indices),
            correct=int(right),
        )
        for (name, strength), right in zip(settings, correct, strict=True)
    ]


def strengths_of(transforms: Sequence[str]) -> list[tuple[str, float]]:
    """Each transform with each of its strengths, from weak to strong.

    Raises:
      InputError: one is not in the table, or none is given.
    """
    unknown = [name for name in transforms if name not in TRANSFORMS]
    if unknown or not transforms:
        wrong = f"no transform is called {unknown[0]!r}" if unknown else "none given"
        raise InputError(
            f"{wrong}; choose from {', '.join(TRANSFORMS)}", setting="transforms"
        )
    return [(name, s) for name in transforms for s in TRANSFORMS[name].strengths]


def transformed(
    dataset: DecodedDataset, index: int, name: str, strength: float, *, seed: int = 0
) -> np.ndarray:
    """`[H, W, C]` uint8: an image as the network sees it, changed.

    Place, direction and sign are drawn from the seed, the image's path and the
    transform alone: they are the same at all strengths, in any split and any order.

    Args:
      dataset: of the image.
      index: of the image in the data set.
      name: in `TRANSFORMS`, or `BASELINE`, which changes nothing.
      strength: in the transform's unit.
      seed: 0 or more.
    """
    image = dataset.image(index)
    if name == BASELINE:
        return image
    path = os.fsencode(dataset.images[index])
    seeded = _SEEDED_AS.get(name, name)
    digest = hashlib.sha256(seeded.encode() + b"\0" + path).digest()
    generator = np.random.default_rng((seed, int.from_bytes(digest[:8], "little")))
    return TRANSFORMS[name].function(image, strength, generator)


def _check(classifier: Classifier, dataset: DecodedDataset, split: str) -> None:
    if dataset.classes != classifier.card.classes:
        raise InputError(
            f"{dataset.root}: its classes ({', '.join(dataset.classes)}) are not those "
            f"of the checkpoint ({', '.join(classifier.card.classes)}); give the "
            "folder that it was trained on"
        )
    if dataset.preprocessing != classifier.card.preprocessing:
        raise ValueError("the data set is in another preprocessing than the network's")
    if not len(dataset.splits[split]):
        filled = [name for name, indices in dataset.splits.items() if len(indices)]
        raise InputError(
            f"{dataset.root} has no image in it; choose {' or '.join(filled)}",
            setting="split",
            value=split,
        )


class _Counter:
    """Counts in several threads and tells how far they are together."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._done, self._lock = 0, threading.Lock()

    def add_one(self) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done += 1
            # The last batch is filled up with its last image, again and again.
            self._progress(min(self._done, self._total), self._total)
