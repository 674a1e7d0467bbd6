"""What an image folder is searched for, and each way it can be unusable."""

import os
from pathlib import Path

import pytest

from jaxvision.data.folder import index_folder
from jaxvision.errors import InputError


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


def test_folders_called_train_and_test_are_classes_if_they_hold_images(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "train/1.png", "test/2.png")
    folder_index = index_folder(tmp_path)
    assert (folder_index.classes, folder_index.parts) == (("test", "train"), ())
    # A third folder: no division either.
    fill(tmp_path / "more", "train/a/1.png", "test/a/2.png", "old/3.png")
    assert index_folder(tmp_path / "more").classes == ("old", "test", "train")


def test_what_is_ignored_is_counted_except_hidden(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "a/notes.txt", "b/x.svg", "readme.md")
    fill(tmp_path, "loose.png", ".git/x.png", "a/.hidden.png", "b/.cache/x.png")
    folder_index = index_folder(tmp_path)
    assert folder_index.images == ("a/1.png", "b/1.png")
    assert folder_index.ignored == {
        "files that are no images": 3,
        "images outside any class": 1,
    }


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a/1.png", "b/1.png")
    outside = fill(tmp_path / "outside", "o/2.png")
    (root / "a" / "inside.png").symlink_to(root / "b" / "1.png")
    (root / "a" / "outside.png").symlink_to(outside / "o" / "2.png")
    (root / "a" / "dead.png").symlink_to(root / "none.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "c").symlink_to(outside / "o")
    folder_index = index_folder(root)
    assert folder_index.classes == ("a", "b")
    assert folder_index.images == ("a/1.png", "a/inside.png", "b/1.png")
    assert folder_index.ignored == {"links that are not followed": 4}


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
        (["1.png", "2.png"], "no class in it; 2 images lie directly in it"),
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


def test_only_links_to_folders(tmp_path: Path) -> None:
    fill(tmp_path / "outside", "1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="1 links in it are not followed"):
        index_folder(root)


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
