"""The run folder and the report of an experiment, from results made by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from jaxvision.classifier import Classifier, Evaluation
from jaxvision.config import to_plain
from jaxvision.crossval import FoldEvaluation
from jaxvision.data.dataset import DataConfig, DecodedDataset, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, Table
from jaxvision.preprocessing import Preprocessing
from jaxvision.report.markdown import Section, Text
from jaxvision.report.run_folder import HistoryCallback, Measurement, RunFolder
from jaxvision.report.sections import most_confused, shared_settings, write_run
from jaxvision.results import Results, Trial
from jaxvision.settings import (
    AugmentConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    ScheduleConfig,
)

PLAIN = Recipe(
    "simple_cnn", method="scratch", image_size=50, scaling="half", batch_size=16,
    augment=AugmentConfig(), optim=OptimConfig(), schedule=ScheduleConfig(), epochs=2,
)  # fmt: skip
SEEDS = (0, 1)
EXPERIMENT = Experiment(
    name="try", section="9", title="A try", question="Does it write?", chapter="part-1",
    dataset="artists", recipe=PLAIN,
    published=[
        {"row": row, "metric": "test_accuracy", "value": 0.5, "source": "Niaz"}
        for row in ("plain", "deep")
    ],
    published_rows=(("plain", {"epochs": 2}),),
)  # fmt: skip


def dataset(root: Path, classes: int) -> DecodedDataset:
    """Six images a class, one of them given twice, and a bad one."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    twin = root / "class 0" / "twin.png"
    twin.write_bytes((root / "class 0" / "0.png").read_bytes())
    (root / "class 1" / "bad.png").write_bytes(b"no image")
    config = DataConfig(root=root, split=SplitConfig(0.5, 0.25, 0.25))
    return load_dataset(config).decode(Preprocessing((8, 8)))


def history(seed: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch, "step": epoch, "train_loss": 1 / epoch, "val_loss": 1.0,
            "train_accuracy": 0.5, "val_accuracy": 0.1 * (epoch + seed),
            "learning_rate": 1e-3, "seconds": 2.0,
        }
        for epoch in (1, 2)
    ]  # fmt: skip


def evaluation(images: DecodedDataset, split: str, seed: int) -> Evaluation:
    indices = images.splits[split]
    labels, count = images.labels[indices], len(images.classes)
    # Everything right but the first image.
    logits = 4 * np.eye(count, dtype=np.float32)[labels]
    logits[0] = np.roll(logits[0], 1 + seed)
    found = tuple(images.images[index] for index in indices)
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    return Evaluation(split, images.classes, found, labels, logits, 0.5, accuracy)


def results(
    tmp_path: Path,
    rows: tuple[tuple[str, str], ...] = (("", ""),),
    *,
    classes: int = 2,
    kind: str = "trained",
    experiment: Experiment = EXPERIMENT,
) -> Results:
    images = dataset(tmp_path / "images", classes)
    run = RunFolder.create("try", root=tmp_path / "runs", command="jaxvision train x")
    data = DataConfig(folds=5 if kind == "folds" else None)
    config = RunConfig(data, seeds=SEEDS)
    run.write_config({**to_plain(config), "recipe": to_plain(PLAIN)})
    trials = {}
    for key in rows:
        label = "-".join(filter(None, key))
        part = run
        if label and kind == "trained":
            part = RunFolder.create(f"try/{run.path.name}", root=tmp_path / "runs",
                                    name=label)  # fmt: skip
            part.write_config(to_plain(PLAIN))
        trials[key] = []
        for seed in SEEDS:
            split = images.with_seed(seed)
            given: dict[str, Any] = {"history": history(seed)}
            if kind == "trained":
                for row in history(seed):
                    HistoryCallback(part, seed=seed).on_epoch_end(row)
                given |= {
                    "classifier": cast(Classifier, object()), "dataset": split,
                    "evaluations": {
                        name: evaluation(split, name, seed)
                        for name in ("train", "val", "test")
                    },
                }  # fmt: skip
            elif kind == "folds":
                one = evaluation(split, "train", seed)
                found = FoldEvaluation(
                    "fold", one.classes, one.images, one.labels, one.logits, one.loss,
                    one.accuracy, np.arange(len(one.labels), dtype=np.int32) % 5,
                    np.ones(len(one.labels), np.float32),
                )  # fmt: skip
                given = {
                    "history": (),
                    "dataset": split,
                    "evaluations": {"fold": found},
                }
            folder = tmp_path / "networks" / label / f"seed-{seed}"
            trials[key].append(Trial(PLAIN, seed, seconds=4.0, folder=folder, **given))
    tables: dict[str, Table] = {}
    for name, row in rows:
        recipes = dict(tables[name].recipes) if name in tables else {}
        recipes[row] = PLAIN.replace(network="mlp") if row == "deep" else PLAIN
        tables[name] = Table(recipes, save=(row,), about="About it.")
    return Results(
        experiment, config, PLAIN, None, tables, trials, {"alexnet": "out of reach"},
        images, run, tmp_path / "networks",
    )  # fmt: skip


def report(found: Results) -> str:
    return (found.run.path / "report.md").read_text("utf-8")


def names(found: Results) -> set[str]:
    return {path.name for path in found.run.path.iterdir()}


