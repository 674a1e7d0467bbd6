"""What every experiment leaves: the files of its run folder, and the report's standard
sections.

An experiment of one recipe shows its classifier; tables of recipes show each table, and
every row whose networks are measured has a report of its own in a subfolder.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxvision import plotting
from jaxvision.config import to_plain
from jaxvision.crossval import FoldEvaluation
from jaxvision.data.dataset import DecodedDataset
from jaxvision.declaration import Table as RecipeTable
from jaxvision.metrics import (
    CALIBRATION_BINS,
    RocCurve,
    negative_log_likelihood,
    reliability,
    wilson_interval,
)
from jaxvision.models import Network
from jaxvision.models.summary import summarize_model
from jaxvision.recipe import make_card, make_start
from jaxvision.report import markdown
from jaxvision.report.compare import SDS, VERDICTS, Comparison, compare, published_row
from jaxvision.report.formats import (
    format_count,
    format_figure,
    format_mean_sd,
    format_value,
    format_words,
)
from jaxvision.report.markdown import Image, Section, Table, Text, escape
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    flatten,
    folder_name,
    print_run,
    run_settings,
)
from jaxvision.results import Results, Trial
from jaxvision.settings import (
    SHORT_TRAINING,
    AugmentConfig,
    OptimConfig,
    Recipe,
    ScheduleConfig,
    idle_settings,
)

GALLERY = 12
"""Images of each kind, right and wrong, in the gallery."""

CONFUSED = 20
"""Pairs of classes in the table of what is taken for what."""

LINES = 8
"""Rows in one figure of curves, at most."""

METHODS = {
    "scratch": "everything is trained from fresh weights",
    "features": "only the head is trained, on the features of the frozen backbone",
    "head": "only the head is trained, on augmented images",
    "full": "everything is trained",
}

OUT_OF_FOLD = "out_of_fold"
"""CSV of a cross-validation's probabilities, in the run folder."""

NEUTRAL = Recipe(
    augment=AugmentConfig(), optim=OptimConfig(momentum=0), schedule=ScheduleConfig()
)
"""Settings that are off; a report leaves them out."""

ALWAYS = (
    "network", "method", "image_size", "epochs", "batch_size", "optim.optimizer",
    "optim.learning_rate", "schedule.kind",
)  # fmt: skip
"""Settings of a recipe that a report states in any case."""


def write_run(
    results: Results,
    seconds: float,
    *,
    resume_command: Callable[[Path], str] | None = None,
) -> None:
    """Writes everything that a finished run leaves, and prints its headline.

    Args:
      results: what was found.
      seconds: that the run took.
      resume_command: checkpoint folder -> the command that continues the run.
    """
    run, experiment = results.run, results.experiment
    headline = [found[results.headline] for found in results.measurements.values()]
    everything = [m for found in results.measurements.values() for m in found.values()]
    # Those of an experiment that is made for networks show what no fold keeps.
    shown = experiment.sections if results.folds is None or experiment.folds else None
    own = list(shown(results)) if shown is not None else []
    # Whether networks were kept as checkpoints of the run, with a split each.
    trained = all(trials[0].classifier for trials in results.trials.values())
    single = results.single and (trained or results.folds is not None)
    run.write_results(
        [*everything, *(m for section in own for m in section.measurements)],
        data=DataSummary.of(results.dataset),
        seconds=seconds,
        headline=[
            measurement.name
            for measurement in (everything if single else headline)
            if measurement.split == headline[0].split
            or measurement.metric in ("val_accuracy", "train_accuracy")
        ],
    )
    resume = None
    if resume_command is not None and trained:
        resume = resume_command(results.checkpoint)
    if results.folds is not None:
        _write_out_of_fold(results)
    if single and not trained:
        (trials,) = results.trials.values()
        sections = [
            *_published_sections(results),
            *_fold_sections(results, trials),
            *_image_sections(run, _dataset(trials[0])),
        ]
    elif single:
        (trials,) = results.trials.values()
        sections = [
            *_published_sections(results),
            *_classifier_sections(run, trials),
            *_image_sections(run, _dataset(trials[0])),
            markdown.use_section(results.checkpoint, resume=resume),
        ]
    else:
        if trained:
            for key, trials in results.trials.items():
                _write_row(results, key, trials, resume)
        sections = [
            *_table_sections(results),
            *_published_sections(results),
            *_image_sections(run, results.dataset),
            *_use_best(results, resume),
        ]
    markdown.write_report(
        run,
        title=experiment.title,
        question=experiment.question,
        sections=[*sections, *own],
        show_headline=single,
    )
    run.close()
    print_run(
        run,
        headline,
        is_demo=results.dataset.is_demo,
        checkpoint=results.checkpoint if trained else None,
    )


