"""Several networks, or ways to train one, on the same images: one report of all.

Each way is trained with every seed and has a run folder and checkpoints of its own, in
those of the comparison; what is finished is not trained again when a run is continued.
"""

import dataclasses
import re
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common import (
    AnyConfig,
    RunConfig,
    Task,
    draw_demo,
    open_folders,
    read_images,
    resumable,
    resumed,
    run_seed,
)
from jaxvision.errors import InputError
from jaxvision.training.distributed import is_main_process, main_process_first

if TYPE_CHECKING:
    from experiments.run_report import Outcome
    from jaxvision.data.dataset import Dataset
    from jaxvision.report import markdown
    from jaxvision.report.run_folder import Measurement, RunFolder
    from jaxvision.training.loop import Row, Select

SECONDS = "seconds_per_epoch"


@dataclasses.dataclass(frozen=True)
class Way:
    """One line of a comparison.

    name: in tables and figures; published figures are looked up by it.
    config: how it is trained.
    prepare: makes the task, when its turn has come.
    facts: what the table says of it before its figures, by the column's heading.
    select: which epoch's network the task keeps.
    """

    name: str
    config: RunConfig
    prepare: Callable[[], Task]
    facts: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    select: "Select" = "best"

    @property
    def folder(self) -> str:
        """Name of its folders."""
        return re.sub(r"[^\w.]+", "-", self.name)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A way, trained with every seed.

    measurements: by name, such as "test_accuracy".
    histories: one a seed.
    """

    way: Way
    measurements: Mapping[str, "Measurement"]
    histories: Sequence[Sequence["Row"]]


Sections = Callable[[Sequence[Compared]], Sequence["markdown.Section"]]


def run_comparison(
    experiment: str,
    config: AnyConfig,
    *,
    title: str,
    question: str,
    make_ways: Callable[[AnyConfig], Sequence[Way]],
    sections: Sections = lambda compared: (),
) -> Path:
    """Trains every way with every seed, and writes run folders and reports.

    Args:
      experiment: names the folders.
      config: what to do, or what to resume.
      title, question: of the report.
      make_ways: what a config compares; at least one.
      sections: of the report, after those that every comparison has.

    Returns:
      The run folder, whose path is also the last line on standard output.
    """
    began = time.monotonic()
    config = resumed(config)
    if not config.seeds:
        raise InputError("--seeds: give at least one")
    with main_process_first():
        ways = make_ways(config)
        if config.data.root is None:
            draw_demo(config.DEMO_KIND)
    run, folder = None, None
    resume, dataset = "", None
    compared = []
    for way in ways:
        print(f"{way.name}:")
        with main_process_first():
            task = way.prepare()
        if dataset is None or dataset.preprocessing != task.preprocessing:
            dataset = None  # its images, before others come
            dataset = read_images(config, task.preprocessing)
        if run is None:
            # Not before all that was given is known to be usable.
            run, folder = open_folders(experiment, config)
            command = ["python", "-m", f"experiments.{experiment}", "--resume"]
            resume = shlex.join([*command, str(folder)])
        with resumable(resume, config):
            part = _part(run, way)
            outcomes = [
                run_seed(way.config, task, part, folder / way.folder, dataset, seed)
                for seed in config.seeds
            ]
        compared.append(_compared(way, part, outcomes))
        if is_main_process():
            _write_part(part, way, task, outcomes, folder, title, question, resume)
    if is_main_process():
        _write(run, compared, dataset, title, question, sections, began)
    return run.path


def spread(measurement: "Measurement") -> str:
    """Its mean and standard deviation."""
    from jaxvision.report.formats import format_mean_sd

    return format_mean_sd(measurement.mean, measurement.sd)


def _part(run: "RunFolder", way: Way) -> "RunFolder":
    """The run folder of one way, within that of the comparison."""
    from jaxvision.report.run_folder import RunFolder

    path = run.path / way.folder
    options = {"tensorboard": way.config.tensorboard}
    if path.is_dir():
        return RunFolder.open(path, **options)
    part = RunFolder.create(
        f"{run.experiment}/{run.path.name}",
        root=run.path.parents[1],
        name=way.folder,
        **options,
    )
    part.write_config(way.config)
    return part


def _compared(way: Way, part: "RunFolder", outcomes: Sequence["Outcome"]) -> Compared:
    from experiments.run_report import measurements
    from jaxvision.report.run_folder import Measurement

    seeds = [outcome.seed for outcome in outcomes]
    histories = [part.read_history(seed=seed) for seed in seeds]
    # The median: the first epoch is compiled in.
    seconds = [
        statistics.median(row["seconds"] for row in history) for history in histories
    ]
    figures = [
        *measurements(outcomes),
        Measurement(SECONDS, seconds, seeds, unit="s", split="train"),
    ]
    return Compared(way, {figure.name: figure for figure in figures}, histories)


def _write_part(
    part: "RunFolder",
    way: Way,
    task: Task,
    outcomes: Sequence["Outcome"],
    folder: Path,
    title: str,
    question: str,
    resume: str,
) -> None:
    """The report of one way."""
    from experiments.run_report import write_run

    write_run(
        part,
        folder / way.folder,
        outcomes,
        title=f"{title}: {way.name}",
        question=question,
        notes=task.notes,
        resume=resume,
        seconds=sum(
            row["seconds"]
            for outcome in outcomes
            for row in part.read_history(seed=outcome.seed)
        ),
    )


def _write(
    run: "RunFolder",
    compared: Sequence[Compared],
    dataset: "Dataset",
    title: str,
    question: str,
    sections: Sections,
    began: float,
) -> None:
    """The report of all."""

    from experiments.tables import say
    from jaxvision import plotting
    from jaxvision.report import markdown
    from jaxvision.report.run_folder import DataSummary

    measurements = [
        dataclasses.replace(figure, name=f"{one.way.name}/{figure.name}")
        for one in compared
        for figure in one.measurements.values()
    ]
    run.write_results(
        measurements,
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
    )
    histories = {one.way.name: one.histories for one in compared}
    look = {"title": title, "demo": dataset.is_demo}
    run.save_figure("loss", plotting.loss_by_configuration(histories, **look))
    run.save_figure("accuracy", plotting.accuracy_by_configuration(histories, **look))
    first, *_ = _shown(compared)
    headline = [f"{one.way.name}/{first}" for one in compared]
    markdown.write_report(
        run,
        title=title,
        question=question,
        sections=[
            _table_section(compared),
            _curves_section(),
            *sections(compared),
            markdown.bad_images_section(dataset.bad, "bad_images.csv"),
        ],
        headline=headline,
    )
    run.write_csv("bad_images", ["image", "reason"], dataset.bad)
    shown = [figure for figure in measurements if figure.name in headline]
    say(shown, run.path, demo=dataset.is_demo)


def _shown(compared: Sequence[Compared]) -> list[str]:
    """Metrics of the table, the most important one first."""
    measured = compared[0].measurements
    held_out = "test" if "test_accuracy" in measured else "val"
    names = [
        f"{held_out}_accuracy",
        f"{held_out}_balanced_accuracy",
        f"{held_out}_macro_f1",
        "val_accuracy",
        "train_accuracy",
        SECONDS,
    ]
    return list(dict.fromkeys(names))


def _table_section(compared: Sequence[Compared]) -> "markdown.Section":
    from experiments.tables import finding
    from jaxvision.report import markdown

    shown = _shown(compared)
    which = {
        "best": "the epoch that was best on the validation images",
        "last": "the last epoch",
    }[compared[0].way.select]
    facts = list(dict.fromkeys(name for one in compared for name in one.way.facts))
    rows = [
        [
            one.way.name,
            *(one.way.facts.get(name, "–") for name in facts),
            *(
                f"{one.measurements[metric].mean:.3g}"
                if metric == SECONDS
                else spread(one.measurements[metric])
                for metric in shown
            ),
        ]
        for one in compared
    ]
    header = ["", *facts, *(metric.replace("_", " ") for metric in shown)]
    seeds = compared[0].measurements[shown[0]].seeds
    caption = (
        f"*Mean ± sample standard deviation over {len(seeds)} seed(s) "
        f"({', '.join(map(str, seeds))}), each with its own split, initialization and "
        f"order. Figures are those of {which}; no test image was looked at before. "
        "Balanced accuracy is the mean "
        "recall of the classes, macro F1 their mean F1. Seconds an epoch: the median, "
        "training alone.*"
    )
    measured = {one.way.name: one.measurements for one in compared}
    reports = ", ".join(
        f"[{markdown.escape(one.way.name)}]({one.way.folder}/report.md)"
        for one in compared
    )
    blocks = [
        markdown.Table(header, rows),
        markdown.Text(caption),
        markdown.Text(finding(measured, split=shown[0].split("_")[0])),
        markdown.Text(f"Confusion matrix, classes and more of each: {reports}."),
    ]
    return markdown.Section("Comparison", blocks)


def _curves_section() -> "markdown.Section":
    from jaxvision.report import markdown

    return markdown.Section(
        "Learning curves",
        [
            markdown.Image(
                "loss.png",
                "Loss on the training and the validation images over the epochs.",
                "Training loss is taken while the network learns: with augmentation, "
                "and weighted by class where that is asked for, as the validation "
                "loss then is.",
            ),
            markdown.Image(
                "accuracy.png",
                "Accuracy on the training and the validation images over the epochs.",
            ),
        ],
    )
