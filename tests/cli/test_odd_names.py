"""Names of files and classes as people and other systems have them."""

import csv
import json
import os
import unicodedata
from pathlib import Path

import pytest
from drawn_images import write_images

from jaxvision.cli.main import main
from jaxvision.storage import CACHE_VARIABLE

SMALL = (
    *("--network", "mlp", "--option", "hidden=4", "--image-size", "8"),
    *("--epochs", "1", "--batch-size", "8"),
)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path / "photos", per_class=6, size=12)


def report_of(run: Path) -> str:
    return (run / "report.md").read_text("utf-8")


def test_long_names_of_files_and_classes(photos, tmp_path, capsys):
    longest = "b" * 255
    (photos / "blue").rename(photos / longest)
    first = min((photos / "red").iterdir())
    first.rename(first.with_name(f"{'r' * 240}\n\x1b[31m.png"))
    main(["train", str(photos), *SMALL])
    printed = capsys.readouterr()
    run = Path(printed.out.splitlines()[-1])
    assert f"{longest[:40]}…{longest[:19]}" in printed.out  # classes: ...
    assert max(map(len, printed.out.splitlines())) < 200
    # What is written for programs is whole, tables are not.
    assert longest in (run / "splits-seed-0.csv").read_text("utf-8")
    assert longest not in report_of(run)
    (checkpoint,) = Path("checkpoints/train").iterdir()
    main(["evaluate", str(checkpoint)])
    main(["predict", str(checkpoint), str(photos)])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert len([line for line in printed.out.splitlines() if "photos/" in line]) == 18
    image = photos / "red" / f"{'ä' * 125}.png"
    (photos / "red/01.png").rename(image)
    main(["explain", str(checkpoint), str(image), "--method", "gradient"])
    main(["report"])
    assert longest not in Path("runs/report.html").read_text("utf-8")


def test_classes_of_500_characters_in_a_csv(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    names = {"blue": "x" * 499 + "1", "green": "x" * 499 + "2", "red": "=cmd()\x1b[31m"}
    with Path("labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted(photos.glob("*/*.png")):
            row = [str(path.relative_to(tmp_path)), names[path.parent.name]]
            writer.writerow(row)
    main(["train", "--data.labels", "labels.csv", *SMALL])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    report = report_of(Path(printed.out.splitlines()[-1]))
    assert max(map(len, report.splitlines())) < 2000
    # No set was drawn, for there are images.
    assert not (tmp_path / "cache/demo").exists()
    (card,) = Path("checkpoints/train").rglob("card.json")
    assert json.loads(card.read_text())["classes"] == sorted(names.values())


def test_one_name_in_two_unicode_forms_is_one_class(photos, capsys):
    composed, apart = (unicodedata.normalize(f, "grün") for f in ("NFC", "NFD"))
    (photos / "green").rename(photos / composed)
    (photos / "red").rename(photos / apart)
    main(["train", str(photos), *SMALL])
    printed = capsys.readouterr()
    assert "18 images of 2 classes" in printed.out
    assert "two folders in two Unicode forms" in printed.out + printed.err


@pytest.mark.parametrize("hidden", ["photos", "photos/red", "photos/red/00.png"])
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs permissions of POSIX")
def test_what_cannot_be_read_is_named(photos, hidden, monkeypatch, capsys):
    """As for another user; the tests may be run by one who can read everything."""
    path = photos.parent / hidden
    scandir, open_file = os.scandir, os.open

    def refuse(function):
        def refused(given, *arguments, **options):
            if os.fspath(given) == str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(given, *arguments, **options)

        return refused

    monkeypatch.setattr("os.scandir", refuse(scandir))
    monkeypatch.setattr("os.open", refuse(open_file))
    flags = ["--data.on-bad", "error"] if path.suffix else []
    with pytest.raises(SystemExit) as caught:
        main(["train", str(photos), *SMALL, *flags])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {path}: cannot be ")
    assert "Permission denied" in lines[-1]
    assert not Path("runs").exists()
    assert not Path("checkpoints").exists()