# One recipe.


def _classifier_sections(run: RunFolder, trials: Sequence[Trial]) -> Iterator[Section]:
    """All that one recipe's networks show, and the files that go with it."""
    best = max(
        trials,
        key=lambda trial: trial.evaluations.get("val", trial.held_out).accuracy,
    )
    for trial in trials:
        assert trial.dataset is not None
        trial.dataset.write_splits(run.path / f"splits-seed-{trial.seed}.csv")
        _write_predictions(run, trial)
    yield Section("How it was done", [Text(how_it_was_done(trials))])
    if not trials[0].recipe.solved:
        yield _curves(run, trials)
    yield _intervals(trials)
    yield from _roc(run, trials)
    yield _calibration(run, trials)
    yield _confusion(run, trials)
    yield _classes(trials)
    yield _gallery(run, best)
    dataset = _dataset(best)
    yield markdown.splits_section(
        {
            name: np.bincount(
                dataset.labels[indices], minlength=len(dataset.classes)
            ).tolist()
            for name, indices in dataset.splits.items()
        },
        dataset.classes,
        f"splits-seed-{best.seed}.csv",
        note=dataset.pairs_note,
    )


def _fold_sections(results: Results, trials: Sequence[Trial]) -> Iterator[Section]:
    """What a cross-validation of one recipe shows."""
    run, folds = results.run, results.folds
    assert folds is not None
    best = max(trials, key=lambda trial: trial.held_out.accuracy)
    text = f"{how_it_was_done(trials)} {_crossed(folds)}"
    yield Section("How it was done", [Text(text)])
    yield _intervals(trials)
    yield from _roc(run, trials)
    yield _calibration(run, trials)
    yield _confusion(run, trials)
    yield _classes(trials)
    yield _gallery(run, best)


def _crossed(folds: int) -> str:
    """How a cross-validation measures, in Markdown."""
    return (
        f"Each image is classified by a network that was trained on the other "
        f"{folds - 1} of {folds} folds. The probabilities of all stand in "
        f"[{OUT_OF_FOLD}.csv]({OUT_OF_FOLD}.csv)."
    )


def _write_out_of_fold(results: Results) -> None:
    """Every image's probabilities by the network that had not seen it."""
    evaluations = [
        (key, trial.seed, trial.held_out)
        for key, trials in results.trials.items()
        for trial in trials
    ]
    rows: list[list[Any]] = []
    header: list[str] = []
    for key, seed, found in evaluations:
        assert isinstance(found, FoldEvaluation)
        header = ["table", "row", "seed", *found.columns]
        rows += [[*key, seed, *row] for row in found.rows]
    results.run.write_csv(OUT_OF_FOLD, header, rows)


def _dataset(trial: Trial) -> DecodedDataset:
    assert trial.dataset is not None
    return trial.dataset


def how_it_was_done(trials: Sequence[Trial]) -> str:
    """The recipe in a sentence or two of Markdown."""
    recipe = trials[0].recipe
    start = make_start(recipe)
    text = f"Network `{start.recipe.network}`"
    if start.reason:
        text += f", because {start.reason}"
    done = METHODS[recipe.method]
    if recipe.method == "scratch" and recipe.solved:
        done = "only the head is solved, on the features of the fresh network"
    if recipe.method == "full" and recipe.head_epochs is None:
        done += f", its head alone first in fewer than {SHORT_TRAINING} steps"
    elif recipe.method == "full" and recipe.head_epochs:
        done = "the head is trained first, then everything"
    text += f"; {done}."
    if recipe.pretrained:
        text += f" Weights: {escape(start.weights)}."
    said = describe(recipe)
    for name in ("network", "method"):
        said.pop(name)
    return f"{text} Settings: {escape(_listed(said))}.{_idle(recipe)}"


