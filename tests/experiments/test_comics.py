"""Two classes by one logit, through training, report, `evaluate` and `predict`."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

from experiments import comics_baseline, comics_final, evaluate, predict
from experiments.common import RunConfig, Task, run_experiment
from jaxvision.classifier import load_classifier, softmax
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    root = write_images(tmp_path / "images", per_class=16, size=12)
    shutil.rmtree(root / "blue")
    return DataConfig(root=root, split=SplitConfig(train=0.5, val=0.25, test=0.25))


def prepare(config):
    """A network that is quick to compile, as `comics_baseline` makes its own."""
    from experiments.training import make_network, train_network

    def train(run):
        return train_network(run, *make_network(run, "mlp", binary=True, hidden=8))

    return Task(
        Preprocessing(size=(12, 12), resize_mode="stretch"), train, "One logit."
    )


def run(data, **changes):
    config = RunConfig(data=data, epochs=8, batch_size=8, **changes)
    how = {"title": "Two classes", "question": "Which?", "prepare": prepare}
    return run_experiment("binary", config, **how)


def test_one_logit_goes_through_the_whole_chain(data, capsys):
    folder = run(data, seeds=(0, 1))
    figures = json.loads((folder / "results.json").read_text())["figures"]
    assert figures["test_accuracy"]["mean"] > 0.9
    assert figures["test_auc"]["mean"] > 0.9
    assert figures["test_auc"]["n"] == 2
    report = (folder / "report.md").read_text()
    for words in ("ROC curve", "roc_curve.png", "8 of 8 | 1.000 | .676 to 1.000"):
        assert words in report

    checkpoint = Path("checkpoints", *folder.parts[-2:])
    classifier = load_classifier(checkpoint)
    assert classifier.card.binary
    assert classifier.card.classes == ("green", "red")
    head = classifier.variables["params"]["head"]["logits"]
    assert head["bias"].shape == (1,)

    images = tuple(sorted(data.root.glob("*/00.png")))
    capsys.readouterr()
    predict.main(predict.Config(checkpoint, images, top=2))
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("green", "red"), strict=True):
        assert line.split(": ")[1].split()[0] == name
    for prediction in classifier.predict(images):
        assert prediction.probabilities.shape == (2,)
        assert prediction.probabilities.sum() == pytest.approx(1)

    evaluate.main(evaluate.Config(checkpoint / "seed-1"))
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["test accuracy"] == lines["recorded test accuracy"]

    with (folder / "predictions-seed-0.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted"] for row in rows} == {"green", "red"}
    assert all(float(row["probability"]) >= 0.5 for row in rows)


def test_logits_of_both_classes_give_the_sigmoid():
    logits = np.array([[0.0, -2.0], [0.0, 3.0]], np.float32)
    expected = 1 / (1 + np.exp(-logits[:, 1]))
    np.testing.assert_allclose(softmax(logits)[:, 1], expected, rtol=1e-6)


def test_one_logit_for_three_classes_is_bad_input(tmp_path, data):
    root = write_images(tmp_path / "three", per_class=8, size=12)
    with pytest.raises(InputError, match="3 classes") as error:
        run(dataclasses.replace(data, root=root))
    assert "\n" not in str(error.value)


def test_the_networks_settings_are_those_of_the_report():
    config = comics_baseline.Config()
    split = config.data.split
    assert (split.train, split.val, split.test) == (0.8, 0.1, 0.1)
    assert (config.optim.optimizer, config.optim.learning_rate) == ("adam", 1e-3)
    assert (config.dropout_rate, config.batch_size, config.epochs) == (0.2, 32, 12)
    task = comics_baseline.prepare(config)
    assert task.preprocessing.gray
    assert task.preprocessing.size == (96, 96)
    image = np.array([[[0], [255]]], np.uint8)
    assert task.preprocessing.normalize(image).ravel().tolist() == [0, 1]
    final = comics_final.Config()
    assert (final.optim.learning_rate, final.dropout_rate) == (1e-4, 0.1)
    assert len(final.seeds) == 5
    with pytest.raises(InputError, match="--image-size 8"):
        comics_baseline.prepare(dataclasses.replace(config, image_size=8))


def test_tuned_settings_take_the_place_of_those_given(tmp_path, monkeypatch):
    settings = {"optim.learning_rate": 3e-4, "dropout_rate": 0.25}
    (tmp_path / "tuned.json").write_text(json.dumps({"settings": settings}))
    seen = []
    monkeypatch.setattr(
        comics_final, "run_experiment", lambda name, config, **_: seen.append(config)
    )
    comics_final.main(comics_final.Config(tuned=tmp_path, image_size=48))
    (config,) = seen
    assert config.optim.learning_rate == 3e-4
    assert config.optim.optimizer == "adam"
    assert (config.dropout_rate, config.image_size) == (0.25, 48)
