"""Configs become plain values and come back equal."""

import json

import pytest

from experiments import part2_features, part2_finetune, part2_mlp
from jaxvision.config import from_plain, to_plain
from jaxvision.preprocessing import Preprocessing


@pytest.mark.parametrize("experiment", [part2_mlp, part2_features, part2_finetune])
def test_config_survives_json(experiment, tmp_path):
    config = experiment.Config(seeds=(3, 4), resume=tmp_path, patience=5)
    text = json.dumps(to_plain(config))
    assert from_plain(experiment.Config, json.loads(text)) == config


@pytest.mark.parametrize(
    "change",
    [{"no_such_setting": 1}, {"epochs": None}, {"dtype": "float16"}, {"seeds": 3}],
)
def test_what_is_no_config_is_refused(change):
    values = {**to_plain(part2_mlp.Config()), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_plain(part2_mlp.Config, values)


def test_preprocessing_survives_json():
    preprocessing = Preprocessing((28, 30), gray=True, mean=(1.5,), std=(2.5,))
    values = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(values) == preprocessing
