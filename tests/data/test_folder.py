"""What an image folder is searched for, and each way it can be unusable."""

import os
from pathlib import Path

import pytest
from PIL import Image, features

from jaxvision.data import decode
from jaxvision.data import sniff as sniffing
from jaxvision.data.decode import BadImage, decode_image
from jaxvision.data.folder import index_folder
from jaxvision.data.prepared import FORMAT
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import write_json


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_a_sub_folder_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.png", "b/1.JPG", "a b/x.webp", "b/deep/er/0.tiff")
    folder_index = index_folder(tmp_path)
    assert folder_index.classes == ("a b", "b")
    assert folder_index.images == (
        "a b/x.webp",
        "b/1.JPG",
        "b/2.png",
        "b/deep/er/0.tiff",
    )
    assert folder_index.labels == (0, 1, 1, 1)
    assert folder_index.ignored == {}


def test_a_folder_that_comes_divided(tmp_path: Path) -> None:
    fill(tmp_path, "train/b/2.png", "train/a/1.png", "test/b/deep/3.png", "x.txt")
    folder_index = index_folder(tmp_path)
    assert folder_index.classes == ("a", "b")
    assert folder_index.images == (
        "train/a/1.png",
        "test/b/deep/3.png",
        "train/b/2.png",
    )
    assert folder_index.labels == (0, 1, 1)
    assert folder_index.parts == ("train", "test", "train")
    assert folder_index.ignored == {"files that are no images": 1}
    fill(tmp_path, "val/a/4.png")
    assert index_folder(tmp_path).parts == ("train", "val", "test", "train")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train/a/1.png", "train/b/1.png", "val/a/2.png"], "train train val"),
        (["Train/a/1.png", "Train/b/1.png", "Test/b/2.png"], "test train train"),
        (
            [
                "TRAINING/a/1.png",
                "TRAINING/b/1.png",
                "valid/a/2.png",
                "testing/b/2.png",
            ],
            "test train train val",
        ),
        (["train/a/1.png", "train/b/1.png", "Validation/a/2.png"], "train train val"),
        # The splits within the classes.
        (
            ["a/train/1.png", "a/Test/2.png", "b/train/3.png", "b/val/4.png"],
            "test train train val",
        ),
    ],
)
def test_splits_by_any_of_their_names(
    tmp_path: Path, names: list[str], parts: str
) -> None:
    fill(tmp_path, *names)
    index = index_folder(tmp_path)
    assert index.classes == ("a", "b")
    assert sorted(index.parts) == parts.split()
    assert sorted(index.images) == sorted(names)
    for image, label, part in zip(index.images, index.labels, index.parts, strict=True):
        assert f"{'ab'[label]}" in image.split("/")
        assert part[:2] in image.lower()


def test_the_only_split_is_divided_anew(tmp_path: Path) -> None:
    fill(tmp_path, "train/b/2.png", "train/a/1.png")
    index = index_folder(tmp_path)
    assert (index.classes, index.parts) == (("a", "b"), ())
    assert index.notes == ("'train' is the only split: its images are divided anew",)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "bus/1.png", "car/1.png", "train/1.png", "train/2.png")
    assert index_folder(tmp_path).classes == ("bus", "car", "train")
    # With depth in every class.
    fill(tmp_path / "deep", "bus/x/1.png", "train/steam/1.png", "train/diesel/2.png")
    assert index_folder(tmp_path / "deep").classes == ("bus", "train")


