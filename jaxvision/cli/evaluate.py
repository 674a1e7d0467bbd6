"""`jaxvision evaluate`: the figures of a trained network."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from jaxvision.cli.flags import Checkpoint, Root, run
from jaxvision.cli.process import keep_compiled
from jaxvision.report.formats import format_name

if TYPE_CHECKING:
    from jaxvision.classifier import Evaluation


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures a trained network on the images that its training had set aside, or on
    any others of its classes."""

    checkpoint: Checkpoint
    """Folder of a training run, or of one of its seeds."""
    root: Root = None
    """Folder or CSV of labeled images, matched by the names of their classes; none:
    those of the training."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Which of the images, as training had divided them; none: those set aside for the
    test, and all of a folder that training did not see."""
    tta: Literal["flip", "five-crops", "ten-crops"] | None = None
    """Test-time augmentation, the mean of the probabilities of several versions of an
    image: flip: it and its mirror image; five-crops: its center and its corners, cut
    from a larger one; ten-crops: these and their mirror images."""


def main(arguments: Sequence[str]) -> None:
    run(Config, evaluate, arguments, "jaxvision evaluate")


def evaluate(config: Config) -> None:
    from jaxvision.classifier import best_seed, load_classifier, load_training_data
    from jaxvision.data.dataset import load_dataset
    from jaxvision.report.progress import Progress

    keep_compiled()
    folder = best_seed(config.checkpoint)
    classifier = load_classifier(folder)
    with Progress("reading images", unit="images") as progress:
        if config.root is None:
            # All files are read, and those of one split decoded.
            dataset = load_training_data(
                classifier, decode="while_training", progress=progress
            )
        else:
            dataset = load_dataset(config.root)
        found = classifier.evaluate(
            dataset, config.split, tta=config.tta, progress=progress
        )
    demo = " (demo data)" if dataset.is_demo else ""
    print(f"checkpoint: {folder}")
    if found.tta is not None:
        print(f"test-time augmentation: {found.tta}")
    recorded = classifier.card.recorded.get(found.split)
    if recorded is not None and config.root is None and config.tta is None:
        print(f"recorded {found.split} accuracy: {recorded['accuracy']}")
    print(f"{found.split} accuracy: {found.accuracy}{demo}")
    print(f"{found.split} balanced accuracy: {found.balanced_accuracy}")
    print(f"{found.split} macro F1: {found.macro_f1}")
    print(f"{found.split} loss: {found.loss} nats")
    if found.threshold:
        print(
            f"{found.split} images that `unknown` would turn away: "
            f"{found.turned_away.sum()} of {len(found.labels)} (probability below "
            f"{found.threshold:.3f})"
        )
    _print_classes(found)


def _print_classes(found: "Evaluation") -> None:
    """A line for each class that has images or is predicted."""
    table = found.per_class
    names = [format_name(name) for name in found.classes]
    width = max(map(len, (*names, "class")))
    print(f"\n{'class':<{width}}  precision  recall     F1  images")
    predicted = set(found.predictions.tolist())
    for label, name in enumerate(names):
        if table.support[label] or label in predicted:
            print(
                f"{name:<{width}}  {table.precision[label]:9.3f}  "
                f"{table.recall[label]:6.3f}  {table.f1[label]:5.3f}  "
                f"{table.support[label]:6d}"
            )
