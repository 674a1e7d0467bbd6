"""Corrections of labels, from a CSV to a data set."""

import shutil

import numpy as np
import pytest
from drawn_images import write_images

from jaxvision.data.corrections import (
    Correction,
    read_corrections,
    write_corrections,
)
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import file_sha256

HALVES = SplitConfig(train=0.5, val=0.5, test=0.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "images", per_class=4)


@pytest.fixture
def corrected(images, tmp_path):
    """(rows, other settings) -> the data set with the corrections of a file."""

    def load(*rows, **settings):
        path = tmp_path / "corrections.csv"
        write_corrections(path, [Correction(*row) for row in rows])
        config = DataConfig(root=images, split=HALVES, corrections=path, **settings)
        return load_dataset(config)

    return load


def labels_of(dataset):
    names = (dataset.classes[label] for label in dataset.labels)
    return dict(zip(dataset.images, names, strict=True))


def test_labels_change_and_bad_images_are_left_out(images, corrected):
    dataset = corrected(
        ("blue/01.png", "label", "red"),
        ("green/00.png", "bad"),
        ("red/03.png", "keep"),
        ("red/02.png", "label", "red"),
    )
    expected = labels_of(load_dataset(DataConfig(root=images)))
    expected["blue/01.png"] = "red"
    del expected["green/00.png"]
    assert labels_of(dataset) == expected
    assert dataset.labels.tolist() == sorted(dataset.labels)
    assert dataset.ignored["images that corrections.csv calls bad"] == 1
    assert "1 label is corrected by corrections.csv" in dataset.notes
    decoded = dataset.decode(Preprocessing(size=(8, 8), resize_mode="stretch"))
    assert labels_of(decoded) == expected
    assert len(decoded.corrections) == 4
    assert (images / "green/00.png").is_file()


def test_a_split_of_before_holds_for_the_corrected_images(images, corrected, tmp_path):
    before = load_dataset(DataConfig(root=images, split=HALVES))
    before.write_splits(tmp_path / "splits.csv")
    rows = ("blue/01.png", "label", "red"), ("green/00.png", "bad")
    after = corrected(*rows, splits=tmp_path / "splits.csv")

    def split_of(dataset):
        return {
            dataset.images[index]: name
            for name, part in dataset.splits.items()
            for index in part
        }

    expected = split_of(before)
    del expected["green/00.png"]
    assert split_of(after) == expected
    assert labels_of(after)["blue/01.png"] == "red"
    # As a checkpoint has them: the split of the corrected images, and the rows.
    after.write_splits(tmp_path / "after.csv")
    again = load_dataset(DataConfig(root=images)).with_corrections(
        after.corrections, tmp_path
    )
    from jaxvision.data.splits import read_splits

    assert split_of(again.with_splits(read_splits(tmp_path / "after.csv"))) == expected


def test_pairs_stay_pairs(tmp_path, images):
    root = tmp_path / "pairs"
    for name in ("comic", "face"):
        shutil.copytree(images / "blue", root / name)
    rows = [
        Correction("face/00.png", "label", "comic"),
        Correction("face/01.png", "bad"),
    ]
    write_corrections(tmp_path / "c.csv", rows)
    config = DataConfig(root=root, split=HALVES, corrections=tmp_path / "c.csv")
    plain = load_dataset(DataConfig(root=root, split=HALVES))
    assert len(plain.pairs) == 4
    assert len(load_dataset(config).pairs) == 2


def test_the_same_content_is_asked_for(images, corrected):
    digest = file_sha256(images / "blue/01.png")
    assert corrected(("blue/01.png", "bad", "", digest)).corrections
    with pytest.raises(InputError, match=r"blue/01\.png has changed since"):
        corrected(("blue/01.png", "bad", "", "0" * 64))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("blue/99.png", "keep"), r"not in .*: blue/99\.png; give the file of this"),
        (("blue/01.png", "label", "pink"), "the class 'pink', which .* does not have"),
    ],
)
def test_what_there_is_not_is_named(corrected, row, said):
    with pytest.raises(InputError, match=said):
        corrected(row)


def test_a_class_without_images_is_named(corrected):
    rows = [(f"red/{i:02}.png", "bad") for i in range(4)]
    with pytest.raises(InputError, match="leaves class 'red' without images"):
        corrected(*rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na,b\n", "its first line must be path,action,label,sha256"),
        (
            "path,action,label\na,drop,\n",
            "line 2 must be .* action of label, bad, keep",
        ),
        ("path,action,label\na,bad,red\n", "a label for the action label alone"),
        ("path,action,label\na,label,\n", "line 2 must be"),
        ("path,action,label\na,bad,\na,keep,\n", "line 3 lists a a second time"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, text, said):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_corrections(path)


def test_hostile_names_come_back_as_they_were(tmp_path):
    rows = [
        Correction("=1+1/\udcff,\n.png", "label", "@x", "ab"),
        Correction("'=a", "bad"),
    ]
    write_corrections(tmp_path / "c.csv", rows)
    assert read_corrections(tmp_path / "c.csv") == rows
    assert b"\n=" not in (tmp_path / "c.csv").read_bytes()


def test_a_checkpoint_knows_its_corrections(images, corrected, tmp_path):
    """Also once the file has grown."""
    from trained_networks import write_checkpoints

    from jaxvision.classifier import load_classifier, load_training_data

    rows = ("blue/01.png", "label", "red"), ("green/00.png", "bad")
    preprocessing = Preprocessing(size=(8, 8), resize_mode="stretch")
    dataset = corrected(*rows).decode(preprocessing)
    folder = write_checkpoints(
        tmp_path / "run", dataset, "mlp", {"hidden": 4}, seeds=(0,)
    )
    corrected(*rows, ("red/00.png", "label", "blue"))
    again = load_training_data(load_classifier(folder))
    assert labels_of(again) == labels_of(dataset)
    np.testing.assert_array_equal(again.splits["train"], dataset.splits["train"])