def test_folders_without_images_beside_the_splits(tmp_path: Path) -> None:
    fill(tmp_path, "train/b/2.png", "train/a/1.png", "val/a/1.png", "labels/a.txt")
    fill(tmp_path, "train/loose.png")
    index = index_folder(tmp_path)
    assert index.classes == ("a", "b")
    assert index.ignored == {
        "files that are no images": 1,
        "folders without images beside the splits": 1,
        "images outside any class": 1,
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "test/2.png"], "'test' looks like a split, but its 1 images"),
        (
            ["train/a/1.png", "train/b/1.png", "test/2.png"],
            "'test' looks like a split, but its 1 images lie in no class folder",
        ),
        (
            ["train/a/1.png", "train/b/2.png", "test/a/3.png", "old/3.png"],
            "'old' with images lies beside the splits test, train",
        ),
        (
            ["train/a/1.png", "train/b/2.png", "dev/a/3.png"],
            "'train', 'dev' look like splits that are not understood",
        ),
        (
            ["train2017/a/1.png", "val2017/b/2.png"],
            "'train2017', 'val2017' look like splits that are not understood",
        ),
        (
            ["train_set/a/1.png", "test-images/b/2.png"],
            "look like splits that are not understood: call them train, val and test",
        ),
        (
            ["train/a/1.png", "training/b/2.png", "test/a/1.png"],
            "'train' and 'training' both mean train",
        ),
        (
            ["train/a/1.png", "train/b/2.png", "more/1.png"],
            "'train' looks like a split with classes in it, but 'more' beside it",
        ),
        (
            ["a/train/1.png", "a/test/2.png", "b/3.png"],
            "classes have folders for test, train, but 'b' has images outside them",
        ),
        (
            ["a/train/1.png", "a/test/2.png", "b/test/3.png"],
            "class 'b' has no training images",
        ),
    ],
)
def test_what_looks_like_splits_and_is_not_understood_stops(
    tmp_path: Path, names: list[str], message: str
) -> None:
    fill(tmp_path, *names)
    with pytest.raises(InputError, match=message) as caught:
        index_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_ignored_is_counted_by_kind(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "a/notes.txt", "readme.md")
    fill(tmp_path, "loose.png", ".git/x.png", "a/.hidden.png", "b/.cache/x.png")
    fill(tmp_path, ".DS_Store", "a/Thumbs.db", "a/._1.png", "@eaDir/1.png")
    fill(tmp_path, "__MACOSX/a/._1.png", "a/.thumbnails/1.png", "lost+found/x")
    fill(tmp_path, ".ipynb_checkpoints/1.png", "b/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg")
    fill(tmp_path, "$RECYCLE.BIN/1.png", "desktop.ini")
    (tmp_path / "b" / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "b" / "x.psd").write_bytes(b"8BPS\0\1")
    (tmp_path / "b" / "gone").symlink_to(tmp_path / "none")
    index = index_folder(tmp_path)
    assert index.images == ("a/1.png", "b/1.png")
    assert index.ignored == {
        "files and folders of operating systems": 11,
        "hidden files and folders": 3,
        "files that are no images": 2,
        "images outside any class": 1,
        "links that lead nowhere": 1,
        "SVG images, which are not read": 1,
        "Photoshop images, which are not read": 1,
    }


def test_content_decides_what_is_an_image(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    image = Image.new("RGB", (8, 8), "red")
    formats = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]
    formats += ["AVIF"] if features.check("avif") else []
    for format in formats:
        image.save(tmp_path / "a" / f"without-{format}", format)
        image.save(tmp_path / "b" / f"odd-{format}.dat", format)
    image.convert("L").save(tmp_path / "a" / "x.pgm")
    (tmp_path / "a" / "P6 is a text.txt").write_text("P6 is a text")
    index = index_folder(tmp_path)
    assert len(index.images) == 3 + 2 * len(formats)
    assert index.ignored == {"files that are no images": 1}
    read = [path for path in index.images if path[2:] != "1.png"]
    geometry = Preprocessing(size=(8, 8), resize_mode="stretch")
    for path in read:
        assert decode_image(tmp_path / path, geometry).shape == (8, 8, 3)


def test_heic_without_its_extra_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "photo.heic").write_bytes(head)
    monkeypatch.setattr(sniffing, "has_heif", lambda: False)
    index = index_folder(tmp_path)
    kind = "HEIC images (install pillow-heif, the extra `heic`)"
    assert index.ignored == {kind: 1}
    monkeypatch.setattr(decode, "has_heif", lambda: False)
    with pytest.raises(BadImage, match="a HEIC image: install pillow-heif"):
        decode_image(head, Preprocessing(size=(8, 8)))
    # A class of nothing else says so.
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "photo.heic").write_bytes(head)
    with pytest.raises(InputError, match=r"c: an empty class.*\(1 HEIC images"):
        index_folder(tmp_path)
    monkeypatch.setattr(sniffing, "has_heif", lambda: True)
    assert "c/photo.heic" in index_folder(tmp_path).images


def test_links_are_followed(tmp_path: Path) -> None:
    """A cache of data sets: images, folders and classes are links out of the root."""
    outside = fill(tmp_path / "outside", "o/2.png", "deep/x/y.png", "blob")
    Image.new("L", (4, 4)).save(outside / "blob", "PNG")
    root = fill(tmp_path / "root", "a/1.png", ".store/9.png", "b/1.png")
    (root / "a" / "inside.png").symlink_to(root / "b" / "1.png")
    (root / "a" / "outside.png").symlink_to(outside / "o" / "2.png")
    (root / "a" / "blob").symlink_to(outside / "blob")
    (root / "b" / "deep").symlink_to(outside / "deep")
    (root / "c").symlink_to(outside / "o")
    (root / "d").symlink_to(root / ".store")
    index = index_folder(root)
    assert index.classes == ("a", "b", "c", "d")
    assert index.images == (
        *("a/1.png", "a/blob", "a/inside.png", "a/outside.png"),
        *("b/1.png", "b/deep/x/y.png", "c/2.png", "d/9.png"),
    )
    assert index.ignored == {"hidden files and folders": 1}


