"""From folders to batches: what is loaded, what is said, and every way it can fail."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxvision import storage
from jaxvision.data import decode as decode_module
from jaxvision.data.dataset import DataConfig, DecodedDataset, load_dataset
from jaxvision.data.decode import decode_image
from jaxvision.data.loader import Batches
from jaxvision.data.splits import SPLITS, SplitConfig, read_splits
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

SMALL = Preprocessing(size=(16, 16), resize_mode="crop", resize=20)


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    pixels = rng.integers(0, 256, (24, 20 + value % 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    for label, name in enumerate(("anna", "bob")):
        for number in range(12):
            draw(folder / name / f"{number:02}.png", 100 * label + number)
    return folder


def load(root: Path, **options: Any) -> DecodedDataset:
    return load_dataset(DataConfig(root=root, **options)).decode(SMALL)


def everything(dataset: DecodedDataset, **options: Any) -> dict[str, np.ndarray]:
    indices = np.arange(len(dataset.images))
    batches = dataset.batches(indices, batch_size=5, train=False, **options)
    stream = list(batches.iterate())
    return {
        name: np.concatenate([b[name] for b in stream])[: len(indices)]
        for name in ("image", "label")
    }


def test_a_folder_becomes_a_dataset(root: Path) -> None:
    dataset = load(root)
    assert dataset.name == "people"
    assert dataset.classes == ("anna", "bob")
    assert len(dataset.images) == 24
    assert dataset.labels.dtype == np.int32
    assert dataset.labels.tolist() == [0] * 12 + [1] * 12
    assert {name: len(dataset.splits[name]) for name in SPLITS} == {
        "train": 16,
        "val": 4,
        "test": 4,
    }
    assert not dataset.is_demo
    assert dataset.bad == dataset.duplicates == dataset.left_out == ()
    for index, image in enumerate(dataset.images):
        expected = decode_image(root / image, SMALL)
        np.testing.assert_array_equal(dataset.image(index), expected)


def test_indexing_reads_no_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(root)
    read = []
    monkeypatch.setattr(
        decode_module, "read_file", lambda path: pytest.fail(f"read {path}")
    )
    dataset = load_dataset(str(root))
    assert (dataset.name, dataset.classes) == ("people", ("anna", "bob"))
    assert dataset.images == expected.images
    np.testing.assert_array_equal(dataset.labels, expected.labels)
    monkeypatch.setattr(
        decode_module,
        "read_file",
        lambda path: read.append(path) or (str(path), path.read_bytes()),
    )
    # Identical images stay together: files are read, once, and not decoded.
    monkeypatch.setattr(decode_module, "decode_stored", pytest.fail)
    for seed in (0, 1, 0):
        splits = dataset.with_seed(seed).splits
        for name in SPLITS:
            np.testing.assert_array_equal(
                splits[name], expected.with_seed(seed).splits[name]
            )
    assert sorted(read) == sorted(root / image for image in dataset.images)
    assert dataset.digests == expected.digests
    assert dataset.digests[0] == storage.file_sha256(root / dataset.images[0])
    assert repr(dataset) == f"<Dataset 'people': 24 images of 2 classes in {root}>"


def test_what_was_decoded_last_is_used_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(root)
    first = dataset.decode(SMALL)
    opened = []
    read = decode_module.read_file
    monkeypatch.setattr(
        decode_module, "read_file", lambda path: opened.append(path) or read(path)
    )
    assert first.decode(SMALL) is first
    again = dataset.with_seed(3).decode(SMALL)
    assert again._files is first._files
    # Normalization is no geometry.
    other = dataset.decode(dataclasses.replace(SMALL, mean=(0.0,) * 3))
    assert other._files is first._files
    assert other.fingerprint != first.fingerprint
    assert not opened
    gray = first.decode(dataclasses.replace(SMALL, gray=True))
    assert gray.image(0).shape == (16, 16, 1)
    assert len(opened) == 24


def test_the_size_of_the_split_is_checked_before_any_image_is_read(root: Path) -> None:
    draw(root / "cleo" / "1.png", 1)
    with pytest.raises(InputError, match="'cleo' has 1 usable images"):
        load_dataset(root)


def test_batches_of_a_split(root: Path) -> None:
    dataset = load(root)
    batches = dataset.batches("train", batch_size=6, seed=1, train=True)
    assert isinstance(batches, Batches)
    assert (batches.num_examples, batches.steps_per_epoch) == (16, 3)
    batch = next(batches.iterate())
    assert batch["image"].shape == (6, 16, 16, 3)
    everything_there = {dataset.image(i).tobytes() for i in dataset.splits["train"]}
    assert {image.tobytes() for image in batch["image"]} <= everything_there
    test = list(dataset.batches("test", batch_size=3, train=False).iterate())
    labels = np.concatenate([b["label"][b["mask"] > 0] for b in test])
    np.testing.assert_array_equal(labels, dataset.labels[dataset.splits["test"]])


def test_augmentation_changes_training_and_repeats_by_seed(root: Path) -> None:
    dataset = load(root)
    config = AugmentConfig(resized_crop=0.5, brightness=0.3)

    def first(seed: int, augment: AugmentConfig | None) -> np.ndarray:
        batches = dataset.batches(
            "train", batch_size=6, seed=seed, train=True, augment=augment
        )
        return next(batches.iterate())["image"]

    np.testing.assert_array_equal(first(1, config), first(1, config))
    assert (first(1, config) != first(2, config)).any()
    assert (first(1, config) != first(1, None)).any()


def test_costs_change_no_pixel(root: Path, tmp_path: Path) -> None:
    expected = everything(load(root))
    cache = tmp_path / "cache"
    for options in (
        {"cache_mb": 0, "cache_dir": cache},
        {"num_threads": 0},
        {"num_threads": 1},
        {"num_workers": 2, "cache_dir": cache},
    ):
        dataset = load(root, **options)
        for name, values in everything(dataset).items():
            np.testing.assert_array_equal(values, expected[name])
        assert dataset.fingerprint == load(root).fingerprint
    assert (cache).is_dir()


def test_no_image_is_decoded_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    read = decode_module.read_file
    monkeypatch.setattr(
        decode_module,
        "read_file",
        lambda path: opened.append(path) or read(path),
    )
    dataset = load(root)
    for _ in range(3):
        everything(dataset)
    assert sorted(opened) == sorted(root / image for image in dataset.images)


def test_progress_is_told(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_dataset(root).decode(SMALL, lambda *numbers: calls.append(numbers))
    assert calls == [(number, 24) for number in range(1, 25)]


# Bad images.


def spoil(root: Path) -> None:
    whole = (root / "anna" / "03.png").read_bytes()
    (root / "anna" / "03.png").write_bytes(whole[: len(whole) // 2])
    (root / "bob" / "05.png").write_bytes(b"<html>")
    (root / "bob" / "empty.jpg").write_bytes(b"")


@pytest.mark.parametrize("num_threads", [0, 3])
def test_bad_images_are_skipped_and_listed(root: Path, num_threads: int) -> None:
    spoil(root)
    dataset = load(root, num_threads=num_threads)
    assert len(dataset.images) == len(dataset.labels) == 22
    assert [path for path, _ in dataset.bad] == [
        "anna/03.png",
        "bob/05.png",
        "bob/empty.jpg",
    ]
    reasons = [reason for _, reason in dataset.bad]
    assert "cut short" in reasons[0]
    assert "not an image" in reasons[1]
    assert reasons[2] == "the file is empty"
    for index, image in enumerate(dataset.images):
        expected = decode_image(root / image, SMALL)
        np.testing.assert_array_equal(dataset.image(index), expected)


def test_bad_images_end_the_run_where_wanted(root: Path) -> None:
    spoil(root)
    with pytest.raises(InputError, match=r"03\.png: damaged.*`data\.on_bad` to skip"):
        load(root, on_bad="error")


def test_bombs_are_listed_without_a_warning(
    root: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (12_000, 12_000)).save(root / "anna" / "bomb.png")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 9
    Image.new("RGB", (30, 30)).save(root / "anna" / "odd.jpg", exif=exif)
    ((path, reason),) = load(root).bad
    assert path == "anna/bomb.png"
    assert "decompression bomb" in reason
    assert not recwarn.list


def test_a_class_of_bad_images_only(root: Path) -> None:
    (root / "cleo").mkdir()
    for number in (1, 2, 3):
        (root / "cleo" / f"{number}.png").write_bytes(b"")
    message = r"class 'cleo' has no usable image \(cleo/1.png: the file is empty\)"
    with pytest.raises(InputError, match=message):
        load(root)


def test_a_class_that_became_too_small(root: Path) -> None:
    draw(root / "cleo" / "1.png", 1)
    with pytest.raises(InputError, match="'cleo' has 1 usable images"):
        load(root)


# Identical images.


def test_identical_images_stay_together_and_are_named(root: Path) -> None:
    same = (root / "anna" / "00.png").read_bytes()
    for name in ("anna/copy.png", "anna/deep.png", "bob/copy.png"):
        (root / name).write_bytes(same)
    for seed in range(8):
        dataset = load(root, split=SplitConfig(seed=seed))
        group = ("anna/00.png", "anna/copy.png", "anna/deep.png", "bob/copy.png")
        assert dataset.duplicates == (group,)
        assert dataset.conflicts == (group,)
        sides = {
            name
            for name in SPLITS
            for index in dataset.splits[name]
            if dataset.images[index] in group
        }
        assert len(sides) == 1
    assert load(root).with_seed(3).duplicates == (group,)


def test_identical_images_of_one_class_are_no_conflict(root: Path) -> None:
    (root / "anna" / "copy.png").write_bytes((root / "anna" / "00.png").read_bytes())
    dataset = load(root)
    assert dataset.duplicates == (("anna/00.png", "anna/copy.png"),)
    assert dataset.conflicts == ()


# Splits.


def test_a_split_is_used_again(root: Path, tmp_path: Path) -> None:
    first = load(root, split=SplitConfig(seed=7))
    first.write_splits(tmp_path / "splits.csv")
    draw(root / "anna" / "new.png", 999)
    draw(root / "zoe" / "new.png", 998)
    again = load(root, splits=tmp_path / "splits.csv")
    assert again.left_out == ("anna/new.png", "zoe/new.png")
    assert again.classes == ("anna", "bob")
    for name in SPLITS:
        ours = [first.images[i] for i in first.splits[name]]
        assert ours == [again.images[i] for i in again.splits[name]]
    (root / "anna" / "00.png").unlink()
    with pytest.raises(InputError, match=r"can't be used: anna/00.png; restore"):
        load(root, splits=tmp_path / "splits.csv")
    draw(root / "anna" / "00.png", 0)
    (root / "bob" / "05.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"can't be used: bob/05.png; restore"):
        load(root, splits=tmp_path / "splits.csv")


def test_rows_fix_the_split(root: Path, tmp_path: Path) -> None:
    first = load(root, split=SplitConfig(seed=7))
    first.write_splits(tmp_path / "splits.csv")
    rows = read_splits(tmp_path / "splits.csv")
    assert {row.key for row in rows} == set(first.digests)
    draw(root / "anna" / "new.png", 999)
    draw(root / "zoe" / "new.png", 998)
    (root / "zoe" / "same.png").write_bytes((root / "anna" / "new.png").read_bytes())
    draw(root / "zoe" / "more.png", 997)
    whole = load(root)
    expected = load(root, splits=tmp_path / "splits.csv")
    for dataset in (
        load_dataset(root).with_splits(rows),
        load_dataset(root).with_splits(rows).decode(SMALL),
        whole.with_splits(rows),
        whole.with_splits(rows).with_seed(5),
        load_dataset(root).with_splits(rows).with_seed(5),
    ):
        assert dataset.classes == ("anna", "bob")
        assert dataset.images == first.images
        assert dataset.left_out == expected.left_out
        for name in SPLITS:
            np.testing.assert_array_equal(dataset.splits[name], first.splits[name])
    restricted = whole.with_splits(rows)
    assert restricted.fingerprint == first.fingerprint
    for name, values in everything(restricted).items():
        np.testing.assert_array_equal(values, everything(first)[name])
    (root / "bob" / "05.png").unlink()
    with pytest.raises(InputError, match=r"people: lists .*: bob/05.png; restore"):
        load_dataset(root).with_splits(rows)


def test_images_that_changed_since_the_split_are_named(
    root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "splits.csv"
    load(root).write_splits(path)
    rows = read_splits(path)
    draw(root / "bob" / "05.png", 7)
    draw(root / "bob" / "03.png", 8)
    message = r"2 images changed since the split was made, first bob/03\.png; restore"
    with pytest.raises(InputError, match=rf"splits\.csv: {message}"):
        load(root, splits=path)
    with pytest.raises(InputError, match=message):
        load_dataset(root).with_splits(rows).decode(SMALL)
    with pytest.raises(InputError, match=message):
        _ = load_dataset(root).with_splits(rows).splits
    with pytest.raises(InputError, match=message):
        load(root).with_splits(rows)
    bare = [dataclasses.replace(row, sha256="") for row in rows]
    assert len(load(root).with_splits(bare).images) == 24


def test_another_seed_decodes_nothing(root: Path) -> None:
    dataset = load(root)
    other = dataset.with_seed(4)
    expected = load(root, split=SplitConfig(seed=4))
    for name in SPLITS:
        np.testing.assert_array_equal(other.splits[name], expected.splits[name])
    assert other._files is dataset._files
    assert other.config == expected.config


# Pairs.


def test_a_pair_stays_on_one_side_unless_it_is_not_wanted(root: Path) -> None:
    dataset = load(root)
    assert len(dataset.pairs) == 12
    assert dataset.pairs[0] == ("anna/00.png", "bob/00.png")
    assert dataset.pairs_note == (
        "12 pairs of images of the same name, each within one split"
    )
    other = dataset.with_seed(5)
    assert other.pairs_note == dataset.pairs_note
    apart = load(root, pairs=False)
    assert "of them apart" in apart.pairs_note
    assert apart.with_seed(5).pairs_note.endswith("apart")
    # A copy joins two pairs.
    (root / "bob" / "01.png").write_bytes((root / "anna" / "00.png").read_bytes())
    assert [0, 1, 12, 13] in load(root).groups
    draw(root / "cleo" / "00.png", 5)
    assert load(root, largest_classes=2).pairs
    assert load(root, splits=None, limit=3, largest_classes=2).pairs_note.startswith(
        "3 pairs"
    )


def test_three_classes_are_no_pairs(root: Path) -> None:
    for number in range(4):
        draw(root / "cleo" / f"{number:02}.png", 300 + number)
    dataset = load(root)
    assert dataset.pairs == ()
    assert dataset.pairs_note == ""


# Decoding while training.


def test_decoded_while_training_is_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(load(root))
    opened = []
    decoded = decode_module.read_stored
    monkeypatch.setattr(
        decode_module,
        "read_stored",
        lambda *args: opened.append(args[-1]) or decoded(*args),
    )
    for options in (
        {},
        {"num_threads": 0},
        {"cache_mb": 0, "cache_dir": tmp_path / "cache"},
    ):
        dataset = load(root, decode="while_training", **options)
        assert opened == []
        for _ in range(3):
            for name, values in everything(dataset).items():
                np.testing.assert_array_equal(values, expected[name])
        # Threads may meet at one image in the last, filled-up batch.
        assert set(opened) == set(dataset.images)
        assert len(opened) <= len(dataset.images) + 3
        assert dataset.fingerprint == load(root).fingerprint
        opened.clear()


def test_a_bad_image_met_in_training_ends_it(root: Path) -> None:
    spoil(root)
    (root / "bob" / "empty.jpg").unlink()
    dataset = load(root, decode="while_training")
    with pytest.raises(InputError, match=r"damaged.*`data\.decode` to first"):
        everything(dataset)
    with pytest.raises(InputError, match=r"leave `data\.num_workers` at 0"):
        load(root, decode="while_training", num_workers=1)


# Fingerprints, limits, flags.


def test_fingerprint_follows_images_and_preprocessing(root: Path) -> None:
    first = load(root)
    assert load(root, split=SplitConfig(seed=9)).fingerprint == first.fingerprint
    gray = load_dataset(root).decode(dataclasses.replace(SMALL, gray=True))
    assert gray.fingerprint != first.fingerprint
    assert gray.image(0).shape == (16, 16, 1)
    draw(root / "anna" / "00.png", 77)
    changed = load(root)
    assert changed.fingerprint != first.fingerprint
    (root / "anna" / "00.png").rename(root / "anna" / "zz.png")
    assert load(root).fingerprint not in (first.fingerprint, changed.fingerprint)


def test_the_largest_classes(root: Path) -> None:
    for name, count in (("cleo", 13), ("dora", 12)):
        for number in range(count):
            draw(root / name / f"{number}.png", 200 + len(name) + 20 * number)
    dataset = load(root, largest_classes=2)
    assert dataset.classes == ("anna", "cleo")  # as many as bob and dora, but first
    assert np.bincount(dataset.labels).tolist() == [12, 13]
    assert dataset.ignored == {"images of smaller classes": 24}
    assert load(root, largest_classes=4).classes == ("anna", "bob", "cleo", "dora")
    with pytest.raises(InputError, match=r"at least 2 and at most 4, the number"):
        load(root, largest_classes=5)


def test_a_folder_that_comes_divided(root: Path, tmp_path: Path) -> None:
    divided = tmp_path / "divided"
    for path in sorted(root.glob("*/*.png")):
        part = "test" if path.stem in ("03", "07") else "train"
        target = divided / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    # The same image for training: it would be known by heart.
    (divided / "train" / "anna" / "twin.png").write_bytes(
        (root / "anna" / "03.png").read_bytes()
    )
    dataset = load(divided, split=SplitConfig(0.8, 0.2, 0.0))
    names = {k: {dataset.images[i] for i in v} for k, v in dataset.splits.items()}
    assert names["test"] == {
        f"test/{person}/{number}.png"
        for person in ("anna", "bob")
        for number in ("03", "07")
    }
    assert (len(names["train"]), len(names["val"])) == (16, 4)
    assert "train/anna/twin.png" not in names["train"] | names["val"]
    other = dataset.with_seed(1)
    np.testing.assert_array_equal(other.splits["test"], dataset.splits["test"])
    assert other.splits["val"].tolist() != dataset.splits["val"].tolist()
    other.write_splits(tmp_path / "splits.csv")
    again = load(divided, splits=tmp_path / "splits.csv")
    assert {again.images[i] for i in again.splits["test"]} == names["test"]
    limited = load(divided, split=SplitConfig(0.5, 0.5, 0.0), limit=2)
    assert [len(limited.splits[name]) for name in SPLITS] == [2, 2, 4]


def test_limit_is_a_number_of_each_class(root: Path) -> None:
    dataset = load(root, limit=5)
    assert np.bincount(dataset.labels).tolist() == [5, 5]
    assert set(load(root, limit=4).images) < set(dataset.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "`data.limit` 0: must be at least 1"),
        ({"cache_mb": -1}, "`data.cache_mb` -1: must be at least 0"),
        ({"num_threads": -1}, "`data.num_threads` -1"),
        ({"num_workers": -2}, "`data.num_workers` -2"),
        ({"split": SplitConfig(1.2, 0, -0.2)}, "`data.split.train` 1.2: must be at"),
        ({"split": SplitConfig(0.5, 0.5, float("nan"))}, "`data.split.test` nan"),
        ({"split": SplitConfig(train_per_class=0)}, "train_per_class` 0: must be at"),
        ({"split": SplitConfig(0.5, 0.1)}, "`data.split.train`, .* add to 0.75"),
        ({"limit": 1, "splits": Path("x.csv")}, "exclude each other"),
        ({"largest_classes": 2, "splits": Path("x.csv")}, "exclude each other"),
        ({"largest_classes": 1}, "`data.largest_classes` 1: must be at least 2"),
    ],
)
def test_impossible_settings(root: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(root, **options)


def test_a_crop_larger_than_its_image_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match="resize 20 is smaller"):
        load_dataset(root).decode(Preprocessing((32, 32), resize=20))


def test_errors_of_the_folder_come_through(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "none")


# Demo sets.


def test_a_drawn_set_is_labeled_so(root: Path) -> None:
    (root / "DEMO.json").write_text(json.dumps({"kind": "faces", "seed": 0}))
    dataset = load(root)
    assert dataset.is_demo
    assert dataset.name == "drawn faces"
    (root / "DEMO.json").write_text("{")
    with pytest.raises(InputError, match=r"DEMO\.json: damaged"):
        load(root)


def test_without_a_root_the_demo_is_drawn_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaxvision.data import demo

    drawn = []

    def write_demo(config: demo.DemoConfig) -> None:
        drawn.append(config.kind)
        config.out.parent.mkdir(parents=True)
        root.rename(config.out)
        (config.out / "DEMO.json").write_text(json.dumps({"kind": config.kind}))

    monkeypatch.setattr(demo, "write_demo", write_demo)
    monkeypatch.setenv(storage.CACHE_VARIABLE, str(tmp_path / "cache"))
    for _ in range(2):
        dataset = load_dataset(DataConfig(), demo_kind="paintings")
        assert dataset.root == tmp_path / "cache" / "demo" / "paintings"
        assert dataset.is_demo
    assert drawn == ["paintings"]


def test_importing_loads_neither_jax_nor_grain() -> None:
    program = (
        "import sys, jaxvision.data, jaxvision.data.dataset;"
        "print({'jax', 'grain', 'matplotlib'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ).stdout
    assert output.strip() == "set()"
