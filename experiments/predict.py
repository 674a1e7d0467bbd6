"""Names for images, by a trained checkpoint.

python -m experiments.predict --checkpoint checkpoints/part2_finetune/TIME a.jpg
"""

import dataclasses
from pathlib import Path

import tyro

from experiments.common import run_cli
from jaxvision.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """Prints one line an image: file, name, probability."""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    top: int = 1
    """Names an image, the likeliest first."""


def main(config: Config) -> None:
    from jaxvision.classifier import load_classifier

    if not config.images:
        raise InputError("no image given; name one or more files after the flags")
    classifier = load_classifier(config.checkpoint)
    classes = classifier.card.classes
    demo = " (trained on demo data)" if classifier.card.data["is_demo"] else ""
    for path, prediction in zip(
        config.images, classifier.predict(config.images), strict=True
    ):
        likeliest = prediction.probabilities.argsort()[::-1][: config.top]
        named = ", ".join(
            f"{classes[i]} {prediction.probabilities[i]:.3f}" for i in likeliest
        )
        print(f"{path}: {named}{demo}")


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
