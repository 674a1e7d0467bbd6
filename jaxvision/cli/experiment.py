"""The command line of an experiment: `main(EXPERIMENT)`."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jaxvision.cli import flags
from jaxvision.cli.flags import ExperimentFlags, Settings
from jaxvision.cli.process import command, keep_compiled, use_large_pages
from jaxvision.config import to_plain
from jaxvision.declaration import Analysis, Experiment, default_config
from jaxvision.errors import with_names
from jaxvision.settings import Recipe, TuneConfig, idle_settings


def main(
    experiment: Experiment | Analysis, arguments: Sequence[str] | None = None
) -> None:
    """Runs an experiment with the settings of the command line.

    Args:
      experiment: what to run, declared in the module that is run.
      arguments: in place of the program's own.
    """
    if arguments is None:
        use_large_pages()
    prog, description = _program(experiment)
    if isinstance(experiment, Analysis):
        answer = experiment.run

        def analyze(config: object) -> None:
            keep_compiled()
            answer(config)

        flags.run(experiment.config, analyze, arguments, prog, description)
        return
    own = ExperimentFlags.of(experiment, default_config(experiment))
    with command(own.name_of):
        settings = own.parse(arguments, prog=prog, description=description)
        run(experiment, settings, prog, own.name_of)


def tune_main(
    experiment: Experiment,
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    next_command: Callable[[Path], str] | None = None,
) -> None:
    """Tunes an experiment with the settings of the command line.

    Args:
      experiment: what to tune, under the names of its tuning (see `tuning_of`).
      arguments: in place of the program's own.
      prog: the command; None: the module that is run.
      next_command: run folder -> the command that trains with the best settings, for
        the report.
    """
    if arguments is None:
        use_large_pages()
    from jaxvision.tuning import tuning_config

    module, description = _program(experiment)
    own = ExperimentFlags.of(experiment, tuning_config(experiment), tune=TuneConfig())
    with command(own.name_of):
        settings = own.parse(arguments, prog=prog or module, description=description)
        tune(experiment, settings, next_command)


def run(
    experiment: Experiment,
    settings: Settings,
    prog: str,
    name_of: Callable[[str], str | None],
) -> None:
    """Trains, and prints how to continue what was stopped.

    Args:
      prog: the command, without arguments.
      name_of: setting -> its flag; None: it has none.
    """
    from jaxvision.experiment import run_experiment
    from jaxvision.training.distributed import distributed_session

    for line in idle_lines(experiment, settings):
        print(with_names(line, name_of), file=sys.stderr)

    resume = partial(resume_command, prog)
    keep_compiled()
    distributed = settings.config.distributed
    several = " and the same --distributed" if distributed.wanted else ""
    with (
        distributed_session(distributed, name_of=name_of),
        continued(lambda folder: resume(folder) + several),
    ):
        run_experiment(
            experiment,
            settings.config,
            recipe=settings.recipe,
            options=settings.options,
            epochs=settings.epochs,
            resume_command=resume,
        )


def resume_command(prog: str, folder: Path) -> str:
    """What continues the run of a checkpoint folder; `prog` is without arguments."""
    return f"{prog} --resume {shlex.quote(str(folder))}"


def idle_lines(
    experiment: Experiment,
    settings: Settings,
    idle: Callable[[Recipe], Mapping[str, str]] = idle_settings,
) -> list[str]:
    """A line for each setting that was given and plays no part in any recipe.

    Args:
      idle: recipe -> the settings that play no part, and why.
    """
    from jaxvision.report.run_folder import flatten

    if settings.recipe is None or experiment.recipe is None:
        return []
    given, own = (
        flatten(to_plain(one)) for one in (settings.recipe, experiment.recipe)
    )
    tables = experiment.tables_of(settings.recipe, settings.options).values()
    recipes = [recipe for table in tables for recipe in table.recipes.values()]
    first, *rest = map(idle, recipes)
    return [
        f"`{setting}` plays no part {why}"
        for setting, why in first.items()
        if given.get(setting) != own.get(setting)
        and all(setting in other for other in rest)
    ]


def tune(
    experiment: Experiment,
    settings: Settings,
    next_command: Callable[[Path], str] | None = None,
) -> None:
    """Tunes, and prints how to continue what was stopped.

    Args:
      next_command: as of `tune_main`.
    """
    from jaxvision import tuning

    assert settings.tune is not None
    keep_compiled()
    with continued(str):
        tuning.tune(
            experiment,
            settings.config,
            settings.tune,
            recipe=settings.recipe,
            next_command=next_command,
        )


@contextmanager
def continued(resume: Callable[[Path], str]) -> Iterator[None]:
    """Ends the process, where it was asked to stop, with how to continue.

    Args:
      resume: checkpoint folder -> the command that continues it.
    """
    from jaxvision.experiment import Stopped

    try:
        yield
    except Stopped as stop:
        how = "the same command continues"
        if stop.folder is not None:
            how = f"continue with: {resume(stop.folder)}"
        print(f"interrupted; {how}", file=sys.stderr)
        raise SystemExit(128 + stop.signal_number) from None


def _program(experiment: Experiment | Analysis) -> tuple[str, str]:
    """The command that runs this program, and what its help says first."""
    module = sys.modules["__main__"]
    name = f"experiments.{experiment.name}"
    # Of a script that is run by its path, the module has no spec.
    if module.__spec__ is not None:
        name = module.__spec__.name
    return f"python -m {name}", module.__doc__ or experiment.question
