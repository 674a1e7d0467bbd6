"""`jaxvision tune`: Bayesian optimization of the settings of a fine-tuning."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from jaxvision.cli.experiment import tune
from jaxvision.cli.flags import ExperimentFlags
from jaxvision.cli.process import command
from jaxvision.cli.train import FINETUNE
from jaxvision.declaration import default_config
from jaxvision.settings import TuneConfig

TUNE = dataclasses.replace(
    FINETUNE,
    name="tune",
    title="Tuning",
    question="Which settings does Bayesian optimization find best for these images?",
)


def main(arguments: Sequence[str]) -> None:
    """Searches for good settings of a fine-tuning, with Optuna.

    jaxvision tune PHOTOS --tune.trials 20
    jaxvision tune PHOTOS --method features --tune.parameters optim.learning_rate

    The same command continues a study that was stopped; started several times at once,
    its processes share the study.
    """
    flags = ExperimentFlags.of(
        TUNE, default_config(TUNE), photos=True, tune=TuneConfig()
    )
    with command(flags.name_of):
        settings = flags.parse(
            arguments, prog="jaxvision tune", description=main.__doc__ or ""
        )

        def next_command(run: Path) -> str:
            given = flags.arguments(dataclasses.replace(settings, tune=None))
            return shlex.join(["jaxvision", "finetune", *given, "--tuned", str(run)])

        tune(TUNE, settings, next_command)
