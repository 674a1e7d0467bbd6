"""Every experiment, one after the other, and the report of them all.

python -m experiments.all                                 # drawn images, a try-out
python -m experiments.all --artists DIR --faces DIR       # real ones where there are
python -m experiments.all --profile full --artists DIR    # with the published settings

2 cores, laptop profile: 56 min.
"""

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

from experiments import report
from experiments.catalog import collect
from jaxvision.cli import flags
from jaxvision.data.splits import read_splits
from jaxvision.declaration import Analysis, Experiment, Question
from jaxvision.errors import InputError
from jaxvision.report.formats import format_duration
from jaxvision.report.runs import BegunRun, FinishedRun, Runs, find_runs
from jaxvision.storage import writing

AnyRun = TypeVar("AnyRun", FinishedRun, BegunRun)


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs what has not been run yet; the same command again continues."""

    profile: Literal["laptop", "full"] = "laptop"
    """laptop: fewer seeds, epochs and images, for two cores; full: as published."""
    artists: Path | None = None
    """Paintings, one subfolder per painter; none: drawn ones."""
    faces: Path | None = None
    """Faces, one subfolder per person; none: drawn ones."""
    faces_per_person: int | None = None
    """This many faces of each person to learn from, of FaceScrub 70; none: 70 % of
    them."""
    prado: Path | None = None
    """The Prado's paintings, one subfolder per painter; none: drawn ones."""
    comics: Path | None = None
    """Faces and comics, a subfolder each; none: drawn ones."""
    only: tuple[str, ...] = ()
    """Names of experiments; none: all."""
    again: tuple[str, ...] = ()
    """Names of experiments to run although that is done."""
    runs: Path = Path("runs")
    """Reports go to new folders in here, and the report of all."""
    checkpoints: Path = Path("checkpoints")
    """Networks go to new folders in here."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A run of an experiment, with its arguments."""

    experiment: Question
    arguments: str = ""

    @property
    def name(self) -> str:
        return self.experiment.name


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a step.

    status: "done" now, "skipped" because it was, "failed" or "interrupted".
    reason: the last line it printed, where it failed.
    """

    step: Step
    status: Literal["done", "skipped", "failed", "interrupted"]
    seconds: float = 0.0
    reason: str = ""


def steps(config: Config) -> list[Step]:
    """The runs of a profile, in order: one may use what another before it trained."""
    return [
        Step(experiment, arguments)
        for name, experiment in collect().items()
        if not config.only or name in config.only
        for arguments in getattr(experiment, config.profile)
    ]


def main(config: Config) -> None:
    """Exit status 1 where a step failed, 128 + signal where it was interrupted."""
    known = collect()
    for name in (*config.only, *config.again):
        if name not in known:
            raise InputError(
                f"no experiment is called {name}; there are {', '.join(known)}"
            )
    for name in ("artists", "faces", "prado", "comics"):
        root = getattr(config, name)
        if root is not None and not root.is_dir():
            raise InputError("there is no such folder", setting=name, value=root)
    wanted, outcomes = steps(config), []
    with Children() as children:
        for number, step in enumerate(wanted, 1):
            print(f"\n[{number}/{len(wanted)}] {step.name}", flush=True)
            outcome = run_step(config, step, children)
            outcomes.append(outcome)
            if outcome.status == "interrupted":
                break
    _print(outcomes, len(wanted))
    report.main(
        report.Config(runs=config.runs),
        {o.step.name: o.reason for o in outcomes if o.status == "failed"},
    )
    if children.stopped:
        print("interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(128 + children.stopped)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def run_step(config: Config, step: Step, children: "Children") -> Outcome:
    """Runs one step to its end, unless that has been done."""
    began = time.monotonic()
    runs = find_runs(config.runs)
    try:
        own = step_arguments(config, step, runs)
    except InputError as error:
        print(f"failed: {error}", flush=True)
        return Outcome(step, "failed", reason=str(error))
    arguments = ["-m", f"experiments.{step.name}", *own]
    command = shlex.join(["python", *arguments])
    if find_run(runs.finished, step, command) and step.name not in config.again:
        print("done before", flush=True)
        return Outcome(step, "skipped")
    begun = find_run(runs.begun, step, command)
    if begun is not None and (folder := _resumable(config, begun)) is not None:
        arguments = [*arguments[:2], "--resume", str(folder)]
    print(shlex.join(["python", *arguments]), flush=True)
    status, last = children.run(arguments, config.runs / "logs" / step.name)
    seconds = time.monotonic() - began
    if children.stopped:
        return Outcome(step, "interrupted", seconds)
    if status:
        return Outcome(step, "failed", seconds, last or f"status {status}")
    print(f"took {format_duration(seconds)}", flush=True)
    return Outcome(step, "done", seconds)


def step_arguments(config: Config, step: Step, runs: Runs) -> list[str]:
    """The arguments of a step.

    Raises:
      InputError: the experiment that it builds on has not been run.
    """
    experiment = step.experiment
    arguments = shlex.split(step.arguments)
    if isinstance(experiment, Experiment) and (
        root := getattr(config, experiment.dataset)
    ):
        arguments += ["--data.root", str(root)]
        if experiment.dataset == "faces" and config.faces_per_person is not None:
            arguments += ["--data.split.train-per-class", str(config.faces_per_person)]
    if experiment.network_of is not None:
        trained = _newest(runs, experiment.network_of)
        folder = config.checkpoints / trained.experiment / trained.path.name
        arguments += ["--checkpoint", str(folder)]
        if experiment.takes_image:
            arguments.append(_test_image(folder))
    if experiment.tuned_by is not None:
        arguments += ["--tuned", str(_newest(runs, experiment.tuned_by).path)]
    for name, value in {"runs": config.runs, "checkpoints": config.checkpoints}.items():
        if value != Path(name) and _has(experiment, name):
            arguments += [f"--{name}", str(value)]
    return arguments


def _has(experiment: Question, setting: str) -> bool:
    if not isinstance(experiment, Analysis):
        return True
    return setting in {field.name for field in dataclasses.fields(experiment.config)}


def _newest(runs: Runs, experiment: str) -> FinishedRun:
    finished = [run for run in runs.finished if run.experiment == experiment]
    if not finished:
        raise InputError(f"it takes what {experiment} makes, which has not been run")
    return finished[-1]


def _test_image(folder: Path) -> str:
    """The first test image of a training run's first seed."""
    from jaxvision.classifier import SPLITS, ModelCard, seed_folders

    seed = seed_folders(folder)[0]
    root = ModelCard.read(seed).data["root"]
    for row in read_splits(seed / SPLITS):
        if row.split == "test":
            return str(Path(root, row.path))
    raise InputError(f"{seed / SPLITS} names no test image")


