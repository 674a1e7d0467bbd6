"""Part 2.2: a pretrained network as a fixed feature extractor, a small head on top.

python -m experiments.part2_features                      # drawn faces, a try-out
python -m experiments.part2_features --data.root DIR --backbone alexnet
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from experiments.common import (
    Range,
    SeedRun,
    Task,
    TransferConfig,
    run_cli,
    run_experiment,
)
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Config(TransferConfig):
    """Trains a head on features that one pass of the backbone computes."""

    TUNABLE: ClassVar[Mapping[str, Range]] = {
        "optim.learning_rate": Range(1e-5, 1e-2, log=True),
        "dropout_rate": Range(0.0, 0.8),
        "optim.weight_decay": Range(1e-5, 1e-1, log=True),
    }

    layer: str | None = None
    """Layer whose output is the features, such as conv4, features or fc7 of alexnet;
    none: the backbone's last."""
    hidden: tuple[int, ...] = (300,)
    """Units of each hidden layer of the head (dense, batch norm, ReLU, dropout)."""
    dropout_rate: float = 0.5
    """Share of the head's hidden units that are dropped in training."""
    epochs: int = 200
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(
            optimizer="adam", learning_rate=1e-3, schedule="cosine", weight_decay=1e-3
        )
    )


def prepare(config: Config) -> Task:
    """A head on the chosen layer of the chosen backbone."""
    from experiments.training import (
        choose_start,
        make_network,
        save_network,
        train_head,
    )
    from jaxvision.models import create_model

    start = choose_start(config)
    name = start.pretrained.source.model
    create_model(name, 2, stop_at=config.layer)  # refuses an unknown layer

    def train(run: SeedRun) -> "Classifier":
        model, variables = make_network(
            run,
            name,
            start.pretrained,
            stop_at=config.layer,
            head_hidden=config.hidden,
            head_dropout=config.dropout_rate,
        )
        options = {"epochs": config.epochs, "optim": config.optim}
        return save_network(run, *train_head(run, model, variables, **options))

    layer = config.layer or "the last before the head"
    notes = f"{start.notes} Features: layer `{layer}`, computed once and cached."
    return Task(start.preprocessing, train, notes)


def main(config: Config) -> None:
    run_experiment(
        "part2_features",
        config,
        title="Part 2.2: a pretrained network as a fixed feature extractor",
        question="How well do a frozen network's activations tell faces apart?",
        prepare=prepare,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
