"""Images within a page: sharp where they are drawn, small where they are not."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.decode import BadImage
from jaxvision.report.images import MAX_SIZE, SHOWN, embed


def embedded_pixels(path):
    embedded = embed(path)
    kind, _, encoded = embedded.uri.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        shown = tuple(round(SHOWN * length) for length in image.size)
        assert (embedded.width, embedded.height) == shown
        return np.asarray(image.convert("RGB"))


def test_drawings_are_kept_exactly(tmp_path):
    drawing = np.full((80, 120, 3), 255, np.uint8)
    drawing[20:22, 10:100] = (0, 114, 178)
    drawing[30:60, 40:41] = 0
    Image.fromarray(drawing).save(tmp_path / "a.png")
    assert np.array_equal(embedded_pixels(tmp_path / "a.png"), drawing)


def test_photographs_become_small(tmp_path):
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
    photograph = np.asarray(rough.resize((400, 300), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 6, photograph.shape)
    photograph = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(photograph).save(path)
    assert len(embed(path).uri) < path.stat().st_size / 2
    error = np.abs(embedded_pixels(path).astype(int) - photograph).mean()
    assert error < 8


def test_large_images_are_made_smaller(tmp_path):
    Image.new("RGB", (3 * MAX_SIZE[0], 900), "white").save(tmp_path / "a.png")
    embedded = embed(tmp_path / "a.png")
    assert (embedded.width, embedded.height) == (SHOWN * MAX_SIZE[0], SHOWN * 300)


def test_transparent_places_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert embedded_pixels(tmp_path / "a.png").min() == 255


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    for name in ("a.png", "missing.png"):
        with pytest.raises(BadImage, match=name):
            embed(tmp_path / name)


def test_an_image_that_is_a_bomb_is_refused(tmp_path):
    # As the confusion matrix of 530 classes once was; a bit a pixel.
    Image.new("1", (20_450, 20_380)).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="decompression bomb"):
        embed(tmp_path / "a.png")
