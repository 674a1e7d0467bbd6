"""All of part 1, on one page.

python -m experiments.part1                               # drawn paintings
python -m experiments.part1 --data.root DIR --seeds 0 1 2 # one subfolder per painter

What is finished is not trained again. 2 cores, 3 seeds: 16 to 18 min before
`part1_transfer`.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated

from experiments import report
from experiments.catalog import collect
from experiments.part1_baseline import SEEDS, SPLIT
from jaxvision.cli import flags
from jaxvision.config import Bounds
from jaxvision.data.config import DataConfig
from jaxvision.declaration import Experiment, default_config

EXPERIMENTS = (
    "part1_baseline",
    "part1_pooling",
    "part1_regularization",
    "part1_architecture",
    "part1_tuning",
    "part1_robustness",
    "part1_transfer",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs every experiment of part 1."""

    data: DataConfig = DataConfig(split=SPLIT)
    seeds: tuple[Annotated[int, Bounds(0, 2**32 - 1)], ...] = SEEDS
    """One training each: seed of the split, the initialization, the order and
    dropout."""
    epochs: Annotated[int, Bounds(1)] | None = None
    """At most this many epochs in every row, for trials; none: each row's own."""
    runs: Path = Path("runs")
    """Reports go to new folders in here, and the page to part1.html."""
    checkpoints: Path = Path("checkpoints")
    """Networks go to new folders in here."""


def main(config: Config) -> None:
    from jaxvision.cli.experiment import continued, resume_command
    from jaxvision.cli.process import keep_compiled
    from jaxvision.experiment import run_experiment

    keep_compiled()
    folders = []
    for name in EXPERIMENTS:
        experiment = collect()[name]
        assert isinstance(experiment, Experiment)
        print(f"\n{experiment.name}", flush=True)
        own = default_config(experiment)
        data = dataclasses.replace(
            config.data,
            split=own.data.split if config.data.split == SPLIT else config.data.split,
            folds=config.data.folds or own.data.folds,
        )
        settings = dataclasses.replace(
            own,
            data=data,
            seeds=config.seeds,
            max_epochs=config.epochs,
            runs=config.runs,
            checkpoints=config.checkpoints,
        )
        resume = partial(resume_command, f"python -m experiments.{name}")
        with continued(resume):
            results = run_experiment(experiment, settings, resume_command=resume)
        folders.append(results.run.path)
    out = config.runs / "part1.html"
    report.main(report.Config(tuple(folders), config.runs, out))


if __name__ == "__main__":
    flags.run(Config, main, None, "python -m experiments.part1", __doc__)
