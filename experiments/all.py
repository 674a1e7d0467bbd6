"""Every experiment, one after the other, and the report of them all.

python -m experiments.all                                 # drawn images, a try-out
python -m experiments.all --artists DIR --faces DIR       # real ones where there are
python -m experiments.all --profile full --artists DIR    # with the seeds' settings
"""

import contextlib
import csv
import dataclasses
import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from experiments.catalog import EXPERIMENTS
from experiments.common import run_cli
from jaxvision.errors import InputError

if TYPE_CHECKING:
    from jaxvision.report.runs import BegunRun, FinishedRun, Runs


@dataclasses.dataclass(frozen=True)
class Step:
    """A run of an experiment.

    experiment: its name.
    laptop, full: flags of each profile; None: the profile leaves it out.
    network_of: the experiment whose newest network it takes, as `--checkpoint`.
    tuned_by: the experiment whose newest settings it takes, as `--tuned`.
    shown: whether it takes an image, of those the network was measured on.
    """

    experiment: str
    laptop: str | None = ""
    full: str | None = ""
    network_of: str | None = None
    tuned_by: str | None = None
    shown: bool = False


ALEXNET = "--model alexnet --image-size 224"

PLAIN = "--no-batch-norm --dropout-rate 0 --optim.weight-decay 0"
"""The perceptron without what keeps it from overfitting."""

FIVE = "--data.largest-classes 5 --limit 60"
"""Five painters, of which few images each."""

SMALL = (
    "--image-size 48 --epochs 12 --batch-size 8 --data.limit 120 "
    "--augment.horizontal-flip 0.5 --optim.schedule cosine"
)
"""Faces and comics of half the height and width, few of them, in small steps."""

LITE = "--backbone efficientnet_lite0"
"""The pretrained network that needs no download."""

CONV4 = "--backbone alexnet --layer conv4"

STEPS = (
    Step("receptive_field"),
    Step("receptive_field", ALEXNET, ALEXNET),
    Step("part1_baseline", "--seeds 0 1 2"),
    Step("part1_pooling", "--seeds 0 1 2"),
    Step("part1_regularization", "--seeds 0 1 2"),
    Step("part1_architecture", "--seeds 0 1 2"),
    Step("part1_tuning", "--seeds 0 1 2"),
    Step("part1_robustness", "--seeds 0 1 2"),
    Step("part2_mlp", PLAIN, PLAIN),
    Step("part2_mlp"),
    Step("part2_features", LITE),
    Step("part2_features", None, f"{CONV4} --hidden 4096 4096"),
    Step("part2_weights"),
    Step(
        "part2_finetune",
        f"{LITE} --method features --epochs 100",
        "--method features --epochs 100",
    ),
    Step("part2_finetune", f"{LITE} --image-size 128 --epochs 4 --seeds 0"),
    Step("part2_saliency", network_of="part2_finetune"),
    Step("prado_scratch", f"{FIVE} --image-size 32 --epochs 10 --seeds 0 1"),
    Step("prado_transfer", f"{FIVE} --backbones mobilenet_v2 efficientnet_lite0"),
    Step("prado_ablation", f"{FIVE} --image-size 32 --epochs 6 --seeds 0 1"),
    Step("comics_baseline", SMALL),
    Step("comics_tune", f"{SMALL} --tune.trials 6"),
    Step("comics_final", f"{SMALL} --seeds 0 1 2", tuned_by="comics_tune"),
    Step("part1_transfer", "--seeds 0 1 2"),
    Step("robustness", network_of="part2_finetune"),
    Step(
        "explain",
        "--method all",
        "--method all",
        network_of="part2_finetune",
        shown=True,
    ),
)
"""In this order: a step may use what one before it has trained."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs what has not been run yet; the same command again goes on."""

    profile: Literal["laptop", "full"] = "laptop"
    """laptop: fewer seeds, epochs and images, for two cores; full: as
    the seeds have it."""
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
    """Faces and comics, one subfolder each; none: drawn ones."""
    only: tuple[str, ...] = ()
    """Names of experiments; none: all."""
    again: tuple[str, ...] = ()
    """Names of experiments to run although that is done."""
    runs: Path = Path("runs")
    """Reports go to new folders in here, and the report of all."""
    checkpoints: Path = Path("checkpoints")
    """Networks go to new folders in here."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a step.

    status: "done" now, "skipped" because it was, "failed" or "interrupted".
    reason: the last line it said, where it failed.
    """

    step: Step
    status: Literal["done", "skipped", "failed", "interrupted"]
    seconds: float = 0.0
    reason: str = ""


