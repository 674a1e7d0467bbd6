"""Part 2.4: a network that knows ImageNet learns to name faces.

python -m experiments.part2_finetune                      # drawn faces, a try-out
python -m experiments.part2_finetune --data.root DIR      # one subfolder per class
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from experiments.common import (
    Range,
    SeedRun,
    Task,
    TransferConfig,
    run_cli,
    run_experiment,
)
from jaxvision.data.transforms import AugmentConfig
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Config(TransferConfig):
    """Fine-tunes a pretrained network."""

    TUNABLE: ClassVar[Mapping[str, Range]] = {
        "optim.learning_rate": Range(1e-5, 1e-2, log=True),
        "optim.backbone_lr_multiplier": Range(0.01, 1.0, log=True),
        "optim.weight_decay": Range(1e-5, 1e-1, log=True),
    }

    method: Literal["features", "head", "full"] = "full"
    """Train the last layer on features computed once; the last layer on augmented
    images; or everything."""
    head_epochs: int = 100
    """For full: epochs of the last layer alone, on features, before all is trained."""
    head_learning_rate: float = 1e-3
    """Peak learning rate (Adam) of those epochs."""
    freeze_bn: bool = True
    """Batch norm keeps ImageNet's statistics; its scale and bias are trained."""
    epochs: int = 10
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(
            optimizer="adamw",
            learning_rate=1e-3,
            schedule="cosine",
            warmup_epochs=1.0,
            weight_decay=0.01,
            clip_norm=1.0,
            backbone_lr_multiplier=0.3,
        )
    )
    augment: AugmentConfig = dataclasses.field(
        default_factory=lambda: AugmentConfig(
            resized_crop=0.3, horizontal_flip=0.5, brightness=0.2, contrast=0.2
        )
    )


def prepare(config: Config) -> Task:
    """The way that `method` names, from the chosen backbone."""
    from experiments.training import (
        choose_start,
        make_network,
        save_network,
        train_head,
        train_network,
    )

    start = choose_start(config)

    def train(run: SeedRun) -> "Classifier":
        model, variables = make_network(
            run,
            start.pretrained.source.model,
            start.pretrained,
            freeze_bn=config.freeze_bn,
        )
        if config.method == "features":
            options = {"epochs": config.epochs, "optim": config.optim}
            return save_network(run, *train_head(run, model, variables, **options))
        if config.method == "head":
            return train_network(run, model, variables, frozen=("backbone",))
        if config.head_epochs:
            optim = OptimConfig("adam", config.head_learning_rate, schedule="cosine")
            options = {"epochs": config.head_epochs, "optim": optim, "listen": False}
            variables, _ = train_head(run, model, variables, **options)
        return train_network(run, model, variables)

    notes = f"{start.notes} Method `{config.method}`."
    return Task(start.preprocessing, train, notes)


def main(config: Config) -> None:
    run_experiment(
        "part2_finetune",
        config,
        title="Part 2.4: fine-tuning a pretrained network",
        question="How well does a network that was trained on ImageNet name faces, "
        "once its last layer is replaced and it is trained on a few of each person?",
        prepare=prepare,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
