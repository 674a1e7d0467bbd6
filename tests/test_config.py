"""Configs become plain values and come back equal; every number is held to bounds."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated

import pytest

from jaxvision import config
from jaxvision.config import Bounds, from_plain, to_plain
from jaxvision.data.config import DataConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.settings import OptimConfig, Recipe, RunConfig, ScheduleConfig


@pytest.mark.parametrize(
    "value",
    [
        Recipe(),
        Recipe("mlp", {"hidden": 3, "head_hidden": (4, 5)}, "scratch", patience=5),
        RunConfig(seeds=(3, 4), resume=Path("here"), rows=("a", "b")),
    ],
)
def test_config_survives_json(value):
    text = json.dumps(to_plain(value))
    assert from_plain(type(value), json.loads(text)) == value


@pytest.mark.parametrize(
    "change",
    [{"no_such_setting": 1}, {"epochs": None}, {"dtype": "float16"}, {"optim": 3}],
)
def test_what_is_no_config_is_refused(change):
    values = {**to_plain(Recipe()), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_plain(Recipe, values)


def test_a_setting_that_an_earlier_version_did_not_have_has_its_default():
    recipe = Recipe("mlp", method="scratch", epochs=3)
    values = to_plain(recipe)
    del values["mixup"], values["optim"]["clip_norm"]
    wanted = recipe.replace(optim=dataclasses.replace(recipe.optim, clip_norm=None))
    assert from_plain(Recipe, values) == wanted
    with pytest.raises(KeyError):
        from_plain(NoDefault, {})


@dataclasses.dataclass(frozen=True)
class NoDefault:
    number: int


def test_preprocessing_survives_json():
    preprocessing = Preprocessing((28, 30), gray=True, mean=(1.5,), std=(2.5,))
    values = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(values) == preprocessing


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(epochs=0), "`epochs` 0: must be at least 1"),
        (Recipe(label_smoothing=1.0), "`label_smoothing` 1.0: must be at least 0"),
        (Recipe(patience=0), "`patience` 0: must be at least 1"),
        (Recipe(batch_size=True), "`batch_size` True: must be a whole number"),
        (Recipe(optim=OptimConfig("adam", -1.0)), "`optim.learning_rate` -1.0: must"),
        (Recipe(optim=OptimConfig(weight_decay=math.nan)), "`optim.weight_decay` nan"),
        (Recipe(schedule=ScheduleConfig(gamma=math.inf)), "`schedule.gamma` inf"),
        (Recipe(method="all"), "`method` all: must be one of scratch, "),  # type: ignore
    ],
)
def test_what_is_out_of_bounds_is_named(recipe, message):
    with pytest.raises(InputError, match=message) as error:
        config.check(recipe)
    assert "\n" not in str(error.value)


def test_defaults_are_within_bounds():
    config.check(Recipe())
    config.check(RunConfig())


def test_bounds_include_their_ends_unless_they_say_so():
    @dataclasses.dataclass(frozen=True)
    class Config:
        share: Annotated[float, Bounds(0, 1)] = 0.5
        below: Annotated[float, Bounds(0, 1, below=True, above=True)] = 0.5

    config.check(Config(share=0.0))
    config.check(Config(share=1.0))
    for value in (0.0, 1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            config.check(Config(below=value))


def test_settings_are_got_and_replaced_by_name():
    recipe = config.replace(Recipe(), "optim.learning_rate", 0.25)
    assert config.get(recipe, "optim.learning_rate") == 0.25
    assert recipe.optim.optimizer == Recipe().optim.optimizer


def test_paths_may_be_strings():
    assert DataConfig("photos", splits="splits.csv") == DataConfig(
        Path("photos"), splits=Path("splits.csv")
    )
    assert Recipe().replace(weights="model.pth").weights == Path("model.pth")
