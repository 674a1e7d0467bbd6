"""The table of experiments: it has them all, and its settings are theirs."""

import ast
import dataclasses
import importlib
import json
import shlex
from pathlib import Path

import pytest
import tyro

from experiments import catalog
from experiments.all import STEPS
from experiments.catalog import COMMANDS, EXPERIMENTS
from experiments.report import settings
from experiments.tables import PUBLISHED
from jaxvision.config import to_plain

FOLDER = Path(catalog.__file__).parent


def runnable() -> set[str]:
    """Modules that do something when they are run."""
    return {
        path.stem
        for path in FOLDER.glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
    }


def flags_of(name: str) -> set[str]:
    """Flags of an experiment's own settings, `batch-norm`, without nested ones."""
    config = importlib.import_module(f"experiments.{name}").Config
    return {field.name.replace("_", "-") for field in dataclasses.fields(config)}


def test_every_script_is_an_experiment_or_a_command():
    assert EXPERIMENTS.keys() | set(COMMANDS) == runnable()
    assert not EXPERIMENTS.keys() & set(COMMANDS)


def test_every_experiment_is_a_step():
    assert {step.experiment for step in STEPS} == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_settings_exist(name):
    experiment = EXPERIMENTS[name]
    flags = flags_of(name)
    assert set(experiment.variants) <= flags
    for row in experiment.rows:
        assert set(settings(row.settings)) <= flags
    if experiment.images:
        assert "data" in flags


def test_published_rows_of_whole_runs_are_published():
    entries = json.loads(PUBLISHED.read_text("utf-8"))
    known = {(entry["section"], entry["row"]) for entry in entries}
    for experiment in EXPERIMENTS.values():
        for row in experiment.rows:
            assert (experiment.section, row.name) in known
            to_plain(row.settings)


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_the_flags_of_every_step_are_understood(profile):
    for step in STEPS:
        if (given := getattr(step, profile)) is None:
            continue
        flags = shlex.split(given)
        if step.network_of:
            flags += ["--checkpoint", "DIR"]
        if step.tuned_by:
            flags += ["--tuned", "DIR"]
        if step.shown:
            flags += ["a.jpg"]
        config = importlib.import_module(f"experiments.{step.experiment}").Config
        assert tyro.cli(config, args=flags) is not None


def test_titles_and_questions_are_there():
    for experiment in EXPERIMENTS.values():
        assert experiment.title
        assert experiment.question.endswith("?")
        assert bool(experiment.section) == bool(experiment.reference)
