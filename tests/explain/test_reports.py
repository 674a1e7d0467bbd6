"""Explanations from a checkpoint to a run folder; hidden weights from training on."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_images import write_images
from PIL import Image
from trained_networks import write_checkpoints

from jaxvision.classifier import ModelCard
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, Table
from jaxvision.errors import InputError
from jaxvision.experiment import run_experiment
from jaxvision.explain.config import (
    ExplainConfig,
    MethodName,
    SaliencyConfig,
    WeightsOptions,
)
from jaxvision.explain.images import VIEW_NAMES
from jaxvision.explain.methods import METHODS
from jaxvision.explain.report import explain
from jaxvision.explain.saliency import saliency
from jaxvision.explain.weights import check_options
from jaxvision.explain.weights_report import weights_sections
from jaxvision.preprocessing import Preprocessing
from jaxvision.settings import Recipe, RunConfig

SPLIT = SplitConfig(train=0.5, val=0.25, test=0.25)
PREPROCESSING = Preprocessing(size=(16, 16), resize_mode="stretch")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and two seeds of a small network in `checkpoints`."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_images(folder / "images")
    dataset = load_dataset(DataConfig(root=root, split=SPLIT)).decode(PREPROCESSING)
    options = {"blocks": 1, "filters": 4, "dense_width": 8}
    write_checkpoints(network(folder), dataset, "convnet", options)
    # The newest, but not finished: no figures are recorded.
    unfinished = network(folder).with_name("20260102-000000") / "seed-0"
    unfinished.mkdir(parents=True)
    card = ModelCard.read(network(folder) / "seed-0")
    dataclasses.replace(card, recorded={}).write(unfinished)
    return folder


def network(trained: Path) -> Path:
    return trained / "checkpoints/part2_finetune/20260101-000000"


def explain_config(trained: Path, tmp_path: Path, **changes: Any) -> ExplainConfig:
    images = (trained / "images/red/00.png",)
    config = ExplainConfig(network(trained), images, runs=tmp_path / "runs")
    return dataclasses.replace(config, **changes)


def saliency_config(trained: Path, tmp_path: Path, **changes: Any) -> SaliencyConfig:
    folders = {"checkpoints": trained / "checkpoints", "runs": tmp_path / "runs"}
    return SaliencyConfig(**{**folders, **changes})


def read_figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())["figures"]


def test_the_settings_know_every_method():
    assert typing.get_args(MethodName) == ("all", *METHODS)


def test_every_method_explains_an_image(trained, tmp_path, capsys):
    folder = explain(explain_config(trained, tmp_path, method="all", target="blue"))
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(folder)
    assert "explained: blue" in printed
    maps = np.load(folder / "1-00.npz", allow_pickle=False)
    assert set(maps) == {"image", *METHODS}
    assert maps["image"].shape == maps["gradient"].shape == (16, 16, 3)
    assert maps["grad_cam"].shape == maps["occlusion"].shape == (16, 16)
    for method in METHODS:
        for view in VIEW_NAMES:
            file = folder / f"1-00-{method}-{view.replace(' ', '_')}.png"
            assert np.asarray(Image.open(file)).shape == (16, 16, 3)
    report = (folder / "report.md").read_text()
    for words in ("1-00.png", "speaks for blue", "Grad-CAM", "Layer: conv1"):
        assert words in report
    figures = read_figures(folder)
    assert 0 <= figures["1-00: probability"]["mean"] <= 1
    assert figures["1-00: completeness gap"]["mean"] <= 0.01


def test_what_cannot_be_explained_is_one_line_and_leaves_no_folder(trained, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    for changes, words in (
        ({"images": ()}, "`images`: give at least one"),
        ({"images": (tmp_path / "none.jpg",)}, "none.jpg: cannot be read"),
        ({"images": (broken,)}, "broken.jpg: not an image"),
        ({"target": "pink"}, "`target` pink: .*its classes are blue, green, red"),
        ({"method": "grad_cam", "layer": "fc1"}, "'fc1' has no height and width"),
        ({"method": "all", "layer": "conv9"}, "'conv9' is not run; .*: conv1, pool1"),
        ({"method": "melting"}, "`method` melting: must be one of all, gradient"),
        ({"checkpoint": tmp_path}, "no checkpoint there"),
    ):
        with pytest.raises(InputError, match=words) as error:
            explain(explain_config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_the_newest_finished_network_is_explained(trained, tmp_path, capsys):
    folder = saliency(saliency_config(trained, tmp_path, checked=3))
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["checkpoint"] == str(network(trained))
    names = {path.name for path in folder.iterdir()}
    for name in ("people-1", "right", "wrong-predicted", "wrong-true", "filters"):
        assert f"{name}.png" in names
    assert "units.png" in names
    figures = read_figures(folder)
    assert figures["test_accuracy"]["seeds"] == [0, 1]
    assert figures["completeness_gap"]["mean"] <= 0.01
    for method in METHODS:
        values = figures[f"random_head/{method}"]["values"]
        assert all(-1 <= value <= 1 for value in values)
    report = (folder / "report.md").read_text()
    for words in ("predicted", "A wrong prediction, by every method", "%", "conv1"):
        assert words in report


def test_people_and_images_must_be_there(trained, tmp_path):
    for changes, words in (
        ({"people": ("pink",)}, "`people`: no class is called 'pink'; there are blue"),
        ({"image": "red/99.png"}, "`image` red/99.png: no correctly classified image"),
        ({"checked": 0}, "`checked` 0: must be at least 1"),
        ({"checkpoints": tmp_path}, "part2_finetune: no finished network there"),
        ({"checkpoint": tmp_path / "none"}, "no checkpoint there"),
    ):
        with pytest.raises(InputError, match=words) as error:
            saliency(saliency_config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_perceptrons_are_shown_side_by_side(trained, tmp_path) -> None:
    recipes = {
        f"{hidden} hidden": Recipe(
            "mlp", {"hidden": hidden}, method="scratch", image_size=12, epochs=2,
            batch_size=8, select="last",
        )
        for hidden in (6, 8)
    }  # fmt: skip
    experiment = Experiment(
        name="perceptrons",
        section="2.3",
        title="Weights as images",
        question="What do hidden units look for?",
        chapter="part-2",
        dataset="faces",
        tables={"weights": Table(recipes, save=tuple(recipes))},
        options=WeightsOptions,
        sweep=True,
        check=lambda dataset, options: check_options(dataset, options, 6),
        sections=weights_sections,
    )
    config = RunConfig(
        data=DataConfig(root=trained / "images", split=SPLIT),
        seeds=(0, 1),
        runs=tmp_path / "runs",
        checkpoints=tmp_path / "checkpoints",
    )
    for options, words in (
        (WeightsOptions("pink"), "`person` pink: no class is called so; there are bl"),
        (WeightsOptions(units=(6,)), "no unit 6; the layer's units are 0 to 5"),
        (WeightsOptions(units=(-1,)), "`units` -1: must be at least 0"),
    ):
        with pytest.raises(InputError, match=words):
            run_experiment(experiment, config, options=options)
    options = WeightsOptions("red", units=(5,))
    folder = run_experiment(experiment, config, options=options).run.path
    assert {path.name for path in folder.iterdir()} >= {
        "hidden_weights.png",
        "responses.png",
    }
    figures = read_figures(folder)
    for row in recipes:
        smooth = figures[f"weights/{row}/neighbor_correlation"]
        assert smooth["n"] == 2
        assert -1 <= smooth["mean"] <= 1
        assert figures[f"weights/{row}/test_accuracy"]["split"] == "test"
    report = (folder / "report.md").read_text()
    for words in ("hidden_weights.png", "to the logit of red", "6 hidden"):
        assert words in report
