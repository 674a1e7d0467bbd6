"""Part 2.1: a multilayer perceptron on small images of faces.

python -m experiments.part2_mlp                           # drawn faces, a try-out
python -m experiments.part2_mlp --data.root DIR           # one subfolder per class
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from experiments.common import (
    Range,
    RunConfig,
    SeedRun,
    Task,
    run_cli,
    run_experiment,
)
from jaxvision.data.transforms import AugmentConfig
from jaxvision.optim import OptimConfig
from jaxvision.preprocessing import Preprocessing, ResizeMode

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Trains one hidden layer from scratch."""

    TUNABLE: ClassVar[Mapping[str, Range]] = {
        "optim.learning_rate": Range(1e-5, 1e-2, log=True),
        "dropout_rate": Range(0.0, 0.7),
        "optim.weight_decay": Range(1e-5, 1e-1, log=True),
        "hidden": Range(50, 1000, log=True),
    }

    hidden: int = 300
    """Units of the hidden layer."""
    batch_norm: bool = True
    """Batch norm before the ReLU."""
    dropout_rate: float = 0.3
    """Share of hidden units that are dropped in training."""
    initializer: Literal["xavier_uniform", "kaiming_uniform"] = "xavier_uniform"
    """How kernels are drawn."""
    image_size: int = 28
    """Height and width of the network's input, in pixels."""
    resize_mode: ResizeMode = "stretch"
    """How an image becomes square: cut, squeezed, or with black bars."""
    epochs: int = 100
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(
            optimizer="adam", learning_rate=1e-3, schedule="cosine", weight_decay=0.01
        )
    )
    augment: AugmentConfig = dataclasses.field(
        default_factory=lambda: AugmentConfig(horizontal_flip=0.5, translation=0.05)
    )


def prepare(config: Config) -> Task:
    """The network as the config has it, from fresh weights."""
    from experiments.training import make_network, train_network

    def train(run: SeedRun) -> "Classifier":
        model, variables = make_network(
            run,
            "mlp",
            hidden=config.hidden,
            batch_norm=config.batch_norm,
            dropout_rate=config.dropout_rate,
            initializer=config.initializer,
        )
        return train_network(run, model, variables)

    size = (config.image_size, config.image_size)
    return Task(
        preprocessing=Preprocessing(size=size, resize_mode=config.resize_mode),
        train=train,
        notes=f"Every value of a {size[0]}×{size[1]} color image, scaled to "
        f"[-1, 1], goes into {config.hidden} hidden units.",
    )


def main(config: Config) -> None:
    run_experiment(
        "part2_mlp",
        config,
        title="Part 2.1: a multilayer perceptron",
        question="How well does one hidden layer on raw pixels name faces?",
        prepare=prepare,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
