"""A trial: the recipe with other settings, trained by `train_seed` and scored."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import optuna

from jaxvision.data.dataset import Dataset
from jaxvision.recipe import make_start, train_seed
from jaxvision.report.progress import TrainingProgress
from jaxvision.report.run_folder import HistoryCallback, RunFolder
from jaxvision.settings import Recipe, RunConfig, TuneConfig
from jaxvision.training.loop import Callbacks, Diverged
from jaxvision.tuning.search_space import replace_setting
from jaxvision.tuning.study import COMPLETE, DIVERGED, PRUNED, Study, origin
from jaxvision.typing import Row


class Trainer:
    """Trains the trials of a study."""

    def __init__(
        self,
        config: RunConfig,
        search: TuneConfig,
        recipe: Recipe,
        dataset: Dataset,
        study: Study,
        folder: Path,
    ) -> None:
        """
        Args:
          config, search, recipe: of the tuning.
          dataset: the images.
          study: whose trials.
          folder: of the study; each trial has a run folder in it.

        Raises:
          InputError: the pretrained weights are out of reach.
        """
        self._config = config
        self._search = search
        self._recipe = recipe
        self._dataset = dataset
        self._study = study
        self._folder = folder
        self._pretrained = make_start(recipe).load_weights()

    def train(self, trial: optuna.Trial, first: int) -> tuple[float | None, str]:
        """Trains a trial, or what is left of it.

        Args:
          first: the number under which its settings were tried first.

        Returns:
          Its score, None where it has none, and how it ended.
        """
        recipe = self._recipe
        for name, value in trial.params.items():
            recipe = replace_setting(recipe, name, value)
        run = self._run_folder(first)
        scores = _Scores(trial, self._search, self._config.seeds, recipe.epochs)
        how = COMPLETE
        try:
            for seed in self._config.seeds:
                self._train_seed(recipe, seed, trial, run, scores)
        except optuna.TrialPruned:
            how = PRUNED
        except Diverged:
            how = DIVERGED
        score = scores.mean()
        if score is None:
            how = DIVERGED
        shown = "none" if score is None else f"{score:.4f}"
        settings = ", ".join(f"{k} {v:.3g}" for k, v in trial.params.items())
        found = f"{self._search.metric} {shown}, {how}"
        print(f"trial {trial.number}: {settings}: {found}", flush=True)
        return score, how

    def drop_networks(self) -> None:
        """Deletes the networks of finished trials: the best settings are trained anew,
        with other seeds."""
        for trial in self._study.trials():
            for network in self._path(origin(trial)).glob("seed-*"):
                shutil.rmtree(network, ignore_errors=True)

    def _train_seed(
        self,
        recipe: Recipe,
        seed: int,
        trial: optuna.Trial,
        run: RunFolder,
        scores: "_Scores",
    ) -> None:
        start = make_start(recipe)
        title = f"trial {trial.number}"
        if len(self._config.seeds) > 1:
            title += f" seed {seed}"
        history = run.read_history(seed=seed)
        with TrainingProgress(title=title, history=history) as progress:
            train_seed(
                start,
                self._dataset.decode(start.preprocessing).with_seed(seed),
                self._pretrained,
                seed=seed,
                folder=run.path / f"seed-{seed}",
                callback=Callbacks(
                    progress,
                    HistoryCallback(run, seed=seed),
                    _ScoreCallback(scores, run, seed),
                ),
                save_seconds=self._config.save_seconds,
                measure=False,
            )

    def _run_folder(self, first: int) -> RunFolder:
        """The trial's: its epochs and, while it trains, its networks."""
        path = self._path(first)
        if (path / "run.json").is_file():
            return RunFolder.open(path)
        # Its making may have been cut short.
        shutil.rmtree(path, ignore_errors=True)
        return RunFolder.create(
            self._folder.name,
            root=self._folder.parent,
            name=path.name,
            command=self._study.shown_command,
        )

    def _path(self, first: int) -> Path:
        return self._folder / f"trial-{first:04d}"


class _Scores:
    """What a trial's networks reached; reported to Optuna epoch by epoch."""

    def __init__(
        self,
        trial: optuna.Trial,
        search: TuneConfig,
        seeds: Sequence[int],
        epochs: int,
    ) -> None:
        self._trial, self._search = trial, search
        self._seeds, self._epochs = seeds, epochs
        self._best: dict[int, float] = {}

    def mean(self) -> float | None:
        """Of the networks so far, each at its best epoch; None: no epoch has ended."""
        best = list(self._best.values())
        return sum(best) / len(best) if best else None

    def add(self, seed: int, row: Row) -> None:
        """An epoch of one network has ended."""
        value = row[self._search.metric]
        if not math.isfinite(value):
            return  # never the best
        others = [score for other, score in self._best.items() if other != seed]
        choose = min if self._search.minimize else max
        self._best[seed] = choose(self._best.get(seed, value), value)
        step = self._seeds.index(seed) * self._epochs + int(row["epoch"])
        self._trial.report((sum(others) + value) / (len(others) + 1), step)

    def prune(self) -> None:
        """Raises `optuna.TrialPruned` if the pruner decides so."""
        if self._trial.should_prune():
            raise optuna.TrialPruned


class _ScoreCallback:
    """Watches `fit` for a trial; stands after the `HistoryCallback` of its folder."""

    def __init__(self, scores: _Scores, run: RunFolder, seed: int) -> None:
        self._scores, self._run, self._seed = scores, run, seed

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        # Epochs before a stop: the trial that goes on from them has reported none.
        for row in self._run.read_history(seed=self._seed):
            self._scores.add(self._seed, row)

    def on_step(self, step: int, images: int, metrics: Row | None) -> None: ...

    def on_epoch_end(self, row: Row) -> None:
        self._scores.add(self._seed, row)
        self._scores.prune()

    def on_finish(self, reason: str) -> None: ...
