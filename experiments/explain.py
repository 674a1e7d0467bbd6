"""What in an image speaks for the name that a trained network gives it.

python -m experiments.explain --checkpoint checkpoints/part2_finetune/TIME a.jpg
python -m experiments.explain --checkpoint DIR --method guided_backprop image.jpg
"""

import dataclasses
import time
from pathlib import Path
from typing import Literal

import tyro

from experiments.common import run_cli
from jaxvision.errors import InputError

MethodName = Literal[
    "all",
    "gradient",
    "gradient_times_input",
    "guided_backprop",
    "smoothgrad",
    "integrated_gradients",
    "grad_cam",
    "guided_grad_cam",
    "occlusion",
]
"""The names of `jaxvision.explain.METHODS`, which --help must not wait for."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Explains what a checkpoint makes of images."""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    method: MethodName = "guided_backprop"
    """How to explain; all: every method that the network allows."""
    target: str | None = None
    """Name of the class to explain; none: the one that the network says."""
    layer: str | None = None
    """Layer that Grad-CAM looks at; none: that of the last convolution."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""


def main(config: Config) -> Path:
    """The run folder, whose path is also the last line on standard output."""
    from experiments.explain_report import explain_images, write_explanations
    from jaxvision.classifier import load_classifier
    from jaxvision.report.run_folder import RunFolder

    began = time.monotonic()
    if not config.images:
        raise InputError("no image given; name one or more files after the flags")
    classifier = load_classifier(config.checkpoint)
    explained = explain_images(
        classifier,
        config.images,
        method=config.method,
        target=config.target,
        layer=config.layer,
    )
    run = RunFolder.create("explain", root=config.runs)
    run.write_config(config)
    write_explanations(run, classifier, explained, layer=config.layer, began=began)
    demo = " (trained on demo data)" if classifier.card.data["is_demo"] else ""
    for answer in explained:
        print(f"{answer.path}: {answer.says()}{demo}")
    print(f"report: {run.path / 'report.md'}")
    print(run.path)
    return run.path


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
