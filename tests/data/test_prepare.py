"""Prepared sets: the numbers of the folder, whole or not there, whatever is killed."""

import dataclasses
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import prepare as prepare_module
from jaxvision.data.dataset import DataConfig, DecodedDataset, load_dataset
from jaxvision.data.prepare import PrepareConfig, prepare
from jaxvision.data.prepared import read_prepared
from jaxvision.data.splits import SPLITS, SplitConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

GRAY = Preprocessing(size=(24, 24), resize_mode="stretch", gray=True)
CROP = Preprocessing(size=(16, 16), resize_mode="crop", resize=20)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (40 + seed % 7, 50 - seed % 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of pairs, two copies and three bad images."""
    folder = tmp_path / "pairs"
    for label, name in enumerate(("comic", "face")):
        for number in range(20):
            draw(folder / name / f"{number:03}.jpg", 100 * label + number)
    copy = (folder / "face" / "003.jpg").read_bytes()
    (folder / "face" / "007.jpg").write_bytes(copy)
    (folder / "comic" / "000.jpg").write_bytes(b"<html>")
    (folder / "comic" / "013.jpg").write_bytes(copy[: len(copy) // 2])
    (folder / "face" / "019.jpg").write_bytes(b"")
    return folder


def load(
    root: Path, preprocessing: Preprocessing = GRAY, **options: Any
) -> DecodedDataset:
    return load_dataset(DataConfig(root, **options)).decode(preprocessing)


def wanted(
    root: Path, out: Path, preprocessing: Preprocessing = GRAY, **options: Any
) -> PrepareConfig:
    crop = preprocessing.resize_mode == "crop"
    return PrepareConfig(
        root,
        out,
        preprocessing.size,
        resize_mode=preprocessing.resize_mode,
        resize=preprocessing.resize if crop else None,
        gray=preprocessing.gray,
        **{"processes": 1} | options,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stream(dataset: DecodedDataset, **options: Any) -> list[dict[str, np.ndarray]]:
    """Three epochs of training, then what validation sees."""
    batches = dataset.batches("train", batch_size=4, train=True, seed=3, **options)
    with batches.iterate() as iterator:
        found = [next(iterator) for _ in range(3 * batches.steps_per_epoch)]
    return [*found, *dataset.batches("val", batch_size=4, train=False).iterate()]


def assert_same(ours: DecodedDataset, theirs: DecodedDataset, **options: Any) -> None:
    for name in ("name", "classes", "images", "bad", "duplicates", "conflicts"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("pairs", "parts", "left_out", "ignored", "is_demo", "fingerprint"):
        assert getattr(ours, name) == getattr(theirs, name)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    for name in SPLITS:
        np.testing.assert_array_equal(ours.splits[name], theirs.splits[name])
    for index in range(len(ours.images)):
        np.testing.assert_array_equal(ours.image(index), theirs.image(index))
    for a, b in zip(stream(ours, **options), stream(theirs, **options), strict=True):
        for key in ("image", "label", "mask"):
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


# The same numbers.


@pytest.mark.parametrize("preprocessing", [GRAY, CROP])
def test_a_prepared_set_is_the_folder(
    root: Path, tmp_path: Path, preprocessing: Preprocessing
) -> None:
    out = tmp_path / "out"
    assert prepare(wanted(root, out, preprocessing, shard=7)).new
    augment = AugmentConfig(resized_crop=0.3, horizontal_flip=0.5)
    folder, prepared = load(root, preprocessing), load(out, preprocessing)
    assert len(folder.images) == 37
    assert folder.duplicates == (("face/003.jpg", "face/007.jpg"),)
    assert_same(prepared, folder, augment=augment)
    assert_same(prepared.with_seed(4), folder.with_seed(4))


@pytest.mark.parametrize(
    "options",
    [{"limit": 5}, {"pairs": False}, {"largest_classes": 2, "num_threads": 0}],
)
def test_options_mean_the_same(root: Path, tmp_path: Path, options: dict) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY))
    assert_same(load(out, **options), load(root, **options))


def test_worker_processes_read_it_too(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY, shard=7))
    store = load(out)._files.store
    first = store[5]
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again[5], first)
    assert not again[5].flags.writeable
    for a, b in zip(stream(load(out, num_workers=1)), stream(load(out)), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_each_process_reads_its_part(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY))
    dataset = load(out)
    parts = [
        stream(dataset, process_index=index, process_count=2) for index in range(2)
    ]
    for whole, first, second in zip(stream(dataset), *parts, strict=True):
        if len(first["image"]) == 2:
            joined = np.concatenate([first["image"], second["image"]])
            np.testing.assert_array_equal(joined, whole["image"])


def test_its_own_splits_are_those_of_training(root: Path, tmp_path: Path) -> None:
    out, split = tmp_path / "out", SplitConfig(0.5, 0.25, 0.25, seed=9)
    prepare(wanted(root, out, GRAY, split=split))
    made, given = load(out, split=split), load(out, splits=out / "splits.csv")
    for name in SPLITS:
        np.testing.assert_array_equal(made.splits[name], given.splits[name])
    said = json.loads((out / "manifest.json").read_text())["splits"]
    assert said["counts"] == {name: len(made.splits[name]) for name in SPLITS}
    assert said["pairs"]


def test_a_folder_that_comes_divided(tmp_path: Path) -> None:
    root, out = tmp_path / "divided", tmp_path / "out"
    for seed in range(40):
        part = ("train", "test")[seed % 4 == 3]
        draw(root / part / f"class{seed % 2}" / f"{seed}.png", seed)
    prepare(wanted(root, out, GRAY))
    assert_same(load(out), load(root))


def test_drawn_sets_stay_drawn(root: Path, tmp_path: Path) -> None:
    (root / "DEMO.json").write_text('{"kind": "comics"}')
    prepare(wanted(root, tmp_path / "out", GRAY))
    dataset = load(tmp_path / "out")
    assert dataset.is_demo
    assert dataset.name == "drawn comics"


def test_the_manifest_tells_it_all(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY, shard=16))
    said = json.loads((out / "manifest.json").read_text())
    assert said["classes"] == ["comic", "face"]
    assert said["counts"] == {"comic": 18, "face": 19}
    assert said["preprocessing"]["size"] == [24, 24]
    assert {"jaxvision", "Pillow", "array_record"} <= said["versions"].keys()
    assert [shard["records"] for shard in said["shards"]] == [14, 16, 7]
    assert said["sha256"].keys() == contents(out).keys() - {"manifest.json"}
    rows = {row["path"]: row for row in said["images"]}
    assert len(rows) == 40
    assert {path for path, row in rows.items() if "bad" in row} == {
        *("comic/000.jpg", "comic/013.jpg", "face/019.jpg")
    }
    for path, row in rows.items():
        content = (root / path).read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == prepare_module.hashlib.sha256(content).hexdigest()


# Whole or not there.


def whole(root: Path, out: Path) -> dict[str, bytes]:
    """What an undisturbed run in one process gives."""
    prepare(wanted(root, out, GRAY, shard=7))
    return contents(out)


def test_the_number_of_processes_changes_nothing(root: Path, tmp_path: Path) -> None:
    expected = whole(root, tmp_path / "one")
    calls: list[tuple[int, int]] = []
    config = wanted(root, tmp_path / "two", GRAY, shard=7, processes=2)
    prepare(config, progress=lambda *done: calls.append(done))
    assert contents(tmp_path / "two") == expected
    assert calls == [(number, 40) for number in range(41)]


def test_killed_before_any_change_of_the_disk_it_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(root, tmp_path / "whole")
    left = [0]

    def dying(function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    for number in range(1, 100):
        config = wanted(root, tmp_path / f"out{number}", GRAY, shard=7)
        # Killed on the way to a change of the disk, then once more soon after.
        survived = True
        for left[0] in (number, 1 + number % 4):
            try:
                prepare(config)
            except KeyboardInterrupt:
                survived = False
        left[0] = 0
        prepare(config)
        assert contents(config.out) == expected
        assert [path.name for path in tmp_path.glob(".*")] == []
        if survived:
            break
    assert 10 < number < 99


# Waits for a line after each image, so that it cannot be done before it is killed.
PROGRAM = """
import sys
from pathlib import Path
from jaxvision.data.prepare import PrepareConfig, prepare
def progress(done, total):
    print(done, flush=True)
    sys.stdin.readline()

if __name__ == "__main__":
    prepare(
        PrepareConfig(Path(sys.argv[1]), Path(sys.argv[2]), (24,), gray=True, shard=7,
                      processes=int(sys.argv[3])),
        progress=progress,
    )
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments_it_loses_nothing(
    root: Path, tmp_path: Path, processes: int
) -> None:
    expected = whole(root, tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(root), str(out), str(processes)]
    if processes > 1:
        # Worker processes import the program by its file.
        (tmp_path / "program.py").write_text(PROGRAM)
        command[1:3] = [str(tmp_path / "program.py")]
    rng, begun = random.Random(processes), []
    for kill in (True, True, False):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        begun.append(int(process.stdout.readline()))
        if kill:
            for _ in range(rng.randrange(9, 16)):
                print(file=process.stdin, flush=True)
                process.stdout.readline()
            # Somewhere on the way to the next.
            print(file=process.stdin, flush=True)
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert contents(out) == expected
    # Finished shards were not done again.
    assert begun[0] == 0
    assert begun[0] < begun[1] < begun[2]


def test_a_finished_set_is_checked_and_left_alone(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = PrepareConfig(root, out, (24,), gray=True)
    result = prepare(config)
    assert result.new
    assert len(result.prepared.records) == 37
    assert len(result.prepared.shards) == 1
    assert [*result.prepared.bad] == ["comic/000.jpg", "comic/013.jpg", "face/019.jpg"]
    assert result.prepared.bad["comic/000.jpg"].startswith("not an image")
    expected = contents(out)
    again = prepare(config)
    assert not again.new
    assert again.prepared == result.prepared
    assert contents(out) == expected
    with pytest.raises(InputError, match=r"prepared with size 24 24, .* remove it"):
        prepare(dataclasses.replace(config, resize_mode="pad"))
    shard = out / "images-00000.array_record"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="has changed since it was written"):
        prepare(config)
    draw(root / "face" / "new.png", 1)
    with pytest.raises(InputError, match=r"images in .* have changed"):
        prepare(config)


def test_what_was_begun_otherwise_is_not_continued(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = wanted(root, tmp_path / "out", GRAY)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "_finish", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    other = dataclasses.replace(config, gray=False)
    with pytest.raises(InputError, match=r"other settings \(preprocessing\); remove"):
        prepare(other)
    draw(root / "face" / "new.png", 1)
    with pytest.raises(InputError, match=r"another state of .* \(images\)"):
        prepare(config)
    (root / "face" / "new.png").unlink()
    assert prepare(config).new


def test_two_processes_do_not_prepare_the_same(root: Path, tmp_path: Path) -> None:
    config = wanted(root, tmp_path / "out", GRAY)
    with (
        prepare_module._alone(config),
        pytest.raises(InputError, match=r"another process is preparing .*out"),
    ):
        prepare(config)


# Bad input, one line each.


def test_bad_images_end_it_where_wanted(root: Path, tmp_path: Path) -> None:
    config = wanted(root, tmp_path / "out", GRAY, on_bad="error")
    with pytest.raises(InputError, match=r"000\.jpg: not an image.*`on_bad` to skip"):
        prepare(config)
    prepare(dataclasses.replace(config, on_bad="skip"))
    with pytest.raises(InputError, match=r"000\.jpg: not an image"):
        load(tmp_path / "out", on_bad="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0,)}, "`size` 0: must be at least 1"),
        ({"size": (1, 2, 3)}, "`size` .*: give one or two numbers"),
        ({"size": ()}, "`size` .*: give one or two numbers"),
        ({"resize": 9}, "`resize`: not used with `resize_mode` stretch"),
        ({"resize_mode": "crop", "resize": 8}, "resize 8 is smaller"),
        ({"shard": 0}, "`shard` 0"),
        ({"processes": 0}, "`processes` 0"),
        ({"split": SplitConfig(train=2)}, "`split.train` 2: must be"),
        ({"split": SplitConfig(train=1)}, "`split.train`, .* add to 1.3, not to 1"),
        ({"root": Path("none")}, "none: no such folder; give one that has"),
    ],
)
def test_settings(root: Path, tmp_path: Path, options: dict, message: str) -> None:
    config = PrepareConfig(root, tmp_path / "out", (9,))
    with pytest.raises(InputError, match=message) as caught:
        prepare(dataclasses.replace(config, **options))
    assert "data." not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


def test_folders_that_will_not_do(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        prepare(wanted(tmp_path / "none", tmp_path / "out", GRAY))
    for out in (root, root / "face" / "001.jpg"):
        with pytest.raises(InputError, match="no prepared set; choose a new folder"):
            prepare(wanted(root, out, GRAY))
    for path in (root / "comic").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="'comic' has no usable image"):
        prepare(wanted(root, tmp_path / "out", GRAY))


def test_a_full_disk_is_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from array_record.python import array_record_module

    class Full:
        def __init__(self, *_: str) -> None: ...

        def write(self, _: bytes) -> None:
            raise RuntimeError("write() failed: No space left on device")

    config = wanted(root, tmp_path / "out", GRAY)
    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(InputError, match=r"No space left on device.*free some"):
            prepare(config)
    assert prepare(config).new


def test_another_geometry_is_refused_with_settings(root: Path, tmp_path: Path) -> None:
    prepare(wanted(root, tmp_path / "out", GRAY))
    settings = "takes size 16 16, resize_mode crop, resize 20, interpolation bilinear;"
    with pytest.raises(InputError, match=settings):
        load(tmp_path / "out", CROP)


def test_damage_is_found_where_it_is_read(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY, shard=30))
    shard = out / "images-00000.array_record"
    content = bytearray(shard.read_bytes())
    at = content.index(load(out)._files.store[3].tobytes())
    content[at + 5] ^= 1
    shard.write_bytes(content)
    dataset = load(out)
    assert dataset.image(2).shape == (24, 24, 1)
    with pytest.raises(InputError, match=r"damaged prepared set \(.*hash mismatch"):
        dataset.image(3)
    shard.unlink()
    with pytest.raises(InputError, match=r"images-00000\.array_record is missing"):
        load(out)


def test_damaged_manifests_and_other_folders(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(wanted(root, out, GRAY))
    manifest = out / "manifest.json"
    said = json.loads(manifest.read_text())
    for change, message in (
        ({"version": 99}, "of a later version"),
        ({"images": [{}]}, "damaged prepared set"),
    ):
        manifest.write_text(json.dumps({**said, **change}))
        with pytest.raises(InputError, match=message):
            read_prepared(out)
    manifest.write_text("{")
    with pytest.raises(InputError, match="damaged prepared set"):
        read_prepared(out)
    # Somebody else's manifest among images.
    (root / "manifest.json").write_text('{"name": "app"}')
    assert read_prepared(root) is None
    assert len(load(root).images) == 37


def test_help_is_quick() -> None:
    """Neither JAX nor Grain nor ArrayRecord is loaded for it."""
    program = (
        "import sys, jaxvision.data.prepare;"
        "print({'jax', 'grain', 'array_record', 'tyro'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ).stdout
    assert output.strip() == "set()"