def test_links_that_lead_back_are_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a/1.png", "b/1.png")
    outside = fill(tmp_path / "outside", "o/2.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to("/")
    (root / "a" / "self").symlink_to(root / "a" / "self")
    (root / "a" / "other").symlink_to(root / "b")
    (root / "a" / "one").symlink_to(outside)
    (outside / "back").symlink_to(outside)
    (outside / "home").symlink_to(root / "a")
    # A tree of 2 ** 40 paths to one file.
    for level in range(40):
        (outside / f"d{level}").mkdir()
        for name in ("l", "r"):
            (outside / f"d{level}" / name).symlink_to(outside / f"d{level + 1}")
    fill(outside, "d40/x.png")
    index = index_folder(root)
    assert index.classes == ("a", "b")
    assert len(index.images) < 100
    assert index.ignored["links to folders that are searched anyway"] >= 5
    assert index.ignored["links that lead nowhere"] == 1


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "b" / "null.png").symlink_to("/dev/zero")
    index = index_folder(tmp_path)
    assert index.images == ("a/1.png", "b/1.png")
    assert index.ignored == {"pipes, devices and sockets": 3}
    for path in (tmp_path / "a" / "pipe.png", Path("/dev/zero")):
        with pytest.raises(BadImage, match="cannot be read: not a regular file"):
            decode_image(path, Preprocessing(size=(8, 8)))


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.png", "caf\u00e9/1.png", "cafe\u0301/2.png")
    index = index_folder(tmp_path)
    assert index.classes == ("b", "caf\u00e9")
    assert index.labels == (0, 1, 1)
    assert all((tmp_path / image).is_file() for image in index.images)
    assert index.notes == ("class 'caf\u00e9' is two folders in two Unicode forms",)
    # In other forms in other splits, as archives make them.
    divided = fill(tmp_path / "d", "train/caf\u00e9/1.png", "val/cafe\u0301/2.png")
    fill(divided, "train/b/1.png")
    index = index_folder(divided)
    assert (index.classes, index.parts) == (
        ("b", "caf\u00e9"),
        ("train", "train", "val"),
    )


def test_names_that_differ_only_in_case_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "Cat/2.png", "dog/1.png")
    index = index_folder(tmp_path)
    assert index.classes == ("Cat", "cat", "dog")
    assert index.notes == ("classes 'Cat', 'cat' differ only in case or spaces",)


def test_what_this_package_wrote_is_no_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    fill(tmp_path, "runs/part2_mlp/2026/config.json", "runs/part2_mlp/2026/roc.png")
    fill(tmp_path, "runs/part2_mlp/2026/report.md")
    fill(tmp_path, "checkpoints/part2_mlp/2026/config.json")
    fill(tmp_path, "checkpoints/part2_mlp/2026/seed-0/card.json")
    fill(tmp_path, "mine/card.json", "mine/best-00000001/arrays/x.png")
    fill(tmp_path, "demo/DEMO.json", "demo/x/1.png", "cache/features/x.npy")
    (tmp_path / "prepared").mkdir()
    write_json(tmp_path / "prepared/manifest.json", {"format": FORMAT})
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "cache"))
    index = index_folder(tmp_path)
    assert index.classes == ("a", "b")
    assert index.ignored == {"folders that jaxvision wrote": 6}
    # People's own files of such names make no difference.
    fill(tmp_path, "a/config.json", "b/manifest.json", "b/card.json")
    assert index_folder(tmp_path).classes == ("a", "b")


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "root", "a/1.png", "b/1.png")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "root")
    (tmp_path / "root" / "a" / "same.png").symlink_to(tmp_path / "root/b/1.png")
    assert len(index_folder(link).images) == 3


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png")
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb"):
        pass
    folder_index = index_folder(tmp_path)
    assert [(tmp_path / image).is_file() for image in folder_index.images] == [True] * 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class in it: put the images of each class into a subfolder"),
        (["1.png", "2.png"], "no class in it \\(2 images outside any class\\)"),
        (["a/1.png"], "only one class, 'a'"),
        (["a/1.png", "b/notes.txt"], "b: an empty class, no image in it"),
        (["train/a/1.png", "test/a/2.png"], "only one class, 'a'"),
        (["train/a/1.png", "test/b/2.png"], "train/b: an empty class"),
    ],
)
def test_unusable_folders(tmp_path: Path, names: list[str], message: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(InputError, match=message) as caught:
        index_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_root_and_root_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; give one that has"):
        index_folder(tmp_path / "none")
    fill(tmp_path, "file")
    with pytest.raises(InputError, match=r"is a file; give a folder"):
        index_folder(tmp_path / "file")


def test_folders_that_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by chmod: the tests may run as root, who may read everything.
    fill(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"b: cannot be listed \(Permission denied\)"):
        index_folder(tmp_path)
