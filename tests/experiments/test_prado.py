"""The Prado experiments on small images, with small networks under the same names."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

from experiments import prado_ablation, prado_scratch, prado_transfer
from experiments.comparison import Way
from experiments.training import COLORS
from jaxvision import transfer
from jaxvision.classifier import load_classifier
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.models import MODELS, create_model
from jaxvision.models.mlp import MLP
from jaxvision.optim import schedule_factor
from jaxvision.pretrained import SOURCES, Pretrained, Report
from jaxvision.training.state import init_variables

SMALL = (
    "vgg12",
    "mobilenet_prado",
    "vgg19",
    "mobilenet_v2",
    "efficientnet_lite0",
)
"""Networks that are replaced: the experiments are tested here, not the networks."""


@pytest.fixture(autouse=True)
def _small_and_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in SMALL:
        monkeypatch.setitem(MODELS, name, partial(MLP, hidden=4))


@pytest.fixture
def data(tmp_path):
    root = write_images(tmp_path / "images")
    return DataConfig(root=root, split=SplitConfig(0.5, 0.25, 0.25))


def run(experiment, capsys, config):
    """The run folder, which is the last line that was printed, and its figures."""
    experiment.main(config)
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    return folder, json.loads((folder / "results.json").read_text())["figures"]


def small(experiment, data, **changes):
    changes = {"image_size": 8, "epochs": 2, "batch_size": 8, "seeds": (0,)} | changes
    return dataclasses.replace(experiment.Config(), data=data, **changes)


def test_the_defaults_are_the_reports():
    config = prado_scratch.Config()
    assert (config.epochs, config.batch_size, config.image_size) == (50, 32, 224)
    assert config.class_weights
    assert config.output_biases
    changed = {
        name: value
        for name, value in dataclasses.asdict(config.augment).items()
        if value
    }
    assert changed == {"horizontal_flip": 0.5, "pca_color": 0.1}
    factor = schedule_factor(config.optim, steps_per_epoch=1, epochs=50)
    rates = [config.optim.learning_rate * float(factor(epoch)) for epoch in range(50)]
    expected = [1e-3 * math.exp(-0.05 * max(epoch - 9, 0)) for epoch in range(50)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert prado_transfer.Config().epochs == 25
    assert prado_scratch.images(224).standardize


def test_scratch_compares_networks_in_one_report(data, capsys):
    config = small(prado_scratch, data, networks=("vgg12", "mobilenet_prado"))
    folder, figures = run(prado_scratch, capsys, config)
    checkpoints = Path("checkpoints", *folder.parts[-2:])
    report = (folder / "report.md").read_text()
    for words in ("multiply-adds", "loss.png", "accuracy.png", "Richter", "macro f1"):
        assert words in report
    assert (folder / "loss.png").is_file()
    for network in config.networks:
        for metric in ("accuracy", "balanced_accuracy", "macro_f1", "loss"):
            assert figures[f"{network}/test_{metric}"]["n"] == 1
        assert figures[f"{network}/seconds_per_epoch"]["unit"] == "s"
        own = (folder / network / "report.md").read_text()
        for words in ("Classes", "precision", "confusion_matrix.png", "gallery.png"):
            assert words in own
        history = (folder / network / "history.jsonl").read_text().splitlines()
        assert len(history) == 2
        classifier = load_classifier(checkpoints / network)
        assert classifier.card.preprocessing.standardize
        colors = json.loads((checkpoints / network / "seed-0" / COLORS).read_text())
        assert len(colors["eigenvalues"]) == 3

    # Again: nothing is trained, and the figures are the same.
    again, second = run(prado_scratch, capsys, prado_scratch.Config(resume=checkpoints))
    assert again == folder
    assert second == figures


def test_ablation_shows_what_each_measure_changes(data, capsys):
    options = {"ways": ("no class weights",), "limit": 8}
    config = small(prado_ablation, data, **options)
    folder, figures = run(prado_ablation, capsys, config)
    report = (folder / "report.md").read_text()
    assert "What leaving it out changes" in report
    assert {name.split("/")[0] for name in figures} == {
        "as in the report",
        "no class weights",
    }
    saved = json.loads((folder / "no-class-weights" / "config.json").read_text())
    assert saved["class_weights"] is False
    assert saved["data"]["limit"] == 8


def test_every_way_of_the_ablation_differs_by_what_it_says():
    config = prado_ablation.Config()
    reference, *others = prado_ablation.make_ways(config)
    assert reference.config == config
    assert len({way.folder for way in (reference, *others)}) == 8
    for way in others:
        assert way.config != config
        kept = {
            field.name
            for field in dataclasses.fields(config)
            if getattr(config, field.name) == getattr(way.config, field.name)
        }
        assert kept >= {"data", "epochs", "batch_size", "network", "seeds"}


@pytest.fixture
def weights(monkeypatch):
    """Weights of the small network; those of all others are out of reach."""
    source = dataclasses.replace(
        SOURCES["efficientnet_lite0"], model="efficientnet_lite0"
    )

    def load(name, *, weights=None, download=True):
        if weights is not None:
            raise InputError(f"{weights} does not hold the weights {name}")
        if name != "efficientnet_lite0":
            raise InputError(f"{name} cannot be downloaded; pass it as --weights PATH")
        model = create_model(name, 1000)
        return Pretrained(init_variables(model, 0, (8, 8, 3)), source, Report(()))

    monkeypatch.setattr("jaxvision.pretrained.load", load)


@pytest.mark.usefixtures("weights")
def test_transfer_goes_on_with_what_is_to_be_had(data, capsys, monkeypatch):
    passes = []
    step = transfer.make_feature_step
    monkeypatch.setattr(
        transfer,
        "make_feature_step",
        lambda *args, **kwargs: passes.append(1) or step(*args, **kwargs),
    )
    config = small(
        prado_transfer,
        data,
        backbones=("mobilenet_v2", "efficientnet_lite0"),
        seeds=(0, 1),
    )
    folder, figures = run(prado_transfer, capsys, config)
    assert passes == [1]  # for both seeds, and for measuring them
    assert figures["efficientnet_lite0/test_accuracy"]["n"] == 2
    report = (folder / "report.md").read_text()
    assert "Backbones that are left out" in report
    assert "pass it as --weights.mobilenet-v2 FILE" in report
    classifier = load_classifier(
        Path("checkpoints", *folder.parts[-2:], "efficientnet_lite0")
    )
    image = data.root / "red" / "00.png"
    assert classifier.predict([image])[0].probabilities.shape == (3,)
    recorded = classifier.card.recorded["test"]
    assert {"accuracy", "balanced_accuracy", "macro_f1"} < set(recorded)


@pytest.mark.usefixtures("weights")
def test_transfer_refuses_a_wrong_file_and_nothing_at_all(data):
    config = small(prado_transfer, data, backbones=("vgg19", "efficientnet_lite0"))
    files = prado_transfer.WeightFiles(vgg19=Path("other.h5"))
    with pytest.raises(InputError, match=r"other.h5 does not hold the weights vgg19"):
        prado_transfer.main(dataclasses.replace(config, weights=files, image_size=224))
    for backbones in ((), ("vgg19",)):
        with pytest.raises(InputError, match="--backbones: nothing to begin with"):
            prado_transfer.main(dataclasses.replace(config, backbones=backbones))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (prado_scratch, {"image_size": 0}, "--image-size 0"),
        (prado_scratch, {"patience": 3}, "--patience waits .*: give --select best"),
        (prado_scratch, {"networks": ()}, "--networks: give at least one"),
        (prado_scratch, {"seeds": ()}, "--seeds: give at least one"),
        (prado_transfer, {"augment": AugmentConfig(blur=1.0)}, "--augment: features"),
        (prado_ablation, {"ways": ("no luck",)}, "there are: as in the report, no cl"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(data, experiment, changes, message):
    with pytest.raises(InputError, match=message):
        experiment.main(small(experiment, data, **changes))
    assert not Path("runs").exists()


def test_folders_of_ways_can_be_written_anywhere():
    way = Way("PCA color, per/pixel ×2", prado_ablation.Config(), lambda: None)
    assert way.folder == "PCA-color-per-pixel-2"
