"""Bayesian optimization of the settings of an experiment's recipe, with Optuna.

    tune(EXPERIMENT, tuning_config(EXPERIMENT), TuneConfig(trials=30))

A trial trains the recipe with other values of the settings in `search_space`.

    search_space.py   settings of a recipe by name; the best ones, read back
    study.py          trials: drawn, pruned, retried and stored, by Optuna
    trial.py          a trial: trained and scored
    report.py         the run folder
"""

import dataclasses
import hashlib
import importlib.util
import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision import config as config_module
from jaxvision.config import to_plain
from jaxvision.declaration import DEMO_SETS, Experiment, SearchRange, default_config
from jaxvision.errors import InputError
from jaxvision.settings import Recipe, RunConfig, TuneConfig
from jaxvision.tuning.search_space import get_setting, with_tuned

if TYPE_CHECKING:
    from jaxvision.data.dataset import DecodedDataset

__all__ = ["TuneConfig", "tune", "tuning_config", "tuning_of", "with_tuned"]


def tuning_config(experiment: Experiment) -> RunConfig:
    """The settings of a tuning where none is given: trials train one network each."""
    default = default_config(experiment)
    data = dataclasses.replace(default.data, folds=None)
    return dataclasses.replace(default, data=data, seeds=(0,))


def tuning_of(experiment: Experiment) -> Experiment:
    """The experiment under the names that its tuning has."""
    return dataclasses.replace(
        experiment,
        name=f"tune_{experiment.name}",
        title=f"Tuning of {experiment.name}",
        question="Which of these settings does Bayesian optimization find best for "
        f"`{experiment.name}`: {', '.join(experiment.search_space)}?",
    )


def tune(
    experiment: Experiment,
    config: RunConfig,
    search: TuneConfig,
    *,
    recipe: Recipe | None = None,
    next_command: Callable[[Path], str] | None = None,
) -> Path | None:
    """Trains trials until the study has as many as wanted, and writes the report.

    The study is found by what was asked: the same call continues it, and the same call
    in another process, here or on another machine with the same storage, works on it
    too. A trial whose process was stopped or killed goes on from its last checkpoint.

    Args:
      experiment: whose recipe and search space, and the name of the folders.
      config: where, on what, and the seeds that each trial trains.
      search: how to search.
      recipe: in place of the experiment's own.
      next_command: run folder -> the command that trains with the best settings, for
        the report.

    Returns:
      The run folder; None where other processes still work on trials, the last of which
      writes the report.

    Raises:
      InputError: nothing to tune, a bad setting, a package is missing, the storage
        cannot be used, or no trial was complete.
      Stopped: on Ctrl-C or SIGTERM, after saving; the same call continues.
    """
    began = time.monotonic()
    recipe = recipe or experiment.recipe
    if recipe is None or not experiment.search_space:
        raise InputError(f"{experiment.name}: has no recipe with settings to tune")
    _check(config, search)
    ranges = _ranges(experiment, search)

    # JAX and Optuna, which showing the settings does without.
    from jaxvision.data.dataset import load_dataset
    from jaxvision.experiment import Stopped, announce, draw_demo
    from jaxvision.recipe import make_start
    from jaxvision.report.progress import Progress
    from jaxvision.training.loop import Interrupted
    from jaxvision.tuning.report import write_tuning
    from jaxvision.tuning.study import Study, optuna_is_quiet
    from jaxvision.tuning.trial import Trainer

    if config.max_epochs is not None:
        recipe = recipe.replace(epochs=min(recipe.epochs, config.max_epochs))
    start = make_start(recipe)
    draw_demo(config.data, DEMO_SETS[experiment.dataset])
    images = load_dataset(config.data, demo_kind=DEMO_SETS[experiment.dataset])
    if experiment.check is not None:
        experiment.check(images, experiment.options and experiment.options())
    with Progress("reading images", unit="images") as progress:
        dataset = images.decode(start.preprocessing, progress=progress)
    announce(dataset)
    identity = _identity(config, search, recipe, ranges, dataset)
    name = f"{experiment.name}-{_digest(identity)}"
    folder = config.checkpoints / experiment.name / name
    url = search.storage or f"sqlite:///{folder.parent.resolve()}/studies.db"
    first = {name: get_setting(recipe, name) for name in ranges}
    with optuna_is_quiet():
        study = Study(name, url, folder, search, ranges, first)
        finished = len(study.trials())
        print(f"study {name} in {study.shown_url}: {finished} trials are finished")
        trainer = Trainer(config, search, recipe, images, study, folder)
        try:
            study.await_heartbeats()
            while study.run_next(trainer.train):
                trainer.drop_networks()
        except (Interrupted, KeyboardInterrupt) as stop:
            number = getattr(stop, "signal_number", signal.SIGINT)
            raise Stopped(None, number) from stop
        if len(study.trials()) < search.trials:
            print(
                "all trials are finished or under way in other processes, the last of "
                "which writes the report"
            )
            return None
        return write_tuning(
            experiment,
            config,
            search,
            recipe,
            study,
            dataset,
            seconds=time.monotonic() - began,
            next_command=next_command,
        )


def _check(config: RunConfig, search: TuneConfig) -> None:
    """Raises `InputError` for settings that no tuning has, or a missing package."""
    config_module.check(config)
    config_module.check(search, "tune.")
    if config.resume is not None:
        raise InputError("a tuning is continued by its own command", setting="resume")
    for name, value in {"rows": config.rows, "data.folds": config.data.folds}.items():
        if value:
            raise InputError("a tuning has none; drop it", setting=name)
    if config.distributed.wanted:
        raise InputError(
            "processes that tune share a study, not a training; start the same command "
            "several times, with one `tune.storage`",
            setting="distributed",
        )
    if not config.seeds:
        raise InputError("give at least one", setting="seeds")
    for package in ("optuna", "sqlalchemy", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"tuning needs {package}; pip install 'jaxvision-classics[tune]'"
            )
    if search.sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise InputError(
            "Optuna's Gaussian process needs torch; pip install "
            "'jaxvision-classics[gp]', or choose tpe",
            setting="tune.sampler",
            value="gp",
        )


def _ranges(experiment: Experiment, search: TuneConfig) -> dict[str, SearchRange]:
    """What is tuned. Raises `InputError` for settings that cannot be."""
    known = experiment.search_space
    names = [name.replace("-", "_") for name in search.parameters]
    for name in names:
        if name not in known:
            raise InputError(
                f"not in the search space; there are {', '.join(known)}",
                setting="tune.parameters",
                value=name,
            )
    return {name: known[name] for name in names or known}


def _identity(
    config: RunConfig,
    search: TuneConfig,
    recipe: Recipe,
    ranges: Mapping[str, SearchRange],
    dataset: "DecodedDataset",
) -> dict[str, Any]:
    """All that decides what a study's trials are: equal for those that may share it."""
    plain = to_plain(search)
    for name in ("trials", "storage", "grace_seconds"):
        del plain[name]
    return {
        "recipe": to_plain(recipe),
        "seeds": to_plain(config.seeds),
        "split": to_plain(config.data.split),
        "tune": plain,
        "ranges": to_plain(ranges),
        "images": dataset.fingerprint,
        "splits": {k: _digest(v.tolist()) for k, v in dataset.splits.items()},
    }


def _digest(plain: Any) -> str:
    content = json.dumps(plain, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]
