"""The run folder of a tuning: trials, figures, the best settings and the report."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial
from optuna.visualization import matplotlib as plots

from jaxvision.config import to_plain
from jaxvision.data.dataset import DecodedDataset
from jaxvision.declaration import Experiment
from jaxvision.plotting.style import stamped
from jaxvision.report.formats import format_duration
from jaxvision.report.markdown import (
    Block,
    Code,
    Image,
    Section,
    Table,
    Text,
    escape,
    write_report,
)
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder, print_run
from jaxvision.settings import Recipe, RunConfig, TuneConfig
from jaxvision.storage import write_json
from jaxvision.tuning.search_space import TUNED, get_setting
from jaxvision.tuning.study import COMPLETE, Study, ended, score

SCORES = {
    "val_loss": "validation loss (nats per image)",
    "val_accuracy": "validation accuracy (share of images)",
}

PREVIEW = 15
"""Trials that the report lists, the best first; the file beside it has them all."""

FIGURES = {
    "history": ("The score of each complete trial, and the best so far.", ""),
    "slice": ("The score over each setting.", ""),
    "contour": (
        "The score over the two settings that matter most.",
        "Interpolated between trials.",
    ),
    "importance": (
        "Share of the score's variance that each setting explains.",
        "fANOVA (Hutter et al. 2014) on complete trials.",
    ),
}
"""What Optuna draws: alternative text and caption of each figure."""


def write_tuning(
    experiment: Experiment,
    config: RunConfig,
    search: TuneConfig,
    recipe: Recipe,
    study: Study,
    dataset: DecodedDataset,
    *,
    seconds: float,
    next_command: Callable[[Path], str] | None = None,
) -> Path:
    """Writes what a finished study has to show.

    Args:
      experiment, config, search, recipe: of the tuning.
      study: finished.
      dataset: the images of the trials.
      seconds: duration of this process.
      next_command: run folder -> the command that trains with the best settings.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: no trial was complete.
    """
    best = study.best()
    run = RunFolder.create(
        experiment.name, root=config.runs, command=study.shown_command
    )
    shown = dataclasses.replace(search, storage=study.shown_url)
    run.write_config(
        {**to_plain(config), "recipe": to_plain(recipe), "tune": to_plain(shown)}
    )
    settings = {name: best.params[name] for name in study.ranges}
    tuned = {"settings": settings, "metric": search.metric, "score": best.value}
    write_json(run.path / TUNED, tuned)
    run.write_results(
        _measurements(study, best),
        data=DataSummary.of(dataset),
        seconds=seconds,
        headline=["score", "trials", "trials given up"],
    )
    command = next_command and next_command(run.path)
    write_report(
        run,
        title=experiment.title,
        question=experiment.question,
        sections=[
            _best_section(experiment, recipe, study, best, command),
            _figures_section(run, study, demo=dataset.is_demo),
            _trials_section(run, study),
            _method_section(study, dataset),
        ],
    )
    for name, value in settings.items():
        print(f"best {name}: {value:.4g}")
    demo = " (demo data)" if dataset.is_demo else ""
    print(f"{search.metric}: {best.value:.4f}, trial {best.number}{demo}")
    print_run(run)
    return run.path


def _measurements(study: Study, best: FrozenTrial) -> list[Measurement]:
    """Figures of the study as a whole: one value each."""
    trials, search = study.trials(), study.config
    given_up = sum(ended(trial) != COMPLETE for trial in trials)
    seconds = sum(map(_seconds, trials)) / len(trials)

    def measure(name: str, value: float, unit: str, split: str = "val") -> Measurement:
        return Measurement(name, [value], [search.seed], unit, split, metric=name)

    return [
        measure("score", score(best), "nats" if search.minimize else "accuracy"),
        *(measure(name, best.params[name], "setting") for name in study.ranges),
        measure("trials", len(trials), "trials"),
        measure("trials given up", given_up, "trials"),
        measure("trials taken over", study.retries(), "trials"),
        measure("seconds a trial", seconds, "s", "train"),
    ]


def _best_section(
    experiment: Experiment,
    recipe: Recipe,
    study: Study,
    best: FrozenTrial,
    command: str | None,
) -> Section:
    published = {
        entry["metric"]: f"{entry['value']:g} ({entry['source']})"
        for entry in experiment.published
        if entry["metric"] in study.ranges
    }
    rows = []
    for name, span in study.ranges.items():
        before = get_setting(recipe, name)
        row = [
            name,
            f"{best.params[name]:.4g}",
            "–" if before is None else f"{before:.4g}",
            f"{span.low:g} to {span.high:g}" + ", logarithmic" * span.log,
        ]
        rows.append([*row, published.get(name, "–")] if published else row)
    header = ["setting", "best", "before tuning", "searched"]
    blocks: list[Block] = [
        Table([*header, "published"] if published else header, rows),
        Text(
            f"Trial {best.number}, chosen on validation images, so that its score is "
            f"optimistic; test images played no part. The settings are in "
            f"[{TUNED}]({TUNED})."
        ),
    ]
    if command is not None:
        blocks.append(Code(command))
    return Section("The best settings", blocks)


def _figures_section(run: RunFolder, study: Study, *, demo: bool) -> Section:
    # Optuna sets a style for all figures that follow.
    with pyplot.rc_context():
        figures = _draw(study)
        for name, figure in figures.items():
            if name == "slice":  # which has made room for its color bar
                figure.subplots_adjust(bottom=0.2)
            else:
                figure.set_layout_engine("tight")
            run.save_figure(name, stamped(figure) if demo else figure)
            pyplot.close(figure)
    images = [Image(f"{name}.png", *FIGURES[name]) for name in figures]
    return Section("What the score depends on", images)


def _draw(study: Study) -> dict[str, Figure]:
    """Optuna's figures of the study, by name."""
    minimize, name = study.config.minimize, SCORES[study.config.metric]

    def scaled(trial: FrozenTrial) -> float:
        """Losses differ by orders of magnitude."""
        return math.log10(max(score(trial), 1e-12)) if minimize else score(trial)

    target: dict[str, Any] = {
        "target": scaled, "target_name": f"log10 of {name}" if minimize else name,
    }  # fmt: skip
    history = plots.plot_optimization_history(study.optuna, target_name=name)
    history.legend()  # inside
    if minimize:
        history.set_yscale("log")
    drawn: dict[str, Any] = {"history": history}
    if sum(ended(trial) == COMPLETE for trial in study.trials()) > 1:
        drawn["slice"] = plots.plot_slice(study.optuna, **target)
    if importances := study.importances():
        most = sorted(importances, key=lambda name: -importances[name])[:2]
        drawn["contour"] = plots.plot_contour(study.optuna, most, **target)
        evaluator = FanovaImportanceEvaluator(seed=0)
        drawn["importance"] = plots.plot_param_importances(
            study.optuna, evaluator, target_name=name
        )
    return {name: np.ravel(axes)[0].figure for name, axes in drawn.items()}


