"""One page of everything that was run: our figures beside the published ones.

python -m experiments.report                              # the newest run of each
python -m experiments.report runs/part2_mlp/TIME          # these runs and no others
"""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.catalog import CHAPTERS, collect
from experiments.published import SOURCES
from jaxvision.cli import flags
from jaxvision.config import to_plain
from jaxvision.declaration import Analysis, Experiment, Question, default_config
from jaxvision.report import page
from jaxvision.report.compare import Comparison, compare, published_row
from jaxvision.report.run_folder import run_settings
from jaxvision.report.runs import FinishedRun, Runs, choose_runs

TITLE = "Classic networks on paintings, faces and comics"

ELSEWHERE = (
    "checkpoint", "checkpoints", "compare", "data.cache_dir", "data.cache_mb",
    "data.decode", "data.num_threads", "data.num_workers", "data.on_bad", "data.root",
    "data.split", "data.splits", "distributed", "resume", "runs", "save_seconds",
    "seeds", "storage", "tensorboard", "tuned", "weights",
)  # fmt: skip
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
    runs = choose_runs(config.folders, config.runs)
    made = page.Page(
        TITLE,
        chapters(runs, problems or {}),
        SOURCES,
        datetime.now().astimezone(),
        [reason for _, reason in runs.damaged],
    )
    out = config.out or config.runs / "report.html"
    page.write_page(made, out)
    return out


def chapters(runs: Runs, problems: Mapping[str, str]) -> list[page.Chapter]:
    """The chapters of all experiments, with the runs that there are."""
    declared = collect()
    chosen = {
        name: newest(one, (run for run in runs.finished if run.experiment == name))
        for name, one in declared.items()
    }
    begun = {run.experiment: run for run in runs.begun}
    roots = {
        _dataset(declared[run.experiment]): root
        for several in chosen.values()
        for run in several
        if (root := (run.config.get("data") or {}).get("root"))
    }

    def entries(name: str, one: Question) -> list[page.Entry]:
        if chosen[name]:
            return _entries(one, chosen[name])
        problem = problems.get(name, "")
        if not problem and name in begun:
            problem = f"Begun and not finished: {begun[name].path}."
        return [_absent(one, roots, problem)]

    return [
        page.Chapter(
            chapter.name,
            chapter.title,
            chapter.about,
            [
                entry
                for name, one in declared.items()
                if one.chapter == chapter.name
                for entry in entries(name, one)
            ],
        )
        for chapter in CHAPTERS
    ]


def newest(experiment: Question, runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """The newest run of each variant, oldest variant first; runs on drawn images only
    where there is none on real ones."""
    runs = list(runs)
    real = [run for run in runs if not run.is_demo]
    kept: dict[str, FinishedRun] = {}
    for run in sorted(real or runs, key=lambda run: (run.started, run.path.name)):
        kept[str([run.settings.get(name) for name in experiment.variants])] = run
    return list(kept.values())


def _entries(experiment: Question, runs: Sequence[FinishedRun]) -> list[page.Entry]:
    several = [run.settings for run in runs]
    # What all variants share tells none from another.
    telling = [
        name
        for name in experiment.variants
        if len({str(settings.get(name)) for settings in several}) > 1
    ]
    entries = []
    for number, (run, settings) in enumerate(zip(runs, several, strict=True), 1):
        comparisons: list[Comparison] = []
        if isinstance(experiment, Experiment):
            comparisons = compare(
                experiment.published,
                run.results,
                dataset=experiment.dataset,
                row=published_row(experiment.published_rows, settings),
            )
        entries.append(
            page.Entry(
                experiment.name if number == 1 else f"{experiment.name}-{number}",
                _numbered(experiment),
                experiment.title,
                experiment.question,
                experiment.reference,
                run.command,
                run,
                comparisons,
                changed(experiment, settings),
                ", ".join(
                    _in_words(name, settings[name])
                    for name in telling
                    if name in settings
                ),
            )
        )
    return entries


def _numbered(experiment: Question) -> str:
    """Its section, where that is a number and not the name of the chapter."""
    return experiment.section if experiment.section[:1].isdigit() else ""


def _dataset(experiment: Question) -> str | None:
    return experiment.dataset if isinstance(experiment, Experiment) else None


def _in_words(name: str, value: Any) -> str:
    """`no batch norm` for `batch_norm`, False."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _absent(
    experiment: Question, roots: Mapping[str | None, str], problem: str
) -> page.Entry:
    command = ["python", "-m", f"experiments.{experiment.name}"]
    if experiment.network_of is not None and not experiment.section:
        command += ["--checkpoint", "DIR"]
    if experiment.takes_image:
        command.append("IMAGE.jpg")
    if (root := roots.get(_dataset(experiment))) is not None:
        command += ["--data.root", root]
    return page.Entry(
        experiment.name,
        _numbered(experiment),
        experiment.title,
        experiment.question,
        experiment.reference,
        shlex.join(command),
        problem=problem,
    )


def changed(
    experiment: Question, settings: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Settings of a run that are not the experiment's own: name, value, own value."""
    own = run_settings(own_config(experiment))
    ignored = (*ELSEWHERE, *experiment.variants)
    return [
        (name, _plain(value), _plain(own[name]))
        for name, value in settings.items()
        if name in own
        and own[name] != value
        and not any(name == one or name.startswith(f"{one}.") for one in ignored)
    ]


def own_config(experiment: Question) -> dict[str, Any]:
    """What `config.json` of a run holds where nothing is given."""
    if isinstance(experiment, Analysis):
        return {
            field.name: to_plain(field.default)
            for field in dataclasses.fields(experiment.config)
            if field.default is not dataclasses.MISSING
        }
    assert isinstance(experiment, Experiment)
    config: dict[str, Any] = to_plain(default_config(experiment))
    if experiment.recipe is not None:
        config["recipe"] = to_plain(experiment.recipe)
    if experiment.options is not None:
        config["options"] = to_plain(experiment.options())
    return config


if __name__ == "__main__":
    flags.run(Config, main, None, "python -m experiments.report", __doc__)
