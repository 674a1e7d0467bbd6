"""Faces or comics: the tuned network, measured on test images with five seeds.

python -m experiments.comics_final                        # the report's own optimum
python -m experiments.comics_final --data.root DIR --tuned runs/comics_tune/TIME
"""

import dataclasses
from pathlib import Path

from experiments import comics_baseline
from experiments.common import run_cli, run_experiment
from experiments.tuning import with_tuned
from jaxvision.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class Config(comics_baseline.Config):
    """Trains vgg13_bn from scratch with tuned settings."""

    tuned: Path | None = None
    """Run folder of `comics_tune`, whose best settings take the place of those given;
    none: the learning rate and dropout that the report found best, or those given."""
    dropout_rate: float = 0.1
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig("adam", 1e-4)
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def main(config: Config) -> None:
    if config.tuned is not None:
        config = with_tuned(config, config.tuned)
    run_experiment(
        "comics_final",
        config,
        title="Faces or comics: the tuned network",
        question="How well does the network with the tuned learning rate and dropout "
        "tell faces from comics that it has never seen?",
        prepare=comics_baseline.prepare,
        published=(comics_baseline.SECTION, "tuned"),
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
