"""Stratified, seeded, stable, and identical images on one side."""

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data.splits import (
    SPLITS,
    SplitConfig,
    SplitRow,
    Splits,
    apply_splits,
    find_identical,
    find_pairs,
    is_paired,
    make_folds,
    make_splits,
    merge_groups,
    read_splits,
    write_split_rows,
    write_splits,
)
from jaxvision.errors import InputError
from jaxvision.storage import csv_text

CLASSES = ("anna", "bob", "cleo")


def example(*counts: int) -> tuple[list[str], list[int]]:
    images = [
        f"{CLASSES[label]}/{number:03}.png"
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return images, [CLASSES.index(path.split("/")[0]) for path in images]


def split(
    config: SplitConfig, images: list[str], labels: list[int], groups: tuple = ()
) -> Splits:
    return make_splits(
        config, images=images, labels=labels, classes=CLASSES, groups=groups
    )


def counts_by_class(splits: Splits, labels: list[int]) -> list[list[int]]:
    return [
        np.bincount(np.array(labels)[splits[name]], minlength=3).tolist()
        for name in SPLITS
    ]


def side_of(splits: Splits, images: list[str]) -> dict[str, str]:
    return {images[i]: name for name in SPLITS for i in splits[name]}


def test_images_that_come_divided_keep_their_test() -> None:
    images, labels = example(50, 30, 20)
    parts = ["test" if int(path[-6:-4]) % 5 == 0 else "train" for path in images]
    divide = functools.partial(
        make_splits, images=images, labels=labels, classes=CLASSES, parts=parts
    )
    splits = divide(SplitConfig(0.6, 0.2, 0.2))
    assert splits["test"].tolist() == [i for i in range(100) if parts[i] == "test"]
    # Three to one, whatever share the test was to have.
    assert counts_by_class(splits, labels) == [[30, 18, 12], [10, 6, 4], [10, 6, 4]]
    assert (splits["val"] != divide(SplitConfig(0.6, 0.2, 0.2, seed=1))["val"]).any()
    whole = divide(SplitConfig(0.8, 0.0, 0.2))
    assert counts_by_class(whole, labels) == [[40, 24, 16], [0] * 3, [10, 6, 4]]
    counted = divide(SplitConfig(train_per_class=10))
    assert counts_by_class(counted, labels)[:2] == [[10] * 3, [30, 14, 6]]


def test_images_that_come_with_a_validation_part_are_not_divided() -> None:
    images, labels = example(9, 9, 9)
    parts = [SPLITS[i % 3] for i in range(27)]
    splits = make_splits(
        SplitConfig(), images=images, labels=labels, classes=CLASSES, parts=parts
    )
    assert [splits[name].tolist() for name in SPLITS] == [
        list(range(start, 27, 3)) for start in range(3)
    ]


def test_what_is_in_the_test_too_is_not_trained_on() -> None:
    images, labels = example(10, 10, 10)
    parts = ["test" if i % 10 == 9 else "train" for i in range(30)]
    splits = make_splits(
        SplitConfig(0.8, 0.2, 0.0),
        images=images,
        labels=labels,
        classes=CLASSES,
        groups=[[0, 9], [11, 12]],
        parts=parts,
    )
    used = np.concatenate([splits[name] for name in SPLITS])
    assert sorted(used) == list(range(1, 30))
    sides = side_of(splits, images)
    assert sides[images[11]] == sides[images[12]]


def test_every_class_is_divided_by_the_fractions() -> None:
    images, labels = example(100, 40, 20)
    splits = split(SplitConfig(), images, labels)
    assert counts_by_class(splits, labels) == [[70, 28, 14], [15, 6, 3], [15, 6, 3]]
    everything = np.concatenate([splits[name] for name in SPLITS])
    assert sorted(everything) == list(range(160))
    for name in SPLITS:
        assert splits[name].dtype == np.int32
        assert (np.diff(splits[name]) > 0).all()


def test_a_number_for_training_and_the_rest_halved() -> None:
    images, labels = example(100, 73, 72)
    splits = split(SplitConfig(train_per_class=70), images, labels)
    assert counts_by_class(splits, labels) == [[70, 70, 70], [15, 2, 1], [15, 1, 1]]


def test_the_smallest_classes_reach_every_split() -> None:
    images, labels = example(3, 4, 5)
    for config in (
        SplitConfig(),
        SplitConfig(train_per_class=1),
        SplitConfig(0.9, 0.05, 0.05),
    ):
        for row in counts_by_class(split(config, images, labels), labels):
            assert min(row) >= 1


def test_without_a_test_set() -> None:
    images, labels = example(10, 20, 5)
    splits = split(SplitConfig(train=0.8, val=0.2, test=0.0), images, labels)
    assert counts_by_class(splits, labels) == [[8, 16, 4], [2, 4, 1], [0, 0, 0]]


def test_a_seed_is_a_split() -> None:
    images, labels = example(50, 50, 50)
    one, again, other = (
        split(SplitConfig(seed=seed), images, labels)["train"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_golden_split() -> None:
    # A split that changes between versions would make old results incomparable.
    images, labels = example(8, 4, 4)
    splits = split(SplitConfig(), images, labels)
    assert {name: splits[name].tolist() for name in SPLITS} == GOLDEN


GOLDEN = {
    "train": [1, 2, 3, 4, 5, 6, 8, 10, 12, 14],
    "val": [0, 11, 15],
    "test": [7, 9, 13],
}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_added_files_move_few(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(10, 60), min_size=3, max_size=3))
    added = data.draw(st.integers(1, 10))
    by_count = data.draw(st.booleans())
    config = SplitConfig(train_per_class=5 if by_count else None, seed=added)
    images, labels = example(*counts)
    before = side_of(split(config, images, labels), images)
    more = [f"anna/new{number}.png" for number in range(added)] + images
    after = side_of(split(config, more, [0] * added + labels), more)
    moved = [path for path in images if before[path] != after[path]]
    assert len(moved) <= 2 * added
    assert all(path.startswith("anna/") for path in moved)


def test_a_group_stays_on_one_side() -> None:
    images, labels = example(30, 30, 30)
    # Within classes, over classes, and large.
    groups = [[0, 1], [2, 31], [3, 32, 61], list(range(62, 72))]
    for seed in range(20):
        splits = split(SplitConfig(seed=seed), images, labels, groups)
        sides = side_of(splits, images)
        for group in groups:
            assert len({sides[images[index]] for index in group}) == 1
        assert len(sides) == 90
        assert counts_by_class(splits, labels)[0][:2] == [21, 21]


def test_counts_are_exact_in_spite_of_groups() -> None:
    images, labels = example(20, 20, 20)
    groups = [[2 * index, 2 * index + 1] for index in range(8)]
    for seed in range(20):
        config = SplitConfig(train_per_class=13, seed=seed)
        splits = split(config, images, labels, groups)
        assert counts_by_class(splits, labels)[0] == [13, 13, 13]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(0.5, 0.2, 0.2), "add to 0.9, not to 1"),
        (SplitConfig(0.7, 0.0, 0.0, train_per_class=1), "nowhere to go"),
        (SplitConfig(train_per_class=4), "class 'bob' has 5 usable images.*needs 6"),
    ],
)
def test_impossible_splits(config: SplitConfig, message: str) -> None:
    images, labels = example(10, 5, 10)
    with pytest.raises(InputError, match=message):
        split(config, images, labels)


