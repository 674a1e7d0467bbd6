"""What a person says of labels: noted at once, and understood by trainings."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from served_pages import HOSTILE, open_page

from jaxvision.classifier import load_training_data
from jaxvision.data.corrections import Correction, read_corrections, write_corrections
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.errors import InputError
from jaxvision.serve.review import PAGE, Review


@pytest.fixture
def corrections(tmp_path) -> Path:
    return tmp_path / "corrections.csv"


@pytest.fixture
def reviewed(classifier, corrections):
    with open_page(classifier, corrections=corrections) as page:
        assert page.wait_for_data()["state"] == "ready"
        yield page


@pytest.fixture(scope="module")
def dataset(classifier):
    return load_training_data(classifier)


def mark(page, index, action, label=0):
    body = urlencode({"action": action, "label": label}).encode()
    return page.ask(f"review/{index}", body)


def everything(page, order):
    items, start = [], 0
    while start is not None:
        found = page.ask("review", order=order, start=start)
        items += found["items"]
        start = found["next"]
    return items


def test_every_image_is_listed_the_most_doubtful_first(reviewed, dataset):
    first = reviewed.ask("review", order="doubt", start=0)
    assert len(first["items"]) == PAGE
    items = everything(reviewed, "doubt")
    assert sorted(item["path"] for item in items) == sorted(dataset.images)
    doubts = [item["probability"] for item in items]
    assert doubts == sorted(doubts)
    for item in items:
        assert dataset.images[item["index"]] == item["path"]
        assert item["label"] not in [other["label"] for other in item["others"]]


def test_marks_are_in_the_file_at_once_and_after_a_restart(
    reviewed, classifier, corrections, dataset
):
    assert not corrections.exists()
    hostile = dataset.classes.index(HOSTILE)
    assert mark(reviewed, 0, "label", hostile)["marked"] == 1
    assert mark(reviewed, 1, "bad")["marked"] == 2
    found = mark(reviewed, 2, "keep")
    assert found["mark"] == {"action": "keep", "label": ""}
    expected = [
        Correction(dataset.images[0], "label", HOSTILE, dataset.digests[0]),
        Correction(dataset.images[1], "bad", "", dataset.digests[1]),
        Correction(dataset.images[2], "keep", "", dataset.digests[2]),
    ]
    assert read_corrections(corrections) == expected
    assert mark(reviewed, 2, "")["mark"] is None
    with open_page(classifier, corrections=corrections) as again:
        again.wait_for_data()
        marks = {
            item["index"]: item["mark"]
            for item in everything(again, "doubt")
            if item["mark"]
        }
    assert marks == {
        0: {"action": "label", "label": HOSTILE},
        1: {"action": "bad", "label": ""},
    }


def test_trainings_understand_the_file(reviewed, corrections, dataset):
    hostile = dataset.classes.index(HOSTILE)
    mark(reviewed, 0, "label", hostile)
    mark(reviewed, 1, "bad")
    corrected = load_dataset(DataConfig(root=dataset.root, corrections=corrections))
    assert dataset.images[1] not in corrected.images
    place = corrected.images.index(dataset.images[0])
    assert corrected.classes[corrected.labels[place]] == HOSTILE
    assert (dataset.root / dataset.images[1]).is_file()


def test_lines_of_other_images_stay(classifier, corrections):
    other = Correction("elsewhere/a.png", "bad")
    write_corrections(corrections, [other])
    with open_page(classifier, corrections=corrections) as page:
        page.wait_for_data()
        mark(page, 0, "keep")
    assert other in read_corrections(corrections)


def test_what_there_is_not_is_refused_and_nothing_written(reviewed, corrections):
    for index, action, label in ((999, "bad", 0), (0, "drop", 0), (0, "label", 9)):
        body = urlencode({"action": action, "label": label}).encode()
        status, said = reviewed.refusal(f"review/{index}", body)
        assert status == 400
        assert said.startswith("no ")
    assert reviewed.refusal("review?order=x")[0] == 400
    assert reviewed.refusal("review/0", b"action=bad" + bytes(1 << 15))[0] == 413
    assert not corrections.exists()


def test_a_file_that_cannot_be_written_is_told(classifier, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with open_page(classifier, corrections=folder / "c.csv") as page:
        page.wait_for_data()
        folder.rmdir()
        status, said = page.refusal("review/0", b"action=bad")
        assert status == 400
        assert "gone" in said
        assert everything(page, "doubt")[0]["mark"] is None


def test_a_file_that_is_no_corrections_ends_the_start(corrections):
    corrections.write_text("path,label\na,b\n")
    with pytest.raises(InputError, match="not a file of corrections"):
        Review(corrections)


def test_copies_stand_beside_each_other(classifier, checkpoint, tmp_path):
    """Those of different classes first."""
    import dataclasses
    import shutil

    from trained_networks import write_checkpoints

    from jaxvision.classifier import load_classifier

    root = Path(classifier.card.data["root"])
    copied = shutil.copytree(root, tmp_path / "images")
    shutil.copy(copied / "blue/00.png", copied / "blue/copy.png")
    shutil.copy(copied / "green/00.png", copied / "blue/another.png")
    decoded = load_dataset(copied).decode(
        dataclasses.replace(classifier.card.preprocessing)
    )
    card = classifier.card
    run = write_checkpoints(
        tmp_path / "run", decoded, card.network, dict(card.options), seeds=(0,)
    )
    with open_page(load_classifier(run), corrections=tmp_path / "c.csv") as page:
        page.wait_for_data()
        items = everything(page, "copies")
    found = [(item["group"], item["path"], item["alike"]) for item in items]
    assert found == [
        (0, "blue/another.png", "identical"),
        (0, "green/00.png", "identical"),
        (1, "blue/00.png", "identical"),
        (1, "blue/copy.png", "identical"),
    ]


def test_the_command_prints_an_address_and_ends_in_one_line(checkpoint, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxvision", "serve", str(checkpoint)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(3)]
    assert printed[1] == "corrections: corrections.csv\n"
    assert printed[2].startswith("page: http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("", "ended\n")
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_place_that_takes_no_marks_is_said_at_once(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        Review(tmp_path / "missing" / "corrections.csv")
    with pytest.raises(InputError, match="no plain file"):
        Review(tmp_path)
