"""Explanations from a checkpoint to a run folder; hidden weights from training on."""

import csv
import dataclasses
import json
import typing
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images
from PIL import Image

from experiments import explain, part2_saliency, part2_weights
from jaxvision.classifier import ModelCard, load_classifier
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.explain import METHODS
from jaxvision.explain.images import VIEW_NAMES
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.state import init_variables

SPLIT = SplitConfig(train=0.5, val=0.25, test=0.25)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and two seeds of a small network, as a training run
    would have left them, in `checkpoints`."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_images(folder / "images")
    config = DataConfig(root=root, split=SPLIT)
    dataset = load_dataset(config, Preprocessing(size=(16, 16), resize_mode="stretch"))
    for seed in (0, 1):
        place = folder / "checkpoints/part2_finetune/20260101-000000" / f"seed-{seed}"
        place.mkdir(parents=True)
        card = ModelCard(
            model="convnet",
            options={"blocks": 1, "filters": 4, "dense_width": 8},
            classes=dataset.classes,
            preprocessing=dataset.preprocessing,
            weights="fresh",
            data={"name": "images", "root": str(root), "is_demo": False},
            seed=seed,
            batch_size=8,
        )
        card.write(place)
        variables = init_variables(card.create_model(), seed, (16, 16, 3))
        checkpoints = CheckpointFolder(place)
        checkpoints.save("best", 0, variables, {"val_accuracy": 0.5})
        checkpoints.wait()
        dataset.write_splits(place / "splits.csv")
        classifier = load_classifier(place)
        figures = {
            split: classifier.evaluate(dataset, split)[0]
            for split in ("train", "val", "test")
        }
        classifier.record(figures, place)
    # The newest, but not finished: no figures are recorded.
    unfinished = folder / "checkpoints/part2_finetune/20260102-000000/seed-0"
    unfinished.mkdir(parents=True)
    dataclasses.replace(card, recorded={}).write(unfinished)
    return folder


def network(trained: Path) -> Path:
    return trained / "checkpoints/part2_finetune/20260101-000000"


def explain_config(trained: Path, tmp_path: Path, **changes) -> explain.Config:
    settings = {
        "checkpoint": network(trained),
        "images": (trained / "images/red/00.png",),
        "runs": tmp_path / "runs",
    }
    return explain.Config(**{**settings, **changes})


def saliency_config(trained: Path, tmp_path: Path, **changes) -> part2_saliency.Config:
    settings = {"checkpoints": trained / "checkpoints", "runs": tmp_path / "runs"}
    return part2_saliency.Config(**{**settings, **changes})


def read_figures(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())["figures"]


def test_the_command_line_knows_every_method():
    assert typing.get_args(explain.MethodName) == ("all", *METHODS)


def test_every_method_explains_an_image(trained, tmp_path, capsys):
    config = explain_config(trained, tmp_path, method="all", target="blue")
    folder = explain.main(config)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(folder)
    assert "explained" in printed
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
        ({"images": ()}, "no image given"),
        ({"images": (tmp_path / "none.jpg",)}, "none.jpg: cannot be read"),
        ({"images": (broken,)}, "broken.jpg: not an image"),
        ({"target": "pink"}, "--target pink: .*its classes are blue, green, red"),
        ({"method": "grad_cam", "layer": "fc1"}, "'fc1' has no height and width"),
        ({"method": "all", "layer": "conv9"}, "'conv9' is not run; .*: conv1, pool1"),
        ({"checkpoint": tmp_path}, "no checkpoint there"),
    ):
        with pytest.raises(InputError, match=words) as error:
            explain.main(explain_config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_the_newest_finished_network_is_explained(trained, tmp_path, capsys):
    folder = part2_saliency.main(saliency_config(trained, tmp_path, checked=3))
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
    for words in ("named so", "A wrong prediction, by every method", "%", "conv1"):
        assert words in report


def test_people_and_images_must_be_there(trained, tmp_path):
    for changes, words in (
        ({"people": ("pink",)}, "--people: no class is called 'pink'; there are blue"),
        ({"image": "red/99.png"}, "--image red/99.png: no correctly classified image"),
        ({"checked": 0}, "--checked 0"),
        ({"checkpoints": tmp_path}, "no finished network .*part2_finetune"),
        ({"checkpoint": tmp_path / "none"}, "no checkpoint there"),
    ):
        with pytest.raises(InputError, match=words) as error:
            part2_saliency.main(saliency_config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def weights_config(trained: Path, tmp_path: Path, **changes) -> part2_weights.Config:
    settings = {
        "data": DataConfig(root=trained / "images", split=SPLIT),
        "seeds": (0, 1),
        "epochs": 2,
        "runs": tmp_path / "runs",
        "checkpoints": tmp_path / "checkpoints",
    }
    return part2_weights.Config(**{**settings, **changes})


def test_four_networks_are_shown_side_by_side(
    trained, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(part2_weights, "HIDDEN", (6, 8))
    config = weights_config(trained, tmp_path, person="red", units=(5,))
    folder = part2_weights.main(config).path
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"hidden_weights.png", "responses.png", "weights.png", "curves.csv"}
    figures = read_figures(folder)
    rows = [f"{hidden} hidden, {l2}" for hidden in (6, 8) for l2 in ("no L2", "L2")]
    for row in rows:
        smooth = figures[f"weights/{row}/neighbor_correlation"]
        assert smooth["n"] == 2
        assert -1 <= smooth["mean"] <= 1
        assert figures[f"weights/{row}/test_accuracy"]["split"] == "test"
    report = (folder / "report.md").read_text()
    for words in ("hidden_weights.png", "speak most for red", "6 hidden, no L2"):
        assert words in report
    with open(folder / "curves.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 2 * 2

    # What is trained stays: another person is shown at once.
    part2_weights.main(dataclasses.replace(config, person="blue"))
    assert (
        "of which 8 were finished before"
        in (max((tmp_path / "runs/part2_weights").iterdir()) / "report.md").read_text()
    )
    for changes, words in (
        ({"person": "pink"}, "--person pink: no class is called so; there are blue"),
        ({"units": (6,)}, "no unit 6; the layer's units are 0 to 5"),
    ):
        with pytest.raises(InputError, match=words):
            part2_weights.main(dataclasses.replace(config, **changes))
