"""One page of everything that was run: our figures beside the published ones.

python -m experiments.report                              # the newest run of each
python -m experiments.report runs/part2_mlp/TIME          # these runs and no others
"""

import dataclasses
import importlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.catalog import CHAPTERS, EXPERIMENTS, Experiment
from experiments.common import run_cli

if TYPE_CHECKING:
    from jaxvision.report.page import Chapter, Entry
    from jaxvision.report.runs import FinishedRun, Runs

TITLE = "Classic networks on paintings, faces and comics"

SOURCES = (
    "Richter: J. P. Richter, “Image Classification with Convolutional Neural "
    "Networks”, Università degli Studi di Milano, 2024, on the Prado's paintings. "
    "“Face/comic recognizer”: project of the course Algorithms for massive datasets. "
    "A single run on 91 images has itself a standard error of about .05."
)

MEANS_NOTHING = (
    "checkpoint",
    "checkpoints",
    "compare",
    "data.cache-dir",
    "data.cache-mb",
    "data.decode",
    "data.num-threads",
    "data.num-workers",
    "data.on-bad",
    "data.root",
    "data.split",
    "data.splits",
    "distributed",
    "resume",
    "runs",
    "save-seconds",
    "seeds",
    "tensorboard",
    "tune.storage",
    "tuned",
    "weights",
)
"""Settings, or groups of them, that say where things are, and those that every run
shows anyway."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Gathers run folders into one HTML file that needs nothing else."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders to show; none: of each experiment the newest finished run, one on
    real images if there is one."""
    runs: Path = Path("runs")
    """Where the run folders are."""
    out: Path | None = None
    """The file; none: report.html beside the run folders."""


def main(config: Config, problems: Mapping[str, str] | None = None) -> Path:
    """Writes the page, whose path is also the last line on standard output.

    Args:
      config: which runs.
      problems: why an experiment could not be run, by name.
    """
    from experiments.tables import SOURCES as ASSIGNMENT
    from jaxvision.report.page import Page, render
    from jaxvision.storage import write_atomically, writing

    runs = find(config)
    page = Page(
        TITLE,
        chapters(runs, problems or {}),
        f"{ASSIGNMENT} {SOURCES}",
        datetime.now().astimezone(),
        [reason for _, reason in runs.damaged],
    )
    out = config.out or config.runs / "report.html"
    content = render(page).encode("utf-8", "backslashreplace")
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    ran = sum(entry.run is not None for entry in page.entries)
    print(f"{ran} of {len(page.entries)} experiments, {len(content) / 1e6:.1f} MB")
    print(out)
    return out


def find(config: Config) -> "Runs":
    """The runs to show.

    Raises:
      InputError: a folder that was named is no run, or has not finished.
    """
    from jaxvision.errors import InputError
    from jaxvision.report.runs import FinishedRun, Runs, find_runs, read_run

    if not config.folders:
        return find_runs(config.runs)
    named = [read_run(folder) for folder in config.folders]
    for run in named:
        if not isinstance(run, FinishedRun):
            raise InputError(
                f"{run.path} has no results.json: the run has not finished; continue "
                "it with --resume, or leave it out"
            )
    return Runs(tuple(named))


def chapters(runs: "Runs", problems: Mapping[str, str]) -> list["Chapter"]:
    """The catalog's chapters with the runs that there are."""
    from jaxvision.report import page

    chosen = {
        name: newest(experiment, (r for r in runs.finished if r.experiment == name))
        for name, experiment in EXPERIMENTS.items()
    }
    begun = {run.experiment: run for run in runs.begun}
    roots = _roots(run for several in chosen.values() for run in several)

    def entries(experiment: Experiment) -> list["Entry"]:
        name = experiment.name
        if chosen[name]:
            return _entries(experiment, chosen[name])
        problem = problems.get(name, "")
        if not problem and name in begun:
            problem = f"Begun and not finished: {begun[name].path}."
        return [_absent(experiment, roots, problem)]

    return [
        page.Chapter(
            chapter.name,
            chapter.title,
            chapter.about,
            [entry for one in chapter.experiments for entry in entries(one)],
        )
        for chapter in CHAPTERS
    ]


