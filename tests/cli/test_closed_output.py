"""Whoever reads a command's output may go at any time: no work is lost."""

import os
import threading
from pathlib import Path

import pytest
from drawn_images import write_images

from jaxvision.cli.main import main


def test_a_training_whose_reader_goes_is_saved_and_names_the_way_on(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    photos = write_images(tmp_path / "photos", per_class=6, size=12)
    readable, writable = os.pipe()

    def read_three_lines() -> None:
        with os.fdopen(readable) as lines:
            for _ in range(3):
                lines.readline()

    reader = threading.Thread(target=read_three_lines)
    reader.start()
    flags = "--network mlp --option hidden=4 --image-size 8 --epochs 1 --batch-size 8"
    with (
        os.fdopen(writable, "w", buffering=1) as output,
        monkeypatch.context() as patch,
    ):
        patch.setattr("sys.stdout", output)
        with pytest.raises(SystemExit) as caught:
            main(["train", str(photos), *flags.split()])
    reader.join()
    assert caught.value.code == 141
    (checkpoint,) = Path("checkpoints/train").iterdir()
    said = f"interrupted; continue with: jaxvision train --resume {checkpoint}"
    assert capfd.readouterr().err.splitlines()[-1] == said
    assert list(checkpoint.glob("seed-0/best-*"))
