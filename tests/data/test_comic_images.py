"""The comic filter: flat, few colors, dark outlines; and the folders it writes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from jaxvision.data import comics, decode
from jaxvision.data.demo import draw_image
from jaxvision.data.demo.faces import PEOPLE
from jaxvision.errors import InputError

FACES = [
    draw_image("faces", name, index, size=256)
    for index, name in enumerate(list(PEOPLE)[:4])
]


def in_few_colors(image: np.ndarray) -> float:
    """Share of the pixels that have one of the most common `COLORS` + 1."""
    _, counts = np.unique(image.reshape(-1, 3) // 4, axis=0, return_counts=True)
    return np.sort(counts)[-comics.COLORS - 1 :].sum() / counts.sum()


@pytest.mark.parametrize("face", FACES)
def test_flat_areas_few_colors_dark_lines(face: np.ndarray) -> None:
    comic = comics.draw_comic(face)
    assert comic.shape == face.shape
    assert comic.dtype == np.uint8
    assert in_few_colors(comic) > 0.9 > 0.6 > in_few_colors(face)
    # Most neighbors are equal in a comic, hardly any in a photograph.
    same = (comic[:, 1:] == comic[:, :-1]).all(2).mean()
    assert same > 0.8 > 0.5 > (face[:, 1:] == face[:, :-1]).all(2).mean()
    ink = np.abs(comic.astype(int) - comics.INK).max(2) < 8
    assert 0.005 < ink.mean() < 0.3
    # It still shows the same, and edges stay where they were.
    assert np.abs(comic.astype(int) - face).mean() < 40
    np.testing.assert_array_equal(comic, comics.draw_comic(face))


def test_an_edge_stays_sharp_where_a_blur_would_soften_it() -> None:
    step = np.zeros((64, 64, 3), np.float32)
    step[:, 32:] = 200
    noisy = step + np.random.default_rng(0).normal(0, 8, step.shape).astype("f")
    smooth = comics._smooth(comics._smooth(noisy))
    assert np.abs(smooth - step).mean() < np.abs(noisy - step).mean() / 2
    rise = smooth[:, 32].mean() - smooth[:, 31].mean()
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), float)
    assert rise > 150 > soft[:, 32].mean() - soft[:, 31].mean()


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (7, 300), (301, 255)])
def test_any_shape(size: tuple[int, int]) -> None:
    face = np.asarray(Image.fromarray(FACES[0]).resize(size[::-1]))
    assert comics.draw_comic(face).shape == (*size, 3)


def fill(folder: Path) -> None:
    folder.mkdir()
    for index, face in enumerate(FACES[:3]):
        name = f"{index}.{('jpg', 'png')[index % 2]}"
        Image.fromarray(face).resize((50, 40)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(b"")


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_folder_of_faces_becomes_pairs(tmp_path: Path) -> None:
    fill(tmp_path / "faces")
    (tmp_path / "faces" / "9.jpg").write_bytes(b"broken")
    out = tmp_path / "set"
    config = comics.ComicsConfig(tmp_path / "faces", out)
    written = comics.write_comics(config)
    assert written.pairs == 3
    (bad,) = written.bad
    assert "9.jpg: not an image" in str(bad)
    assert sorted(contents(out)) == [
        *(f"comic/{i}.jpg" for i in range(3)),
        *("face/0.jpg", "face/1.png", "face/2.jpg"),
    ]
    for path in (out / "face").iterdir():
        assert path.read_bytes() == (tmp_path / "faces" / path.name).read_bytes()
    with Image.open(out / "comic" / "1.jpg") as comic:
        assert comic.size == (50, 40)
    # What a kill leaves is completed, the rest is left alone.
    before = contents(out)
    (out / "face" / "2.jpg").unlink()
    (out / "comic" / ".2.jpg.4711.part").write_bytes(b"half")
    time = (out / "comic" / "0.jpg").stat().st_mtime_ns
    comics.write_comics(dataclasses.replace(config, processes=2))
    assert contents(out) == before
    assert (out / "comic" / "0.jpg").stat().st_mtime_ns == time


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    def write(folder: str, **options: int) -> None:
        config = comics.ComicsConfig(tmp_path / folder, tmp_path / "out", **options)
        comics.write_comics(config)

    with pytest.raises(InputError, match="no such folder"):
        write("none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in it"):
        write("empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="no image can be read; the first: "):
        write("empty")
    (tmp_path / "empty" / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would be one pair"):
        write("empty")
    fill(tmp_path / "faces")
    with pytest.raises(InputError, match="`processes` 0"):
        write("faces", processes=0)


def test_real_faces(shared_data: Path) -> None:
    path = sorted((shared_data / "real_faces").glob("*.jpg"))[7]
    face = decode.decode_whole(path)
    comic = comics.draw_comic(face)
    assert in_few_colors(comic) > 0.9 > 0.6 > in_few_colors(face)
    assert np.abs(comic.astype(int) - face).mean() < 40
