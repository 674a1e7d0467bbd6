"""The command line of an experiment: `main(EXPERIMENT)`."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.cli.flags import ExperimentFlags, Settings, flags_of, parse
from jaxvision.cli.process import command, keep_compiled

if TYPE_CHECKING:
    from jaxvision.experiment import Analysis, Experiment, Results


def main(
    experiment: "Experiment | Analysis", arguments: Sequence[str] | None = None
) -> None:
    """Runs an experiment with the settings of the command line.

    Args:
      experiment: what to run, declared in the module that is run.
      arguments: in place of the program's own.
    """
    from jaxvision.experiment import Experiment

    module = sys.modules["__main__"]
    name = module.__spec__.name if module.__spec__ else f"experiments.{experiment.name}"
    prog = f"python -m {name}"
    description = module.__doc__ or experiment.question
    if not isinstance(experiment, Experiment):
        with command(flags_of(experiment.config).get):
            config = parse(
                experiment.config, arguments, prog=prog, description=description
            )
            keep_compiled()
            folder = experiment.run(config)
            print(f"report: {folder / 'report.md'}")
            print(folder)
        return
    flags = ExperimentFlags.of(experiment)
    with command(flags.name_of):
        settings = flags.parse(arguments, prog=prog, description=description)
        run(experiment, settings, prog)


def run(experiment: "Experiment", settings: Settings, prog: str) -> None:
    """Trains, prints the results, and says how to continue what was stopped.

    Args:
      prog: the command, without arguments.
    """
    from jaxvision.experiment import Stopped, run_experiment
    from jaxvision.training.distributed import distributed_session

    distributed = settings.config.distributed
    keep_compiled()
    resume = _resume_command(prog)
    with distributed_session(distributed):
        try:
            results = run_experiment(
                experiment,
                settings.config,
                recipe=settings.recipe,
                options=settings.options,
                resume_command=resume,
            )
        except Stopped as stop:
            how = "the same command continues"
            if stop.folder is not None:
                how = f"continue with: {resume(stop.folder)}"
                how += " and the same --distributed" if distributed.wanted else ""
            print(f"interrupted; {how}", file=sys.stderr)
            raise SystemExit(128 + stop.signal_number) from None
        print_results(results)


def print_results(results: "Results") -> None:
    """Prints the figures that matter most and, last, the run folder."""
    from jaxvision.report.formats import format_mean_sd

    demo = " (demo data)" if results.dataset.is_demo else ""
    metrics = ("test_accuracy", "val_accuracy") if results.single else ()
    for (table, row), found in results.measurements.items():
        label = "/".join(filter(None, (table, row)))
        for metric in metrics or (results.headline,):
            if (figure := found.get(metric)) is None:
                continue
            spread = format_mean_sd(figure.mean, figure.sd)
            title = metric.replace("_", " ")
            title = f"{label}: {title}" if label else title
            print(f"{title} {spread}, {len(figure.values)} seed(s){demo}")
    if not results.experiment.sweep:
        print(f"checkpoint: {results.checkpoint}")
    print(f"report: {results.run.path / 'report.md'}")
    print(results.run.path)


def _resume_command(prog: str) -> Callable[[Path], str]:
    return lambda folder: f"{prog} --resume {shlex.quote(str(folder))}"
