"""What experiments declare fits together, the networks, and what was published."""

import ast
import importlib
import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest

from experiments.all import Config, steps
from experiments.catalog import CHAPTERS, collect, table
from experiments.published import PUBLISHED
from experiments.report import own_config
from jaxvision.cli.flags import ExperimentFlags, parse
from jaxvision.declaration import Analysis, Experiment, default_config
from jaxvision.errors import InputError
from jaxvision.optim import schedule_factor
from jaxvision.recipe import make_start
from jaxvision.report.run_folder import folder_name, run_settings
from jaxvision.report.sections import LINES
from jaxvision.robustness.measure import strengths_of
from jaxvision.settings import TuneConfig

REPOSITORY = Path(__file__).resolve().parents[2]

EXPERIMENTS = {n: e for n, e in collect().items() if isinstance(e, Experiment)}


COMMANDS = {
    "all", "catalog", "evaluate", "part1", "predict", "prepare_facescrub", "report",
    "tune",
}  # fmt: skip
"""Modules that can be run and are no experiment of their own."""


def tables_of(experiment):
    return experiment.tables_of(
        experiment.recipe, experiment.options and experiment.options()
    )


def test_every_module_that_can_be_run_is_an_experiment_or_a_command():
    runnable = {
        path.stem
        for path in (REPOSITORY / "experiments").glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
    }
    assert collect().keys() | COMMANDS == runnable
    for name, experiment in collect().items():
        assert importlib.import_module(f"experiments.{name}").EXPERIMENT is experiment


def test_what_is_taken_from_another_experiment_is_made_before():
    names = list(collect())
    for name, experiment in collect().items():
        for source in (experiment.network_of, experiment.tuned_by):
            assert source is None or names.index(source) < names.index(name)
    chapters = [experiment.chapter for experiment in collect().values()]
    assert list(dict.fromkeys(chapters)) == [chapter.name for chapter in CHAPTERS]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_makes_a_network_for_its_images(name):
    experiment, seen = EXPERIMENTS[name], []
    for one in tables_of(experiment).values():
        assert len(one.recipes) <= LINES
        assert one.reference is None or one.reference in one.recipes
        assert set(one.save) <= set(one.recipes)
        folders = [folder_name(row) for row in one.recipes]
        assert len(set(folders)) == len(folders)
        for recipe in one.recipes.values():
            if (form := (recipe.network, recipe.options)) not in seen:
                seen.append(form)
                make_start(recipe)


@pytest.mark.parametrize("name", collect())
def test_its_settings_exist(name):
    experiment = collect()[name]
    known = run_settings(own_config(experiment))
    required = {"checkpoint"} if experiment.network_of else set()
    assert set(experiment.variants) <= known.keys() | required
    for row, settings in experiment.published_rows:
        assert set(settings) <= known.keys()
        assert row in {entry["row"] for entry in experiment.published}
    if isinstance(experiment, Experiment):
        assert experiment.search_space.keys() <= known.keys()
    assert experiment.title
    assert experiment.question.endswith("?")
    assert bool(experiment.section) == bool(experiment.reference)


def test_every_published_figure_is_of_one_row():
    rows = [
        (experiment.section, name, row)
        for experiment in EXPERIMENTS.values()
        for name, declared in tables_of(experiment).items()
        for row in declared.recipes
        if row
    ]
    rows += {
        (experiment.section, "", row)
        for experiment in EXPERIMENTS.values()
        for row, _ in experiment.published_rows
    }
    for entry in json.loads(PUBLISHED.read_text("utf-8")):
        assert set(entry) - {"table"} == {
            "section", "row", "metric", "value", "source",
        }  # fmt: skip
        if entry["section"] == "1.7":
            transform, _, strength = entry["row"].partition(" ")
            if transform != "unchanged":
                strengths = strengths_of((transform,))
                assert not strength or (transform, float(strength)) in strengths
            continue
        of_row = [r for r in rows if (r[0], r[2]) == (entry["section"], entry["row"])]
        found = [r for r in of_row if r[1] == entry.get("table", r[1])]
        assert len(found) == 1, entry


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_the_arguments_of_every_step_are_understood(profile):
    for step in steps(Config(profile=profile)):
        experiment, arguments = step.experiment, shlex.split(step.arguments)
        if experiment.network_of:
            arguments += ["--checkpoint", "DIR"]
        if experiment.takes_image:
            arguments += ["a.jpg"]
        if isinstance(experiment, Analysis):
            assert parse(experiment.config, arguments, prog="test") is not None
            continue
        if experiment.tuned_by:
            arguments += ["--tuned", "DIR"]
        tune = TuneConfig() if "--tune.trials" in arguments else None
        flags = ExperimentFlags.of(experiment, default_config(experiment), tune=tune)
        settings = flags.parse(arguments, prog="test", description="")
        if not arguments:
            assert settings.recipe == experiment.recipe
            assert settings.config == default_config(experiment)


def test_the_readme_lists_every_experiment():
    text = (REPOSITORY / "README.md").read_text("utf-8")
    assert table() in text, "write there what `python -m experiments.catalog` prints"


def test_the_prados_settings_are_those_of_the_report():
    recipe = EXPERIMENTS["prado_scratch"].recipe
    factor = schedule_factor(recipe.schedule, steps_per_epoch=1, epochs=50)
    rates = [recipe.optim.learning_rate * float(factor(epoch)) for epoch in range(50)]
    expected = [1e-3 * math.exp(-0.05 * max(epoch - 9, 0)) for epoch in range(50)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    rows = tables_of(EXPERIMENTS["prado_ablation"])[""].recipes
    reference = rows["as in the report"]
    assert all(row == reference or row.replace() != reference for row in rows.values())
    assert len({repr(row) for row in rows.values()}) == len(rows) == 8


def test_transfer_compares_the_networks_that_were_named():
    experiment = EXPERIMENTS["part1_transfer"]
    names = ("alexnet_features", "efficientnet_lite0")
    tables = experiment.tables_of(experiment.recipe, experiment.options(names))
    recipes = {row: r for one in tables.values() for row, r in one.recipes.items()}
    assert list(recipes) == [
        "last layer",
        "hidden layer of 300",
        "last layer, 4 views",
        "hidden layer of 300, 4 views",
        "last layer, ridge",
        "last layer, logistic",
        "efficientnet_lite0, Gram of block5c, ridge",
        "alexnet_features, Gram of conv3, ridge",
        "alexnet_features, last layer",
        "alexnet_features, hidden layer of 300",
        "efficientnet_lite0, Gram of block5c",
        "alexnet_features, Gram of conv3",
    ]
    assert recipes["last layer"] == experiment.recipe
    assert recipes["alexnet_features, last layer"].options["stop_at"] == "features"
    with pytest.raises(InputError, match="vgg16_features"):
        experiment.tables_of(experiment.recipe, experiment.options(("vgg99",)))
