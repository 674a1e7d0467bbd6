"""Every mode and orientation against golden pixels; every bad file by its reason."""

import contextlib
import dataclasses
import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from jaxvision.data import decode
from jaxvision.data.decode import BadImage, center_crop, decode_image, decode_stored
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

# Four flat quarters, so that neither compression nor resizing changes their middle.
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)
SMALL = Preprocessing(size=(32, 48), resize_mode="stretch")


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def quarters(mode: str = "RGB") -> Image.Image:
    pixels = QUARTERS.repeat(16, 0).repeat(24, 1)
    return Image.fromarray(pixels).convert(mode)


def middles(pixels: np.ndarray) -> np.ndarray:
    """Colors at the middle of the four quarters, `[2, 2, C]` int."""
    rows, columns = pixels.shape[0] // 4, pixels.shape[1] // 4
    return pixels[rows :: 2 * rows, columns :: 2 * columns][:2, :2].astype(int)


def luma(colors: np.ndarray) -> np.ndarray:
    gray = colors @ np.array([0.299, 0.587, 0.114])
    return np.repeat(gray[..., None], 3, -1)


# As EXIF defines them: where row 0 and column 0 of the file belong.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def with_mode(mode: str) -> tuple[Image.Image, str, np.ndarray]:
    """An image of the mode, a lossless format that holds it, its true colors."""
    image = quarters()
    colors = QUARTERS.astype(float)
    if mode == "1":
        return (
            quarters("L").point(lambda v: 255 * (v > 80), "1"),
            "PNG",
            (255.0 * (luma(colors) > 80)),
        )
    if mode in ("L", "LA"):
        return image.convert(mode), "PNG", luma(colors)
    if mode == "P":
        return image.quantize(16), "PNG", colors
    if mode in ("P-tRNS", "P-GIF"):
        palette = image.quantize(16)
        palette.info["transparency"] = palette.getpixel((40, 26))
        colors[1, 1] = 255
        return palette, "PNG" if mode == "P-tRNS" else "GIF", colors
    if mode == "RGB-tRNS":
        image.info["transparency"] = (90, 90, 90)
        colors[1, 1] = 255
        return image, "PNG", colors
    if mode == "RGBA":
        rgba = np.dstack([np.asarray(image), np.full((32, 48), 255, np.uint8)])
        rgba[16:, :24, 3] = 0
        rgba[16:, 24:, 3] = 51
        colors[1, 0] = 255
        colors[1, 1] = 255 * 0.8 + 90 * 0.2
        return Image.fromarray(rgba), "WEBP", colors
    if mode in ("CMYK", "YCbCr"):
        return image.convert(mode), "TIFF", colors
    steps = luma(colors)[..., 0].repeat(16, 0).repeat(24, 1)
    if mode == "I;16":
        values = (steps * 257).astype(np.uint16)
    elif mode == "I":
        values = (steps * 257).astype(np.int32)
    else:
        values = (steps / 255).astype(np.float32)
    format = "PNG" if mode == "I;16" else "TIFF"
    return Image.fromarray(values), format, luma(colors)


MODES = ["1", "L", "LA", "P", "P-tRNS", "P-GIF", "RGB-tRNS", "RGBA"]
MODES += ["CMYK", "YCbCr", "I;16", "I", "F"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_orientation(mode: str, orientation: int) -> None:
    image, format, colors = with_mode(mode)
    if format == "GIF":
        if orientation > 1:
            pytest.skip("GIF has no EXIF")
        options = {}
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif}
    if format == "WEBP":
        options |= {"lossless": True, "exact": True}
    data = encoded(image, format, **options)
    pixels = decode_image(data, SMALL)
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    difference = middles(pixels) - UPRIGHT[orientation](colors)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_drafted_jpeg(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = quarters().resize((1200, 800), Image.Resampling.NEAREST)
    pixels = decode_image(encoded(big, "JPEG", quality=95, exif=exif), SMALL)
    difference = middles(pixels) - UPRIGHT[orientation](QUARTERS.astype(int))
    assert np.abs(difference).max() <= 3


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, 0)
    pixels = decode_image(
        encoded(Image.fromarray(ramp)),
        Preprocessing(size=(8, 256), resize_mode="stretch"),
    )
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(256))


