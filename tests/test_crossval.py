"""Cross-validation: every image once, by a network that has not seen it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision import crossval
from jaxvision.cli.experiment import main
from jaxvision.cli.train import TRAIN
from jaxvision.crossval import cross_validate, doubts_of_folds, in_fold
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.metrics import reliability
from jaxvision.recipe import make_start
from jaxvision.report.progress import TrainingProgress
from jaxvision.settings import OptimConfig
from jaxvision.storage import csv_cell

MLP = jv.Recipe(
    "mlp",
    {"hidden": 8},
    method="scratch",
    image_size=8,
    epochs=4,
    batch_size=8,
    optim=OptimConfig("adam", 3e-3),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """36 images of three classes, of which two are the same."""
    root = write_images(tmp_path_factory.mktemp("data") / "images")
    shutil.copy(root / "red/00.png", root / "red/07.png")
    return root


@pytest.fixture(scope="module")
def data(root):
    return jv.load_dataset(
        jv.DataConfig(root, split=SplitConfig(0.6, 0.2, 0.2), folds=3)
    )


@pytest.fixture(scope="module")
def found(data):
    return cross_validate(data, MLP, seed=1, progress=False)


def same(one, other):
    for name in ("logits", "fold", "temperatures", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.row == other.row


def test_every_image_is_tested_once_and_trained_on_in_no_fold_of_its_own(data):
    decoded = data.with_seed(1).decode(make_start(MLP).preprocessing)
    tested = []
    for number in range(3):
        splits = decoded.fold_splits(number)
        tested += splits["test"].tolist()
        everything = np.concatenate(list(splits.values()))
        assert sorted(everything) == list(range(36))
        # A quarter of what is left, of every class: .2 of .8.
        assert len(splits["val"]) == 6
        assert set(decoded.labels[splits["val"]]) == {0, 1, 2}
        same_file = [decoded.images.index(f"red/{i}.png") for i in ("00", "07")]
        assert any(np.isin(same_file, part).all() for part in splits.values())
    assert sorted(tested) == list(range(36))


def test_a_fold_is_an_ordinary_training_on_the_others(data, found):
    decoded = data.with_seed(1).decode(make_start(MLP).preprocessing)
    part = in_fold(decoded, 2)
    ordinary = jv.load_dataset(data.root).with_splits(
        [
            crossval.SplitRow(part.images[i], part.images[i].split("/")[0], name)
            for name, indices in part.splits.items()
            for i in indices
        ]
    )
    classifier = jv.train(ordinary, MLP, seed=1, progress=False)
    one = classifier.evaluate(ordinary, "test")
    held_out = found.fold == 2
    assert one.images == tuple(np.array(found.images)[held_out])
    np.testing.assert_array_equal(one.logits, found.logits[held_out])
    assert set(found.temperatures[held_out]) == {np.float32(one.temperature)}
    np.testing.assert_allclose(
        one.probabilities, found.probabilities[held_out], atol=1e-6
    )


class _Killed(TrainingProgress):
    """Progress that ends the process, as it were, in the third step of a fold."""

    def on_step(self, step, images, metrics):
        if "fold 2" in self._title and step == 3:
            raise KeyboardInterrupt


def test_it_continues_within_a_fold(data, found, tmp_path, monkeypatch):
    monkeypatch.setattr(crossval, "TrainingProgress", _Killed)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(data, MLP, seed=1, folder=tmp_path, progress=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"fold-0.json", "fold-1"}
    monkeypatch.undo()
    again = cross_validate(data, MLP, seed=1, folder=tmp_path, progress=False)
    same(again, found)
    # Nothing is trained a third time.
    monkeypatch.setattr(crossval, "train_seed", None)
    same(cross_validate(data, MLP, seed=1, folder=tmp_path, progress=False), found)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"fold-{number}.json" for number in range(3)
    }
    # An earlier version did not have every setting.
    record = json.loads((tmp_path / "fold-0.json").read_text())
    del record["recipe"]["cutmix"]
    (tmp_path / "fold-0.json").write_text(json.dumps(record))
    same(cross_validate(data, MLP, seed=1, folder=tmp_path, progress=False), found)
    other = MLP.replace(epochs=5)
    with pytest.raises(InputError, match=r"fold-0\.json: measured with other recipe"):
        cross_validate(data, other, seed=1, folder=tmp_path, progress=False)
    (tmp_path / "fold-0.json").write_text("{}")
    with pytest.raises(InputError, match=r"fold-0\.json: damaged"):
        cross_validate(data, MLP, seed=1, folder=tmp_path, progress=False)


def test_changed_images_are_not_taken_for_those_before(root, data, found, tmp_path):
    folder = tmp_path / "done"
    cross_validate(data, MLP.replace(epochs=1), folder=folder, progress=False)
    moved = shutil.copytree(root, tmp_path / "images")
    path = moved / "red/03.png"
    path.write_bytes(path.read_bytes() + b"\0")
    other = jv.load_dataset(jv.DataConfig(moved, split=data.config.split, folds=3))
    with pytest.raises(InputError, match="measured with other images"):
        cross_validate(other, MLP.replace(epochs=1), folder=folder, progress=False)


def train(root: Path) -> None:
    """`jaxvision train` with folds, here."""
    main(
        TRAIN,
        ["--data.root", str(root), "--data.folds", "3", "--seeds", "0", "1",
         "--backbone", "mlp", "--image-size", "8", "--epochs", "3",
         "--batch-size", "8"],
    )  # fmt: skip


def only(folder: Path) -> Path:
    """The one entry of a folder."""
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    """The folder in which a run was made."""
    here = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        train(root)
    return here


def test_the_figures_follow_from_the_probabilities(finished, monkeypatch, capsys):
    folder = only(finished / "runs/train")
    with (folder / "out_of_fold.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            {k: csv_cell(v) for k, v in row.items()} for row in csv.DictReader(file)
        ]
    classes = ["blue", "green", "red"]
    accuracies, errors = [], []
    for seed in ("0", "1"):
        own = [row for row in rows if row["seed"] == seed]
        assert len({row["image"] for row in own}) == len(own) == 36
        probabilities = np.array([[row[c] for c in classes] for row in own], np.float32)
        labels = np.array([classes.index(row["true"]) for row in own])
        accuracies.append(float(np.mean(probabilities.argmax(-1) == labels)))
        errors.append(reliability(probabilities, labels).error)
    figures = json.loads((folder / "results.json").read_text())["figures"]
    accuracy = figures["fold_accuracy"]
    assert accuracy["values"] == accuracies
    assert accuracy["mean"] == np.mean(accuracies)
    assert accuracy["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert figures["fold_calibration_error"]["values"] == errors
    report = (folder / "report.md").read_text()
    assert "trained on the other 2 of 3 folds" in report
    monkeypatch.chdir(finished)
    checkpoint = only(finished / "checkpoints/train")
    assert not list(checkpoint.rglob("card.json"))
    with pytest.raises(SystemExit):
        main(TRAIN, ["--resume", str(checkpoint), "--epochs", "9"])
    assert "--epochs 9: a cross-validation keeps no network" in capsys.readouterr().err


def test_a_run_continues_between_the_folds(root, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(crossval, "TrainingProgress", _Killed)
        with pytest.raises(SystemExit):
            train(root)
    main(TRAIN, ["--resume", str(only(Path("checkpoints/train")))])
    texts = [
        (only(where / "runs/train") / "out_of_fold.csv").read_text()
        for where in (finished, tmp_path)
    ]
    assert texts[0] == texts[1]


def test_what_has_no_meaning_is_refused(root, data):
    with pytest.raises(InputError, match=r"`data.folds` 3: a training gives one"):
        jv.train(data, MLP)
    with pytest.raises(InputError, match=r"`data.folds` 1: must be at least 2"):
        cross_validate(data, MLP, folds=1)
    with pytest.raises(InputError, match=r"`data.folds` 20: .* at most 11: .* 'red'"):
        cross_validate(data, MLP, folds=20, progress=False)
    with pytest.raises(InputError, match=r"`data.folds` and `data.splits` exclude"):
        jv.load_dataset(jv.DataConfig(root, folds=3, splits=root / "splits.csv"))


def test_classes_that_a_fold_lacks_are_named(root, tmp_path):
    """A copy under another class keeps two classes together, of which one is small."""
    images = tmp_path / "images"
    for name in ("blue", "green"):
        shutil.copytree(root / name, images / name)
    (images / "small").mkdir()
    for number in range(3):
        shutil.copy(images / f"blue/0{number}.png", images / f"small/{number}.png")
    data = jv.load_dataset(
        jv.DataConfig(images, split=SplitConfig(1.0, 0.0, 0.0), folds=3)
    )
    start = make_start(MLP)
    lacking = []
    for seed in range(6):
        decoded = data.with_seed(seed).decode(start.preprocessing)
        of_small = {int(decoded.fold[i]) for i in np.flatnonzero(decoded.labels == 2)}
        lacking = sorted({0, 1, 2} - of_small)
        if lacking:
            named = ", ".join(str(number + 1) for number in lacking)
            doubts = doubts_of_folds(start, decoded)
            assert any(
                text.startswith(f"fold {named}: no test image of 'small'")
                or text.startswith(f"fold {named}: no test image of small")
                for text in doubts
            ), doubts
            break
    assert lacking
