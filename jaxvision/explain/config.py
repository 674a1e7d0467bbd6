"""Settings of the reports on what a network sees.

They stand apart from what reads them: help need not wait for JAX.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from jaxvision.config import Bounds

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
"""The names of `jaxvision.explain.methods.METHODS`, and all of them."""

USUAL_SIZE = {
    "mlp": 28,
    "simple_cnn": 50,
    "convnet": 50,
    "vgg13_bn": 96,
    "efficientnet_v2_b3": 300,
}
"""Height and width that a network is mostly given, where it is not 224."""


@dataclasses.dataclass(frozen=True)
class ExplainConfig:
    """Explains what a trained network predicts for images."""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    images: tuple[Path, ...]
    """Image files."""
    method: MethodName = "guided_backprop"
    """How to explain; all: every method that the network allows."""
    target: str | None = None
    """Name of the class to explain; none: the predicted one."""
    layer: str | None = None
    """Layer that Grad-CAM looks at; none: that of the last convolution."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""


@dataclasses.dataclass(frozen=True)
class SaliencyConfig:
    """Explains a trained network on its own images: gradients, attention, units."""

    checkpoint: Path | None = None
    """Folder of a training run, or of one of its seeds; none: the newest finished run
    of `trained_by` in `checkpoints`."""
    root: Path | None = None
    """Folder of the images, where it has moved; they are matched by name."""
    split: Literal["train", "val", "test"] = "test"
    """Which part of the images."""
    people: tuple[str, ...] = ()
    """Classes with one image each explained; none: all."""
    image: str | None = None
    """The correctly classified image that every method explains, as its path in the
    folder; none: the first."""
    checked: Annotated[int, Bounds(1)] = 4
    """Images a seed for the figures: does an explanation depend on what the network
    has learned, and do integrated gradients add up?"""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""
    checkpoints: Path = Path("checkpoints")
    """Where trained networks are looked for."""
    trained_by: str = "part2_finetune"
    """Experiment whose network is explained where none is named."""


@dataclasses.dataclass(frozen=True)
class WeightsOptions:
    """Which hidden units of a perceptron are shown."""

    person: str | None = None
    """Class whose most weighted units are shown; none: the first."""
    units: tuple[Annotated[int, Bounds(0)], ...] = ()
    """Further units, by index; none: the first and the middle one."""


@dataclasses.dataclass(frozen=True)
class ReceptiveFieldConfig:
    """Receptive field of every layer, by recursion and by the gradient."""

    network: str = "simple_cnn"
    """Name of the network, in `jaxvision.models.MODELS`."""
    image_size: Annotated[int, Bounds(1)] | None = None
    """Height and width of the image, in pixels; none: what the network is made
    for."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""