def find_run(runs: tuple[AnyRun, ...], step: Step, command: str) -> AnyRun | None:
    """The newest run of a step by this very command."""
    same = [
        run for run in runs if (run.experiment, run.command) == (step.name, command)
    ]
    return same[-1] if same else None


def _resumable(config: Config, begun: BegunRun) -> Path | None:
    """The checkpoint folder that continues a run; None: its experiment finds by itself
    what it has finished."""
    from jaxvision.experiment import CONFIG

    folder = config.checkpoints / begun.experiment / begun.path.name
    return folder if (folder / CONFIG).is_file() else None


class Children:
    """Runs one program at a time; hands it the signals that this one gets.

    stopped: the first signal, or 0.
    """

    def __init__(self) -> None:
        self.stopped = 0
        self._child: subprocess.Popen[str] | None = None
        self._told = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Children":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopped = self.stopped or number
        if self._child is not None:
            self._told = True
            self._child.send_signal(_understood(number))

    def run(self, arguments: list[str], log: Path) -> tuple[int, str]:
        """Runs Python; shows and logs what it prints.

        Returns:
          Its exit status and the last line that is not empty.
        """
        log = log.with_suffix(".log")
        with writing(log.parent):
            log.parent.mkdir(parents=True, exist_ok=True)
        last = ""
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        with (
            open(log, "a", encoding="utf-8") as file,
            subprocess.Popen(
                [sys.executable, *arguments],
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            ) as child,
            self._watching(child),
        ):
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                file.flush()
                print(line, end="", flush=True)
                last = line.strip() or last
            status = child.wait()
        return status, last

    @contextlib.contextmanager
    def _watching(self, child: "subprocess.Popen[str]") -> Iterator[None]:
        self._child = child
        if self.stopped and not self._told:
            child.send_signal(_understood(self.stopped))
        try:
            yield
        finally:
            self._child = None


def _understood(number: int) -> int:
    """The signal that experiments save on."""
    return number if number == signal.SIGINT else signal.SIGTERM


def _environment() -> Mapping[str, str]:
    """Output at once."""
    return {"PYTHONUNBUFFERED": "1", **os.environ}


def _print(outcomes: list[Outcome], total: int) -> None:
    print()
    for outcome in outcomes:
        took = format_duration(outcome.seconds) if outcome.seconds else ""
        print(f"{outcome.status:>11}  {took:>8}  {outcome.step.name}")
        if outcome.reason:
            print(f"{'':>11}  {'':>8}  {outcome.reason}")
    left = total - len(outcomes)
    whole = format_duration(sum(outcome.seconds for outcome in outcomes))
    print(f"{whole} in all" + (f"; {left} not begun" if left else ""))


if __name__ == "__main__":
    flags.run(Config, main, None, "python -m experiments.all", __doc__)