def _trials_section(run: RunFolder, study: Study) -> Section:
    header = ["trial", "score", *study.ranges, "ended", "epochs", "duration"]
    trials = study.trials()

    def row(trial: FrozenTrial) -> list[Any]:
        settings = [trial.params[name] for name in study.ranges]
        epochs = len(trial.intermediate_values)
        return [trial.number, trial.value, *settings, ended(trial), epochs]

    run.write_csv("trials", header, [[*row(t), _seconds(t)] for t in trials])
    sign = 1 if study.config.minimize else -1
    order = sorted(
        (trial for trial in trials if trial.value is not None),
        key=lambda trial: (ended(trial) != COMPLETE, sign * score(trial)),
    )
    rows = [
        [
            *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row(trial)),
            format_duration(_seconds(trial)),
        ]
        for trial in order[:PREVIEW]
    ]
    note = "Complete trials first, the best at the top. All: [trials.csv](trials.csv)."
    return Section("Trials", [Table(header, rows), Text(note)])


def _method_section(study: Study, dataset: DecodedDataset) -> Section:
    search = study.config
    sampler = {
        "tpe": "a tree-structured Parzen estimator (Bergstra et al. 2011)",
        "gp": "a Gaussian process with the logarithm of expected improvement",
    }[search.sampler]
    pruning = {
        "median": f"From epoch {search.pruning_epochs} on, and once "
        f"{search.startup_trials} trials are complete, a trial is pruned whose best "
        "epoch is worse than the median of the others at the same epoch.",
        "none": "No trial is pruned.",
    }[search.pruner]
    counts = {name: len(part) for name, part in dataset.splits.items()}
    text = (
        "The first trial has the settings before tuning, the next ones random ones, "
        f"{search.startup_trials} in all; then settings come from {sampler}, seed "
        f"{search.seed}. {pruning} A trial trains on {counts['train']} images and is "
        f"scored at its best epoch on {counts['val']} validation images, always with "
        "the same split, initialization and order. Trials were continued after a stop "
        f"{study.retries()} times. The study `{study.name}` is in "
        f"{escape(study.shown_url)}; more `tune.trials` add to it."
    )
    return Section("Method", [Text(text)], aside=True)


def _seconds(trial: FrozenTrial) -> float:
    assert trial.duration is not None
    return trial.duration.total_seconds()
