"""`jaxvision data facescrub`: its table, its hints, and how it ends."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.cli.main import main


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with one published file, and a list beside it with three lines: that of
    a face, one of a file that is not there, and half a line."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / digest).write_bytes(buffer.getvalue())
    lines = [
        f"[red]Ada[/red]\t101\t1\thttp://localhost/a.jpg\t5,6,25,28\t{digest}",
        f"[red]Ada[/red]\t102\t2\thttp://localhost/b.jpg\t5,6,25,28\t{'0' * 64}",
        "half a line",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return folder


def flags(raw: Path) -> list[str]:
    folder = raw.parent
    return [
        *("data", "facescrub", str(folder / "list.txt")),
        *("--raw", str(raw), "--no-download", "--out", str(folder / "out")),
    ]


def test_prints_table_malformed_lines_and_folder(raw, capsys):
    main(flags(raw))
    printed = capsys.readouterr()
    assert f"{raw.parent / 'list.txt'}:3: 1 fields" in printed.err
    *table, hint, last = printed.out.splitlines()
    assert last == str(raw.parent / "out")
    assert "the next call asks" in hint
    # The name is no markup.
    counts = [line.split()[1:] for line in table if line.strip().startswith("[red]")]
    assert counts == [["1", "1", "0", "0", "0", "2"]]
    assert len(list((raw.parent / "out").rglob("*.png"))) == 1


def test_list_that_is_missing_is_one_line(tmp_path, capsys):
    arguments = [str(tmp_path / "gone.txt"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main(["data", "facescrub", *arguments])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_interrupt_names_the_way_on(raw, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxvision.data.facescrub.prepare_facescrub", interrupt)
    with pytest.raises(SystemExit) as caught:
        main(flags(raw))
    assert caught.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