def test_a_class_that_is_too_small_is_named() -> None:
    images, labels = example(10, 2, 10)
    with pytest.raises(InputError, match=r"'bob' has 2 usable images.* needs 3: add"):
        split(SplitConfig(), images, labels)


# Files.


def written(path: Path, images: list[str], labels: list[int]) -> Splits:
    splits = split(SplitConfig(seed=5), images, labels)
    write_splits(
        path,
        splits,
        images=images,
        labels=labels,
        classes=CLASSES,
        digests=digests_of(images),
    )
    return splits


def digests_of(images: list[str]) -> list[str]:
    """Stand-ins for SHA-256."""
    return [f"<{image[-7:]}>" for image in images]


def applied(path: Path, images: list[str], labels: list[int]) -> Splits:
    return apply_splits(
        read_splits(path),
        source=path,
        images=images,
        labels=labels,
        classes=CLASSES,
    )


def test_a_written_split_is_read_exactly(tmp_path: Path) -> None:
    images, labels = example(10, 10, 10)
    images[3], images[4] = 'anna/a "quoted", \n name.png', "anna/\udcff.png"
    path = tmp_path / "deep" / "splits.csv"
    splits = written(path, images, labels)
    again = applied(path, images, labels)
    for name in SPLITS:
        np.testing.assert_array_equal(splits[name], again[name])
    assert [entry.name for entry in path.parent.iterdir()] == ["splits.csv"]


