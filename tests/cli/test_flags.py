"""Settings as flags, and flags as settings."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from jaxvision.cli.flags import ExperimentFlags, Settings, cast, flags_of, variant
from jaxvision.data.transforms import AugmentConfig
from jaxvision.declaration import Experiment, Table, default_config
from jaxvision.errors import InputError
from jaxvision.settings import OptimConfig, Recipe, RunConfig, TuneConfig


@dataclasses.dataclass(frozen=True)
class Options:
    looks: int = 3
    """Versions of an image."""
    people: tuple[str, ...] = ()
    """Names."""


MLP = Experiment(
    name="small",
    section="1",
    title="Small",
    question="How small?",
    dataset="faces",
    recipe=Recipe(
        "mlp",
        method="scratch",
        options={"hidden": 30, "dropout_rate": 0, "initializer": "xavier_uniform"},
    ),
    aliases={"epochs": "rounds", "hidden": "--units"},
    seeds=(0, 1),
)

TABLES = Experiment(
    name="tables",
    section="1",
    title="Tables",
    question="Which?",
    dataset="artists",
    tables={"": Table({"a": Recipe("mlp"), "b": Recipe("alexnet")})},
    sweep=True,
)


def flags_for(experiment: Experiment, **options) -> ExperimentFlags:
    return ExperimentFlags.of(experiment, default_config(experiment), **options)


def parse(flags: ExperimentFlags, *arguments: str) -> Settings:
    return flags.parse(arguments, prog="small", description="Small.")


def test_nothing_given_is_what_the_experiment_declares():
    found = parse(flags_for(MLP))
    assert found == Settings(default_config(MLP), MLP.recipe, None)
    assert type(found.config) is RunConfig
    assert type(found.recipe) is Recipe


def test_recipe_run_and_network_settings_stand_beside_one_another():
    found = parse(
        flags_for(MLP),
        *("--data.root", "photos", "--data.no-pairs", "--seeds", "5", "6"),
        *("--epochs", "3", "--optim.learning-rate", "0.5", "--hidden", "7"),
        *("--dropout-rate", "0.25", "--initializer", "kaiming_uniform"),
        *("--augment.horizontal-flip", "0.5", "--patience", "2"),
    )
    assert found.config.data.root == Path("photos")
    assert found.config.data.pairs is False
    assert found.config.seeds == (5, 6)
    assert MLP.recipe is not None
    assert found.recipe == MLP.recipe.replace(
        epochs=3,
        optim=dataclasses.replace(MLP.recipe.optim, learning_rate=0.5),
        augment=dataclasses.replace(MLP.recipe.augment, horizontal_flip=0.5),
        patience=2,
        hidden=7,
        dropout_rate=0.25,
        initializer="kaiming_uniform",
    )


def test_aliases():
    given = ("--rounds", "4", "--units", "9", "--backbone", "mlp")
    recipe = parse(flags_for(MLP), *given).recipe
    assert recipe is not None
    assert (recipe.epochs, recipe.options["hidden"]) == (4, 9)


def test_option_of_the_network_has_its_type(capsys):
    with pytest.raises(SystemExit):
        parse(flags_for(MLP), "--initializer", "zeros")
    assert "xavier_uniform" in capsys.readouterr().err


def test_help_of_an_option_comes_from_the_network(capsys):
    with pytest.raises(SystemExit):
        parse(flags_for(MLP), "--help")
    assert "Units of the hidden layer." in capsys.readouterr().out


def test_fixed_tables_have_rows_and_epochs_at_most():
    flags = flags_for(TABLES)
    found = parse(flags, "--epochs", "2", "--rows", "a")
    assert (found.config.max_epochs, found.config.rows) == (2, ("a",))
    assert found.recipe is None
    assert flags.name_of("max_epochs") == "--epochs"
    # A sweep has no use of them.
    assert flags.name_of("tensorboard") is None
    assert flags.name_of("distributed.detect") is None


def test_options_of_an_experiment_are_flags():
    experiment = dataclasses.replace(MLP, options=Options)
    flags = flags_for(experiment)
    assert parse(flags).options == Options()
    found = parse(flags, "--people", "Ada", "Ben")
    assert found.options == Options(people=("Ada", "Ben"))
    assert type(found.options) is Options


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ("epochs", "--epochs"),
        ("recipe.epochs", "--epochs"),
        ("optim.learning_rate", "--optim.learning-rate"),
        ("data.split.train_per_class", "--data.split.train-per-class"),
        ("resume", "--resume"),
        ("hidden", "--hidden"),
        ("max_epochs", None),
        ("options", None),
        ("anything", None),
    ],
)
def test_setting_is_named_by_its_flag(setting, flag):
    assert flags_for(MLP).name_of(setting) == flag


def test_photos_have_a_place_and_options_are_free():
    flags = flags_for(MLP, photos=True)
    found = parse(flags, "photos", "--option", "batch_norm=true", "--option", "a=x")
    assert found.config.data.root == Path("photos")
    assert found.recipe is not None
    assert found.recipe.options["batch_norm"] is True
    assert found.recipe.options["a"] == "x"
    assert flags.name_of("data.root") == "PHOTOS"
    with pytest.raises(InputError, match="`option` hidden: must be NAME=VALUE"):
        parse(flags, "--option", "hidden")


def test_tuning_has_its_own_settings():
    flags = flags_for(MLP, tune=TuneConfig(trials=9))
    found = parse(flags, "--tune.sampler", "gp", "--epochs", "3")
    assert found.tune == TuneConfig(trials=9, sampler="gp")
    assert flags.name_of("tune.startup_trials") == "--tune.startup-trials"
    assert flags.name_of("resume") is None


def test_arguments_give_the_settings_again():
    flags = flags_for(MLP, photos=True)
    settings = Settings(
        dataclasses.replace(
            default_config(MLP),
            data=dataclasses.replace(
                default_config(MLP).data, root=Path("my photos"), pairs=False
            ),
            seeds=(3, 4),
        ),
        Recipe(
            "alexnet",
            options={"widths": (1, 2), "name": "x"},
            optim=OptimConfig("sgd", clip_norm=None),
            augment=AugmentConfig(pca_per_pixel=True),
        ),
        None,
    )
    assert parse(flags, *flags.arguments(settings)).config == settings.config
    recipe = parse(flags, *flags.arguments(settings)).recipe
    assert recipe is not None
    assert settings.recipe is not None
    # Of the network that the command begins with.
    options = {**MLP.recipe.options, **settings.recipe.options}  # type: ignore[union-attr]
    assert recipe == dataclasses.replace(settings.recipe, options=options)


def test_variant_and_back():
    kind = variant(OptimConfig, {"optimizer": Literal["sgd"]})
    config = OptimConfig(learning_rate=0.5)
    there = cast(kind, config)
    assert type(there) is kind
    assert cast(OptimConfig, there) == config
    assert flags_of(kind) == flags_of(OptimConfig)
