"""Commands, from images to a checkpoint and what is asked of it."""

import json
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision.cli.main import main
from jaxvision.storage import CACHE_VARIABLE

SMALL = (
    *("--network", "mlp", "--option", "hidden=8", "--image-size", "8"),
    *("--epochs", "3", "--batch-size", "8", "--seeds", "3"),
)
RECIPE = jv.Recipe(
    "mlp",
    options={"hidden": 8},
    method="scratch",
    image_size=8,
    epochs=3,
    batch_size=8,
    optim=jv.OptimConfig("adam", 1e-3),
    schedule=jv.ScheduleConfig("cosine"),
    augment=jv.AugmentConfig(horizontal_flip=0.5, translation=0.05),
)
"""What `train` does with those flags."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory) -> Path:
    """Where `jaxvision train` was run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train", str(photos), *SMALL])
    return folder


@pytest.fixture
def checkpoint(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    (checkpoint,) = Path("checkpoints/train").iterdir()
    return checkpoint


def test_train_gives_the_numbers_of_the_python_api(photos, checkpoint):
    (run,) = Path("runs/train").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert "jaxvision evaluate" in (run / "report.md").read_text()
    mine = jv.train(jv.load_dataset(photos), RECIPE, seed=3, progress=False)
    theirs = jv.load_classifier(checkpoint)
    jax.tree.map(np.testing.assert_array_equal, mine.variables, theirs.variables)
    assert mine.card.recorded == theirs.card.recorded
    assert mine.card.recipe == theirs.card.recipe
    assert results["figures"]["test_accuracy"]["values"] == [
        mine.card.recorded["test"]["accuracy"]
    ]


@pytest.mark.parametrize(
    ("own", "own_flags"),
    [({"epochs": 2}, "--epochs 2"), ({"solver": "ridge"}, "--solver ridge")],
    ids=["trained", "solved"],
)
def test_finetune_gives_the_numbers_of_the_python_api(
    own, own_flags, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    settings = {"method": "features", "image_size": 32, "batch_size": 8, **own}
    flags = f"--method features --image-size 32 --batch-size 8 {own_flags}"
    main(["finetune", str(photos), *flags.split()])
    printed = capsys.readouterr().out.splitlines()
    (checkpoint,) = Path("checkpoints/finetune").iterdir()
    assert f"checkpoint: {checkpoint}" in printed
    assert Path(printed[-1], "report.md").is_file()
    mine = jv.finetune(jv.load_dataset(photos), progress=False, **settings)
    theirs = jv.load_classifier(checkpoint)
    jax.tree.map(np.testing.assert_array_equal, mine.variables, theirs.variables)
    assert mine.card.recorded == theirs.card.recorded
    found = theirs.evaluate(jv.load_dataset(photos), "test")
    assert found.accuracy == theirs.card.recorded["test"]["accuracy"]


def test_evaluate_prints_what_was_recorded_and_every_class(checkpoint, capsys):
    main(["evaluate", str(checkpoint)])
    printed = capsys.readouterr().out
    recorded = jv.load_classifier(checkpoint).card.recorded["test"]["accuracy"]
    assert f"recorded test accuracy: {recorded}\n" in printed
    assert f"\ntest accuracy: {recorded}\n" in printed
    assert "\ntest images that `unknown` would turn away: " in printed
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["class", "blue", "green", "red"]


def test_evaluate_takes_another_folder_by_the_names_of_its_classes(
    checkpoint, tmp_path, capsys
):
    other = write_images(tmp_path / "other", per_class=4, size=30)
    (other / "blue").rename(tmp_path / "blue")
    main(["evaluate", str(checkpoint), "--data.root", str(other)])
    printed = capsys.readouterr().out
    accuracy = jv.load_classifier(checkpoint).evaluate(jv.load_dataset(other)).accuracy
    assert f"all accuracy: {accuracy}\n" in printed
    assert "recorded" not in printed
    main(["evaluate", str(checkpoint), "--tta", "ten-crops"])
    printed = capsys.readouterr().out
    assert "test-time augmentation: ten-crops\n" in printed
    assert "recorded" not in printed


def test_predict_answers_files_and_folders(photos, checkpoint, capsys):
    main(["predict", str(checkpoint), str(photos / "red/00.png"), str(photos)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 36
    prediction = jv.load_classifier(checkpoint).predict(photos / "red/00.png")
    said = f"{prediction.label} {prediction.probability:.3f}"
    assert lines[0] == f"{photos / 'red/00.png'}: {said}"
    main(["predict", str(checkpoint), str(photos / "red/00.png"), "--top", "3"])
    assert capsys.readouterr().out.count(", ") == 2


def test_predict_lists_bad_images_and_answers_the_others(
    photos, checkpoint, tmp_path, capsys
):
    bad, good = tmp_path / "bad.png", photos / "red/00.png"
    bad.write_text("no image")
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(checkpoint), str(bad), str(good)])
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{good}: ")
    assert printed.err.startswith(f"left out: {bad}")


def test_finished_run_is_continued_without_training(checkpoint, capsys):
    before = {path: path.stat().st_mtime for path in checkpoint.rglob("*.json")}
    main(["train", "--resume", str(checkpoint)])
    assert f"checkpoint: {checkpoint}" in capsys.readouterr().out
    after = {path: path.stat().st_mtime for path in checkpoint.rglob("*.json")}
    assert before == after


def test_a_run_keeps_its_split_where_images_are_added(photos, folder, tmp_path):
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(folder, copy)
    shutil.copytree(photos, moved)
    for number in range(4):
        shutil.copy(moved / f"red/0{number}.png", moved / f"red/new{number}.png")
    (checkpoint,) = (copy / "checkpoints/train").iterdir()
    (run,) = (copy / "runs/train").iterdir()
    before = json.loads((run / "results.json").read_text())["figures"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        arguments = ["--resume", str(checkpoint.relative_to(copy))]
        main(["train", str(moved), *arguments])
    after = json.loads((run / "results.json").read_text())["figures"]
    for name in ("val_loss", "test_loss"):
        assert after[name]["values"] == before[name]["values"]
    assert "new" not in (run / "splits-seed-3.csv").read_text()


def test_a_run_without_validation_images_measures_what_there_is(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    split = "--data.split.train .6 --data.split.val 0 --data.split.test .4"
    main(["train", str(photos), *SMALL, *split.split(), "--measure-train"])
    (results,) = Path("runs/train").glob("*/results.json")
    figures = json.loads(results.read_text())["figures"]
    assert {"test_accuracy", "train_accuracy"} <= set(figures)
    assert "val_accuracy" not in figures


def test_a_finished_run_goes_on_to_more_epochs(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    (checkpoint,) = Path("checkpoints/train").iterdir()
    (run,) = Path("runs/train").iterdir()
    split = (checkpoint / "seed-3/splits.csv").read_bytes()
    main(["train", "--resume", str(checkpoint), "--epochs", "4"])
    printed = capsys.readouterr()
    assert "trained on from 3 epochs to 4" in printed.out
    assert "the cosine schedule is that of 4 epochs from here on" in printed.out
    assert printed.err.count("warning: only 6 validation images") == 1
    assert "only 6 validation images" in (run / "report.md").read_text()
    assert len((run / "history.jsonl").read_text().splitlines()) == 4
    assert (checkpoint / "seed-3/splits.csv").read_bytes() == split
    for path in (run, checkpoint):
        assert json.loads((path / "config.json").read_text())["recipe"]["epochs"] == 4
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(checkpoint), "--epochs", "2"])
    assert "--epochs 2: the run was begun with 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "1000000"], "--batch-size 1000000: must be at most 1024"),
        (
            [f"--data.split.{part}" for part in ("train=1", "val=0", "test=0")],
            "no image is in the split val or test",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_folders_are_made(
    photos, arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", str(photos), *SMALL, *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "gone"], "gone: no such folder"),
        (["train", "--epochs", "0"], "--epochs 0: must be at least 1"),
        (
            ["train", "--optim.learning-rate", "-1"],
            "--optim.learning-rate -1.0: must be at least 0",
        ),
        (["finetune", "--network", "vgg99"], "no "),
        (["train", "--resume", "gone"], "--resume gone: no run to continue there"),
        (
            ["train", "--resume", "gone", "--batch-size", "2"],
            "--resume: continues with the settings of that run",
        ),
        (
            ["train", "--resume", "gone", "--epochs", "30"],
            "--resume gone: no run to continue there",
        ),
        (["evaluate", "gone"], "gone: no checkpoint there"),
        (["predict", "gone"], "IMAGES: give one or more files or folders"),
        (["tune", "--tune.trials", "0"], "--tune.trials 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(
    arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_report_gathers_runs_on_a_page(folder, checkpoint, capsys):
    main(["report"])
    assert capsys.readouterr().out.splitlines()[-1] == "runs/report.html"
    page = (folder / "runs/report.html").read_text()
    assert "How well does a network learn to classify these images?" in page
    assert f"jaxvision evaluate {checkpoint}" in page
    main(["report", f"runs/train/{checkpoint.name}", "--out", "one.html"])
    assert (folder / "one.html").read_text().count("<article") == 1


def test_tune_finds_settings_that_finetune_takes(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = "--method scratch --network mlp --option hidden=8 --image-size 8"
    flags += " --epochs 1 --batch-size 8"
    main(["tune", str(photos), *flags.split(), "--tune.trials", "2"])
    run = Path(capsys.readouterr().out.splitlines()[-1])
    tuned = json.loads((run / "tuned.json").read_text())["settings"]
    report = (run / "report.md").read_text()
    (command,) = [
        line for line in report.splitlines() if line.startswith("jaxvision finetune")
    ]
    main(shlex.split(command)[1:])
    (checkpoint,) = Path("checkpoints/finetune").iterdir()
    recipe = jv.load_classifier(checkpoint).card.recipe
    rate = tuned["optim.learning_rate"]
    assert recipe["optim"]["learning_rate"] == rate
    assert recipe["options"] == {"hidden": 8}