def test_new_files_are_left_out(tmp_path: Path) -> None:
    images, labels = example(10, 10, 10)
    splits = written(tmp_path / "splits.csv", images, labels)
    again = applied(tmp_path / "splits.csv", ["anna/new.png", *images], [0, *labels])
    for name in SPLITS:
        np.testing.assert_array_equal(splits[name] + 1, again[name])


def test_missing_files_are_named(tmp_path: Path) -> None:
    images, labels = example(10, 10, 10)
    written(tmp_path / "splits.csv", images, labels)
    message = "anna/000.png, anna/001.png, anna/002.png and 2 more; restore them"
    with pytest.raises(InputError, match=message):
        applied(tmp_path / "splits.csv", images[5:], labels[5:])


def test_another_label_is_named(tmp_path: Path) -> None:
    images, labels = example(10, 10, 10)
    written(tmp_path / "splits.csv", images, labels)
    labels[0] = 1
    message = "anna/000.png is labeled 'anna' in the split, but 'bob' in the folder"
    with pytest.raises(InputError, match=message):
        applied(tmp_path / "splits.csv", images, labels)


def test_changed_contents_are_named_and_counted(tmp_path: Path) -> None:
    images, labels = example(10, 10, 10)
    path = tmp_path / "splits.csv"
    written(path, images, labels)
    rows = read_splits(path)
    assert rows[4] == SplitRow(images[4], "anna", rows[4].split, "<004.png>")
    assert rows[4].key == "<004.png>"
    digests = digests_of(images)
    apply = functools.partial(
        apply_splits, rows, source=path, images=images, labels=labels, classes=CLASSES
    )
    assert sum(len(indices) for indices in apply(digests=digests).values()) == 30
    digests[4] = "another"
    with pytest.raises(InputError, match=r"1 image changed .* anna/004\.png; restore"):
        apply(digests=digests)
    digests[15] = digests[27] = "another"
    with pytest.raises(InputError, match=r"3 images changed .* first anna/004\.png"):
        apply(digests=digests)


def test_a_splits_file_without_hashes_is_read_and_compares_none(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("path,label,split\nanna/000.png,anna,test\n")
    (row,) = rows = read_splits(path)
    assert (row.sha256, row.key) == ("", "anna/000.png")
    splits = apply_splits(
        rows,
        source=path,
        images=["anna/000.png"],
        labels=[0],
        classes=CLASSES,
        digests=["any"],
    )
    assert splits["test"].tolist() == [0]
    write_split_rows(tmp_path / "again.csv", rows)
    assert read_splits(tmp_path / "again.csv") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line must be path,label,split,sha256"),
        ("a,b\n", "not a splits file"),
        ("path,label,split\n", "lists no image"),
        ("path,label,split\na/1.png,a,dev\n", "line 2 must be path,label,split, "),
        ("path,label,split\na/1.png,a\n", "line 2 must be"),
        ("path,label,split\na,a,test\na,a,train\n", "line 3 lists a a second time"),
        ("path,label,split,sha256\na,a,test\n", "line 2 must be path,.*,sha256, with"),
        ("path,label,split\n" + "x" * 200_000, "cannot be read as a CSV"),
    ],
)
def test_damaged_splits_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_splits(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_splits(tmp_path / "none.csv")


def test_folds_spread_every_class_and_keep_groups_together():
    labels = [0] * 13 + [1] * 7
    images = [f"{label}/{i}.png" for i, label in enumerate(labels)]
    groups = [[0, 1, 2], [15, 16]]
    make = functools.partial(
        make_folds, 3, images=images, labels=labels, classes=["a", "b"]
    )
    fold = make(seed=0, groups=groups)
    assert fold.dtype == np.int32
    for group in groups:
        assert len(set(fold[group])) == 1
    alone = make(seed=0)
    for label in (0, 1):
        sizes = np.bincount(alone[np.array(labels) == label], minlength=3)
        assert sizes.max() - sizes.min() <= 1
    assert (make(seed=0) == alone).all()
    assert (make(seed=1) != alone).any()


@pytest.mark.parametrize(
    ("count", "groups"), [(0, ()), (1, ()), (4, ()), (3, [[0, 1]])]
)
def test_impossible_folds_are_refused(count, groups):
    """Images of a group count as one; the class is named."""
    most = 2 if groups else 3
    message = f"`data.folds` {count}: must be at least 2 and at most {most}.* class 'x'"
    images = ["a", "b", "c", "d", "e", "f", "g"]
    with pytest.raises(InputError, match=message):
        make_folds(
            count,
            seed=0,
            images=images,
            labels=[0, 0, 0, 1, 1, 1, 1],
            classes=["x", "y"],
            groups=groups,
        )


# Pairs.


def test_pairs_are_images_of_one_name_in_both_classes() -> None:
    images = ["comic/1.jpg", "comic/2.jpg", "face/1.png", "face/2.jpg", "face/3.jpg"]
    labels, classes = [0, 0, 1, 1, 1], ("comic", "face")
    assert is_paired(images, labels, classes)
    assert find_pairs(images, labels) == [[0, 2], [1, 3]]
    deeper = [path.replace("/", "/old/") for path in images]
    assert find_pairs(deeper, labels) == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("images", "labels", "classes"),
    [
        # A name that the larger class lacks; other folders; three classes.
        (["a/1.jpg", "a/9.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"], [0, 0, 1, 1, 1], 2),
        (["a/1.jpg", "b/old/1.jpg"], [0, 1], 2),
        (["a/1.jpg", "b/1.jpg", "c/1.jpg"], [0, 1, 2], 3),
    ],
)
def test_other_sets_are_not_paired(
    images: list[str], labels: list[int], classes: int
) -> None:
    assert not is_paired(images, labels, CLASSES[:classes])