@pytest.mark.parametrize("white", [255, 65535, 2**31 - 1])
def test_wide_integers_are_scaled_by_their_range(white: int) -> None:
    values = np.array([[0, white // 3], [white, -5]], np.int32)
    data = encoded(Image.fromarray(values.repeat(8, 0).repeat(8, 1)), "TIFF")
    pixels = decode_image(data, Preprocessing(size=(16, 16), resize_mode="stretch"))
    assert middles(pixels)[..., 0].tolist() == [[0, 85], [255, 0]]


def test_adobe_cmyk_jpeg_is_not_inverted() -> None:
    pixels = decode_image(
        encoded(quarters("CMYK"), "JPEG", quality=95, subsampling=0), SMALL
    )
    assert np.abs(middles(pixels) - QUARTERS.astype(int)).max() <= 3


def test_gray_is_one_channel_of_luma() -> None:
    gray = Preprocessing(size=(32, 48), resize_mode="stretch", gray=True)
    for format in ("PNG", "JPEG"):
        pixels = decode_image(encoded(quarters(), format), gray)
        assert pixels.shape == (32, 48, 1)
        expected = luma(QUARTERS.astype(float))[..., :1]
        assert np.abs(middles(pixels) - expected).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_whatever_its_name(tmp_path: Path, format: str) -> None:
    path = tmp_path / "wrong.xyz"
    path.write_bytes(encoded(quarters(), format))
    assert np.abs(middles(decode_image(path, SMALL)) - QUARTERS).max() <= 60


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for format in ("GIF", "WEBP", "TIFF"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        red, _, blue = decode_image(data, SMALL)[5, 5]
        assert red > 240, format
        assert blue < 15, format


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_no_image() -> None:
    data = encoded(
        quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 9
    )
    assert decode_image(data, SMALL).shape == (32, 48, 3)


# Geometry.


def gradient(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (71, 71), (64, 133), (70, 110)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_agrees_with_torchvision(
    size: tuple[int, int], interpolation: str
) -> None:
    # torchvision.transforms.functional: resize, center_crop, written out.
    image = gradient(*size)
    width, height = size
    if width <= height:
        new = (40, int(40 * height / width))
    else:
        new = (int(40 * width / height), 40)
    resized = np.asarray(image.resize(new, decode.RESAMPLING[interpolation]))
    top, left = round((new[1] - 32) / 2.0), round((new[0] - 33) / 2.0)
    expected = resized[top : top + 32, left : left + 33]
    preprocessing = Preprocessing(
        size=(32, 33), resize_mode="crop", resize=40, interpolation=interpolation
    )
    pixels = decode_image(encoded(image), preprocessing)
    if max(new) <= 80:
        np.testing.assert_array_equal(pixels, expected)
    else:
        assert np.abs(pixels.astype(int) - expected).mean() < 1


def test_crop_stores_the_shorter_side_and_bounds_the_longer() -> None:
    preprocessing = Preprocessing(size=(32, 32), resize_mode="crop", resize=40)
    for size, stored in [
        ((80, 60), (40, 53)),
        ((30, 3000), (80, 40)),
        ((1, 1), (40, 40)),
    ]:
        data = encoded(gradient(*size))
        assert decode_stored(data, preprocessing).shape == (*stored, 3)
        assert decode_image(data, preprocessing).shape == (32, 32, 3)


def test_very_long_images_keep_their_center() -> None:
    strip = np.zeros((20, 1000, 3), np.uint8)
    strip[:, 490:510] = 255
    preprocessing = Preprocessing(size=(16, 16), resize_mode="crop", resize=20)
    pixels = decode_image(encoded(Image.fromarray(strip)), preprocessing)
    assert pixels.min() > 250


def test_stretch_is_one_resize() -> None:
    image = gradient(70, 90)
    expected = image.resize((48, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_image(encoded(image), SMALL), expected)


@pytest.mark.parametrize(
    ("size", "bars"), [((100, 50), "rows"), ((50, 100), "columns"), ((5000, 2), "rows")]
)
def test_pad_has_black_bars(size: tuple[int, int], bars: str) -> None:
    preprocessing = Preprocessing(size=(32, 32), resize_mode="pad")
    pixels = decode_image(encoded(Image.new("RGB", size, "white")), preprocessing)
    pixels = pixels if bars == "rows" else pixels.swapaxes(0, 1)
    inner = max(1, round(32 * min(size) / max(size)))
    top = (32 - inner) // 2
    assert (pixels[top : top + inner] == 255).all()
    assert (pixels[:top] == 0).all()
    assert (pixels[top + inner :] == 0).all()


def test_center_crop_is_the_second_half_of_decode_image() -> None:
    data, preprocessing = encoded(gradient(70, 90)), Preprocessing((32, 32), resize=40)
    stored = decode_stored(data, preprocessing)
    np.testing.assert_array_equal(
        center_crop(stored, preprocessing), decode_image(data, preprocessing)
    )


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="resize 20 is smaller than the crop"):
        decode_image(encoded(quarters()), Preprocessing((32, 32), resize=20))


# Draft.


def test_draft_is_close_to_the_full_decode(shared_data: Path) -> None:
    files = sorted((shared_data / "facescrub" / "raw").iterdir())[::40]
    files += sorted((shared_data / "imagenet_sample").glob("*.jpg"))[::10]
    means, drafted = [], 0
    for size, resize in ((112, 128), (32, 36)):
        preprocessing = Preprocessing(size=(size, size), resize=resize)
        for file in files:
            quick = decode_image(file, preprocessing).astype(int)
            full = decode_image(file, preprocessing, draft=False).astype(int)
            drafted += bool((quick != full).any())
            means.append(np.abs(quick - full).mean())
    assert drafted > 10
    assert np.mean(means) < 0.5
    assert np.max(means) < 1.5


def test_a_gray_draft_is_the_luma_of_the_file(shared_data: Path) -> None:
    gray = Preprocessing(size=(64, 64), resize_mode="stretch", gray=True)
    for file in sorted((shared_data / "real_faces").glob("*.jpg"))[::25]:
        luma = decode_image(file, gray)[..., 0].astype(float)
        colors = decode_image(file, dataclasses.replace(gray, gray=False))
        expected = colors @ [0.299, 0.587, 0.114]
        assert np.abs(luma - expected).mean() < 0.6
        assert np.abs(luma - expected).max() < 8


def test_draft_keeps_twice_the_pixels_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *args, **kwargs: (
            loaded.append(self.size) or resize(self, *args, **kwargs)
        ),
    )
    data = encoded(gradient(1600, 800), "JPEG")
    for mode, expected in [
        ("crop", (400, 200)),
        ("stretch", (400, 200)),
        ("pad", (200, 100)),
    ]:
        loaded.clear()
        decode_image(data, Preprocessing((80, 80), resize_mode=mode, resize=90))
        assert loaded == [expected], mode


# Bad images.


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(quarters())[33:]


def bad_files() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encoded(gradient(200, 200), "JPEG"), encoded(gradient(200, 200))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1
    return {
        "empty": (b"", "empty"),
        "html called .jpg": (b"<html>not found</html>", "not an image"),
        "pdf": (b"%PDF-1.4 ...", "not an image"),
        "other format": (encoded(quarters(), "ICO"), "not an image .* but icon"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "damaged or cut short"),
        "truncated png": (png[: len(png) // 2], "damaged or cut short"),
        "truncated gif": (encoded(gradient(64, 64), "GIF")[:900], "damaged"),
        "truncated webp": (encoded(gradient(64, 64), "WEBP")[:200], "damaged|not a"),
        "truncated tiff": (encoded(gradient(64, 64), "TIFF")[:900], "damaged"),
        "truncated bmp": (encoded(gradient(64, 64), "BMP")[:900], "damaged"),
        "header only": (jpeg[:12], "damaged or cut short"),
        "flipped bit": (bytes(flipped), "damaged or cut short"),
        "bomb": (png_header(50_000, 50_000), "decompression bomb"),
        "bomb at warning level": (png_header(10_000, 10_000), "decompression bomb"),
        "not finite": (
            encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
            "not finite",
        ),
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", bad_files())
def test_bad_images_are_named_with_a_reason(tmp_path: Path, name: str) -> None:
    data, reason = bad_files()[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=reason) as caught:
        decode_image(path, SMALL)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(BadImage, match="bytes: "):
        decode_image(data, SMALL)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bombs_are_bad_where_warnings_are_errors() -> None:
    with pytest.raises(BadImage, match="decompression bomb"):
        decode_image(png_header(10_000, 10_000), SMALL)


def test_unreadable_files_are_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        decode_image(tmp_path / "none.png", SMALL)
    with pytest.raises(BadImage, match="cannot be read"):
        decode_image(tmp_path, SMALL)
    (tmp_path / "big.png").write_bytes(encoded(quarters()))
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 10)
    with pytest.raises(BadImage, match="more than 10 bytes"):
        decode_image(tmp_path / "big.png", SMALL)


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    formats = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    for format, _ in itertools.product(formats, range(60)):
        options = {} if format in ("BMP", "GIF") else {"exif": exif}
        data = bytearray(encoded(gradient(40, 30), format, **options))
        for place in rng.integers(0, min(len(data), 300), 3):
            data[place] = rng.integers(256)
        data = data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data
        with contextlib.suppress(BadImage):
            assert decode_image(bytes(data), SMALL).shape == (32, 48, 3)


# The bounds of `limits`: each refuses by name before it costs anything.


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_of(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + png_chunk(b"IEND", b"")
    )


def many_scans(count: int, size: int = 16) -> bytes:
    """A progressive JPEG whose last scan stands many times."""
    data = encoded(gradient(size, size), "JPEG", progressive=True)
    begin, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:begin] + data[begin:end] * count + data[end:]


def test_a_palette_image_without_palette_is_bad() -> None:
    data = png_of(1, 1, 8, 3, b"\0\0")
    assert len(data) < 80
    for preprocessing in (SMALL, dataclasses.replace(SMALL, gray=True)):
        with contextlib.suppress(BadImage):
            assert decode_image(data, preprocessing).shape[:2] == (32, 48)


def test_whatever_decoding_raises_is_a_bad_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(quarters())

    def broken(*_: object) -> None:
        raise AssertionError

    for stage in ("_to_eight_bits", "_resize", "_check_cost"):
        with monkeypatch.context() as patch:
            patch.setattr(decode, stage, broken)
            with pytest.raises(BadImage, match=r"cut short .AssertionError"):
                decode_image(data, SMALL)
    # What is no fault of the image is not.
    monkeypatch.setattr(decode, "_resize", lambda *_: bytearray(-1 & (1 << 62)))
    with pytest.raises((MemoryError, OverflowError)):
        decode_image(data, SMALL)


def test_scans_of_a_jpeg_are_counted() -> None:
    plain = encoded(gradient(16, 16), "JPEG")
    assert decode.count_scans(plain) == 1
    usual = encoded(gradient(16, 16), "JPEG", progressive=True)
    assert decode.count_scans(usual) == 10
    # A thumbnail's scans are none of the image's.
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 200
    with_exif = encoded(gradient(16, 16), "JPEG", exif=exif)
    assert decode.count_scans(with_exif) == 1
    assert decode_image(many_scans(50), SMALL).shape == (32, 48, 3)
    with pytest.raises(BadImage, match="101 scans in a JPEG"):
        decode_image(many_scans(10_000), SMALL)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_counts_bytes() -> None:
    header = struct.pack(">IIBBBBB", 8000, 8000, 16, 0, 0, 0, 0)
    gray = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    # 64 million pixels: 128 MB at 16 bits are within, and end where the file does.
    with pytest.raises(BadImage, match="damaged or cut short"):
        decode_image(gray + png_chunk(b"IDAT", zlib.compress(b"")), SMALL)
    floats = io.BytesIO()
    Image.new("F", (9000, 9000)).save(floats, "TIFF", compression="tiff_deflate")
    assert len(floats.getvalue()) < 1_000_000
    with pytest.raises(BadImage, match="takes more than 268,435,456 bytes"):
        decode_image(floats.getvalue(), SMALL)
    text = b"P3 1500 1500 255 " + b"0 0 0 " * 1500 * 1500
    with pytest.raises(BadImage, match="plain PPM of more than"):
        decode_image(text, SMALL)


def test_large_images_are_converted_by_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    alpha = Image.fromarray(rng.integers(0, 256, (50, 40, 4), np.uint8), "RGBA")
    deep = Image.fromarray(rng.integers(0, 65536, (50, 40)).astype(np.uint16))
    real = Image.fromarray(rng.random((50, 40), np.float32))
    files = [encoded(alpha), encoded(deep), encoded(real, "TIFF")]
    whole = [decode_image(data, SMALL) for data in files]
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 300)
    for data, expected in zip(files, whole, strict=True):
        np.testing.assert_array_equal(decode_image(data, SMALL), expected)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    geometry = Preprocessing(size=(48, 32), resize_mode="stretch")
    upright = decode_image(encoded(gradient(40, 30).rotate(-90, expand=True)), geometry)
    data = encoded(gradient(40, 30), "AVIF", exif=exif, quality=100)
    turned = decode_image(data, geometry)
    difference = np.abs(turned.astype(int) - upright)
    assert difference.mean() < 10 < np.abs(turned[::-1].astype(int) - upright).mean()
