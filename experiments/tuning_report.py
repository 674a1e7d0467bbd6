"""The run folder of a tuning: its trials, figures, the best setting and the report."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from experiments.common import Range
from experiments.tables import published_figures
from experiments.trials import SharedStudy
from experiments.tuning import TUNED
from jaxvision import plotting
from jaxvision.data.dataset import Dataset
from jaxvision.errors import InputError
from jaxvision.report import markdown
from jaxvision.report.formats import format_duration
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder
from jaxvision.storage import write_json

METRICS = {
    "val_loss": "validation loss (nats per image)",
    "val_accuracy": "validation accuracy (share of images)",
}

PREVIEW = 15
"""Trials that the report lists, the best first; the file beside it has them all."""


def write_tuning(
    experiment: str,
    config: Any,
    study: SharedStudy,
    dataset: Dataset,
    *,
    title: str,
    question: str,
    published: tuple[str, str] | None,
    seconds: float,
) -> Path:
    """Writes what a finished study has to show; says where.

    Raises:
      InputError: no trial was whole.
    """
    best = best_trial(study)
    demo = dataset.is_demo
    hidden = dataclasses.replace(config.tune, storage=study.shown_url)
    run = RunFolder.create(experiment, root=config.runs, command=study.shown_command)
    run.write_config(dataclasses.replace(config, tune=hidden))
    settings = {name: best.params[name] for name in study.ranges}
    tuned = {"settings": settings, "metric": config.tune.metric, "score": best.value}
    write_json(run.path / TUNED, tuned)
    figures = _measurements(config, study, best)
    run.write_results(
        figures,
        data=DataSummary.of(dataset),
        seconds=seconds,
    )
    markdown.write_report(
        run,
        title=title,
        question=question,
        sections=[
            _best_section(config, study, best, published),
            _history_section(run, study, demo),
            *_surface_sections(run, study, demo),
            *_importance_sections(run, study, demo),
            _trials_section(run, study),
            _how_section(study, dataset),
        ],
        headline=["score", "trials", "trials given up"],
    )
    for name, value in settings.items():
        print(f"best {name}: {value:.4g}")
    said = " (demo data)" if demo else ""
    print(f"{config.tune.metric}: {best.value:.4f}, trial {best.number}{said}")
    print(f"report: {run.path / 'report.md'}")
    print(run.path)
    return run.path


def best_trial(study: SharedStudy) -> FrozenTrial:
    """The whole trial with the best score, of equal ones the first.

    Raises:
      InputError: none was whole.
    """
    whole = [trial for trial in study.trials() if study.ended(trial) == "whole"]
    if not whole:
        raise InputError(
            f"none of {study.finished} trials came to its end; raise --tune.trials, or "
            "take --tune.pruner none"
        )
    choose = min if study.config.minimize else max
    return choose(whole, key=lambda trial: trial.value)


def _measurements(
    config: Any, study: SharedStudy, best: FrozenTrial
) -> list[Measurement]:
    """Figures of the study as a whole: one value each."""
    trials, seed = study.trials(), [config.tune.seed]
    given_up = sum(study.ended(trial) != "whole" for trial in trials)
    unit = "nats" if config.tune.minimize else "accuracy"
    seconds = sum(trial.duration.total_seconds() for trial in trials)
    return [
        Measurement("score", [best.value], seed, unit, "val"),
        *(
            Measurement(name, [best.params[name]], seed, "setting", "val")
            for name in study.ranges
        ),
        Measurement("trials", [len(trials)], seed, "trials", "val"),
        Measurement("trials given up", [given_up], seed, "trials", "val"),
        Measurement("trials taken over", [study.interrupted()], seed, "trials", "val"),
        Measurement("seconds a trial", [seconds / len(trials)], seed, "s", "train"),
    ]


def _best_section(
    config: Any,
    study: SharedStudy,
    best: FrozenTrial,
    published: tuple[str, str] | None,
) -> markdown.Section:
    rows = [
        [name, f"{best.params[name]:.4g}", f"{_first(config, name):.4g}", _span(span)]
        for name, span in study.ranges.items()
    ]
    header = ["setting", "best", "before tuning", "searched"]
    if published is not None:
        section, row = published
        known = {
            entry["metric"]: f"{entry['value']:g} ({entry['source']})"
            for entry in published_figures(section)
            if entry["row"] == row
        }
        rows = [[*cells, known.get(cells[0], "–")] for cells in rows]
        header.append("published")
    flags = {
        f"--{name.replace('_', '-')}": f"{best.params[name]:.6g}"
        for name in study.ranges
    }
    command = " ".join(f"{flag} {shlex.quote(text)}" for flag, text in flags.items())
    return markdown.Section(
        "The best setting",
        [
            markdown.Table(header, rows),
            markdown.Text(
                f"Trial {best.number} of {study.finished}. It was chosen on validation "
                "images, of which its score therefore is a flattering measure; test "
                "images played no part. As flags of the experiment:"
            ),
            markdown.Code(command),
        ],
    )


def _first(config: Any, name: str) -> float:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _span(span: Range) -> str:
    ends = f"{span.low:g} to {span.high:g}"
    return f"{ends}, logarithmic" if span.log else ends


def _tried(study: SharedStudy) -> list[plotting.TriedSetting]:
    """The trials that have a score."""
    return [
        plotting.TriedSetting(
            trial.number, trial.params, trial.value, study.ended(trial) == "whole"
        )
        for trial in study.trials()
        if trial.value is not None
    ]


def _axis(name: str, span: Range) -> plotting.SettingAxis:
    return plotting.SettingAxis(name, span.low, span.high, span.log)


def _shown(study: SharedStudy) -> dict[str, Any]:
    """How figures name the score."""
    minimize = study.config.minimize
    return {"score": METRICS[study.config.metric], "minimize": minimize}


def _history_section(
    run: RunFolder, study: SharedStudy, demo: bool
) -> markdown.Section:
    figure = plotting.tuning_history(
        _tried(study), title="Trials in their order", demo=demo, **_shown(study)
    )
    run.save_figure("history", figure)
    image = markdown.Image(
        "history.png",
        "The score of each trial, and the best of all whole ones so far.",
        "A trial that was given up is shown with the score that it had reached.",
    )
    return markdown.Section("History", [image])


def _surface_sections(
    run: RunFolder, study: SharedStudy, demo: bool
) -> list[markdown.Section]:
    """Over the two settings that matter most; nothing where only one was tuned."""
    importances = study.importances()
    names = sorted(study.ranges, key=lambda name: -importances.get(name, 0.0))
    # In the order in which the config names them, whichever matters more.
    chosen = [name for name in study.ranges if name in names[:2]]
    if len(chosen) < 2:
        return []
    figure = plotting.tuning_surface(
        _tried(study),
        *(_axis(name, study.ranges[name]) for name in chosen),
        title=f"The score over {chosen[0]} and {chosen[1]}",
        demo=demo,
        **_shown(study),
    )
    run.save_figure("surface", figure)
    image = markdown.Image(
        "surface.png",
        f"Trials in the plane of {chosen[0]} and {chosen[1]}, on a surface through "
        "their scores.",
        "Between trials the surface is interpolated; far from them it is a guess.",
    )
    return [markdown.Section("The score over two settings", [image])]


def _importance_sections(
    run: RunFolder, study: SharedStudy, demo: bool
) -> list[markdown.Section]:
    importances = study.importances()
    if not importances:
        return []
    figure = plotting.importance_bars(
        importances, title="What the score depends on", demo=demo
    )
    run.save_figure("importance", figure)
    image = markdown.Image(
        "importance.png",
        "Share of the score's variance that each setting explains.",
        "fANOVA (Hutter et al. 2014): a random forest is fitted to the whole trials. "
        "Where the sampler looked little, it knows little.",
    )
    return [markdown.Section("Importance of each setting", [image])]


def _trials_section(run: RunFolder, study: SharedStudy) -> markdown.Section:
    header = ["trial", "score", *study.ranges, "ended", "epochs", "duration"]
    trials = study.trials()
    run.write_csv("trials", header, [_row(study, trial) for trial in trials])
    sign = 1 if study.config.minimize else -1
    order = sorted(
        (trial for trial in trials if trial.value is not None),
        key=lambda trial: (study.ended(trial) != "whole", sign * trial.value),
    )
    rows = [
        [
            str(number),
            f"{score:.4g}",
            *(f"{value:.4g}" for value in settings),
            ended,
            str(epochs),
            format_duration(seconds),
        ]
        for number, score, *settings, ended, epochs, seconds in (
            _row(study, trial) for trial in order[:PREVIEW]
        )
    ]
    note = markdown.Text(
        "Whole trials first, the best at the top; all of them stand in "
        "[trials.csv](trials.csv)."
    )
    return markdown.Section("Trials", [markdown.Table(header, rows), note])


def _row(study: SharedStudy, trial: FrozenTrial) -> list[Any]:
    return [
        trial.number,
        trial.value,
        *(trial.params[name] for name in study.ranges),
        study.ended(trial),
        len(trial.intermediate_values),
        trial.duration.total_seconds(),
    ]


def _how_section(study: SharedStudy, dataset: Dataset) -> markdown.Section:
    config = study.config
    sampler = {
        "tpe": "a tree-structured Parzen estimator (Bergstra et al. 2011)",
        "gp": "a Gaussian process with the logarithm of expected improvement",
    }[config.sampler]
    pruning = {
        "median": f"From epoch {config.pruning_epochs} on, and once "
        f"{config.startup_trials} trials are whole, a trial is given up whose best "
        "epoch is worse than the median of the others at the same epoch.",
        "none": "No trial is given up.",
    }[config.pruner]
    counts: Mapping[str, int] = {k: len(v) for k, v in dataset.splits.items()}
    return markdown.Section(
        "How it was done",
        [
            markdown.Text(
                f"{config.startup_trials} trials have random settings, but for the "
                f"first, which has those before tuning; then settings come from "
                f"{sampler}, seed {config.seed}. {pruning} Each trial trains on "
                f"{counts['train']} images and is scored at its best epoch on "
                f"{counts['val']} validation images, always with the same split, "
                f"initialization and order. {study.interrupted()} times a process was "
                "stopped in a trial, which then went on from its last checkpoint."
            ),
            markdown.Text(
                f"The study `{study.name}` lies in {markdown.escape(study.shown_url)}; "
                "the same command with a larger `--tune.trials` adds trials to it."
            ),
        ],
    )