def test_one_recipe_shows_its_classifier(tmp_path, capsys):
    found = results(tmp_path)
    write_run(found, 12.0, resume_command=lambda folder: f"jaxvision resume {folder}")
    text = report(found)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Results", "## Published figures", "## How it was done",
        "## Learning curves", "## Accuracy with its confidence interval",
        "## ROC curve", "## Calibration", "## Confusion matrix", "## Classes",
        "## Gallery", "## Use it", "## Details",
    ]  # fmt: skip
    for expected in (
        "Does it write?",
        "Network `simple_cnn`; everything is trained from fresh weights.",
        "image size 50, ",
        "jaxvision predict " + str(tmp_path / "networks") + " IMAGE.jpg",
        "jaxvision resume " + str(tmp_path / "networks"),
        "### Bad images",
        "| class 1/bad.png |",
        "### Identical images",
        "| plain | test accuracy | .500 |",
        "| other data | Niaz |",
    ):
        assert expected in text
    assert "Most often confused" not in text
    assert {
        "bad_images.csv", "identical_images.csv", "splits-seed-0.csv",
        "splits-seed-1.csv", "predictions-seed-1.csv", "roc_curve.csv", "gallery.png",
        "confusion_matrix.png", "learning_curves.png", "reliability.png",
        "results.json",
    } <= names(found)  # fmt: skip
    figures = found.run.read_results()["figures"]
    assert {"test_accuracy", "val_macro_f1", "train_loss", "test_auc"} <= set(figures)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("test_accuracy: ")
    assert printed[0].endswith(", 2 seeds")
    assert printed[1:] == [
        f"checkpoint: {tmp_path / 'networks'}",
        f"report: {found.run.path / 'report.md'}",
        str(found.run.path),
    ]


def test_rows_have_a_table_and_a_report_each(tmp_path):
    own = Section("Own", [Text("Further.")], measurements=[Measurement("x", [1], [0])])
    experiment = dataclasses.replace(EXPERIMENT, sections=lambda _: [own])
    found = results(tmp_path, (("", "plain"), ("", "deep")), experiment=experiment)
    write_run(found, 12.0)
    text = report(found)
    assert "|  | settings | parameters | multiply-adds | test accuracy |" in text
    assert "| plain | network simple_cnn | " in text
    assert "Highest test accuracy: **plain" in text
    assert "| alexnet | out of reach |" in text
    assert "[deep](deep/report.md)" in text
    assert "## Own\n\nFurther." in text
    assert "| deep | test accuracy | .500 |" in text
    assert {"loss.png", "accuracy.png"} <= names(found)
    all_figures = found.run.read_results()["figures"]
    assert {"plain/test_accuracy", "deep/seconds_per_epoch", "x"} <= set(all_figures)
    part = found.run.path / "deep"
    row = json.loads((part / "results.json").read_text())
    assert row["figures"]["test_accuracy"] == {
        **all_figures["deep/test_accuracy"], "row": "",
    }  # fmt: skip
    assert (part / "gallery.png").is_file()
    assert "A try: deep" in (part / "report.md").read_text()


def test_a_sweep_shows_tables_and_their_effects(tmp_path, capsys):
    rows = (("kernel_size", "3"), ("kernel_size", "5"), ("pooling", "none"))
    experiment = dataclasses.replace(EXPERIMENT, sweep=True)
    found = results(tmp_path, rows, kind="sweep", experiment=experiment)
    write_run(found, 12.0, resume_command=lambda folder: "never")
    text = report(found)
    for expected in (
        "## Kernel size\n\nAbout it.",
        "## Pooling",
        "| kernel size | 5 | 3 | .000 ± .000 |",
        "Validation accuracy: **none (.250 ± .071)**, .250 below",
        "6, of which 0 were finished before",
        "jaxvision evaluate " + str(tmp_path / "networks"),
    ):
        assert expected in text
    assert "never" not in text
    assert {"kernel_size.png", "pooling.png", "curves.csv", "splits-seed-1.csv"} <= (
        names(found)
    )
    curves = (found.run.path / "curves.csv").read_text().splitlines()
    assert curves[1].startswith("kernel_size/3,0,1,1,")
    assert len(curves) == 1 + len(rows) * len(SEEDS) * 2
    assert "checkpoint" not in capsys.readouterr().out


def test_folds_have_figures_and_no_curves(tmp_path):
    found = results(tmp_path, (("heads", "plain"),), kind="folds")
    write_run(found, 12.0)
    assert "on the other 4 of 5 folds" in report(found)
    assert "heads.png" not in names(found)
    assert "out_of_fold.csv" in names(found)
    assert found.run.read_results()["headline"] == ["heads/plain/fold_accuracy"]


def test_folds_of_one_recipe_show_what_is_confused(tmp_path):
    found = results(tmp_path, kind="folds")
    write_run(found, 12.0)
    for heading in ("How it was done", "Calibration", "Confusion matrix", "Classes"):
        assert f"# {heading}" in report(found)
    assert "learning_curves.png" not in names(found)


def test_many_classes_list_what_is_confused_most(tmp_path):
    found = results(tmp_path, classes=31)
    write_run(found, 1.0)
    assert "Most often confused:" in report(found)


def test_the_most_frequent_mistakes_come_first():
    matrix = np.array([[9, 2, 0], [5, 1, 0], [0, 0, 7]])
    assert most_confused(matrix, "abc") == [("b", "a", 5), ("a", "b", 2)]
    assert most_confused(matrix, "abc", 1) == [("b", "a", 5)]


@pytest.mark.parametrize("patience", [None, 3])
def test_rows_name_what_they_vary_and_share_the_rest(patience):
    recipes = {
        "plain": PLAIN,
        "other": PLAIN.replace(dense_dropout_rate=0.5, patience=patience),
    }
    shared, varied = shared_settings(recipes)
    assert varied["plain"] == {}
    assert varied["other"] == {
        "dense_dropout_rate": "0.5",
        **({"patience": "3"} if patience else {}),
    }
    assert shared["optim.learning_rate"] == "0.001"
    # What is off, or means nothing without pretrained weights, is not mentioned.
    assert not {"optim.weight_decay", "freeze_bn", "head_epochs"} & set(shared)