def main(config: Config) -> None:
    """Exit status 1 where a step failed, 128 + signal where it was interrupted."""
    from experiments import report

    for name in (*config.only, *config.again):
        if name not in EXPERIMENTS:
            raise InputError(
                f"no experiment is called {name}; there are {', '.join(EXPERIMENTS)}"
            )
    for name in ("artists", "faces", "prado", "comics"):
        root = getattr(config, name)
        if root is not None and not root.is_dir():
            raise InputError(f"--{name} {root}: there is no such folder")
    steps = [
        step
        for step in STEPS
        if getattr(step, config.profile) is not None
        and (not config.only or step.experiment in config.only)
    ]
    outcomes = []
    with _Children() as children:
        for number, step in enumerate(steps, 1):
            print(f"\n[{number}/{len(steps)}] {step.experiment}", flush=True)
            outcome = run_step(config, step, children)
            outcomes.append(outcome)
            if outcome.status == "interrupted":
                break
    _say(outcomes, len(steps))
    report.main(
        report.Config(runs=config.runs),
        {o.step.experiment: o.reason for o in outcomes if o.status == "failed"},
    )
    if children.stopped:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(128 + children.stopped)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def run_step(config: Config, step: Step, children: "_Children") -> Outcome:
    """Runs one step to its end, unless that has been done."""
    from jaxvision.report.formats import format_duration
    from jaxvision.report.runs import find_runs

    began = time.monotonic()
    runs = find_runs(config.runs)
    try:
        flags = step_flags(config, step, runs)
    except InputError as error:
        print(f"failed: {error}", flush=True)
        return Outcome(step, "failed", reason=str(error))
    arguments = ["-m", f"experiments.{step.experiment}", *flags]
    command = shlex.join(["python", *arguments])
    if find_run(runs.finished, step, command) and step.experiment not in config.again:
        print("done before", flush=True)
        return Outcome(step, "skipped")
    begun = find_run(runs.begun, step, command)
    if begun is not None and (folder := _resumable(config, begun)) is not None:
        arguments = [*arguments[:2], "--resume", str(folder)]
    print(shlex.join(["python", *arguments]), flush=True)
    status, last = children.run(arguments, config.runs / "logs" / step.experiment)
    seconds = time.monotonic() - began
    if children.stopped:
        return Outcome(step, "interrupted", seconds)
    if status:
        return Outcome(step, "failed", seconds, last or f"status {status}")
    print(f"took {format_duration(seconds)}", flush=True)
    return Outcome(step, "done", seconds)


def step_flags(config: Config, step: Step, runs: "Runs") -> list[str]:
    """The flags of a step.

    Raises:
      InputError: the experiment that it builds on has not been run.
    """
    experiment = EXPERIMENTS[step.experiment]
    known = _settings_of(step.experiment)
    flags = shlex.split(getattr(step, config.profile))
    if experiment.images and (root := getattr(config, experiment.images)):
        flags += ["--data.root", str(root)]
        if experiment.images == "faces" and config.faces_per_person is not None:
            flags += ["--data.split.train-per-class", str(config.faces_per_person)]
    if step.network_of is not None:
        trained = _newest(runs, step.network_of)
        folder = config.checkpoints / trained.experiment / trained.path.name
        flags += ["--checkpoint", str(folder)]
        if step.shown:
            flags.append(_an_image(folder))
    if step.tuned_by is not None:
        flags += ["--tuned", str(_newest(runs, step.tuned_by).path)]
    for name in ("runs", "checkpoints"):
        value = getattr(config, name)
        if name in known and value != Path(name):
            flags += [f"--{name}", str(value)]
    return flags


def _newest(runs: "Runs", experiment: str) -> "FinishedRun":
    finished = [run for run in runs.finished if run.experiment == experiment]
    if not finished:
        raise InputError(f"it takes what {experiment} makes, which has not been run")
    return finished[-1]


def _an_image(folder: Path) -> str:
    """The first test image of a training run's first seed."""
    from jaxvision.classifier import ModelCard, seed_folders

    seed = seed_folders(folder)[0]
    root = ModelCard.read(seed).data["root"]
    with (seed / "splits.csv").open(encoding="utf-8", newline="") as file:
        tested = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    if not tested:
        raise InputError(f"{seed / 'splits.csv'} names no test image")
    return str(Path(root, tested[0]))


def find_run(
    runs: "tuple[FinishedRun, ...] | tuple[BegunRun, ...]", step: Step, command: str
) -> "FinishedRun | BegunRun | None":
    """The newest run of a step by this very command."""
    same = [
        run
        for run in runs
        if run.experiment == step.experiment and run.command == command
    ]
    return same[-1] if same else None


def _resumable(config: Config, begun: "BegunRun") -> Path | None:
    """The checkpoint folder that continues a run; None: its experiment finds by itself
    what it has finished."""
    from experiments.common import CONFIG

    folder = config.checkpoints / begun.experiment / begun.path.name
    known = _settings_of(begun.experiment)
    return folder if "resume" in known and (folder / CONFIG).is_file() else None


def _settings_of(experiment: str) -> set[str]:
    module = importlib.import_module(f"experiments.{experiment}")
    return {field.name for field in dataclasses.fields(module.Config)}


class _Children:
    """Runs one program at a time; hands it the signals that this one gets.

    stopped: the first signal, or 0.
    """

    def __init__(self) -> None:
        self.stopped = 0
        self._child: subprocess.Popen[str] | None = None
        self._told = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "_Children":
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
        """Runs Python; shows and logs what it says.

        Returns:
          Its exit status and the last line that is not empty.
        """
        from jaxvision.storage import writing

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


def _environment() -> dict[str, str]:
    """Output at once; large pages for large arrays, which must be asked for before
    Python starts."""
    own = {"PYTHONUNBUFFERED": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    return {**own, **os.environ}


def _say(outcomes: list[Outcome], total: int) -> None:
    from jaxvision.report.formats import format_duration

    print()
    for outcome in outcomes:
        took = format_duration(outcome.seconds) if outcome.seconds else ""
        print(f"{outcome.status:>11}  {took:>8}  {outcome.step.experiment}")
        if outcome.reason:
            print(f"{'':>11}  {'':>8}  {outcome.reason}")
    left = total - len(outcomes)
    whole = format_duration(sum(outcome.seconds for outcome in outcomes))
    print(f"{whole} in all" + (f"; {left} not begun" if left else ""))


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
