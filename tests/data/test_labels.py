"""Labels from a CSV: whatever Kaggle's people write, or one line that says the fix."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.labels import index_labels
from jaxvision.data.prepare import PrepareConfig, prepare
from jaxvision.data.splits import SPLITS, SplitConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

SMALL = Preprocessing(size=(16, 16), resize_mode="stretch")
HALVES = SplitConfig(0.5, 0.5, 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight images in no order that says anything, and one that nobody lists."""
    folder = tmp_path / "shop"
    for number in range(9):
        path = folder / ("train", "more/deep")[number % 2] / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "train" / "notes.txt").write_text("no image")
    return folder


def path_of(number: int) -> str:
    return f"{('train', 'more/deep')[number % 2]}/{number:03}.jpg"


def write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def listing(name: str = "{path}", header: str = "path,label", end: str = "\n") -> str:
    """Images 0 to 3 are of class 10, 4 to 7 of class 9."""
    lines = [header]
    for number in range(8):
        named = name.format(path=path_of(number), number=f"{number:03}")
        lines.append(f"{named},{10 if number < 4 else 9}")
    return end.join(lines) + end


EXPECTED = tuple(sorted(map(path_of, range(4)))) + tuple(
    sorted(map(path_of, range(4, 8)))
)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("{path}", "path,label"),
        ("./{path}", "path,label"),
        ("{number}.jpg", "filename,class"),
        ("{number}", "id,target"),
        (" {number}.jpg ", "Image, Category "),
        ('"{path}"', '"file","label"'),
    ],
)
@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_ways_to_name_an_image(
    root: Path, name: str, header: str, encoding: str, end: str
) -> None:
    path = write(root, listing(name, header, end), encoding)
    dataset = load_dataset(DataConfig(labels=path, split=HALVES))
    assert dataset.root == root
    assert dataset.name == "shop"
    # Names, sorted as names.
    assert dataset.classes == ("10", "9")
    assert dataset.images == EXPECTED
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.parts == ()
    assert dataset.pairs == ()
    assert dataset.ignored == {
        "files that are no images": 2,
        "images that labels.csv does not list": 1,
    }


def test_a_csv_is_a_data_set_like_a_folder(root: Path, tmp_path: Path) -> None:
    path = write(root, listing())
    for given in (path, str(path), DataConfig(root=path), DataConfig(labels=path)):
        dataset = load_dataset(given)
        assert (dataset.root, dataset.images) == (root, EXPECTED)
        assert dataset.config.labels == path
    decoded = dataset.decode(SMALL)
    with Image.open(root / EXPECTED[5]) as image:
        expected = image.resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(decoded.image(5), np.asarray(expected))
    decoded.write_splits(tmp_path / "splits.csv")
    again = load_dataset(DataConfig(labels=path, splits=tmp_path / "splits.csv"))
    for name in SPLITS:
        np.testing.assert_array_equal(again.splits[name], decoded.splits[name])
    # Elsewhere than the images.
    moved = path.rename(tmp_path / "moved.csv")
    assert load_dataset(DataConfig(root, labels=moved)).images == EXPECTED
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no such image lies below .*`data.root`"):
        load_dataset(DataConfig(tmp_path / "none", labels=moved))


def test_a_prepared_set_of_a_csv_is_the_csv(root: Path, tmp_path: Path) -> None:
    path, out = write(root, listing()), tmp_path / "out"
    assert prepare(PrepareConfig(path, out, (16,), split=HALVES, processes=1)).new
    config = DataConfig(path, split=HALVES)
    folder = load_dataset(config).decode(SMALL)
    prepared = load_dataset(DataConfig(out, split=HALVES)).decode(SMALL)
    assert prepared.fingerprint == folder.fingerprint
    assert prepared.pairs == folder.pairs == ()
    for name in SPLITS:
        np.testing.assert_array_equal(prepared.splits[name], folder.splits[name])


def test_a_column_split_divides(root: Path) -> None:
    splits = (
        "train",
        "Valid",
        "test",
        "train",
        "training",
        "validation",
        "test",
        "val",
    )
    lines = [f"{path_of(i)},{'ab'[i // 4]},{split}" for i, split in enumerate(splits)]
    dataset = load_dataset(write(root, "\n".join(["path,label,split", *lines])))
    names = {k: {dataset.images[i] for i in v} for k, v in dataset.splits.items()}
    assert names["val"] == {path_of(1), path_of(5), path_of(7)}
    assert names["test"] == {path_of(2), path_of(6)}
    lines[3] = lines[3].replace("train", "later").replace("later/", "train/")
    path = write(root, "\n".join(["path,label,split", *lines]))
    with pytest.raises(InputError, match="line 5 has a split that is none of train"):
        load_dataset(path)


ROW = f"{path_of(0)},a\n"
OTHER = f"{path_of(1)},b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line must be path,label"),
        ("path,label\n", "lists no image"),
        ("path,breed\n" + ROW, r"no column label \(or class, .*\) among path, breed"),
        ("picture,label\n" + ROW, r"no column path \(or file, .*\) among picture, "),
        ("path;label\n" + ROW.replace(",", ";"), "is separated by semicolons; save it"),
        ("path\tlabel\n", "is separated by tabs; save it with commas"),
        ("path,label\n" + ROW + "gone.jpg,a\nx,b\n", r"line 3 names 'gone.jpg', .*\(2"),
        ("path,label\n" + ROW + OTHER + ROW, r"line 4 lists '.*000.jpg' a second time"),
        (
            "path,label\n" + ROW + OTHER + ROW.replace(",a", ",b"),
            "line 4 .*nother label",
        ),
        ("path,label\n" + ROW + "000,a\n" + OTHER, "line 3 lists '000' a second time"),
        ("path,label\n" + ROW + "x.jpg\n" + OTHER, "line 3 has not the 2 fields"),
        ("path,label\n" + ROW + "x.jpg,\n" + OTHER, "line 3 lacks an image or a label"),
        ("path,label\n" + ROW, "only one class, 'a'"),
        ('path,label\n"' + ROW, "cannot be read as a CSV"),
    ],
)
def test_one_line_for_each_mistake(root: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(write(root, text))
    assert str(caught.value).startswith(str(root / "labels.csv"))
    assert "\n" not in str(caught.value)


def test_one_name_of_several_images_is_named(root: Path) -> None:
    (root / "again").mkdir()
    (root / "again" / "001.jpg").write_bytes((root / path_of(1)).read_bytes())
    path = write(root, "path,label\n" + ROW + "001.jpg,b\n")
    with pytest.raises(InputError, match=r"names '001\.jpg', and several images"):
        index_labels(path, root)
    path = write(root, "path,label\n" + ROW + "again/001.jpg,b\n")
    assert index_labels(path, root).images == (path_of(0), "again/001.jpg")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_told_the_fix(root: Path, encoding: str) -> None:
    path = write(root, f"path,label\n{path_of(0)},Müsli\n", encoding)
    with pytest.raises(InputError, match=r"UTF-8; save the file as CSV UTF-8"):
        load_dataset(path)


def test_a_csv_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read: No such file"):
        load_dataset(tmp_path / "gone.csv")
