"""Prado: VGG, ResNet and MobileNet from scratch on the paintings of a few painters.

python -m experiments.prado_scratch                       # drawn paintings, a try-out
python -m experiments.prado_scratch --data.root DIR       # one subfolder per painter
python -m experiments.prado_scratch --data.root DIR --image-size 64 --epochs 20
"""

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from experiments.common import RunConfig, SeedRun, Task, run_cli
from experiments.comparison import Compared, Way, run_comparison
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.optim import OptimConfig
from jaxvision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxvision.classifier import Classifier
    from jaxvision.report import markdown

Network = Literal["vgg12", "resnet29", "mobilenet_prado"]

SECTION = "Prado"
"""Of the published figures."""

SOURCE = (
    "Richter: J. P. Richter, “Image Classification with Convolutional Neural "
    "Networks”, Università degli Studi di Milano, 2024. Single runs on 2,364 paintings "
    "of the Prado by Goya, Bayeu, Haes, Pizarro and Ribera; accuracies on 472 of them, "
    "measured after every epoch."
)


@dataclasses.dataclass(frozen=True)
class PradoConfig(RunConfig):
    """What all experiments on the Prado share: the report's own settings."""

    DEMO_KIND: ClassVar[str] = "paintings"

    data: DataConfig = dataclasses.field(
        default_factory=lambda: DataConfig(split=SplitConfig(0.7, 0.1, 0.2))
    )
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(
            "adam",
            1e-3,
            schedule="exponential",
            decay=math.exp(-0.05),
            hold_epochs=10,
        )
    )
    epochs: int = 50
    class_weights: bool = True
    output_biases: bool = True
    image_size: int = 224
    """Height and width that images are resized to, in pixels."""
    select: Literal["last", "best"] = "last"
    """Which epoch's network is measured: the last, as in the report, or the best one on
    the validation images. They are few: which is best of 50 is much a matter of
    chance."""
    limit: int | None = None
    """At most this many images of each class, for trials: `--data.limit`."""

    def limited(self) -> "PradoConfig":
        """The config with its `limit` where the data are chosen.

        Raises:
          InputError: a size below 1, or patience that waits for nothing.
        """
        if self.image_size < 1:
            raise InputError(f"--image-size {self.image_size}: must be at least 1")
        if self.patience is not None and self.select == "last":
            raise InputError(
                "--patience waits for a best epoch: give --select best too"
            )
        if self.limit is None:
            return self
        data = dataclasses.replace(self.data, limit=self.limit)
        return dataclasses.replace(self, data=data)


AUGMENT = AugmentConfig(horizontal_flip=0.5, pca_color=0.1)
"""The report's; PCA color shifts with AlexNet's deviation."""


@dataclasses.dataclass(frozen=True)
class Config(PradoConfig):
    """Trains three networks from scratch and compares them."""

    augment: AugmentConfig = AUGMENT
    networks: tuple[Network, ...] = ("vgg12", "resnet29", "mobilenet_prado")
    """Which of them."""


def images(image_size: int) -> Preprocessing:
    """As the report has them: squeezed into a square, each standardized by itself."""
    return Preprocessing(
        size=(image_size, image_size), resize_mode="stretch", standardize=True
    )


def from_scratch(config: PradoConfig, network: Network) -> Task:
    """One of the networks, from fresh weights."""
    from experiments.training import make_network, train_network

    def train(run: SeedRun) -> "Classifier":
        return train_network(run, *make_network(run, network), select=config.select)

    size = f"{config.image_size}×{config.image_size}"
    notes = (
        f"`{network}` from fresh weights on images of {size}, each standardized by "
        f"itself. {how(config)}"
    )
    return Task(images(config.image_size), train, notes)


def how(config: PradoConfig) -> str:
    """The training in words, for a report."""
    optim, augment = config.optim, config.augment
    rate = f"{optim.optimizer}, learning rate {optim.learning_rate:g}"
    if optim.schedule == "exponential":
        rate += f" for {optim.hold_epochs} epoch(s), then × {optim.decay:.4g} an epoch"
    per = "pixel" if augment.pca_per_pixel else "image"
    said = {
        f"mirrored with a probability of {augment.horizontal_flip:g}": (
            augment.horizontal_flip
        ),
        f"shifted along the principal colors of the training images, α ~ N(0, "
        f"{augment.pca_color:g}²) for each {per}": augment.pca_color,
    }
    changes = " and ".join(words for words, wanted in said.items() if wanted)
    return (
        f"{config.epochs} epochs at most, {config.batch_size} images a step, {rate}. "
        + (f"Training images are {changes}. " if changes else "")
        + ("Classes are weighted in the loss. " if config.class_weights else "")
        + ("Output biases give the class frequencies." if config.output_biases else "")
    )


def make_ways(config: Config) -> list[Way]:
    """A way for each network."""
    if not config.networks:
        raise InputError("--networks: give at least one")
    return [
        Way(
            network,
            config,
            partial(from_scratch, config, network),
            costs(network, config.image_size),
            config.select,
        )
        for network in dict.fromkeys(config.networks)
    ]


def costs(network: str, image_size: int) -> dict[str, int]:
    """Parameters and multiply-adds of a network for five painters, as the Prado has.

    Raises:
      InputError: the images are too small for it.
    """
    from jaxvision.models import create_model
    from jaxvision.models.summary import summarize_model

    rows = summarize_model(create_model(network, 5), (image_size, image_size, 3))
    return {
        "parameters (5 classes)": sum(row.parameters for row in rows),
        "multiply-adds": sum(row.multiply_adds for row in rows),
    }


def published_section(compared: "Sequence[Compared]") -> "list[markdown.Section]":
    """Our figures beside the report's, where it has some."""
    from experiments.tables import beside_published
    from jaxvision.report import markdown

    measured = {one.way.name: one.measurements for one in compared}
    table = beside_published(SECTION, measured)
    if not table.rows:
        return []
    blocks = [table, markdown.Text(SOURCE)]
    return [markdown.Section("Beside what was published", blocks)]


def main(config: Config) -> None:
    run_comparison(
        "prado_scratch",
        config.limited(),
        title="Prado: three networks from scratch",
        question="How well do a VGG, a ResNet and a MobileNet that begin with nothing "
        "tell painters apart, and what do they cost?",
        make_ways=make_ways,
        sections=published_section,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