def _idle(recipe: Recipe) -> str:
    """A sentence for each reason why settings that somebody chose play no part."""
    every, usual = _all_settings(recipe), _all_settings(Recipe())
    neutral = _all_settings(NEUTRAL)
    by_reason: dict[str, list[str]] = {}
    for name, why in idle_settings(recipe).items():
        value = every.get(name)
        if name.startswith("augment."):
            if value != neutral.get(name):
                by_reason.setdefault(why, []).append("Augmentation")
        elif value not in (neutral.get(name), usual.get(name)):
            by_reason.setdefault(why, []).append(f"`{name}`")
    sentences = []
    for why, names in by_reason.items():
        names = list(dict.fromkeys(names))
        plays = "plays" if len(names) == 1 else "play"
        sentences.append(f" {', '.join(names)} {plays} no part {why}.")
    return "".join(sentences)


def _curves(run: RunFolder, trials: Sequence[Trial]) -> Section:
    demo = _dataset(trials[0]).is_demo
    figure = plotting.learning_curves(
        [trial.history for trial in trials], title="Learning curves", demo=demo
    )
    run.save_figure("learning_curves", figure)
    image = Image(
        "learning_curves.png",
        "Loss and accuracy on the training and validation images over the epochs.",
        "Training figures are taken while the network learns, with dropout and "
        "augmentation.",
    )
    return Section("Learning curves", [image])


def _intervals(trials: Sequence[Trial]) -> Section:
    """Of each seed's accuracy: what this many images can tell."""
    rows = []
    for trial in trials:
        found = trial.held_out
        correct = int(np.sum(found.predictions == found.labels))
        low, high = wilson_interval(correct, len(found.labels))
        rows.append(
            [
                str(trial.seed),
                f"{correct} of {len(found.labels)}",
                format_figure(correct / len(found.labels)),
                f"{format_figure(low)} to {format_figure(high)}",
            ]
        )
    split = trials[0].held_out.split
    header = ["seed", f"{split} images right", "accuracy", "95 % interval (Wilson)"]
    return Section("Accuracy with its confidence interval", [Table(header, rows)])


def _roc(run: RunFolder, trials: Sequence[Trial]) -> Iterator[Section]:
    """Nothing, unless there are two classes with images of both."""
    curves: dict[int, RocCurve] = {}
    for trial in trials:
        curve = trial.held_out.roc_curve()
        if curve is None:
            return
        curves[trial.seed] = curve
    found = trials[0].held_out
    figure = plotting.roc_curves(
        {f"seed {seed}": curve for seed, curve in curves.items()},
        positive=found.classes[1],
        title=f"ROC curve, {found.split} images",
        demo=_dataset(trials[0]).is_demo,
    )
    run.save_figure("roc_curve", figure)
    run.write_csv(
        "roc_curve",
        ["seed", "threshold", "false_positive_rate", "true_positive_rate"],
        [
            [seed, *point]
            for seed, curve in curves.items()
            for point in zip(
                curve.thresholds.tolist(),
                curve.false_positive_rate.tolist(),
                curve.true_positive_rate.tolist(),
                strict=True,
            )
        ],
    )
    image = Image(
        "roc_curve.png",
        f"Share of {found.classes[1]} found over the share of {found.classes[0]} taken "
        "for it, as the threshold moves.",
        "A curve a seed; roc_curve.csv has every point.",
    )
    yield Section("ROC curve", [image])