def test_pairs_stay_together_and_counts_exact() -> None:
    images, labels = example(50, 50)
    groups = find_pairs(images, labels)
    for seed in range(4):
        config = SplitConfig(0.8, 0.1, 0.1, seed=seed)
        splits = make_splits(
            config, images=images, labels=labels, classes=CLASSES[:2], groups=groups
        )
        assert counts_by_class(splits, labels) == [[40, 40, 0], [5, 5, 0], [5, 5, 0]]
        side = side_of(splits, images)
        for number in range(50):
            assert side[f"anna/{number:03}.png"] == side[f"bob/{number:03}.png"]


def test_groups_that_share_a_member_become_one() -> None:
    groups = merge_groups([[4, 1], [2, 3], [5, 6], [3, 1]])
    assert groups == [[1, 2, 3, 4], [5, 6]]
    assert merge_groups([]) == []
    assert find_identical(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]


@pytest.mark.parametrize(
    ("encoding", "end", "header"),
    [
        ("utf-8-sig", "\r\n", "path,label,split,sha256"),
        ("utf-8", "\n", "Label, Path ,Split,note"),
    ],
)
def test_splits_as_spreadsheet_programs_write_them(
    tmp_path: Path, encoding: str, end: str, header: str
) -> None:
    path = tmp_path / "splits.csv"
    rows = ["\u00e9/1.png,a,Train,", "b/2.png,b,validation,", "b/3.png,b,TEST,", ",,,"]
    if header.startswith("Label"):
        rows = ["a,\u00e9/1.png,train,x", "b,b/2.png,val,y", "b,b/3.png,test,z", ""]
    path.write_bytes(end.join([header, *rows, ""]).encode(encoding))
    assert read_splits(path) == [
        SplitRow("\u00e9/1.png", "a", "train"),
        SplitRow("b/2.png", "b", "val"),
        SplitRow("b/3.png", "b", "test"),
    ]


def test_splits_that_are_told_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("path;label;split\na/1.png;a;train\n")
    with pytest.raises(InputError, match="separated by semicolons; save it with comm"):
        read_splits(path)
    path.write_text("path,label,split\na/1.png,a,train\n", "utf-16")
    with pytest.raises(InputError, match="is UTF-16, not UTF-8; save the file as CSV"):
        read_splits(path)
    path.write_bytes("path,label,split\n\u00e9/1.png,a,train\n".encode("latin-1"))
    with pytest.raises(InputError, match="is the file UTF-8"):
        apply_splits(read_splits(path), source=path, images=[], labels=[], classes=[])


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    names = ["=1+1", "+x", "-y", "@z", "\tq", "'=1", "''-a", "'plain", "plain"]
    rows = [SplitRow(f"{name}/1.png", name, "train") for name in names]
    write_split_rows(tmp_path / "splits.csv", rows)
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert not any(line.startswith(tuple("=+-@\t")) for line in lines)
    assert lines[1] == "'=1+1/1.png,'=1+1,train,"
    assert read_splits(tmp_path / "splits.csv") == rows
    assert csv_text([["-0.5", -0.5, "1e-3"]]) == "-0.5,-0.5,1e-3\n"
