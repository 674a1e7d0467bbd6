"""All of part 1, in one report.

python -m experiments.part1                               # drawn paintings, a try-out
python -m experiments.part1 --data.root DIR --seeds 0 1 2 # one subfolder per painter
"""

import dataclasses
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from experiments import (
    part1_architecture,
    part1_baseline,
    part1_pooling,
    part1_regularization,
    part1_robustness,
    part1_transfer,
    part1_tuning,
)
from experiments.common import run_cli
from experiments.tables import Findings, Study, StudyConfig, run_study

if TYPE_CHECKING:
    from jaxvision.report import markdown

TABLES: tuple[ModuleType, ...] = (
    part1_baseline,
    part1_pooling,
    part1_regularization,
    part1_architecture,
    part1_tuning,
)
"""Experiments on one set of images and one store of finished rows."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Runs every experiment of part 1; what is finished is not trained again."""


def find(config: Config, study: Study) -> Findings:
    """Runs the experiments, each with a folder of its own, and quotes them all."""
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(StudyConfig)}
    found = Findings([], {}, [])
    folders: dict[str, Path] = {}
    for module in TABLES:
        published = module.main(module.Config(**shared), study)
        folders[published.title] = published.path
        _merge(found, published.findings)
    path = part1_robustness.main(part1_robustness.Config(**shared), study)
    folders["Part 1.7: changed images"] = path
    found.sections.append(robustness_section(path, config.runs))
    transfer = part1_transfer.main(part1_transfer.Config(**shared))
    folders[transfer.title] = transfer.path
    _merge(found, transfer.findings)
    found.sections.insert(0, contents_section(folders, config.runs))
    return found


def _merge(found: Findings, more: Findings) -> None:
    found.sections.extend(more.sections)
    found.figures.update(more.figures)
    found.measurements.extend(more.measurements)
    found.headline.extend(more.headline)
    found.runs.update(more.runs)


def contents_section(folders: dict[str, Path], runs: Path) -> "markdown.Section":
    """Links to the experiments' own reports; `runs` is the folder of all of them."""
    from jaxvision.report import markdown

    lines = [
        f"- [{markdown.escape(title)}]({from_report(path / 'report.md', runs)})"
        for title, path in folders.items()
    ]
    return markdown.Section("Reports", [markdown.Text("\n".join(lines))])


def robustness_section(path: Path, runs: Path) -> "markdown.Section":
    """The headline and the figure of the robustness report."""
    from jaxvision.report import markdown
    from jaxvision.report.formats import format_mean_sd
    from jaxvision.report.run_folder import RunFolder

    figures = RunFolder.open(path).read_results()["figures"]
    rows = [
        [name, format_mean_sd(figure["mean"], figure["sd"])]
        for name, figure in figures.items()
        if name.endswith(("unchanged", "mean over all changes"))
    ]
    return markdown.Section(
        "1.7 changed images",
        [
            markdown.Table(["validation accuracy", "mean ± sd"], rows),
            markdown.Image(
                from_report(path / "curves.png", runs),
                "Accuracy over the strength of each change.",
                "The best network and the same trained with augmentation; strength 0 "
                "is the unchanged image.",
            ),
        ],
    )


def from_report(path: Path, runs: Path) -> str:
    """A path as a report of this experiment links to it."""
    return os.path.relpath(path, runs / "part1" / "time").replace(os.sep, "/")


def main(config: Config) -> Path:
    study = Study(config)
    return run_study(
        "part1",
        config,
        title="Part 1: who painted it",
        question="Which painter made an image, how well can a small network learn to "
        "tell, and what helps it?",
        find=lambda study: find(config, study),
        study=study,
    ).path


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
