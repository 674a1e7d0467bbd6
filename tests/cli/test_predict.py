"""`jaxvision predict`: folders, bad files, tables, and where its output goes."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision.classifier import Classifier, ModelCard
from jaxvision.cli.main import main
from jaxvision.data.csv_file import read_lines
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.state import init_variables


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    return write_images(folder, per_class=12, size=12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    card = ModelCard(
        network="mlp",
        options={"hidden": 4},
        classes=("=blue", "green", "red"),
        preprocessing=Preprocessing((8, 8), resize_mode="stretch"),
        weights="fresh",
        data={"is_demo": False},
        seed=0,
        batch_size=4,
    )
    model = card.create_model()
    classifier = Classifier(model, init_variables(model, 0, (8, 8, 3)), card)
    return classifier.save(tmp_path_factory.mktemp("checkpoint") / "saved")


def status(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(["predict", *map(str, arguments)])
    return caught.value.code


def test_folders_are_searched_and_the_rest_is_counted(
    photos, checkpoint, tmp_path, capsys
):
    folder = tmp_path / "new"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/a.png").write_bytes((photos / "red/00.png").read_bytes())
    (folder / "b.png").write_bytes((photos / "red/01.png").read_bytes())
    (folder / "notes.txt").write_text("text")
    (folder / ".hidden.png").write_text("")
    main(["predict", str(checkpoint), str(folder)])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(folder / "b.png"),
        str(folder / "deep/er/a.png"),
    ]
    assert printed.err.splitlines() == [
        "ignored: hidden files and folders (1)",
        "ignored: files that are no images (1)",
    ]


def test_all_that_can_be_read_is_answered(photos, checkpoint, tmp_path, capsys):
    bad = tmp_path / "bad\x1b[31m.png"
    bad.write_text("no image")
    assert status(checkpoint, bad, photos, tmp_path / "gone.png") == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 36
    lines = printed.err.splitlines()
    assert lines[0].startswith(f"left out: {tmp_path}/bad\\x1b[31m.png: not an image")
    assert lines[1].startswith(f"left out: {tmp_path}/gone.png: cannot be read")
    assert "\x1b" not in printed.err
    assert lines[-1] == "left out: 2 of 38 files"


def test_csv_has_all_that_was_asked_for(photos, checkpoint, tmp_path, capsys):
    odd = tmp_path / "=1+1"
    write_images(odd, per_class=1, size=12)
    file = tmp_path / "found.csv"
    file.write_text("of an earlier run")
    main(["predict", str(checkpoint), str(photos), "--csv", str(file), "--top", "3"])
    assert capsys.readouterr().out == f"{file}\n"
    with file.open(newline="") as text:
        header, *rows = csv.reader(text)
    assert header == [
        *("path", "label", "probability"),
        *("label_2", "probability_2", "label_3", "probability_3"),
    ]
    classifier = jv.load_classifier(checkpoint)
    paths = sorted(photos.glob("*/*.png"))
    assert [row[0] for row in rows] == [str(path) for path in paths]
    for row, found in zip(rows, classifier.predict(paths), strict=True):
        assert row[1] == found.label.replace("=blue", "'=blue")
        assert sum(map(float, row[2::2])) == pytest.approx(1, abs=1e-5)
    assert list(tmp_path.glob(".*")) == []


def test_unknown_is_an_answer(photos, checkpoint, tmp_path, capsys):
    paths = sorted(photos.glob("*/*.png"))
    classifier = jv.load_classifier(checkpoint)
    probabilities = sorted(one.probability for one in classifier.predict(paths))
    card = dataclasses.replace(classifier.card, threshold=probabilities[18] - 1e-6)
    strict = dataclasses.replace(classifier, card=card).save(tmp_path / "strict")
    main(["predict", str(strict), str(photos), "--unknown"])
    lines = capsys.readouterr().out.splitlines()
    away = [": unknown (" in line and line.endswith(")") for line in lines]
    assert sum(away) == 18
    file = tmp_path / "found.csv"
    arguments = ["--unknown", "--csv", str(file), "--top", "2"]
    main(["predict", str(strict), str(photos), *arguments])
    with file.open(newline="") as text:
        header, *rows = csv.reader(text)
    assert header == [
        *("path", "label", "probability", "most_probable"),
        *("label_2", "probability_2"),
    ]
    for row, one, unknown in zip(rows, classifier.predict(paths), away, strict=True):
        best, second = ([t[0].replace("=", "'="), t[1]] for t in one.top(2))
        assert row[1] == ("unknown" if unknown else best[0])
        assert (row[3], row[4]) == (best[0], second[0])
        assert float(row[2]) == pytest.approx(best[1], abs=1e-6)


def test_a_csv_of_names_that_are_formulas_is_harmless(
    checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_images(Path("=1+1"), per_class=1, size=12)
    main(["predict", str(checkpoint), "=1+1", "--csv", "found.csv"])
    cells = [line[0] for _, line in read_lines(Path("found.csv"), "path,label")]
    assert cells[1:] == [f"'=1+1/{name}/00.png" for name in ("blue", "green", "red")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("CHECKPOINT PHOTOS --top 4", "--top 4: must be at most 3, the number of"),
        ("CHECKPOINT PHOTOS --top 0", "--top 0: must be at least 1"),
        ("CHECKPOINT PHOTOS --csv gone/x.csv", "gone/x.csv: there is no folder gone"),
        ("CHECKPOINT PHOTOS --csv .", ".: is there and no plain file; give another"),
        ("CHECKPOINT", "IMAGES: give one or more files or folders"),
        ("", "CHECKPOINT: give the folder that training printed, or --pretrained"),
        (
            "--pretrained efficientnet_lite0 CHECKPOINT PHOTOS",
            "--pretrained efficientnet_lite0: answers in place of a checkpoint, and",
        ),
        ("CHECKPOINT PHOTOS --unknown", "--unknown: this network has no threshold"),
        ("--pretrained vgg99 PHOTOS", "no pretrained weights 'vgg99'; there are: "),
        ("--pretrained efficientnet_lite0", "IMAGES: give one or more files"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments, said, photos, checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    places = {"CHECKPOINT": checkpoint, "PHOTOS": photos}
    assert status(*(places.get(word, word) for word in arguments.split())) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {said}")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_one_line(photos, checkpoint, monkeypatch, capsys):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert status(checkpoint, photos / "red/00.png") == 2
    message = "error: No space left on device: free some space where output and files"
    assert capsys.readouterr().err.startswith(message)
    # What is no plain file is never replaced.
    assert status(checkpoint, photos, "--csv", "/dev/full") == 2
    assert Path("/dev/full").is_char_device()


def test_predicting_loads_what_it_uses_alone(photos, checkpoint):
    """Each of the rest takes tenths of a second, which one image must not wait for."""
    unused = {"grain", "matplotlib", "optuna", "orbax", "scipy", "sklearn", "torch"}
    code = (
        "import sys; from jaxvision.cli.main import main; main(sys.argv[1:]); "
        f"print(sorted({unused} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "predict", checkpoint, photos / "red/00.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