def _calibration(run: RunFolder, trials: Sequence[Trial]) -> Section:
    """Whether probabilities are as sure as they are right, of all seeds together."""
    after = [trial.held_out for trial in trials]
    before = [found.with_temperature(1.0) for found in after]
    labels = np.concatenate([found.labels for found in after])
    figure = plotting.reliability_diagram(
        *(
            reliability(np.concatenate([one.probabilities for one in several]), labels)
            for several in (before, after)
        ),
        title=f"Reliability, {after[0].split} images",
        demo=_dataset(trials[0]).is_demo,
    )
    run.save_figure("reliability", figure)
    image = Image(
        "reliability.png",
        "Accuracy over the probability of the predicted class, and the number of "
        "images, before and after temperature scaling.",
        "All seeds together. The expected calibration error is the mean distance from "
        f"the diagonal, over {CALIBRATION_BINS} bins of equal width.",
    )
    rows = [
        [
            str(trial.seed),
            format_figure(new.temperature),
            *(format_figure(found.calibration_error) for found in (old, new)),
            *(
                format_figure(
                    negative_log_likelihood(found.scaled_logits, found.labels)
                )
                for found in (old, new)
            ),
            format_figure(new.threshold),
            format_figure(float(new.turned_away.mean())),
        ]
        for trial, old, new in zip(trials, before, after, strict=True)
    ]
    header = [
        "seed", "temperature", "calibration error before", "after", "loss before",
        "loss after", "threshold", "turned away",
    ]  # fmt: skip
    note = (
        f"The {after[0].split} images. Logits are divided by the temperature, which is "
        "fitted to the validation images"
        + (
            ", and so is the threshold: 95 % of them have a class that is at least as "
            "probable. Where `unknown` is an answer, the other images are turned away."
            if trials[0].classifier
            else "; the mean over the folds is shown."
        )
    )
    # Of folds there is no threshold.
    shown = len(header) if trials[0].classifier else -2
    table = Table(header[:shown], [row[:shown] for row in rows])
    return Section("Calibration", [image, table, Text(note)])


def _confusion(run: RunFolder, trials: Sequence[Trial]) -> Section:
    found = trials[0].held_out
    matrix = np.sum([trial.held_out.confusion_matrix for trial in trials], axis=0)
    figure = plotting.confusion_matrix(
        matrix, found.classes, demo=_dataset(trials[0]).is_demo
    )
    run.save_figure("confusion_matrix", figure)
    image = Image(
        "confusion_matrix.png",
        "For each true class, how many images were given each name.",
        f"The {found.split} images of {format_count(len(trials), 'seed')}, counted "
        "together.",
    )
    blocks: list[markdown.Block] = [image]
    if len(found.classes) > plotting.WRITTEN_CLASSES:
        blocks += [
            Text("Most often confused:"),
            Table(
                ["true", "predicted", "images"], most_confused(matrix, found.classes)
            ),
        ]
    return Section("Confusion matrix", blocks)


def most_confused(
    matrix: np.ndarray, classes: Sequence[str], count: int = CONFUSED
) -> list[tuple[str, str, int]]:
    """(true class, predicted class, images) of the most frequent mistakes.

    Args:
      matrix: `[K, K]` counts; rows are true classes.
      classes: K names.
      count: mistakes at most.
    """
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        (classes[i], classes[j], int(mistakes[i, j]))
        for i, j in places
        if mistakes[i, j]
    ]


def _classes(trials: Sequence[Trial]) -> Section:
    """Precision, recall and F1 of each class, on the held-out images."""
    found = [trial.held_out for trial in trials]

    def spread(metric: str, label: int) -> str:
        values = [float(getattr(one.per_class, metric)[label]) for one in found]
        sd = statistics.stdev(values) if len(values) > 1 else None
        return format_mean_sd(statistics.fmean(values), sd)

    rows = [
        [
            name,
            f"{np.mean([one.per_class.support[label] for one in found]):g}",
            *(spread(metric, label) for metric in ("precision", "recall", "f1")),
        ]
        for label, name in enumerate(found[0].classes)
    ]
    header = ["class", "images", "precision", "recall", "F1"]
    seeds = format_count(len(trials), "seed")
    note = Text(f"The {found[0].split} images, mean over {seeds} ± sd.")
    return Section("Classes", [Table(header, rows), note])


