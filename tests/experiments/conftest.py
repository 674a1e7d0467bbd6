"""What the tests of experiments share: small images, and small networks."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
from drawn_images import write_images

from jaxvision.errors import InputError
from jaxvision.models import MODELS, create_model
from jaxvision.models.mlp import MLP
from jaxvision.pretrained import SOURCES, Pretrained, Report
from jaxvision.training.state import init_variables

SMALL = ("vgg12", "mobilenet_prado", "vgg13_bn", "mobilenet_v2", "efficientnet_lite0")
"""Networks that are replaced: the experiments are tested here, not the networks."""

SPLIT = ["--data.split.train", "0.5", "--data.split.val", "0.25"]
SPLIT += ["--data.split.test", "0.25"]


@pytest.fixture
def images(tmp_path) -> Path:
    """36 images of three classes."""
    return write_images(tmp_path / "images")


@pytest.fixture
def small_networks(tmp_path, monkeypatch):
    """Small networks under large names. Weights of one are here; those of all others
    are out of reach."""
    monkeypatch.chdir(tmp_path)
    for name in SMALL:
        monkeypatch.setitem(MODELS, name, partial(MLP, hidden=4))
    source = SOURCES["efficientnet_lite0"]

    def load(name, *, weights=None, download=True):
        if weights is not None:
            raise InputError(f"{weights} does not hold the weights {name}")
        if name != "efficientnet_lite0":
            raise InputError(f"{name} cannot be downloaded; pass it as `weights`")
        model = create_model(name, 1000)
        return Pretrained(init_variables(model, 0, (8, 8, 3)), source, Report(()))

    monkeypatch.setattr("jaxvision.recipe.load", load)
    return dataclasses.replace(source)