def newest(
    experiment: Experiment, runs: Iterable["FinishedRun"]
) -> list["FinishedRun"]:
    """The newest run of each variant, oldest variant first; runs on drawn images
    only where there is none on real ones."""
    runs = list(runs)
    real = [run for run in runs if not run.results["data"]["is_demo"]]
    kept: dict[tuple[Any, ...], FinishedRun] = {}
    for run in sorted(real or runs, key=lambda run: (run.started, run.path.name)):
        flat = settings(run.config)
        kept[tuple(flat.get(name) for name in experiment.variants)] = run
    return list(kept.values())


def _entries(experiment: Experiment, runs: Sequence["FinishedRun"]) -> list["Entry"]:
    from experiments.tables import published_figures
    from jaxvision.report.compare import compare
    from jaxvision.report.page import Entry

    published = published_figures(experiment.section)
    flats = [settings(run.config) for run in runs]
    # What all variants share tells none from another.
    differing = [
        name
        for name in experiment.variants
        if len({flat.get(name) for flat in flats}) > 1
    ]
    entries = []
    for number, (run, flat) in enumerate(zip(runs, flats, strict=True), 1):
        row = next(
            (
                row.name
                for row in experiment.rows
                if settings(row.settings).items() <= flat.items()
            ),
            None,
        )
        entries.append(
            Entry(
                experiment.name if number == 1 else f"{experiment.name}-{number}",
                _numbered(experiment),
                experiment.title,
                experiment.question,
                experiment.reference,
                run.command,
                run,
                compare(published, run.results, row=row),
                changed(experiment, flat),
                ", ".join(
                    _said(name, flat[name]) for name in differing if name in flat
                ),
            )
        )
    return entries


def _numbered(experiment: Experiment) -> str:
    """Its section, where that is a number and not the name of the chapter."""
    return experiment.section if experiment.section[:1].isdigit() else ""


def _said(name: str, value: str) -> str:
    """`no batch norm` for `batch-norm`, `False`."""
    words = name.replace("-", " ")
    return {"True": words, "False": f"no {words}"}.get(value, f"{words} {value}")


def _absent(experiment: Experiment, roots: Mapping[str, str], problem: str) -> "Entry":
    from jaxvision.report.page import Entry

    command = ["python", "-m", f"experiments.{experiment.name}"]
    command += shlex.split(experiment.arguments)
    if experiment.images in roots:
        command += ["--data.root", roots[experiment.images]]
    return Entry(
        experiment.name,
        _numbered(experiment),
        experiment.title,
        experiment.question,
        experiment.reference,
        shlex.join(command),
        problem=problem,
    )


def _roots(runs: Iterable["FinishedRun"]) -> dict[str, str]:
    """For each set of images the folder that a run found it in."""
    return {
        EXPERIMENTS[run.experiment].images: root
        for run in runs
        if (root := (run.config.get("data") or {}).get("root"))
    }


def changed(
    experiment: Experiment, flat: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Settings of a run that are not the experiment's own: name, value, own value."""
    module = importlib.import_module(f"experiments.{experiment.name}")
    own = settings(_defaults(module.Config))
    ignored = (*MEANS_NOTHING, *experiment.variants)
    return [
        (name, value, own[name])
        for name, value in flat.items()
        if name in own
        and own[name] != value
        and not any(name == one or name.startswith(f"{one}.") for one in ignored)
    ]


def _defaults(config_type: type) -> dict[str, Any]:
    """What a config is where nothing is given; without what has to be given."""
    from jaxvision.config import to_plain

    defaults = {}
    for field in dataclasses.fields(config_type):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = to_plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = to_plain(field.default_factory())
    return defaults


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """`config.json` flattened, in words: `{"optim.learning-rate": "0.001"}`."""
    from jaxvision.report.markdown import settings_section

    (table,) = settings_section(config).blocks
    return dict(table.rows)


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
