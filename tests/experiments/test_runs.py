"""Each experiment whole, in small: from the command line to the report."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import chex
import numpy as np
import pytest
from drawn_images import write_images

from experiments import comics_baseline, comics_tune, part1, part2_mlp, tune
from experiments.catalog import collect
from jaxvision import experiment
from jaxvision.classifier import load_classifier
from jaxvision.cli.experiment import main, tune_main
from jaxvision.data import DataConfig, SplitConfig
from jaxvision.errors import InputError
from jaxvision.models import MODELS, create_model
from jaxvision.models.mlp import MLP
from jaxvision.pretrained import SOURCES, Pretrained, Report
from jaxvision.training import sweep
from jaxvision.training.checkpoint import CheckpointFolder, training_alone
from jaxvision.training.state import init_variables

SMALL = (
    "vgg12",
    "mobilenet_prado",
    "vgg13_bn",
    "vgg19",
    "mobilenet_v2",
    "efficientnet_lite0",
)
"""Networks that are replaced: the experiments are tested here, not the networks."""

REPOSITORY = Path(__file__).resolve().parents[2]

SPLIT = ["--data.split.train", "0.5", "--data.split.val", "0.25"]
SPLIT += ["--data.split.test", "0.25"]

TINY = ["--image-size", "8", "--epochs", "2", "--batch-size", "8"]


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


@pytest.fixture
def run(images, tmp_path, capsys, monkeypatch):
    """Runs an experiment on the small images; gives run folder and figures."""
    monkeypatch.chdir(tmp_path)

    def run_one(name, *arguments, seeds=("0",)):
        own = ["--data.root", str(images), "--seeds", *seeds, *arguments]
        main(collect()[name], own)
        folder = Path(capsys.readouterr().out.splitlines()[-1])
        return folder, json.loads((folder / "results.json").read_text())["figures"]

    return run_one


def report_of(folder):
    return (folder / "report.md").read_text("utf-8")


def checkpoint_of(folder):
    return Path("checkpoints", *folder.parts[-2:])


@pytest.mark.parametrize("name", collect())
def test_help_names_its_settings(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(collect()[name], ["--help"])
    assert stop.value.code == 0
    assert "--runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "how"),
    [
        (None, "the same command continues"),
        (
            Path("a b"),
            "continue with: python -m experiments.part1_baseline --resume 'a b'",
        ),
    ],
)
def test_part1_that_is_stopped_says_how_to_continue(folder, how, monkeypatch, capsys):
    def stopped(*_, **__):
        raise experiment.Stopped(folder, signal.SIGINT)

    monkeypatch.setattr(experiment, "run_experiment", stopped)
    with pytest.raises(SystemExit) as end:
        part1.main(part1.Config())
    assert end.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == f"interrupted; {how}\n"


def test_part1_shows_tables_beside_published_figures_and_shares_finished_rows(
    run, monkeypatch
):
    folder, figures = run("part1_baseline", "--epochs", "1", seeds=("0", "1"))
    report = report_of(folder)
    for words in (
        "4 layers with weights, 2 convolutional and 2 dense",
        "| conv2 | 10×10×16 | 6416 | 640000 | 13×13 | 4×4 |",
        "Niaz, 1.2",
        "other data",
        "No row was given more than 1 epoch",
        "baseline.png",
    ):
        assert words in report
    figure = figures["baseline/baseline/val_accuracy"]
    assert (figure["n"], figure["seeds"], figure["split"]) == (2, [0, 1], "val")
    with (folder / "curves.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_accuracy"]) for row in rows] == figure["values"]

    # The pooling experiment has the same row: nothing of it is trained.
    monkeypatch.setattr(sweep, "_Program", None)
    again, shared = run(
        "part1_pooling", "--epochs", "1", "--rows", "no pooling", seeds=("0", "1")
    )
    assert shared["pooling/no pooling/val_accuracy"]["values"] == figure["values"]
    assert "2, of which 2 were finished before" in report_of(again)


def test_networks_that_are_kept_are_measured_on_changed_images(run):
    folder, figures = run(
        "part1_robustness", "--epochs", "1", "--rows", "best network",
        "--transforms", "blur", "invert",
    )  # fmt: skip
    assert {"unchanged", "blur", "invert", "mean over all changes"} <= figures.keys()
    (network,) = Path("checkpoints/sweeps").iterdir()
    assert load_classifier(network).card.recorded["val"]["accuracy"] == pytest.approx(
        figures["unchanged"]["mean"], abs=1e-6
    )
    assert "curves.png" in report_of(folder)


def test_patches_are_measured_on_changed_images(run):
    folder, figures = run(
        "part1_patches", "--rows", "one view", "patches", "--transforms", "invert",
    )  # fmt: skip
    assert figures["50/one view/val_accuracy"]["n"] == 1
    unchanged = figures["50/patches/val_accuracy"]["mean"]
    assert figures["unchanged"]["mean"] == pytest.approx(unchanged, abs=1e-6)
    assert "curves.png" in report_of(folder)
    # What is solved has no learning curves.
    assert not list(folder.rglob("*_accuracy.png"))
    assert not list(folder.rglob("learning_curves.png"))


def test_weights_are_shown_as_images(run):
    rows = ("--rows", "300 hidden, no L2", "--units", "7")
    folder, figures = run("part2_weights", "--epochs", "1", *rows)
    name = "weights/300 hidden, no L2/neighbor_correlation"
    assert figures[name]["n"] == 1
    assert "7" in report_of(folder)


@pytest.mark.usefixtures("small_networks")
def test_cross_validation_classifies_every_image_once(run):
    folder, figures = run(
        "part1_transfer", *TINY, "--data.folds", "3", "--epochs", "20",
        "--optim.learning-rate", "0.03", "--rows", "last layer", "last layer, 4 views",
        "last layer, ridge", "last layer, logistic",
    )  # fmt: skip
    heads = {
        "transfer": ("last layer", "last layer, 4 views"),
        "solved": ("last layer, ridge", "last layer, logistic"),
    }
    for table, rows in heads.items():
        for row in rows:
            assert figures[f"{table}/{row}/fold_accuracy"]["mean"] > 0.8
    with (folder / "out_of_fold.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 36
    one = [row for row in rows if row["row"] == "last layer"]
    assert len({row["image"] for row in one}) == 36
    for name in ("blue", "green", "red"):
        folds = [int(row["fold"]) for row in one if row["true"] == name]
        assert np.bincount(folds).tolist() == [4, 4, 4]
    assert "trained on the other 2 of 3 folds" in report_of(folder)
    assert not list(Path("checkpoints").rglob("*.npz"))


@pytest.mark.usefixtures("small_networks")
def test_each_class_is_left_out_once(run):
    folder, figures = run("open_set", "--image-size", "8", "--stop-at", "None")
    for score in ("highest probability", "highest logit", "energy"):
        assert 0 <= figures[f"{score}/auroc"]["mean"] <= 1
    table = report_of(folder).partition("| left out |")[2].splitlines()[2:6]
    assert [line.split("|")[1].strip() for line in table] == [
        *("blue", "green", "red"),
        "mean",
    ]


def test_one_recipe_writes_a_whole_run_folder_and_is_not_trained_again(
    run, capsys, monkeypatch
):
    folder, figures = run(
        "part2_mlp", *SPLIT, "--epochs", "6", "--batch-size", "8", seeds=("0", "1")
    )
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "history.csv", "learning_curves.png", "confusion_matrix.png",
        "gallery.png", "bad_images.csv", "splits-seed-0.csv", "predictions-seed-1.csv",
    }  # fmt: skip
    assert figures["test_accuracy"]["mean"] > 0.8
    splits = [(folder / f"splits-seed-{seed}.csv").read_text() for seed in (0, 1)]
    assert splits[0] != splits[1]
    assert load_classifier(checkpoint_of(folder)).card.recorded["test"]

    monkeypatch.setattr("jaxvision.recipe.fit_steps", None)
    resume = ["--resume", str(checkpoint_of(folder))]
    with training_alone(checkpoint_of(folder)), pytest.raises(SystemExit) as stop:
        main(part2_mlp.EXPERIMENT, resume)
    assert stop.value.code == 2
    assert "another process is training in it; wait for it" in capsys.readouterr().err
    main(part2_mlp.EXPERIMENT, resume)
    again = json.loads((folder / "results.json").read_text())["figures"]
    for name in ("train_loss", "test_accuracy"):
        assert again[name]["values"] == figures[name]["values"]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("part2_features", ["--backbone", "efficientnet_lite0", "--hidden", "8"]),
        ("part2_finetune", ["--backbone", "efficientnet_lite0", "--head-epochs", "2"]),
        ("part2_finetune", ["--backbone", "efficientnet_lite0", "--method", "head"]),
    ],
)
def test_pretrained_networks_are_trained_and_kept(run, images, name, arguments):
    folder, _ = run(name, *TINY, *SPLIT, *arguments)
    classifier = load_classifier(checkpoint_of(folder))
    image = images / "red" / "00.png"
    assert set(classifier.predict(image).probabilities) == {"blue", "green", "red"}


@pytest.mark.usefixtures("small_networks")
def test_prado_compares_networks_and_measures(run):
    networks = ["--networks", "vgg12", "mobilenet_prado"]
    folder, figures = run("prado_scratch", *TINY, *SPLIT, *networks)
    for network in networks[1:]:
        for metric in ("test_accuracy", "test_macro_f1", "seconds_per_epoch"):
            assert figures[f"{network}/{metric}"]["n"] == 1
        assert "confusion_matrix.png" in report_of(folder / network)
        kept = load_classifier(checkpoint_of(folder) / network)
        assert kept.card.preprocessing.standardize
        colors = checkpoint_of(folder) / network / "seed-0" / "colors.json"
        assert len(json.loads(colors.read_text())["eigenvalues"]) == 3
    folder, figures = run(
        "prado_ablation", *TINY, *SPLIT, "--ways", "no flips", "--limit", "8"
    )
    assert {name.split("/")[0] for name in figures} == {"as in the report", "no flips"}
    saved = json.loads((folder / "no-flips" / "config.json").read_text())
    assert saved["augment"]["horizontal_flip"] == 0
    assert json.loads((folder / "config.json").read_text())["data"]["limit"] == 8


@pytest.mark.usefixtures("small_networks")
def test_prado_continues_with_the_weights_that_are_available(run, capsys):
    arguments = [*TINY, *SPLIT, "--backbones"]
    folder, figures = run(
        "prado_transfer", *arguments, "mobilenet_v2", "efficientnet_lite0"
    )
    assert {name.split("/")[0] for name in figures} == {"efficientnet_lite0"}
    assert "mobilenet_v2 cannot be downloaded" in report_of(folder)
    assert checkpoint_of(folder).is_dir()
    for wrong, words in (
        (["vgg19", "efficientnet_lite0", "--weights.vgg19", "x.h5"], "x.h5 does not"),
        (["vgg19", "mobilenet_v2"], "no pretrained weights"),
    ):
        with pytest.raises(SystemExit) as stop:
            run("prado_transfer", *TINY, *SPLIT, "--backbones", *wrong)
        assert stop.value.code == 2
        assert words in capsys.readouterr().err


@pytest.mark.usefixtures("small_networks")
def test_comics_are_tuned_and_told_from_faces_by_one_logit(run, images, capsys):
    shutil.rmtree(images / "blue")
    arguments = [*TINY, *SPLIT, "--optim.learning-rate", "0.01"]
    folder, figures = run(
        "comics_baseline", *arguments, "--epochs", "8", seeds=("0", "1")
    )
    assert figures["test_auc"]["n"] == 2
    assert "roc_curve.png" in report_of(folder)
    classifier = load_classifier(checkpoint_of(folder))
    assert classifier.card.binary
    assert classifier.variables["params"]["head"]["logits"]["bias"].shape == (1,)
    prediction = classifier.predict(images / "red" / "00.png")
    assert sum(prediction.probabilities.values()) == pytest.approx(1)

    search = ["--tune.trials", "2", "--tune.startup-trials", "1"]
    tune_main(
        comics_tune.EXPERIMENT,
        ["--data.root", str(images), *TINY, *SPLIT, *search],
    )
    tuned = capsys.readouterr().out.splitlines()[-1]
    best = json.loads((Path(tuned) / "tuned.json").read_text())["settings"]
    folder, _ = run("comics_final", *TINY, *SPLIT, "--tuned", tuned)
    recipe = load_classifier(checkpoint_of(folder)).card.recipe
    assert recipe["optim"]["learning_rate"] == best["optim.learning_rate"]
    assert recipe["options"]["dropout_rate"] == best["dropout_rate"]


@pytest.mark.usefixtures("small_networks")
def test_only_what_declares_a_search_space_is_tuned(capsys):
    with pytest.raises(SystemExit):
        tune.main(["part1-baseline"])
    assert "part2-mlp" in capsys.readouterr().err
    assert comics_baseline.EXPERIMENT.name in tune.tunable()


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("prado_ablation", ["--ways", "no luck"], "there are as in the report, no cl"),
        ("part1_baseline", ["--epochs", "0"], "--epochs 0: must be at least 1"),
        ("part1_robustness", ["--transforms", "sideways"], "sideways"),
        ("part2_features", ["--layer", "conv9"], "conv9"),
        ("part2_mlp", ["--resume", "nowhere", "--gray"], "drop the other"),
        ("part2_mlp", ["--data.folds", "99"], "--data.folds 99: must be at le"),
    ],
)
@pytest.mark.usefixtures("small_networks")
def test_bad_settings_are_one_line(images, capsys, name, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main(collect()[name], ["--data.root", str(images), *arguments])
    assert stop.value.code == 2
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error: ")
    ]
    assert re.search(words, line), line


def test_a_stopped_command_resumes_to_the_same_bits(images, tmp_path):
    """The real command, with threads that load images, stopped by SIGTERM."""
    arguments = ["--data.root", str(images), *SPLIT, "--epochs", "10"]
    arguments += ["--batch-size", "8", "--seeds", "0"]

    def start(folder, *arguments):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.part2_mlp", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole = start(tmp_path / "whole", *arguments)
    stopped = start(tmp_path / "stopped", *arguments, "--save-seconds", "0")
    for line in stopped.stderr:
        if "epoch  2/10" in line:
            stopped.send_signal(signal.SIGTERM)
            break
    _, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM, err
    resume = err.splitlines()[-1].split("--resume ")[1]
    resumed = start(tmp_path / "stopped", "--resume", resume)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err

    def last(folder):
        (seed,) = (tmp_path / folder).glob("checkpoints/part2_mlp/*/seed-0")
        return CheckpointFolder(seed).load("last").arrays

    chex.assert_trees_all_equal(last("stopped"), last("whole"))
    for folder in ("stopped", "whole"):
        (history,) = (tmp_path / folder).glob("runs/part2_mlp/*/history.jsonl")
        assert len(history.read_text().splitlines()) == 10


def test_part1_ends_with_one_page(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(part1, "EXPERIMENTS", ("part1_baseline",))
    data = DataConfig(images, split=SplitConfig(0.75, 0.25, 0.0))
    part1.main(part1.Config(data, seeds=(0,), epochs=1))
    assert capsys.readouterr().out.splitlines()[-1] == "runs/part1.html"
    assert "part1_baseline" in Path("runs/part1.html").read_text("utf-8")
