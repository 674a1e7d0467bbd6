"""`jaxvision report`: runs on one page."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from jaxvision.cli.flags import Shown, run
from jaxvision.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """Gathers run folders into one HTML file that needs nothing else."""

    folders: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[RUNS ...]"),
        Shown("RUNS"),
    ] = ()
    """Run folders to show; none: all finished ones in `runs`."""
    runs: Path = Path("runs")
    """Where the run folders are."""
    out: Path | None = None
    """The file; none: report.html beside the run folders."""


def main(arguments: Sequence[str]) -> None:
    run(Config, report, arguments, "jaxvision report")


def report(config: Config) -> None:
    from jaxvision.report.page import Chapter, Entry, Page, entry_of, write_page
    from jaxvision.report.runs import choose_runs

    runs = choose_runs(config.folders, config.runs)
    if not runs.finished:
        raise InputError("no finished run in it", setting="runs", value=config.runs)
    entries: dict[str, list[Entry]] = {}
    for one in runs.finished:
        entries.setdefault(one.experiment, []).append(entry_of(one))
    write_page(
        Page(
            "Runs",
            [Chapter(name, name, "", several) for name, several in entries.items()],
            "",
            datetime.now().astimezone(),
            [reason for _, reason in runs.damaged],
        ),
        config.out or config.runs / "report.html",
    )
