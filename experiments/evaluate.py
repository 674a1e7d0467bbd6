"""The accuracy of a checkpoint, on the images it was measured on or on others.

python -m experiments.evaluate --checkpoint checkpoints/part2_finetune/TIME
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.common import run_cli


@dataclasses.dataclass(frozen=True)
class Config:
    """Restores a checkpoint and measures it."""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    root: Path | None = None
    """Folder of the images, where it has moved; they are matched by name."""
    split: Literal["train", "val", "test"] = "test"
    """Which part of the images."""


def main(config: Config) -> None:
    from experiments.checkpoints import load_trained
    from jaxvision.classifier import best_seed

    folder = best_seed(config.checkpoint)
    classifier, dataset = load_trained(folder, config.root)
    card = classifier.card
    figures, _ = classifier.evaluate(dataset, config.split)
    demo = " (demo data)" if dataset.is_demo else ""
    print(f"checkpoint: {folder}")
    print(
        f"recorded {config.split} accuracy: {card.recorded[config.split]['accuracy']}"
    )
    print(f"{config.split} accuracy: {figures['accuracy']}{demo}")
    print(f"{config.split} balanced accuracy: {figures['balanced_accuracy']}")
    print(f"{config.split} macro F1: {figures['macro_f1']}")
    print(f"{config.split} loss: {figures['loss']} nats")


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
