"""Tables of configurations × seeds, beside what was published, and their report.

A table is a list of rows, each a configuration; every row is trained with every seed
(see `jaxvision.training.sweep`). What is finished stays in `checkpoints/part1` and is
used again by every experiment of the first part that needs the same row.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common import announce_data, draw_demo
from jaxvision.config import to_plain
from jaxvision.data.dataset import DataConfig, Dataset, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxvision.models import Network
    from jaxvision.report import markdown
    from jaxvision.report.run_folder import Measurement
    from jaxvision.training.sweep import Configuration, Run

PUBLISHED = Path(__file__).with_name("published.json")
"""Every figure that the assignment's reports give: section, row, metric, value (or
[lowest, highest]) and source."""

SOURCES = (
    "Niaz: P. P. Niaz, “Convolutional Neural Networks for Artist and Celebrity "
    "Detection”, Koç University. Gözpınar: C. Gözpınar, “Assignment 2 Report”, "
    "COMP541, Koç University, 2022. Their figures are of single runs on 91 validation "
    "images unless said otherwise."
)

IMAGES = Preprocessing(
    size=(50, 50), resize_mode="stretch", mean=(127.5,) * 3, std=(255.0,) * 3
)
"""As the assignment has it: 50×50, a plain resize, values from -0.5 to 0.5."""

LINES = 8
"""Configurations in one figure, at most."""


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What all experiments of the first part share."""

    data: DataConfig = dataclasses.field(
        default_factory=lambda: DataConfig(split=SplitConfig(0.8, 0.2, 0.0))
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run each: seed of the split, the initialization, the order and dropout."""
    epochs: int | None = None
    """At most this many epochs in every row, for trials; none: each row's own."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""
    checkpoints: Path = Path("checkpoints")
    """Finished rows are kept in a subfolder, such as `part1`, and not trained
    again."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A line of a table.

    name: of the row; published figures are looked up by it.
    save: whether the networks are saved, for `evaluate`, `predict` and `robustness`.
    """

    name: str
    configuration: "Configuration"
    save: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that one question compares.

    section: of the assignment, such as "1.4".
    name: unique among the tables of the first part; names figures and files.
    about: what is compared, in a sentence or two.
    reference: name of the row that the others change something of; None: the first.
    """

    section: str
    name: str
    about: str
    rows: tuple[TableRow, ...]
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an experiment has to show.

    sections: of the report.
    figures: file name without ending -> figure; the sections' images refer to them.
    measurements: for `results.json`.
    runs: name of a row -> (seed, run) of each, for the table of all curves.
    headline: names of the measurements that open the report.
    csv: file name without ending -> header and rows.
    """

    sections: list["markdown.Section"]
    figures: dict[str, "Figure"]
    measurements: list["Measurement"]
    runs: dict[str, list[tuple[int, "Run"]]] = dataclasses.field(default_factory=dict)
    headline: list[str] = dataclasses.field(default_factory=list)
    csv: dict[str, tuple[list[str], list[list[Any]]]] = dataclasses.field(
        default_factory=dict
    )


@dataclasses.dataclass(frozen=True)
class Published:
    """An experiment's report: its folder, and the sections for another to quote."""

    path: Path
    title: str
    findings: Findings


class Study:
    """The images in the split of each seed, and the store of finished runs.

    preprocessing: of the images.
    demo_kind: the built-in set that stands in where no folder is given.
    part: of the assignment; names the subfolder of finished rows.
    """

    def __init__(
        self,
        config: StudyConfig,
        preprocessing: Preprocessing = IMAGES,
        *,
        demo_kind: str = "paintings",
        part: str = "part1",
    ) -> None:
        from jaxvision.report.progress import Progress

        if not config.seeds:
            raise InputError("--seeds: give at least one")
        if config.data.root is None:
            draw_demo(demo_kind)
        with Progress("reading images", unit="images") as progress:
            self.dataset = load_dataset(
                config.data, preprocessing, demo_kind=demo_kind, progress=progress
            )
        announce_data(self.dataset)
        self.config = config
        self.datasets = {seed: self.split(seed) for seed in config.seeds}
        self.store = config.checkpoints / part

    def split(self, seed: int) -> Dataset:
        """The images in a seed's split; all the same where a file gives one."""
        data = self.config.data
        if data.splits is not None:
            return self.dataset
        return self.dataset.resplit(dataclasses.replace(data.split, seed=seed))

    def configuration(self, row: TableRow) -> "Configuration":
        """A row's, with no more epochs than the command line allows."""
        most = self.config.epochs
        if most is None or most >= row.configuration.epochs:
            return row.configuration
        return dataclasses.replace(row.configuration, epochs=most)

    def train(self, rows: Sequence[TableRow], title: str) -> list[list["Run"]]:
        """For each row the runs of the seeds; finished ones are read."""
        from jaxvision.report.progress import Progress
        from jaxvision.training.sweep import run_sweep

        with Progress(title, unit="epochs") as progress:
            runs = run_sweep(
                [self.configuration(row) for row in rows],
                self.datasets,
                store=self.store,
                save=[self.configuration(row) for row in rows if row.save],
                progress=progress,
            )
        for row, several in zip(rows, runs, strict=True):
            if row.save:
                for seed, run in zip(self.datasets, several, strict=True):
                    self._write_card(row, seed, run)
        return runs

    def make_model(self, row: TableRow) -> "Network":
        """The network of a row, without parameters."""
        from jaxvision.models import create_model

        configuration = row.configuration
        classes = len(self.dataset.classes)
        return create_model(configuration.model, classes, **configuration.options)

    def _write_card(self, row: TableRow, seed: int, run: "Run") -> None:
        """Makes of a kept network what `load_classifier` reads."""
        from jaxvision.classifier import CARD, ModelCard, load_classifier

        if (run.folder / CARD).is_file() and ModelCard.read(run.folder).recorded:
            return
        dataset, configuration = self.datasets[seed], self.configuration(row)
        card = ModelCard(
            model=configuration.model,
            options=dict(configuration.options),
            classes=dataset.classes,
            preprocessing=dataset.preprocessing,
            weights="fresh",
            data={
                "name": dataset.name,
                "root": str(dataset.root.resolve()),
                "is_demo": dataset.is_demo,
            },
            seed=seed,
            batch_size=configuration.batch_size,
        )
        with writing(run.folder):
            card.write(run.folder)
            dataset.write_splits(run.folder / "splits.csv")
        classifier = load_classifier(run.folder)
        figures = {
            split: classifier.evaluate(dataset, split)[0]
            for split, indices in dataset.splits.items()
            if len(indices)
        }
        classifier.record(figures, run.folder)


def run_study(
    experiment: str,
    config: StudyConfig,
    *,
    title: str,
    question: str,
    find: Callable[[Study], Findings],
    study: Study | None = None,
) -> Published:
    """Trains what is not trained yet and writes run folder and report.

    Args:
      experiment: names the folder.
      title, question: of the report.
      find: makes the findings of a study.
      study: where several experiments share one; None: one of this config.
    """

    from jaxvision.report import markdown
    from jaxvision.report.run_folder import DataSummary, RunFolder
    from jaxvision.training.sweep import curves

    began = time.monotonic()
    study = study or Study(config)
    findings = find(study)
    dataset = study.dataset
    run = RunFolder.create(experiment, root=config.runs)
    run.write_config(config)
    for name, figure in findings.figures.items():
        run.save_figure(name, figure)
    sections = list(findings.sections)
    for name, (header, rows) in findings.csv.items():
        run.write_csv(name, header, rows)
    if findings.runs:
        run.write_csv("curves", *curves(findings.runs))
        for seed, split in study.datasets.items():
            split.write_splits(run.path / f"splits-seed-{seed}.csv")
        sections.append(_how_section(study, findings.runs))
    run.write_results(
        findings.measurements,
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
    )
    run.write_csv("bad_images", ["image", "reason"], dataset.bad)
    markdown.write_report(
        run,
        title=title,
        question=question,
        sections=[
            *sections,
            markdown.bad_images_section(dataset.bad, "bad_images.csv"),
        ],
        headline=findings.headline or None,
    )
    shown = findings.headline or [figure.name for figure in findings.measurements]
    figures = [figure for figure in findings.measurements if figure.name in shown]
    say(figures, run.path, demo=dataset.is_demo)
    return Published(run.path, title, findings)


def table_findings(study: Study, tables: Sequence[Table]) -> Findings:
    """Trains all rows of all tables in one sweep; a section and a figure a table."""
    rows = [row for table in tables for row in table.rows]
    trained = iter(study.train(rows, f"section {tables[0].section}"))
    findings = Findings([], {}, [])
    for table in tables:
        runs = {row.name: next(trained) for row in table.rows}
        _add_table(findings, study, table, runs)
    return findings


def effects_section(
    findings: Findings, tables: Sequence[Table], title: str
) -> "markdown.Section":
    """Every row against its table's reference, seed by seed, best first."""
    from jaxvision.report import markdown
    from jaxvision.report.formats import format_mean_sd

    figures = {figure.name: figure for figure in findings.measurements}
    rows = []
    for table in tables:
        reference = table.reference or table.rows[0].name
        base = figures[f"{table.name}/{reference}/val_accuracy"]
        for row in table.rows:
            if row.name != reference:
                ours = figures[f"{table.name}/{row.name}/val_accuracy"]
                pairs = zip(ours.values, base.values, strict=True)
                change = dataclasses.replace(ours, values=[a - b for a, b in pairs])
                rows.append((change, [heading(table), row.name, reference]))
    rows.sort(key=lambda entry: -entry[0].mean)
    cells = [[*names, format_mean_sd(c.mean, c.sd)] for c, names in rows]
    header = ["table", "row", "in place of", "change of validation accuracy"]
    (top, gain), (bottom, loss) = rows[0], rows[-1]

    def named(names: Sequence[str]) -> str:
        return f"{markdown.escape(names[1])} in place of {markdown.escape(names[2])}"

    return markdown.Section(
        title,
        [
            markdown.Table(header, cells),
            markdown.Text(
                "Mean ± sd of the differences seed by seed, from the largest gain to "
                "the largest loss. "
                + (f"Most was gained by {named(gain)}. " if top.mean > 0 else "")
                + (f"Most was lost by {named(loss)}." if bottom.mean < 0 else "")
            ),
        ],
    )


def _add_table(
    findings: Findings, study: Study, table: Table, runs: Mapping[str, list["Run"]]
) -> None:
    """Adds a table's section, figure, measurements and curves."""
    from jaxvision import plotting
    from jaxvision.report import markdown

    seeds = list(study.datasets)
    measured = {
        row.name: {
            m.name.rpartition("/")[2]: m
            for m in measure_row(table, row, runs[row.name], seeds)
        }
        for row in table.rows
    }
    for row in table.rows:
        findings.measurements.extend(measured[row.name].values())
        findings.headline.append(measured[row.name]["val_accuracy"].name)
        findings.runs[f"{table.name}/{row.name}"] = list(
            zip(seeds, runs[row.name], strict=True)
        )
    histories = {row.name: [r.rows for r in runs[row.name]] for row in table.rows}
    shown = dict(list(histories.items())[:LINES])
    findings.figures[table.name] = plotting.accuracy_by_configuration(
        shown,
        title=f"{table.section} {heading(table)}",
        demo=study.dataset.is_demo,
    )
    blocks: list[markdown.Block] = [
        markdown.Text(table.about),
        _figures_table(table, measured),
        markdown.Text(caption(study, table)),
        markdown.Text(finding(measured)),
        markdown.Image(
            f"{table.name}.png",
            f"Accuracy over the epochs for each row of the table {heading(table)}.",
            "Training accuracy is taken while the network learns, dropout and "
            "augmentation included.",
        ),
    ]
    if published := _published_table(table, measured):
        blocks[4:4] = published
    section = f"{table.section} {heading(table)}"
    findings.sections.append(markdown.Section(section, blocks))


def heading(table: Table) -> str:
    """Its name in words."""
    return table.name.replace("_", " ")


def measure_row(
    table: Table, row: TableRow, runs: Sequence["Run"], seeds: Sequence[int]
) -> list["Measurement"]:
    """Accuracies after the last epoch, that of the best epoch, and how many there were,
    a value a seed; named `<table>/<row>/<metric>`."""
    from jaxvision.report.run_folder import Measurement

    def measurement(metric: str, values: list[float], **about: str) -> Measurement:
        return Measurement(f"{table.name}/{row.name}/{metric}", values, seeds, **about)

    return [
        measurement(
            "train_accuracy", [r.rows[-1]["train_accuracy"] for r in runs],
            split="train",
        ),
        measurement(
            "val_accuracy", [r.rows[-1]["val_accuracy"] for r in runs], split="val"
        ),
        measurement(
            "best_val_accuracy", [r.best["val_accuracy"] for r in runs], split="val"
        ),
        measurement("epochs", [len(r.rows) for r in runs], unit="epochs", split="val"),
        measurement("seconds", [r.seconds for r in runs], unit="s", split="train"),
    ]  # fmt: skip


def _figures_table(
    table: Table, measured: Mapping[str, Mapping[str, "Measurement"]]
) -> "markdown.Table":
    from jaxvision.report import markdown
    from jaxvision.report.formats import format_mean_sd

    _, varied = settings(table)
    rows = []
    for row in table.rows:
        figures = measured[row.name]
        cells = [
            format_mean_sd(figures[metric].mean, figures[metric].sd)
            for metric in ("train_accuracy", "val_accuracy", "best_val_accuracy")
        ]
        epochs = f"{figures['epochs'].mean:.4g}"
        rows.append([row.name, varied[row.name], *cells, epochs])
    header = [
        heading(table), "settings of the row", "train", "validation",
        "validation, best epoch", "epochs",
    ]  # fmt: skip
    return markdown.Table(header, rows)


def _published_table(
    table: Table, measured: Mapping[str, Mapping[str, "Measurement"]]
) -> list["markdown.Block"]:
    """What was published of these rows beside ours; nothing where nothing was."""
    from jaxvision.report import markdown

    beside = beside_published(table.section, measured)
    return [beside, markdown.Text(SOURCES)] if beside.rows else []


def beside_published(
    section: str, measured: Mapping[str, Mapping[str, "Measurement"]]
) -> "markdown.Table":
    """Every published figure of a section that was measured here too, beside ours.

    measured: row -> metric -> measurement.
    """
    from jaxvision.report import markdown
    from jaxvision.report.formats import format_mean_sd

    rows = []
    for entry in published_figures(section):
        if entry["row"] in measured and entry["metric"] in measured[entry["row"]]:
            ours = measured[entry["row"]][entry["metric"]]
            rows.append(
                [
                    entry["row"],
                    entry["metric"].replace("_", " ").replace("val ", "validation "),
                    _value(entry["value"]),
                    entry["source"],
                    format_mean_sd(ours.mean, ours.sd),
                    apart(entry["value"], ours),
                ]
            )
    header = ["row", "figure", "published", "source", "ours", "more than 2 sd apart"]
    return markdown.Table(header, rows)


def _value(value: float | Sequence[float]) -> str:
    from jaxvision.report.formats import format_figure

    if isinstance(value, Sequence):
        return " to ".join(map(format_figure, value))
    return format_figure(float(value)) if value < 1 else f"{value:g}"


def apart(value: float | Sequence[float], ours: "Measurement") -> str:
    """Whether a published value, or range, is more than two of our sd from our mean."""
    from jaxvision.report.compare import verdict

    return {
        "agrees": "no",
        "higher": "yes, ours is higher",
        "lower": "yes, ours is lower",
        "unknown": "–",
    }[verdict(value, ours.mean, ours.sd)]


def published_figures(section: str, path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """The published figures of a section of the assignment."""
    entries = json.loads(path.read_text("utf-8"))
    return [entry for entry in entries if entry["section"] == section]


def settings(table: Table) -> tuple[dict[str, str], dict[str, str]]:
    """Settings that all rows share, by name; and for each row the others, in words."""
    flat = {row.name: _flatten(row.configuration) for row in table.rows}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    shared = {
        name: next(iter(flat.values()))[name]
        for name in names
        if len({values.get(name) for values in flat.values()}) == 1
    }
    varied = {
        row: ", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in values.items()
            if name not in shared
        )
        for row, values in flat.items()
    }
    return shared, varied


def caption(study: Study, table: Table) -> str:
    """Every setting of a table, in one paragraph."""
    from jaxvision.report.markdown import escape

    shared, _ = settings(table)
    seeds, datasets = study.config.seeds, study.datasets
    counts = {name: len(indices) for name, indices in datasets[seeds[0]].splits.items()}
    common = "; ".join(f"{name.replace('_', ' ')} {v}" for name, v in shared.items())
    images = study.dataset.preprocessing
    height, width = images.size
    limit = study.config.epochs
    return (
        f"*Mean ± sample standard deviation over {len(seeds)} seed(s) "
        f"({', '.join(map(str, seeds))}), each with its own split "
        f"({counts['train']} training, {counts['val']} validation images), "
        "initialization, order and dropout; after the last epoch, on the training "
        "images while learning. Images are resized to "
        f"{height}×{width} and scaled by (x − {images.mean[0]:g}) / "
        f"{images.std[0]:g}; the loss is cross-entropy."
        + (f" All rows: {escape(common)}." if common else "")
        + (f" No row was given more than {limit} epochs." if limit else "")
        + "*"
    )


def finding(
    measured: Mapping[str, Mapping[str, "Measurement"]], *, split: str = "val"
) -> str:
    """What the figures say, in words.

    measured: row -> metric -> measurement; of the split and of training.
    """
    from jaxvision.report.formats import format_figure, format_mean_sd
    from jaxvision.report.markdown import escape

    metric, word = f"{split}_accuracy", {"val": "validation"}.get(split, split)

    def spread(name: str) -> str:
        figure = measured[name][metric]
        return f"{escape(name)} ({format_mean_sd(figure.mean, figure.sd)})"

    def gap(name: str) -> float:
        figures = measured[name]
        return figures["train_accuracy"].mean - figures[metric].mean

    order = sorted(measured, key=lambda name: -measured[name][metric].mean)
    if len(order) == 1:
        return (
            f"{word.capitalize()} accuracy: {spread(order[0])}, "
            f"{format_figure(gap(order[0]))} below the accuracy on the training "
            "images: "
            + ("it overfits." if gap(order[0]) > 0.1 else "it hardly overfits.")
        )
    wide, narrow = max(order, key=gap), min(order, key=gap)
    best, worst = (measured[name][metric] for name in (order[0], order[-1]))
    text = (
        f"Highest {word} accuracy: **{spread(order[0])}**; lowest: {spread(order[-1])}."
    )
    if len(best.values) > 1:
        differences = [a - b for a, b in zip(best.values, worst.values, strict=True)]
        paired = dataclasses.replace(best, values=differences)
        sure = paired.mean > 2 * (paired.sd or 0.0) / math.sqrt(len(differences))
        text += (
            " Seed by seed they differ by "
            f"{format_mean_sd(paired.mean, paired.sd)}, "
            + ("more" if sure else "no more")
            + " than two standard errors."
        )
    return text + (
        f" Training accuracy exceeds {word} accuracy most for {escape(wide)} "
        f"(by {format_figure(gap(wide))}) and least for {escape(narrow)} "
        f"(by {format_figure(gap(narrow))})."
    )


def summary_section(
    study: Study, rows: Sequence[TableRow], heading: str
) -> "markdown.Section":
    """Each row's network as built: layers, and how it is trained."""
    from jaxvision.models.summary import as_table, summarize_model
    from jaxvision.report import markdown

    blocks: list[markdown.Block] = []
    for row in rows:
        layers = summarize_model(study.make_model(row), (*IMAGES.size, 3))
        names = [layer.layer for layer in layers if layer.parameters]
        convolutions = sum(name.startswith("conv") for name in names)
        optim = row.configuration.optim
        blocks += [
            markdown.Text(
                f"**{markdown.escape(row.name)}**: {len(names)} layers with weights, "
                f"{convolutions} convolutional and {len(names) - convolutions} dense. "
                "Hidden nodes use ReLU; the loss is cross-entropy of the softmax, "
                f"minimized by {optim.optimizer} on gradients from back-propagation, "
                f"learning rate {optim.learning_rate:g}, "
                f"{row.configuration.batch_size} images a step."
            ),
            markdown.Table(*as_table(layers)),
        ]
    return markdown.Section(heading, blocks)


def _flatten(configuration: "Configuration") -> dict[str, str]:
    """Settings that are not their defaults, and the most important in any case."""
    from jaxvision.data.transforms import AugmentConfig
    from jaxvision.optim import OptimConfig

    plain = to_plain(configuration)
    optim, augment = plain.pop("optim"), plain.pop("augment")
    options = plain.pop("options")
    defaults = to_plain(OptimConfig())
    always = ("optimizer", "learning_rate", "schedule", "weight_decay")
    values: dict[str, Any] = {"network": plain.pop("model"), **options}
    for name, value in optim.items():
        if name in always or value != defaults[name]:
            values[name] = value
    if optim["optimizer"] == "sgd":
        values["momentum"] = optim["momentum"]
    values.update(plain)
    changed = {k: v for k, v in augment.items() if v != to_plain(AugmentConfig())[k]}
    values["augmentation"] = (
        " ".join(f"{name.replace('_', ' ')} {v:g}" for name, v in changed.items())
        or "none"
    )
    return {
        name: f"{value:g}" if isinstance(value, float) else str(value or "none")
        for name, value in values.items()
    }


def _how_section(
    study: Study, runs: Mapping[str, Sequence[tuple[int, "Run"]]]
) -> "markdown.Section":
    from jaxvision.report import markdown

    every = {run.folder: run for several in runs.values() for _, run in several}
    reused = sum(run.reused for run in every.values())
    return markdown.Section(
        "Runs",
        [
            markdown.Text(
                f"Trainings: {len(every)}, of which {reused} were finished before and "
                f"read from `{study.store}`. Every epoch of every run stands in "
                "[curves.csv](curves.csv), the splits in `splits-seed-*.csv`. The same "
                "command again uses what is finished and trains what is missing."
            )
        ],
    )


def say(figures: Sequence["Measurement"], path: Path, *, demo: bool) -> None:
    """Prints figures, the report and, last, the run folder."""
    from jaxvision.report.formats import format_mean_sd

    for figure in figures:
        print(
            f"{figure.name}: {format_mean_sd(figure.mean, figure.sd)}, "
            f"{len(figure.values)} seed(s)" + (" (demo data)" if demo else "")
        )
    print(f"report: {path / 'report.md'}")
    print(path)
