"""Faces or comics: a VGG with batch norm tells photographs from drawings.

python -m experiments.comics_baseline                     # drawn faces, a try-out
python -m experiments.comics_baseline --data.root DIR     # two subfolders of images
python -m experiments.comics_baseline --image-size 48 --epochs 6 --data.limit 250
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from experiments.common import Range, RunConfig, SeedRun, Task, run_cli, run_experiment
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.optim import OptimConfig
from jaxvision.preprocessing import Preprocessing, ResizeMode

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier

SECTION = "Comics"
"""Of the published figures."""


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Trains vgg13_bn from scratch with the settings of the report."""

    DEMO_KIND: ClassVar[str] = "comics"
    TUNABLE: ClassVar[Mapping[str, Range]] = {
        "optim.learning_rate": Range(1e-5, 1e-2, log=True),
        "dropout_rate": Range(0.0, 0.5),
    }

    image_size: int = 96
    """Height and width of the network's input, in pixels."""
    resize_mode: ResizeMode = "stretch"
    """How an image becomes square: cut, squeezed, or with black bars."""
    dropout_rate: float = 0.2
    """Share of values that are dropped after each pool and after the dense layer."""
    bn_momentum: float = 0.9
    """What batch norm's running statistics keep of themselves a step. The report's
    framework has .99, which needs more steps than a few hundred images give."""
    binary: bool = True
    """Binary cross-entropy on one logit; else cross-entropy of a softmax over two."""
    epochs: int = 12
    data: DataConfig = dataclasses.field(
        default_factory=lambda: DataConfig(split=SplitConfig(0.8, 0.1, 0.1))
    )
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig("adam", 1e-3)
    )


def prepare(config: Config) -> Task:
    """The network as the config has it, from fresh weights."""
    from experiments.training import make_network, train_network

    if config.image_size < 16:
        raise InputError(
            f"--image-size {config.image_size}: must be at least 16, which four pools "
            "halve to one pixel"
        )

    def train(run: SeedRun) -> "Classifier":
        model, variables = make_network(
            run,
            "vgg13_bn",
            binary=config.binary,
            dropout_rate=config.dropout_rate,
            bn_momentum=config.bn_momentum,
        )
        return train_network(run, model, variables)

    size = config.image_size
    loss = (
        "one logit, that of the second class, and binary cross-entropy"
        if config.binary
        else "two logits and the cross-entropy of their softmax"
    )
    return Task(
        preprocessing=Preprocessing(
            size=(size, size),
            resize_mode=config.resize_mode,
            gray=True,
            mean=(0.0,),
            std=(255.0,),
        ),
        train=train,
        notes=f"`vgg13_bn` on gray images of {size}×{size} pixels, divided by 255; "
        f"{loss}; dropout {config.dropout_rate:g} after each pool and the dense layer; "
        f"{config.optim.optimizer}, learning rate {config.optim.learning_rate:g}.",
    )


def main(config: Config) -> None:
    run_experiment(
        "comics_baseline",
        config,
        title="Faces or comics: the baseline",
        question="How well does a VGG with batch norm tell a photograph of a face from "
        "a comic drawn after one?",
        prepare=prepare,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
