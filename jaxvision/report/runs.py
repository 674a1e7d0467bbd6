"""Run folders as they lie on the disk: finished, begun only, or damaged."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxvision.config import from_plain
from jaxvision.errors import InputError
from jaxvision.report.run_folder import run_settings


@dataclass(frozen=True)
class _Data:
    """What a page needs of a run's data set."""

    name: str
    root: str
    is_demo: bool
    num_images: int
    num_bad: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Figure:
    """What it needs of a figure."""

    mean: float | None
    sd: float | None
    n: int
    unit: str
    split: str
    data: str
    table: str
    row: str
    metric: str


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, read.

    started: when the folder was made.
    config, results: as in `config.json` and `results.json`.
    report: Markdown; empty: it wrote none.
    parts: finished runs within its folder, such as one a network that it compares.
    """

    path: Path
    experiment: str
    command: str
    started: datetime
    config: dict[str, Any]
    results: dict[str, Any]
    report: str
    parts: tuple["FinishedRun", ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """By dotted names; see `run_settings`."""
        return run_settings(self.config)

    @property
    def is_demo(self) -> bool:
        """Whether its images were drawn by code."""
        return bool(self.results["data"]["is_demo"])


@dataclass(frozen=True)
class BegunRun:
    """A run folder without results: stopped, or still running."""

    path: Path
    experiment: str
    command: str
    started: datetime


@dataclass(frozen=True)
class Runs:
    """All run folders below a folder, oldest first.

    damaged: what cannot be read, with the reason.
    """

    finished: tuple[FinishedRun, ...] = ()
    begun: tuple[BegunRun, ...] = ()
    damaged: tuple[tuple[Path, str], ...] = ()


def find_runs(root: Path) -> Runs:
    """Reads every `root/<experiment>/<time>/`; no folder has no runs."""
    finished, begun, damaged = [], [], []
    for path in sorted(root.glob("*/*/run.json")):
        try:
            run = read_run(path.parent)
        except InputError as error:
            damaged.append((path.parent, str(error)))
            continue
        (finished if isinstance(run, FinishedRun) else begun).append(run)

    def age(run: FinishedRun | BegunRun) -> tuple[datetime, str]:
        return run.started, run.path.name

    return Runs(
        tuple(sorted(finished, key=age)),
        tuple(sorted(begun, key=age)),
        tuple(damaged),
    )


def choose_runs(folders: Sequence[Path], root: Path) -> Runs:
    """The finished runs in these folders; without any, all that are below `root`.

    Raises:
      InputError: a folder that was named is no run, or has not finished.
    """
    if not folders:
        return find_runs(root)
    named = []
    for folder in folders:
        run = read_run(folder)
        if not isinstance(run, FinishedRun):
            raise InputError(
                f"{run.path} has no results.json: the run has not finished; continue "
                "it with `resume`, or leave it out"
            )
        named.append(run)
    return Runs(tuple(named))


def read_run(path: Path) -> FinishedRun | BegunRun:
    """A run folder.

    Raises:
      InputError: it is none, or a file in it is damaged.
    """
    if not (path / "run.json").is_file():
        raise InputError(f"{path} is no run folder: it has no run.json")
    try:
        run = _read(path / "run.json")
        named = from_plain(str, run["experiment"]), from_plain(str, run["command"])
        started = datetime.fromisoformat(run["started"]).astimezone()
        if not (path / "results.json").is_file():
            return BegunRun(path, *named, started)
        results = _read(path / "results.json")
        _check_results(results)
        config = _read(path / "config.json")
        run_settings(config)  # for its errors
        document = path / "report.md"
        report = document.read_text("utf-8") if document.is_file() else ""
    except (
        OSError,
        LookupError,
        TypeError,
        ArithmeticError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: a file in it is missing or damaged ({reason}); run the "
            "experiment again"
        ) from error
    within = [read_run(part.parent) for part in sorted(path.glob("*/run.json"))]
    parts = tuple(part for part in within if isinstance(part, FinishedRun))
    return FinishedRun(path, *named, started, config, results, report, parts)


def _check_results(results: Mapping[str, Any]) -> None:
    """Raises what `from_plain` does where a page could not show `results.json`."""
    _check_fields(_Data, results["data"])
    figures = results["figures"]
    for figure in figures.values():
        _check_fields(_Figure, figure)
    for name in from_plain(tuple[str, ...], results["headline"]):
        figures[name]
    seconds = from_plain(float, results["seconds"])
    if not 0 <= seconds < _MOST_SECONDS:
        raise ValueError(f"a run of {seconds} s")


_MOST_SECONDS = 1e9
"""Thirty years."""


def _check_fields(kind: type, value: Mapping[str, Any]) -> None:
    """That it has the fields of a dataclass, and perhaps others."""
    from_plain(kind, {field.name: value[field.name] for field in fields(kind)})


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text("utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no table")
    return value
