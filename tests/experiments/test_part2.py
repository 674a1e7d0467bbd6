"""Each experiment of part 2 whole: train, report, evaluate, predict, resume."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import numpy as np
import pytest
from drawn_images import write_images

from experiments import evaluate, part2_features, part2_mlp, predict
from jaxvision.classifier import load_classifier
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.training.checkpoint import CheckpointFolder

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """What an experiment writes below the working folder goes to the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    root = write_images(tmp_path / "images")
    return DataConfig(root=root, split=SplitConfig(train=0.5, val=0.25, test=0.25))


def mlp_config(data, **changes):
    return dataclasses.replace(
        part2_mlp.Config(), data=data, epochs=6, batch_size=8, **changes
    )


def run(experiment, config, capsys):
    """The run folder, which is the last line that was printed, and its results."""
    experiment.main(config)
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    return folder, json.loads((folder / "results.json").read_text())


def checkpoint_of(folder):
    return Path("checkpoints", *folder.parts[-2:])


def test_mlp_writes_a_whole_run_folder(data, capsys):
    folder, results = run(part2_mlp, mlp_config(data, seeds=(0, 1)), capsys)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "history.csv",
        "history.jsonl",
        "learning_curves.png",
        "confusion_matrix.png",
        "gallery.png",
        "bad_images.csv",
        "splits-seed-0.csv",
        "predictions-seed-1.csv",
        "results.json",
        "report.md",
    }
    figure = results["figures"]["test_accuracy"]
    assert figure["n"] == 2
    assert figure["seeds"] == [0, 1]
    assert figure["mean"] == np.mean(figure["values"])
    assert figure["mean"] > 0.8
    assert not results["data"]["is_demo"]
    splits = [(folder / f"splits-seed-{seed}.csv").read_text() for seed in (0, 1)]
    assert splits[0] != splits[1]
    report = (folder / "report.md").read_text()
    for words in ("learning_curves.png", "experiments.predict", "Bad images"):
        assert words in report


def test_evaluate_prints_the_recorded_accuracy_to_the_last_digit(data, capsys):
    folder, _ = run(part2_mlp, mlp_config(data, seeds=(0, 1)), capsys)
    for split in ("train", "val", "test"):
        config = evaluate.Config(checkpoint_of(folder) / "seed-1", split=split)
        evaluate.main(config)
        lines = dict(
            line.split(": ", 1) for line in capsys.readouterr().out.splitlines()
        )
        assert lines[f"{split} accuracy"] == lines[f"recorded {split} accuracy"]


def test_evaluate_without_the_images_names_its_own_flag(data, capsys):
    folder, _ = run(part2_mlp, mlp_config(data, seeds=(0,)), capsys)
    moved = data.root.rename(data.root.with_name("moved"))
    config = evaluate.Config(checkpoint_of(folder))
    with pytest.raises(InputError) as error:
        evaluate.main(config)
    wanted = f"{data.root}: no such folder; give one with --root"
    assert str(error.value) == wanted
    evaluate.main(dataclasses.replace(config, root=moved))
    assert "test accuracy" in capsys.readouterr().out


def test_predict_names_images(data, capsys):
    folder, _ = run(part2_mlp, mlp_config(data, seeds=(0,)), capsys)
    images = tuple(sorted(data.root.glob("*/00.png")))
    predict.main(predict.Config(checkpoint_of(folder), images))
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("blue", "green", "red"), strict=True):
        assert line.split(": ")[1].split()[0] == name

    classifier = load_classifier(checkpoint_of(folder))
    predictions = classifier.predict(images)
    assert [p.label for p in predictions] == ["blue", "green", "red"]
    for prediction in predictions:
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.probability == prediction.probabilities.max()


def test_without_test_images_the_validation_images_are_shown(data, capsys):
    split = SplitConfig(train=0.8, val=0.2, test=0.0)
    data = dataclasses.replace(data, split=split)
    folder, results = run(part2_mlp, mlp_config(data, seeds=(0,)), capsys)
    assert "test_accuracy" not in results["figures"]
    assert "val images" in (folder / "report.md").read_text()


def test_bad_input_of_predict_is_one_line(data, tmp_path, capsys):
    folder, _ = run(part2_mlp, mlp_config(data, seeds=(0,)), capsys)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for images in ((broken,), (tmp_path / "missing.jpg",), ()):
        with pytest.raises(InputError) as error:
            predict.main(predict.Config(checkpoint_of(folder), images))
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no checkpoint there"):
        predict.main(predict.Config(tmp_path, (broken,)))


def test_finished_seeds_are_not_trained_again(data, capsys, monkeypatch):
    folder, first = run(part2_mlp, mlp_config(data, seeds=(0,)), capsys)
    monkeypatch.setattr("experiments.training.fit", None)
    resumed = part2_mlp.Config(resume=checkpoint_of(folder))
    again, second = run(part2_mlp, resumed, capsys)
    assert again == folder
    assert first["figures"] == second["figures"]


def test_resume_with_other_settings_or_of_nothing_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="drop the other flags"):
        part2_mlp.main(part2_mlp.Config(resume=tmp_path, epochs=3))
    with pytest.raises(InputError, match="no run to continue"):
        part2_mlp.main(part2_mlp.Config(resume=tmp_path))


def test_killed_command_resumes_to_the_same_bits(data, tmp_path):
    """The real command, with threads that load images, stopped by SIGTERM."""
    arguments = [
        f"--data.root={data.root}",
        "--data.split.train=0.5",
        "--data.split.val=0.25",
        "--data.split.test=0.25",
        "--epochs=40",
        "--batch-size=8",
        "--seeds=0",
        "--save-seconds=0",
    ]

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
    stopped = start(tmp_path / "stopped", *arguments)
    for line in stopped.stderr:
        if "epoch  2/40" in line:
            stopped.send_signal(signal.SIGTERM)
            break
    _, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM, err
    command = err.splitlines()[-1].split("continue with: ")[1]
    resume = command.split("--resume ")[1]
    resumed = start(tmp_path / "stopped", "--resume", resume)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err

    def last(folder):
        (seed,) = (tmp_path / folder).glob("checkpoints/part2_mlp/*/seed-0")
        return CheckpointFolder(seed).load("last").arrays

    chex.assert_trees_all_equal(last("stopped"), last("whole"))
    histories = [
        len(
            (next((tmp_path / f).glob("runs/part2_mlp/*")) / "history.jsonl")
            .read_text()
            .splitlines()
        )
        for f in ("stopped", "whole")
    ]
    assert histories == [40, 40]


def test_features_make_a_network_that_predicts(data, capsys):
    config = dataclasses.replace(
        part2_features.Config(),
        data=data,
        backbone="efficientnet_lite0",
        layer="block3b",
        image_size=32,
        hidden=(16,),
        epochs=20,
        batch_size=8,
        seeds=(0,),
    )
    folder, results = run(part2_features, config, capsys)
    assert results["figures"]["test_accuracy"]["mean"] > 0.8
    assert len(list(Path("data/features").glob("*.npy"))) == 1
    classifier = load_classifier(checkpoint_of(folder))
    assert classifier.predict([data.root / "red" / "00.png"])[0].label == "red"
    assert "block4a" not in str(classifier.variables["params"]["backbone"].keys())


def test_unknown_layer_is_refused_before_anything_runs(data):
    config = part2_features.Config(
        data=data, backbone="efficientnet_lite0", layer="conv9"
    )
    with pytest.raises(InputError, match="conv9"):
        part2_features.main(config)