def _gallery(run: RunFolder, trial: Trial) -> Section:
    """The surest wrong predictions and as many right ones, spread over the classes."""
    found, dataset = trial.held_out, _dataset(trial)
    probabilities = found.probabilities.max(-1)
    right = np.flatnonzero(found.predictions == found.labels)
    right = right[:: max(len(right) // GALLERY, 1)][:GALLERY]
    surest = np.argsort(-probabilities, kind="stable")
    wrong = surest[found.predictions[surest] != found.labels[surest]][:GALLERY]
    chosen = [*right, *wrong]
    index_of = {path: index for index, path in enumerate(dataset.images)}
    figure = plotting.gallery(
        [dataset.image(index_of[found.images[i]]) for i in chosen],
        [
            plotting.prediction_caption(
                found.classes[found.labels[i]],
                found.classes[found.predictions[i]],
                float(probabilities[i]),
            )
            for i in chosen
        ],
        [bool(found.predictions[i] == found.labels[i]) for i in chosen],
        title=f"Seed {trial.seed}, {found.split} images",
        demo=dataset.is_demo,
    )
    run.save_figure("gallery", figure)
    image = Image(
        "gallery.png",
        "Images with the name the network gave, its probability and the truth.",
        "Right predictions of all classes, then the wrong ones that the network was "
        "surest of.",
    )
    return Section("Gallery", [image])


def _write_predictions(run: RunFolder, trial: Trial) -> None:
    found = trial.held_out
    rows = [
        [path, found.classes[label], found.classes[int(row.argmax())], float(row.max())]
        for path, label, row in zip(
            found.images, found.labels, found.probabilities, strict=True
        )
    ]
    header = ["image", "true", "predicted", "probability"]
    run.write_csv(f"predictions-seed-{trial.seed}", header, rows)


def _image_sections(run: RunFolder, dataset: DecodedDataset) -> Iterator[Section]:
    """What is wrong with the images; nothing where nothing is."""
    run.write_csv("bad_images", ["image", "reason"], dataset.bad)
    run.write_csv("identical_images", ["images"], [[*g] for g in dataset.duplicates])
    header = ["image", "split", "other", "other_split", "bits"]
    run.write_csv("similar_images", header, dataset.similar)
    if dataset.bad:
        yield markdown.bad_images_section(dataset.bad, "bad_images.csv")
    if dataset.duplicates:
        yield markdown.duplicates_section(
            dataset.duplicates, "identical_images.csv", conflicts=dataset.conflicts
        )
    if dataset.similar:
        yield markdown.similar_section(dataset.similar, "similar_images.csv")
    if dataset.ignored or dataset.notes:
        yield markdown.ignored_section(dataset.ignored, dataset.notes)


# Tables of recipes.


def _write_row(
    results: Results,
    key: tuple[str, str],
    trials: Sequence[Trial],
    resume: str | None,
) -> None:
    """The report of one row, in the subfolder that has its history."""
    part = RunFolder.open(results.run.path / _row_folder(key))
    dataset = _dataset(trials[0])
    part.write_results(
        [
            dataclasses.replace(measurement, name=metric, table="", row="")
            for metric, measurement in results.measurements[key].items()
        ],
        data=DataSummary.of(dataset),
        seconds=math.fsum(trial.seconds for trial in trials),
    )
    markdown.write_report(
        part,
        title=f"{results.experiment.title}: {'/'.join(filter(None, key))}",
        question=results.experiment.question,
        sections=[
            *_classifier_sections(part, trials),
            *_image_sections(part, dataset),
            markdown.use_section(results.checkpoint / _row_folder(key), resume=resume),
        ],
    )
    part.close()


def _row_folder(key: tuple[str, str]) -> str:
    """Of a row, within the run folder and the checkpoint folder."""
    return folder_name("/".join(filter(None, key)))


def _table_sections(results: Results) -> Iterator[Section]:
    """A section a table; the rows that were left out; and the tables' effects."""
    for name, table in results.tables.items():
        rows = [row for row in table.recipes if (name, row) in results.trials]
        if rows:
            yield _table_section(results, name, table, rows)
    if results.missing:
        rows = [[row, reason] for row, reason in results.missing.items()]
        yield Section("Left out", [Table(["row", "reason"], rows)])
    if len(results.tables) > 1:
        yield from _effects(results)
    yield from _sweep_files(results)


def _table_section(
    results: Results, name: str, table: RecipeTable, rows: Sequence[str]
) -> Section:
    run, heading = results.run, heading_of(name)
    measured = {row: results.measurements[name, row] for row in rows}
    # What is solved has no epochs to show.
    trained = [row for row in rows if not table.recipes[row].solved]
    histories = {
        row: [trial.history for trial in results.trials[name, row]]
        for row in trained[:LINES]
    }
    metrics = ("accuracy",) if results.swept else ("loss", "accuracy")
    if not trained or not results.trials[name, trained[0]][0].history:
        metrics = ()
    images: list[markdown.Block] = []
    for metric in metrics:
        file = metric if not name else name if len(metrics) == 1 else f"{name}_{metric}"
        figure = plotting.curves_by_recipe(
            histories,
            metric,
            title=heading or results.experiment.title,
            demo=results.dataset.is_demo,
        )
        run.save_figure(file, figure)
        images.append(
            Image(
                f"{file}.png",
                f"{metric.capitalize()} on the training and the validation images over "
                "the epochs, a line a row.",
                "Training figures are taken while the network learns.",
            )
        )
    blocks: list[markdown.Block] = [
        *([Text(table.about)] if table.about else []),
        _figures_table(results, name, table, measured),
        Text(finding(measured, split=results.headline.partition("_")[0])),
        *images,
        Text(_caption(results, table, rows)),
    ]
    reports = [
        f"[{escape(row)}]({_row_folder((name, row))}/report.md)"
        for row in rows
        if results.trials[name, row][0].classifier
    ]
    if reports:
        blocks.append(Text(f"Report of each row: {', '.join(reports)}."))
    return Section((heading or "Comparison").capitalize(), blocks)


def heading_of(table: str) -> str:
    """The name of a table in words."""
    return table.replace("_", " ")


def _figures_table(
    results: Results,
    name: str,
    table: RecipeTable,
    measured: Mapping[str, Mapping[str, Measurement]],
) -> Table:
    """Mean ± sd over the seeds, a row a recipe."""
    split = results.headline.partition("_")[0]
    known = next(iter(measured.values()))
    columns = (
        f"{split}_accuracy", "best_val_accuracy", f"{split}_balanced_accuracy",
        f"{split}_macro_f1", "val_accuracy", "train_accuracy", "epochs",
        "seconds_per_epoch",
    )  # fmt: skip
    metrics = [metric for metric in dict.fromkeys(columns) if metric in known]
    recipes = {row: table.recipes[row] for row in measured}
    _, varied = shared_settings(recipes)
    costs = _costs(results, recipes)
    header = [
        heading_of(name), *(["settings"] if any(varied.values()) else []), *costs,
        *map(format_words, metrics),
    ]  # fmt: skip
    rows = [
        [
            row,
            *([_listed(varied[row])] if any(varied.values()) else []),
            *(column[row] for column in costs.values()),
            *(_spread(found[metric]) for metric in metrics),
        ]
        for row, found in measured.items()
    ]
    return Table(header, rows)


def _spread(measurement: Measurement) -> str:
    """Mean ± sd; of counts and times the mean alone."""
    if measurement.unit in ("epochs", "s"):
        return f"{measurement.mean:.3g}"
    return format_mean_sd(measurement.mean, measurement.sd)


def _costs(
    results: Results, recipes: Mapping[str, Recipe]
) -> dict[str, dict[str, int]]:
    """Column -> row -> parameters and multiply-adds, where the rows' networks differ.

    Both are of a network for the classes at hand, and of one image.
    """
    networks = {
        (recipe.network, str(recipe.options), recipe.image_size)
        for recipe in recipes.values()
    }
    if len(networks) == 1:
        return {}
    costs: dict[str, dict[str, int]] = {"parameters": {}, "multiply-adds": {}}
    for row, recipe in recipes.items():
        start = make_start(recipe)
        card = make_card(start, results.dataset.classes)
        model = cast(Network, card.create_model())
        images = start.preprocessing
        layers = summarize_model(model, (*images.size, images.channels))
        costs["parameters"][row] = sum(layer.parameters for layer in layers)
        costs["multiply-adds"][row] = sum(layer.multiply_adds for layer in layers)
    return {
        name: column for name, column in costs.items() if len(set(column.values())) > 1
    }


def _caption(results: Results, table: RecipeTable, rows: Sequence[str]) -> str:
    """How the figures came about, and the settings that all rows share."""
    config = results.config
    shared, _ = shared_settings({row: table.recipes[row] for row in rows})
    last = results.swept or table.recipes[rows[0]].select == "last"
    epoch = "the last epoch" if last else "the epoch that was best in validation"
    text = (
        "Mean ± sample standard deviation over "
        f"{format_count(len(config.seeds), 'seed')} "
        f"({', '.join(map(str, config.seeds))}), after {epoch}."
    )
    if results.folds is not None:
        text += f" {_crossed(results.folds)}"
    if shared:
        text += f" All rows: {escape(_listed(shared))}."
    if config.max_epochs:
        most = format_count(config.max_epochs, "epoch")
        text += f" No row was given more than {most}."
    return f"*{text}*"


def finding(
    measured: Mapping[str, Mapping[str, Measurement]], *, split: str = "val"
) -> str:
    """What the figures say, in a sentence of Markdown.

    Args:
      measured: row -> metric -> measurement.
      split: whose accuracy counts.
    """
    metric = f"{split}_accuracy"

    def spread(row: str) -> str:
        found = measured[row][metric]
        return f"{escape(row)} ({format_mean_sd(found.mean, found.sd)})"

    order = sorted(measured, key=lambda row: -measured[row][metric].mean)
    word = format_words(metric)
    if len(order) == 1:
        found = measured[order[0]]
        text = f"{word.capitalize()}: **{spread(order[0])}**"
        if "train_accuracy" not in found:
            return f"{text}."
        gap = found["train_accuracy"].mean - found[metric].mean
        side = "below" if gap >= 0 else "above"
        return (
            f"{text}, {format_figure(abs(gap))} {side} the accuracy on the training "
            "images."
        )
    text = f"Highest {word}: **{spread(order[0])}**; lowest: {spread(order[-1])}"
    change = difference(measured[order[0]][metric], measured[order[-1]][metric])
    if change.sd is None:
        return f"{text}."
    sure = change.mean > 2 * change.sd / math.sqrt(len(change.values))
    apart = format_mean_sd(change.mean, change.sd)
    return (
        f"{text}; seed by seed they differ by {apart}, "
        f"{'more' if sure else 'no more'} than two standard errors."
    )


def difference(one: Measurement, other: Measurement) -> Measurement:
    """`one` minus `other`, seed by seed."""
    pairs = zip(one.values, other.values, strict=True)
    return dataclasses.replace(one, values=[a - b for a, b in pairs])


def _effects(results: Results) -> Iterator[Section]:
    """Every row against its table's reference, seed by seed, best first."""
    metric, found = results.headline, []
    for name, table in results.tables.items():
        reference = table.reference or next(iter(table.recipes))
        if (name, reference) not in results.trials:
            continue
        base = results.measurements[name, reference][metric]
        for row in table.recipes:
            if row != reference and (name, row) in results.trials:
                ours = results.measurements[name, row][metric]
                found.append((difference(ours, base), heading_of(name), row, reference))
    if not found:
        return
    found.sort(key=lambda entry: -entry[0].mean)
    rows = [[*names, format_mean_sd(c.mean, c.sd)] for c, *names in found]
    header = ["table", "row", "in place of", f"change of {format_words(metric)}"]
    yield Section("Effects", [Table(header, rows)])


def _sweep_files(results: Results) -> Iterator[Section]:
    """Splits and curves of a sweep, whose rows have no folders of their own."""
    if not results.swept:
        return
    run = results.run
    for seed in results.config.seeds:
        splits = results.dataset
        if results.config.data.splits is None:
            splits = splits.with_seed(seed)
        splits.write_splits(run.path / f"splits-seed-{seed}.csv")
    columns = [
        "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
        "learning_rate",
    ]  # fmt: skip
    run.write_csv(
        "curves",
        ["configuration", "seed", *columns],
        [
            ["/".join(filter(None, key)), trial.seed, *(row[name] for name in columns)]
            for key, trials in results.trials.items()
            for trial in trials
            for row in trial.history
        ],
    )
    every = {
        trial.folder or (key, trial.seed): trial
        for key, trials in results.trials.items()
        for trial in trials
    }
    reused = sum(trial.reused for trial in every.values())
    yield Section(
        "Trainings",
        [
            Text(
                f"{len(every)}, of which {reused} were finished before. Every epoch "
                "stands in [curves.csv](curves.csv), the splits in "
                "`splits-seed-*.csv`."
            )
        ],
        aside=True,
    )


def _use_best(results: Results, resume: str | None) -> Iterator[Section]:
    """What to type next, with the network of the best row that has one."""

    def accuracy(key: tuple[str, str]) -> float:
        return results.measurements[key][results.headline].mean

    kept = [
        key
        for key, trials in results.trials.items()
        if trials[0].folder is not None
        and (trials[0].classifier or key[1] in results.tables[key[0]].save)
    ]
    folder = None
    if kept:
        key = max(kept, key=accuracy)
        seed = results.trials[key][0].folder
        assert seed is not None
        folder = seed.parent
    if folder is not None or resume is not None:
        yield markdown.use_section(folder, resume=resume)


# Published figures.


def _published_sections(results: Results) -> Iterator[Section]:
    """Every published figure that was measured here too, beside ours."""
    experiment = results.experiment
    comparisons = compare(
        experiment.published,
        results.run.read_results(),
        dataset=experiment.dataset,
        row=published_row(
            experiment.published_rows, run_settings(results.run.read_config())
        ),
    )
    if comparisons:
        yield published_section(comparisons, experiment.reference)


def published_section(comparisons: Sequence[Comparison], reference: str) -> Section:
    """Published figures beside ours.

    reference: what was published, in words.
    """
    several = len({comparison.table for comparison in comparisons}) > 1
    rows = [
        [
            *([heading_of(one.table)] if several else []),
            one.row,
            format_words(one.metric),
            format_value(one.value),
            format_mean_sd(one.mean, one.sd),
            VERDICTS[one.verdict],
            one.source,
        ]
        for one in comparisons
    ]
    header = [
        *(["table"] if several else []), "row", "figure", "published", "ours",
        "verdict", "source",
    ]  # fmt: skip
    note = (
        f"Ours agrees within {SDS:g} of its standard deviations. Other data are not "
        "compared."
    )
    text = f"{reference} {note}" if reference else note
    return Section(markdown.PUBLISHED, [Table(header, rows), Text(escape(text))])


# Recipes in words.


def describe(recipe: Recipe) -> dict[str, str]:
    """The settings of a recipe that make a difference, by their names."""
    neutral = _all_settings(NEUTRAL)
    return {
        name: value
        for name, value in _settings(recipe).items()
        if name in ALWAYS or value != neutral.get(name)
    }


def shared_settings(
    recipes: Mapping[str, Recipe],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Settings that all rows share, as far as they make a difference; and for each row
    those that differ."""
    every = {row: _settings(recipe) for row, recipe in recipes.items()}
    names = dict.fromkeys(name for settings in every.values() for name in settings)
    # What plays no part in a row is as good as neutral there.
    neutral = _all_settings(NEUTRAL)
    differing = [
        name
        for name in names
        if len({s.get(name, neutral.get(name)) for s in every.values()}) > 1
    ]
    shared = describe(next(iter(recipes.values())))
    varied = {
        row: {name: settings[name] for name in differing if name in settings}
        for row, settings in every.items()
    }
    return {k: v for k, v in shared.items() if k not in differing}, varied


def _settings(recipe: Recipe) -> dict[str, str]:
    """Those that play a part, in words."""
    idle = idle_settings(recipe)
    return {k: v for k, v in _all_settings(recipe).items() if k not in idle}


def _all_settings(recipe: Recipe) -> dict[str, str]:
    return {
        name.removeprefix("options."): _plain(value)
        for name, value in flatten(to_plain(recipe)).items()
        if name != "options" and value is not None
    }


def _listed(settings: Mapping[str, str]) -> str:
    """In words: `epochs 10, learning rate 0.001`."""
    return ", ".join(f"{_words(name)} {value}" for name, value in settings.items())


def _words(setting: str) -> str:
    name = "schedule" if setting == "schedule.kind" else setting.rpartition(".")[2]
    return name.replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "×".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
