"""The drawn demo sets: always the same, whole folders or none, and not too easy."""

import dataclasses
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxvision import storage
from jaxvision.data import demo
from jaxvision.data.config import DemoKind
from jaxvision.data.demo.paintings import COUNTS, PAINTERS
from jaxvision.errors import InputError

CLASSES = [(kind, name) for kind in demo.KINDS for name in demo.KINDS[kind].counts]
SMALL = {"count": 2, "size": 16, "processes": 1}


def write(kind: DemoKind, out: Path, progress: Any = None, **options: Any) -> bool:
    """Writes a set; whether anything had to be drawn."""
    config = demo.DemoConfig(kind, out, **options)
    return demo.write_demo(config, progress=progress).drawn


def contents(root: Path) -> dict[str, bytes]:
    """Every image below the folder, by relative path."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.jpg")}


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_an_image_depends_on_its_key_alone(kind: DemoKind, name: str) -> None:
    first = demo.draw_image(kind, name, 3, size=32)
    demo.draw_image(kind, name, 1, size=48)
    assert first.dtype == np.uint8
    assert first.shape == (32, 32, 3)
    np.testing.assert_array_equal(first, demo.draw_image(kind, name, 3, size=32))
    for other in (
        demo.draw_image(kind, name, 4, size=32),
        demo.draw_image(kind, name, 3, size=32, seed=1),
    ):
        assert (first != other).mean() > 0.3


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_a_larger_image_shows_the_same(kind: DemoKind, name: str) -> None:
    size = 64
    small = demo.draw_image(kind, name, 0, size=size).astype(float)
    large = Image.fromarray(demo.draw_image(kind, name, 0, size=3 * size))
    reduced = np.asarray(large.reduce(3), float)
    unlike = np.asarray(Image.fromarray(demo.draw_image(kind, name, 1, size=size)))
    # Grain, edges and single strokes differ; what is depicted does not.
    difference = np.abs(small - reduced).mean()
    assert difference < 14
    assert difference < 0.6 * np.abs(small - unlike).mean()


def test_the_sets_are_as_large_as_promised() -> None:
    assert len(demo.KINDS["faces"].counts) >= 12
    assert len(PAINTERS) >= 8
    assert set(demo.class_counts("faces").values()) == {96}
    assert demo.class_counts("paintings") == COUNTS
    assert min(COUNTS.values()) == 20
    assert max(COUNTS.values()) == 70
    few = demo.class_counts("paintings", 7)
    assert max(few.values()) == 7
    assert min(few.values()) == 2
    assert set(demo.class_counts("paintings", 1).values()) == {1}


def test_paintings_are_padded_with_black() -> None:
    bars = [
        demo.draw_image("paintings", "hoku_arai", index, size=64)[0].max() == 0
        for index in range(6)
    ]
    assert any(bars)


@pytest.mark.parametrize("kind", demo.KINDS)
def test_a_folder_a_class_and_the_marker(kind: DemoKind, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "new" / "set"
    assert write(kind, out, **SMALL, seed=5, progress=lambda *done: calls.append(done))
    counts = demo.class_counts(kind, 2)
    assert {p.name for p in out.iterdir()} == {*counts, "DEMO.json"}
    for name, number in counts.items():
        found = sorted(p.name for p in (out / name).iterdir())
        assert found == [f"{index:04d}.jpg" for index in range(number)]
    marker = json.loads((out / "DEMO.json").read_text())
    assert {key: marker[key] for key in ("kind", "seed", "size", "count")} == {
        "kind": kind, "seed": 5, "size": 16, "count": 2,
    }  # fmt: skip
    assert "drawn" in marker["note"].lower()
    assert calls[-1] == (sum(counts.values()),) * 2
    name = next(iter(counts))
    with Image.open(out / name / "0000.jpg") as image:
        assert image.size == (16, 16)
        assert b"Drawn" in image.info["comment"]


def test_neither_count_nor_processes_change_an_image(tmp_path: Path) -> None:
    write("faces", tmp_path / "a", count=1, size=16, processes=1)
    write("faces", tmp_path / "b", count=2, size=16, processes=2)
    fewer, more = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert len(more) == 2 * len(fewer)
    assert fewer == {name: more[name] for name in fewer}


def test_a_complete_set_is_left_alone_and_a_hole_is_filled(tmp_path: Path) -> None:
    write("faces", tmp_path, **SMALL)
    before = contents(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert not write("faces", tmp_path, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    (tmp_path / "edda_fjord" / "0001.jpg").unlink()
    assert write("faces", tmp_path, **SMALL)
    assert contents(tmp_path) == before


def test_an_interrupted_set_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("faces", tmp_path / "whole", **SMALL)
    out, drawn = tmp_path / "cut", []

    def draw(*args: object, **kwargs: object) -> np.ndarray:
        drawn.append(args)
        if len(drawn) > 9:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = demo.draw_image
    monkeypatch.setattr(demo, "draw_image", draw)
    with pytest.raises(KeyboardInterrupt):
        write("faces", out, **SMALL)
    assert not (out / "DEMO.json").exists()
    assert (out / "DEMO.json.partial").is_file()
    assert len(contents(out)) == 9
    # What a killed process leaves, and what a user may have put there.
    leftover = out / "alma_quill" / ".0001.jpg.4711.part"
    leftover.write_bytes(b"half")
    own = out / "alma_quill" / "notes.txt"
    own.write_text("mine")
    monkeypatch.setattr(demo, "draw_image", original)
    with pytest.raises(InputError, match="seed 0"):
        write("faces", out, **SMALL, seed=1)
    assert write("faces", out, **SMALL)
    assert contents(out) == contents(tmp_path / "whole")
    assert (out / "DEMO.json").is_file()
    assert not (out / "DEMO.json.partial").exists()
    assert not leftover.exists()
    assert own.read_text() == "mine"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="choose a new or empty folder"):
        write("faces", tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


def test_another_demo_set_is_refused(tmp_path: Path) -> None:
    write("paintings", tmp_path, count=1, size=16, processes=1)
    for kind, changes in (("faces", {}), ("paintings", {"seed": 1})):
        with pytest.raises(InputError, match="says that it holds") as caught:
            write(kind, tmp_path, count=1, size=16, processes=1, **changes)
        assert "\n" not in str(caught.value)
    (tmp_path / "DEMO.json").write_text("{")
    with pytest.raises(InputError, match="that cannot be told"):
        write("paintings", tmp_path, count=1, size=16, processes=1)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match="is a file"):
        write("faces", path, **SMALL)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "cats"}, "`kind` cats"),
        ({"count": 0}, "`count` 0"),
        ({"size": 8}, "`size` 8"),
        ({"size": 5000}, "`size` 5000"),
        ({"seed": -1}, "`seed` -1"),
    ],
)
def test_bad_parameters_are_named(change: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        write(**{"kind": "faces", "out": tmp_path / "x"} | change)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_one_line_and_no_complete_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", fsync)
    with pytest.raises(
        InputError, match=r"No space left on device.*free some"
    ) as error:
        write("faces", tmp_path / "set", **SMALL)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set" / "DEMO.json").exists()


def test_pairs_show_the_same_and_any_number_can_be_drawn(tmp_path: Path) -> None:
    face = demo.draw_image("comics", "face", 5, size=64).astype(float)
    comic = demo.draw_image("comics", "comic", 5, size=64)
    other = demo.draw_image("comics", "comic", 6, size=64)
    assert np.abs(comic - face).mean() < 0.6 * np.abs(other - face).mean()
    write("comics", tmp_path / "a", count=3, size=16, processes=1)
    write("comics", tmp_path / "b", count=5, size=16, processes=2)
    fewer, more = contents(tmp_path / "a"), contents(tmp_path / "b")
    names = [f"{name}/{i:04d}.jpg" for name in ("comic", "face") for i in range(5)]
    assert sorted(more) == names
    assert fewer == {name: more[name] for name in fewer}


def test_raw_pixels_do_not_give_the_faces_away() -> None:
    """Ridge regression on 32×32 pixels: better than chance (.08), far from perfect."""
    names = list(demo.KINDS["faces"].counts)
    count, trained = 84, 70
    images = np.stack(
        [
            demo.draw_image("faces", name, index, size=32)
            for name in names
            for index in range(count)
        ]
    )
    x = images.reshape(len(images), -1).astype(np.float64) / 255
    label = np.repeat(np.arange(len(names)), count)
    train = np.tile(np.arange(count) < trained, len(names))
    centered = x - x[train].mean(0)
    kernel = centered @ centered[train].T
    target = np.eye(len(names))[label]
    accuracies = []
    for ridge in (10.0, 100.0, 1000.0):
        penalty = ridge * np.eye(train.sum())
        weights = np.linalg.solve(kernel[train] + penalty, target[train] - 1 / 12)
        accuracies.append(
            np.mean((kernel[~train] @ weights).argmax(1) == label[~train])
        )
    assert 0.3 <= max(accuracies) <= 0.75


def test_contact_sheet_has_a_row_a_class(tmp_path: Path) -> None:
    write("paintings", tmp_path / "set", count=3, size=16, processes=1)
    sheet = demo.contact_sheet(tmp_path / "set", per_class=4, tile=32)
    rows = len(PAINTERS)
    assert sheet.height > rows * 32
    assert sheet.width > 5 * 32
    with pytest.raises(InputError, match="no class folders"):
        demo.contact_sheet(tmp_path / "nothing")


def test_a_sheet_is_written_too(tmp_path: Path) -> None:
    config = demo.DemoConfig("faces", tmp_path / "set", count=1, size=16, processes=1)
    sheet = tmp_path / "sheet.png"
    written = demo.write_demo(dataclasses.replace(config, contact_sheet=sheet))
    assert written.drawn
    assert written.counts == dict.fromkeys(demo.KINDS["faces"].counts, 1)
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    missing = tmp_path / "missing" / "sheet.png"
    with pytest.raises(InputError, match="missing"):
        demo.write_demo(dataclasses.replace(config, contact_sheet=missing))


def test_two_at_once_draw_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(write, "faces", tmp_path, **SMALL) for _ in range(2)]
        assert sorted(call.result() for call in calls) == [False, True]
    assert len(contents(tmp_path)) == 24
    assert not list(tmp_path.rglob("*part*"))


def test_sets_that_stand_in_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(storage.CACHE_VARIABLE, "/somewhere")
    assert demo.demo_folder("faces") == Path("/somewhere/demo/faces")
