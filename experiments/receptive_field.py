"""Part 1.1: which part of an image a node of a network sees.

python -m experiments.receptive_field --model simple_cnn
python -m experiments.receptive_field --model alexnet --image-size 224
"""

import dataclasses
from pathlib import Path

from experiments.common import run_cli

USUAL_SIZE = {
    "mlp": 28,
    "simple_cnn": 50,
    "convnet": 50,
    "vgg13_bn": 96,
    "efficientnet_v2_b3": 300,
}
"""Height and width that a network is mostly given, where it is not 224."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Receptive field of every layer, by recursion and by the gradient."""

    model: str = "simple_cnn"
    """Name of the network."""
    image_size: int | None = None
    """Height and width of the image, in pixels; none: what the network is made
    for."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""


def main(config: Config) -> None:
    from experiments.receptive_field_report import (
        example,
        measure,
        print_fields,
        write_fields,
    )
    from jaxvision.report.run_folder import RunFolder

    size = config.image_size
    if size is None:
        size = USUAL_SIZE.get(config.model, 224)
    measured = [example(), measure(config.model, size)]
    for network in measured:
        print_fields(network)
    run = RunFolder.create("receptive_field", root=config.runs)
    run.write_config(dataclasses.replace(config, image_size=size))
    write_fields(run, measured)
    print(f"report: {run.path / 'report.md'}")
    print(run.path)


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
