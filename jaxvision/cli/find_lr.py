"""`jaxvision find-lr`: which learning rate suits a training."""

import dataclasses
import sys
from collections.abc import Sequence

from jaxvision.cli.experiment import idle_lines
from jaxvision.cli.flags import ExperimentFlags
from jaxvision.cli.process import command, keep_compiled
from jaxvision.cli.train import FINETUNE
from jaxvision.declaration import default_config
from jaxvision.errors import with_names
from jaxvision.settings import RateConfig, Recipe, idle_settings

FIND = dataclasses.replace(
    FINETUNE,
    name="find-lr",
    options=RateConfig,
    search_space={},
)

HIDDEN = (
    "distributed", "data.folds", "checkpoints", "save_seconds", "measure_train",
    "resume", "tensorboard",
)  # fmt: skip
"""Settings of a run that a range test has no use for."""


def main(arguments: Sequence[str]) -> None:
    """Suggests a learning rate: one short training, each step at a higher one.

    jaxvision find-lr PHOTOS
    jaxvision find-lr PHOTOS --method scratch --network convnet --image-size 64

    The settings are those of a training; give all that the training will have.
    """
    flags = ExperimentFlags.of(FIND, default_config(FIND), photos=True, hide=HIDDEN)
    with command(flags.name_of):
        settings = flags.parse(
            arguments, prog="jaxvision find-lr", description=main.__doc__ or ""
        )
        from jaxvision.rate_finder import idle_in_range_test
        from jaxvision.rate_report import report_learning_rate

        for line in idle_lines(
            FIND,
            settings,
            lambda one: {**idle_settings(one), **idle_in_range_test(one)},
        ):
            print(with_names(line, flags.name_of), file=sys.stderr)
        keep_compiled()
        report_learning_rate(
            settings.config, settings.recipe or Recipe(), settings.options
        )
