"""Bayesian optimization of the settings that an experiment's config names as tunable.

An experiment can be tuned when its config has `TUNABLE` and its module `prepare`; see
`experiments.tune` for how it is started. Trials are those of an Optuna study
(`experiments.trials`), the report is `experiments.tuning_report`.
"""

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.common import (
    Range,
    RunConfig,
    SeedRun,
    Task,
    draw_demo,
    read_images,
)
from jaxvision.config import to_plain
from jaxvision.data.dataset import Dataset
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

if TYPE_CHECKING:
    import optuna

    from experiments.trials import SharedStudy
    from jaxvision.report.run_folder import RunFolder
    from jaxvision.training.loop import Row

TUNED = "tuned.json"
"""The best setting, in the run folder of a tuning."""

BEAT_SECONDS = 30.0
"""Time between two signs of life of a trial under way."""

Prepare = Callable[[Any], Task]


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """How the tunable settings are searched."""

    trials: int = 30
    """Finished trials in the study when it is done, those of earlier and of other
    processes counted in."""
    sampler: Literal["tpe", "gp"] = "tpe"
    """Tree-structured Parzen estimator, or Gaussian process (needs the extra `gp`)."""
    startup_trials: int = 8
    """Trials drawn at random before the sampler learns from them; the first of all has
    the config's own settings."""
    pruner: Literal["median", "none"] = "median"
    """Whether a trial is given up that is worse than half of the others were at the
    same epoch."""
    pruning_epochs: int = 2
    """Epochs that every trial is given first; and no trial is given up before
    `startup_trials` are whole."""
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What is optimized, at a trial's best epoch. The loss still tells networks apart
    that are all right on every validation image."""
    parameters: tuple[str, ...] = ()
    """Which of the tunable settings; none named: all."""
    seed: int = 0
    """Of the sampler: the same seed draws the same trials, stopped or not, as long as
    one process works on the study."""
    storage: str | None = None
    """URL of the study's database (see Optuna), which processes on several machines can
    share; none: an SQLite file among the checkpoints."""

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return self.metric == "val_loss"

    def check(self) -> None:
        """Raises `InputError` if a number means nothing or a package is missing."""
        for name, least in (("trials", 1), ("startup_trials", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                flag = name.replace("_", "-")
                raise InputError(f"--tune.{flag} {value}: must be at least {least}")
        if self.pruning_epochs < 0:
            raise InputError(
                f"--tune.pruning-epochs {self.pruning_epochs}: must be at least 0"
            )
        if self.sampler == "gp" and importlib.util.find_spec("torch") is None:
            raise InputError(
                "--tune.sampler gp: Optuna's Gaussian process needs torch; pip install "
                "'jaxvision-classics[gp]', or take --tune.sampler tpe"
            )


@dataclasses.dataclass(frozen=True)
class TuneSettings:
    """What the config of a tuning has beside those of the experiment."""

    seeds: tuple[int, ...] = (0,)
    """Networks that every trial trains; its score is the mean of theirs."""
    tune: TuneConfig = dataclasses.field(default_factory=TuneConfig)


def tuning_config(config_type: type[RunConfig]) -> type:
    """The config that tunes an experiment: its own settings, and how to search."""
    return dataclasses.make_dataclass(
        "Config",
        [],
        bases=(TuneSettings, config_type),
        frozen=True,
        namespace={"__doc__": f"Tunes: {config_type.__doc__}"},
    )


def run_tuning(
    experiment: str,
    config: Any,
    *,
    title: str,
    question: str,
    prepare: Prepare,
    published: tuple[str, str] | None = None,
) -> Path | None:
    """Trains trials until the study has as many as it is to have; writes the report.

    The study is found by what was asked: the same command continues it, and the same
    command at the same time, here or on another machine with the same storage, works
    on it too. A trial whose process was killed goes on from its last checkpoint.

    Args:
      experiment: names the folders.
      config: an experiment's settings and `TuneSettings`.
      title, question: of the report.
      prepare: the experiment's own, which makes a task of its settings.
      published: section and row of `published.json` to stand beside the results.

    Returns:
      The run folder; None where other processes still work on trials, the last of which
      writes the report.

    Raises:
      InputError: nothing to tune, a number that means nothing, a storage that cannot
        be used, no trial that was whole.
    """
    from experiments.trials import SharedStudy
    from experiments.tuning_report import write_tuning
    from jaxvision.training.loop import Interrupted

    began = time.monotonic()
    ranges = _ranges(config)
    config.tune.check()
    data = _Images(config)
    dataset = data.load(prepare(config).preprocessing)
    settings = _settings(experiment, config, ranges, dataset)
    name = f"{experiment}-{_digest(settings)}"
    folder = config.checkpoints / experiment / name
    url = config.tune.storage or f"sqlite:///{folder.parent.resolve()}/studies.db"
    first = {name: _get(config, name) for name in ranges}
    with SharedStudy(name, url, folder, config.tune, ranges, first=first) as study:
        print(
            f"study {name} in {study.shown_url}: {study.finished} trials are finished"
        )
        tuning = _Tuning(config, prepare, data, study, folder)
        try:
            while (trial := study.next_trial()) is not None:
                tuning.run(trial)
        except (Interrupted, KeyboardInterrupt) as stop:
            print("interrupted; the same command continues", file=sys.stderr)
            number = getattr(stop, "signal_number", signal.SIGINT)
            raise SystemExit(128 + number) from None
        if study.finished < config.tune.trials:
            print(
                "all trials are finished or being done by other processes, the last of "
                "which writes the report"
            )
            return None
        return write_tuning(
            experiment,
            config,
            study,
            dataset,
            title=title,
            question=question,
            published=published,
            seconds=time.monotonic() - began,
        )


def with_tuned(config: RunConfig, path: Path) -> Any:
    """The config with the settings that a tuning found best.

    Args:
      path: the run folder of the tuning.

    Raises:
      InputError: it is none, or tuned what this config does not have.
    """
    try:
        tuned = json.loads((path / TUNED).read_text("utf-8"))
        for name, value in tuned["settings"].items():
            config = _replace(config, name, type(_get(config, name))(value))
    except FileNotFoundError:
        raise InputError(
            f"--tuned {path}: no finished tuning there (no {TUNED}); give the run "
            "folder that it printed as its last line"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path / TUNED}: not of this experiment, or damaged ({error})"
        ) from error
    return config


class _Images:
    """The images in the geometry that a trial wants, each decoded once."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._loaded: dict[Preprocessing, Dataset] = {}

    def load(self, preprocessing: Preprocessing) -> Dataset:
        if preprocessing not in self._loaded:
            if self._config.data.root is None:
                draw_demo(self._config.DEMO_KIND)
            self._loaded[preprocessing] = read_images(self._config, preprocessing)
        return self._loaded[preprocessing]

    def of_seed(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        """In the split of a seed, or in that of the given file."""
        dataset, data = self.load(preprocessing), self._config.data
        if data.splits is not None:
            return dataset
        return dataset.resplit(dataclasses.replace(data.split, seed=seed))


class _Tuning:
    """One process at work on a study."""

    def __init__(
        self,
        config: Any,
        prepare: Prepare,
        images: _Images,
        study: "SharedStudy",
        folder: Path,
    ) -> None:
        self._config = config
        self._prepare = prepare
        self._images = images
        self._study = study
        self._folder = folder

    def run(self, trial: "optuna.Trial") -> None:
        """Trains a trial, or what a killed process left of it, and tells its score."""
        import optuna

        from jaxvision.training.loop import Diverged

        config = self._config
        for name, value in trial.params.items():
            config = _replace(config, name, value)
        run = self._run_folder(trial)
        scores = _Scores(trial, self._study, config)
        ended = "whole"
        try:
            for seed in config.seeds:
                self._train(trial, config, seed, run, scores)
        except optuna.TrialPruned:
            ended = "given up"
        except Diverged:
            ended = "diverged"
        self._study.tell(trial, scores.mean(), ended)
        score = "none" if scores.mean() is None else f"{scores.mean():.4f}"
        found = f"{config.tune.metric} {score}, {ended}"
        print(f"trial {trial.number}: {_named(trial.params)}: {found}", flush=True)
        self._drop_networks()

    def _train(
        self,
        trial: "optuna.Trial",
        config: Any,
        seed: int,
        run: "RunFolder",
        scores: "_Scores",
    ) -> None:
        from jaxvision.report.progress import TrainingProgress
        from jaxvision.report.run_folder import HistoryCallback
        from jaxvision.training.loop import Callbacks

        title = f"trial {trial.number}"
        if len(config.seeds) > 1:
            title += f" seed {seed}"
        task = self._prepare(config)
        dataset = self._images.of_seed(task.preprocessing, seed)
        history = run.read_history(seed=seed)
        with TrainingProgress(title=title, history=history) as progress:
            callback = Callbacks(
                progress,
                HistoryCallback(run, seed=seed),
                _ScoreCallback(scores, run, seed),
            )
            folder = run.path / f"seed-{seed}"
            task.train(SeedRun(config, seed, dataset, folder, callback))

    def _run_folder(self, trial: "optuna.Trial") -> "RunFolder":
        """The trial's: its networks' epochs and, while it trains, the networks."""
        from jaxvision.report.run_folder import RunFolder

        name = f"trial-{self._study.origin(trial):04d}"
        if (self._folder / name / "run.json").is_file():
            return RunFolder.open(self._folder / name)
        # Its making may have been cut short.
        shutil.rmtree(self._folder / name, ignore_errors=True)
        return RunFolder.create(
            self._folder.name,
            root=self._folder.parent,
            name=name,
            command=self._study.shown_command,
        )

    def _drop_networks(self) -> None:
        """Of finished trials: the best setting is trained anew, with other seeds."""
        for number in self._study.finished_origins():
            for network in self._folder.glob(f"trial-{number:04d}/seed-*"):
                shutil.rmtree(network, ignore_errors=True)


class _Scores:
    """What a trial's networks reached, and what the study is told of it."""

    def __init__(
        self, trial: "optuna.Trial", study: "SharedStudy", config: Any
    ) -> None:
        self._trial, self._study = trial, study
        self._metric, self._minimize = config.tune.metric, config.tune.minimize
        self._seeds, self._epochs = config.seeds, config.epochs
        self._best: dict[int, float] = {}
        self._beaten = 0.0

    def mean(self) -> float | None:
        """Of the networks so far, each at its best epoch; None: no epoch has ended."""
        best = list(self._best.values())
        return sum(best) / len(best) if best else None

    def add(self, seed: int, row: "Row") -> None:
        """An epoch of one network has ended."""
        value = row[self._metric]
        if value != value:
            return  # not a number: never the best
        others = [score for other, score in self._best.items() if other != seed]
        choose = min if self._minimize else max
        self._best[seed] = choose(self._best.get(seed, value), value)
        step = self._seeds.index(seed) * self._epochs + int(row["epoch"])
        mean = (sum(others) + value) / (len(others) + 1)
        self._study.report(self._trial, mean, step)

    def give_up_if_hopeless(self) -> None:
        """Raises `optuna.TrialPruned` if the pruner decides so."""
        import optuna

        if self._study.is_hopeless(self._trial):
            raise optuna.TrialPruned

    def beat(self) -> None:
        """Says, now and then, that the trial is being worked on."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            self._study.beat(self._trial)


class _ScoreCallback:
    """Watches `fit` for a trial; stands after the `HistoryCallback` of its folder."""

    def __init__(self, scores: _Scores, run: "RunFolder", seed: int) -> None:
        self._scores, self._run, self._seed = scores, run, seed

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        # Epochs before a kill: the trial that goes on from them has none yet.
        for row in self._run.read_history(seed=self._seed):
            self._scores.add(self._seed, row)

    def on_step(self, step: int, images: int, metrics: "Row | None") -> None:
        self._scores.beat()

    def on_epoch_end(self, row: "Row") -> None:
        self._scores.add(self._seed, row)
        self._scores.give_up_if_hopeless()

    def on_finish(self, reason: str) -> None: ...


def _ranges(config: Any) -> dict[str, Range]:
    """What is tuned. Raises `InputError` if that is nothing, or nothing of this."""
    known = config.TUNABLE
    if config.resume is not None:
        raise InputError(
            "--resume: a tuning is continued by its own command, as it was"
        )
    if config.distributed.wanted:
        raise InputError(
            "--distributed: processes that tune share a study, not a training; start "
            "the same command several times, with one --tune.storage"
        )
    if not config.seeds or config.epochs < 1:
        raise InputError("--seeds and --epochs: a trial needs at least one of each")
    for name in config.tune.parameters:
        if name.replace("-", "_") not in known:
            raise InputError(
                f"--tune.parameters {name}: not tunable here; there are "
                f"{', '.join(known)}"
            )
    named = [name.replace("-", "_") for name in config.tune.parameters] or list(known)
    return {name: known[name] for name in named}


def _settings(
    experiment: str, config: Any, ranges: Mapping[str, Range], dataset: Dataset
) -> dict[str, Any]:
    """All that decides what a study's trials are: equal for those that may share it."""
    plain = to_plain(config)
    for name in ("runs", "checkpoints", "resume", "save_seconds", "tensorboard"):
        del plain[name]
    # Where the images lie and how they are read; what they are stands below.
    where = ("root", "splits", "cache_mb", "cache_dir", "num_threads", "num_workers")
    plain["data"] = {k: v for k, v in plain["data"].items() if k not in where}
    for name in ("trials", "storage"):
        del plain["tune"][name]
    del plain["distributed"]
    return {
        "experiment": experiment,
        "settings": plain,
        "ranges": to_plain(ranges),
        "images": dataset.fingerprint,
        "splits": {k: _digest(v.tolist()) for k, v in dataset.splits.items()},
    }


def _named(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _digest(plain: Any) -> str:
    content = json.dumps(plain, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _replace(config: Any, name: str, value: Any) -> Any:
    """The config with another value of the setting `name`, such as "optim.decay"."""
    first, _, rest = name.partition(".")
    if rest:
        value = _replace(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})
