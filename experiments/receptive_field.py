"""1.1 How much of the image does each layer see?

python -m experiments.receptive_field --network simple_cnn
python -m experiments.receptive_field --network alexnet --image-size 224

By recursion and by the gradient, in seconds. Two convolutions of kernels 5 and 3 see
7×7 pixels.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxvision.cli.experiment import main
from jaxvision.declaration import Analysis
from jaxvision.explain.config import ReceptiveFieldConfig


@dataclasses.dataclass(frozen=True)
class Config(ReceptiveFieldConfig):
    """Receptive field of every layer, by recursion and by the gradient."""

    network: Annotated[str, tyro.conf.arg(aliases=("--model",))] = "simple_cnn"
    """Name of the network, in `jaxvision.models.MODELS`."""


def run(config: ReceptiveFieldConfig) -> Path:
    from jaxvision.explain.receptive_field import receptive_field

    return receptive_field(config)


ALEXNET = "--network alexnet --image-size 224"

EXPERIMENT = Analysis(
    name="receptive_field",
    section="1.1",
    title="Receptive field",
    question="How much of the image does each layer see?",
    chapter="part-1",
    config=Config,
    run=run,
    reference="Two convolutions of stride 1 see (f₁ + f₂ − 1)² pixels, 7×7 for 5 and "
    "3.",
    variants=("network", "image_size"),
    laptop=("", ALEXNET),
    full=("", ALEXNET),
)

if __name__ == "__main__":
    main(EXPERIMENT)
