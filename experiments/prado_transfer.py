"""Prado: pretrained networks, frozen, with a new last layer for a few painters.

python -m experiments.prado_transfer                      # drawn paintings, a try-out
python -m experiments.prado_transfer --data.root DIR      # one subfolder per painter
python -m experiments.prado_transfer --data.root DIR --weights.vgg19 FILE.h5
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments.common import SeedRun, Task, run_cli
from experiments.comparison import Compared, Way, run_comparison
from experiments.prado_scratch import PradoConfig, costs, how, published_section
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import ResizeMode

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier
    from jaxvision.report import markdown

Backbone = Literal[
    "vgg19",
    "vgg19_torchvision",
    "resnet50_v2",
    "mobilenet_v2",
    "efficientnet_v2_b3",
    "efficientnet_lite0",
    "alexnet",
]


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    """Files with weights, each in place of a download."""

    vgg19: Path | None = None
    """Keras's VGG19, with its top (.h5)."""
    vgg19_torchvision: Path | None = None
    """torchvision's VGG-19 (.pth)."""
    resnet50_v2: Path | None = None
    """Keras's ResNet50V2, with its top (.h5)."""
    mobilenet_v2: Path | None = None
    """Keras's MobileNetV2, alpha 1, 224, with its top (.h5)."""
    efficientnet_v2_b3: Path | None = None
    """Keras's EfficientNetV2B3, with its top (.h5)."""
    efficientnet_lite0: Path | None = None
    """EfficientNet-Lite0 (.pth); without it, the one that is installed."""
    alexnet: Path | None = None
    """torchvision's AlexNet (.pth)."""


@dataclasses.dataclass(frozen=True)
class Config(PradoConfig):
    """Trains a last layer on features of frozen networks, which are computed once."""

    backbones: tuple[Backbone, ...] = (
        "vgg19",
        "resnet50_v2",
        "mobilenet_v2",
        "efficientnet_v2_b3",
        "efficientnet_lite0",
    )
    """Pretrained networks; those whose weights are out of reach are left out and said
    to be."""
    weights: WeightFiles = dataclasses.field(default_factory=WeightFiles)
    resize_mode: ResizeMode = "stretch"
    """How an image becomes square: cut, squeezed, or with black bars."""
    epochs: int = 25

    def file(self, backbone: str) -> Path | None:
        """The file that was given for a backbone."""
        return getattr(self.weights, backbone)


def out_of_reach(config: Config) -> dict[str, str]:
    """Why weights are not to be had, for each backbone of which that is so.

    Those of the others are in the cache afterwards, or come with the installation.

    Raises:
      InputError: a file that was given is not what it should be; or none is to be had.
    """
    from jaxvision.pretrained import load

    reasons = {}
    for name in config.backbones:
        try:
            load(name, weights=config.file(name))
        except InputError as error:
            if config.file(name) is not None:
                raise
            reasons[name] = str(error).replace("--weights PATH", f"{_flag(name)} FILE")
    if len(reasons) == len(set(config.backbones)):
        listed = "; ".join(reasons.values()) or "give at least one"
        raise InputError(f"--backbones: nothing to begin with: {listed}")
    return reasons


def _flag(backbone: str) -> str:
    return f"--weights.{backbone.replace('_', '-')}"


def frozen(config: Config, backbone: str) -> Task:
    """A dense layer on the last features of a pretrained network."""
    from experiments.training import (
        evaluate_on_features,
        make_network,
        save_network,
        train_head,
    )
    from jaxvision.pretrained import load

    pretrained = load(backbone, weights=config.file(backbone))
    source = pretrained.source

    def train(run: SeedRun) -> "Classifier":
        model, variables = make_network(run, source.model, pretrained)
        options = {
            "epochs": config.epochs,
            "optim": config.optim,
            "select": config.select,
        }
        return save_network(run, *train_head(run, model, variables, **options))

    origin = config.file(backbone) or source.origin
    notes = (
        f"One dense layer on the features of `{backbone}`, which stays as it is: its "
        "features are computed once and cached. Images as its weights want them, "
        f"without random changes. Weights: {origin}; license: {source.license}. "
        f"{how(config)}"
    )
    size = (config.image_size, config.image_size)
    preprocessing = dataclasses.replace(
        source.preprocessing, size=size, resize_mode=config.resize_mode
    )
    return Task(preprocessing, train, notes, evaluate_on_features)


def make_ways(config: Config, missing: dict[str, str]) -> list[Way]:
    """A way for each backbone whose weights are to be had.

    Args:
      missing: is given the reasons of the others.
    """
    from jaxvision.pretrained import find_source

    if config.augment != AugmentConfig():
        raise InputError(
            "--augment: features are computed once, from images as they are; drop it"
        )
    facts = {
        name: costs(find_source(name).model, config.image_size)
        for name in dict.fromkeys(config.backbones)
    }
    missing.update(out_of_reach(config))
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    return [
        Way(name, config, partial(frozen, config, name), costs_of, config.select)
        for name, costs_of in facts.items()
        if name not in missing
    ]


def sections(
    missing: dict[str, str], compared: Sequence[Compared]
) -> "list[markdown.Section]":
    """What was published, and which backbones are not among ours."""
    from jaxvision.report import markdown

    found = published_section(compared)
    if missing:
        rows = [
            [name, reason, f"{_flag(name)} FILE"] for name, reason in missing.items()
        ]
        header = ["backbone", "why", "with its file"]
        text = "Their weights were not to be had where this was run."
        blocks = [markdown.Text(text), markdown.Table(header, rows)]
        found.append(markdown.Section("Backbones that are left out", blocks))
    return found


def main(config: Config) -> None:
    missing: dict[str, str] = {}
    run_comparison(
        "prado_transfer",
        config.limited(),
        title="Prado: frozen pretrained networks",
        question="How well do networks that were trained on ImageNet tell painters "
        "apart, once a new last layer is trained on their features?",
        make_ways=partial(make_ways, missing=missing),
        sections=partial(sections, missing),
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
