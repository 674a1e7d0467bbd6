"""An image file becomes uint8 pixels of the network's geometry, or a named reason.

Two stages, so that training can crop at random where evaluation crops the center:
`decode_stored` reads the file and resizes it (the slow part, done once an image),
`center_crop` cuts the center for `crop` (the quick part, done at each use).
`decode_image` is both.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from jaxvision.data.limits import (
    CODEC_BYTES,
    MAX_CODEC_BYTES,
    MAX_DECODED_BYTES,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    MAX_PLAIN_BYTES,
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
)
from jaxvision.data.sniff import (
    FORMATS,
    HEIC_FIX,
    HEIF,
    has_heif,
    open_regular,
    sniff,
)
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

MAX_ASPECT = 2
"""For `crop`, a longer side above this many shorter ones is cut around the center, so
that the memory an image takes is bounded."""

DRAFT_MARGIN = 2
"""JPEGs are decoded at a reduced scale only where that leaves at least this many times
the pixels wanted on each side, so that the resize that follows still antialiases."""

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""

_TURNED = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
"""Those that exchange width and height."""


class BadImage(ValueError):
    """An image that can't be used.

    Attributes:
      path: the file, or "bytes" for an image in memory.
      reason: one line for a person.
    """

    def __init__(self, path: str, reason: str) -> None:
        # Both to the base class, which makes it anew where another process sent it.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def decode_image(
    source: Path | bytes, preprocessing: Preprocessing, *, draft: bool = True
) -> np.ndarray:
    """Reads one image in the geometry that the network is evaluated with.

    Args:
      source: a file or its content.
      preprocessing: size, resize_mode, interpolation and gray are used.
      draft: decode a JPEG that is much larger than needed at a reduced scale.

    Returns:
      `[H, W, C]` uint8 of `preprocessing.size`, C = 3 (RGB) or 1 (`gray`).

    Raises:
      BadImage: nothing usable in it; its `reason` says why.
    """
    return center_crop(decode_stored(source, preprocessing, draft=draft), preprocessing)


def decode_stored(
    source: Path | bytes, preprocessing: Preprocessing, *, draft: bool = True
) -> np.ndarray:
    """Reads one image up to the point where augmentation may begin.

    Args and errors are those of `decode_image`.

    Returns:
      `[h, w, C]` uint8. For `stretch` and `pad` of `preprocessing.size`; for `crop`
      the shorter side is `resize` and the longer one at most `MAX_ASPECT` times that.
    """
    check_geometry(preprocessing)
    with _reading(source) as data:
        image, extent, upright = open_image(data, preprocessing if draft else None)
        mode = "L" if preprocessing.gray else "RGB"
        image = _converted(_to_eight_bits(image), mode)
        height, width = preprocessing.size
        # Turned after the resize: fewer pixels, and `extent` is in the file's
        # directions.
        size = (height, width) if upright in _TURNED else (width, height)
        image = _resize(image, extent, size, preprocessing)
        if upright is not None:
            image = image.transpose(upright)
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)


def read_stored(
    root: Path, preprocessing: Preprocessing, image: str
) -> tuple[str, np.ndarray | BadImage]:
    """One image of a folder, from there to `decode_stored`.

    Returns:
      SHA-256 of the file, empty where it can't be read, and `[h, w, C]` uint8, or what
      is wrong.
    """
    path, digest = root / image, ""
    try:
        _, data = read_file(path)
        digest = hashlib.sha256(data).hexdigest()
        return digest, decode_stored(data, preprocessing)
    except BadImage as bad:
        return digest, BadImage(str(path), bad.reason)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without the warnings of Pillow: of bombs, which are refused by name here, and of
    odd metadata, which cost no image. Not for use in several threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode_whole(source: Path | bytes) -> np.ndarray:
    """Reads one image in its own size, upright: `[H, W, 3]` uint8.

    Args and errors are those of `decode_image`.
    """
    with _reading(source) as data:
        image, _, upright = open_image(data, None)
        image = _converted(_to_eight_bits(image), "RGB")
        return np.asarray(image if upright is None else image.transpose(upright))


def center_crop(stored: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Cuts the center for `crop`; leaves `stretch` and `pad` as they are.

    Args:
      stored: `[h, w, C]` uint8 from `decode_stored`.
      preprocessing: the same that it was decoded with.

    Returns:
      `[H, W, C]` uint8 of `preprocessing.size`, a view of `stored`. The center is
      rounded as in torchvision's CenterCrop, whose networks this is to agree with.
    """
    height, width = preprocessing.size
    top = round((stored.shape[0] - height) / 2)
    left = round((stored.shape[1] - width) / 2)
    return stored[top : top + height, left : left + width]


def read_file(path: Path) -> tuple[str, bytes]:
    """Name and content of a file; `BadImage` where it can't be read, is huge, or is a
    pipe, a device or a socket, which are never opened to be read."""
    try:
        with open(open_regular(path), "rb", buffering=0) as file:
            # At most that, also of a file that grows.
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadImage(str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise BadImage(str(path), f"has more than {MAX_FILE_BYTES:,} bytes")
    return str(path), content


def check_geometry(preprocessing: Preprocessing) -> None:
    """Raises `InputError` for a center crop that is larger than what it is cut from."""
    if preprocessing.resize_mode == "crop" and preprocessing.resize < max(
        preprocessing.size
    ):
        raise InputError(
            f"resize {preprocessing.resize} is smaller than the crop of "
            f"{preprocessing.size}: raise resize, or choose resize_mode stretch or pad"
        )


@contextmanager
def _reading(source: Path | bytes) -> Iterator[bytes]:
    """The content of a source; whatever its decoding raises is a `BadImage` with its
    name, but for what is no fault of the image."""
    name, data = ("bytes", source) if isinstance(source, bytes) else read_file(source)
    try:
        yield data
    except BadImage as bad:
        raise BadImage(name, bad.reason) from bad.__cause__
    except Image.UnidentifiedImageError as error:
        raise BadImage(name, _unidentified(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(name, _TOO_MANY_PIXELS) from error
    except MemoryError:
        raise
    # Pillow's parsers raise what they happen to raise on a damaged file (OSError,
    # SyntaxError, struct.error, AssertionError, ...): here each means the same.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(name, f"damaged or cut short ({text})") from error


_TOO_MANY_PIXELS = f"more than {MAX_PIXELS:,} pixels: it could be a decompression bomb"


def _unidentified(data: bytes) -> str:
    kind = sniff(data[:64])
    if kind == HEIF and not has_heif():
        return f"a HEIC image: {HEIC_FIX}"
    what = f" but {kind}" if kind and kind not in FORMATS else ""
    return f"not an image in one of the formats {', '.join(FORMATS)}{what}"


def open_image(
    data: bytes, wanted: Preprocessing | None
) -> tuple[Image.Image, tuple[float, float], Image.Transpose | None]:
    """Opens, checks against the bounds of `limits`, and fully decodes.

    Args:
      data: content of the file.
      wanted: what a JPEG may be reduced to while it is decoded; None: not at all.

    Returns:
      The image as it lies in the file, of any Pillow mode; its width and height, which
      end within the last pixels where it was decoded at a reduced scale; what makes it
      upright.

    Raises:
      BadImage: without a name; or whatever Pillow raises.
    """
    if not data:
        raise BadImage("", "the file is empty")
    image = Image.open(io.BytesIO(data), formats=_formats(data))
    _check_cost(image, data)
    drafted = None
    if wanted is not None:
        # As gray: libjpeg then gives its luma as it is, and skips the colors.
        mode = "L" if wanted.gray else None
        drafted = image.draft(mode, _draft_size(wanted, image.size))
    if image.format == "JPEG":
        # In one piece: libjpeg begins a row of blocks anew where its input ends.
        image.decodermaxblock = len(data)
    # Not ImageOps.exif_transpose: it also writes the remaining tags anew, which fails
    # on odd ones. Pillow has turned TIFFs itself once they are loaded.
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    upright = None if image.format == "TIFF" else _UPRIGHT.get(orientation or 1)
    image.load()
    extent = image.size if drafted is None else drafted[1][2:]
    return image, extent, upright


def _formats(data: bytes) -> tuple[str, ...]:
    """The decoders that the file may reach."""
    if sniff(data[:64]) != HEIF or not has_heif():
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, HEIF)


def _check_cost(image: Image.Image, data: bytes) -> None:
    """Raises what is beyond a bound of `limits`."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError
    bytes_per_pixel = _BYTES_PER_PIXEL.get(image.mode, 4)
    if pixels * bytes_per_pixel > MAX_DECODED_BYTES:
        raise BadImage("", f"takes more than {MAX_DECODED_BYTES:,} bytes when decoded")
    cost = CODEC_BYTES.get(image.format or "", 0)
    if pixels * cost > MAX_CODEC_BYTES:
        raise BadImage(
            "",
            f"more than {MAX_CODEC_BYTES // cost:,} pixels, too many for a "
            f"{image.format} image",
        )
    if image.format == "PPM" and data[1:2] in b"123" and len(data) > MAX_PLAIN_BYTES:
        raise BadImage("", f"plain PPM of more than {MAX_PLAIN_BYTES:,} bytes")
    if image.format in ("JPEG", "MPO"):
        scans = count_scans(data)
        if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
            raise BadImage("", f"{scans} scans in a JPEG: it could be a bomb")


_BYTES_PER_PIXEL = {
    **dict.fromkeys(("1", "L", "P"), 1),
    **dict.fromkeys(("LA", "La", "PA", "I;16", "I;16L", "I;16B", "I;16N"), 2),
    **dict.fromkeys(("RGB", "YCbCr", "LAB", "HSV"), 3),
}
"""By Pillow's mode; 4 for others."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def count_scans(data: bytes) -> int:
    """Passes over the pixels in the first image of a JPEG file."""
    scans, position = 0, 2
    while match := _MARKER.search(data, position):
        marker, position = match[0][1], match.end()
        if marker == 0xD9:
            break
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                break
        if marker not in (0x01, 0xD8):
            # What a segment holds, a thumbnail perhaps, is none of the image's.
            position += max(int.from_bytes(data[position : position + 2], "big"), 2)
    return scans


def _draft_size(preprocessing: Preprocessing, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) below which a reduced decode must not fall.

    The file's EXIF orientation may still exchange the sides, so the larger wish holds
    for both.
    """
    if preprocessing.resize_mode == "crop":
        wanted = preprocessing.resize
        return wanted * DRAFT_MARGIN, wanted * DRAFT_MARGIN
    if preprocessing.resize_mode == "stretch":
        wanted = max(preprocessing.size)
        return wanted * DRAFT_MARGIN, wanted * DRAFT_MARGIN
    longest = max(preprocessing.size) * DRAFT_MARGIN
    shrink = min(1.0, longest / max(size))
    return math.ceil(size[0] * shrink), math.ceil(size[1] * shrink)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    # Pillow copies also where there is nothing to do.
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Any Pillow mode to one of 8 bits a channel without alpha.

    Transparent parts lie on white: images with a transparent ground are drawn to be
    seen on a page, and dark lines would vanish on black.
    """
    if image.mode.startswith(("I", "F")):
        return _scale_to_bytes(image)
    if image.has_transparency_data:
        return _by_strips(image, "RGB", _on_white)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


_STRIP_PIXELS = 1 << 22
"""Of a large image this many at a time are converted where that takes several copies of
them."""


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Strips from top to bottom, each with its first row."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield top, image.crop(box)


def _by_strips(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """A conversion pixel by pixel to `mode`, with little memory."""
    if image.width * image.height <= _STRIP_PIXELS:
        return convert(image)
    whole = Image.new(mode, image.size)
    for top, strip in _strips(image):
        whole.paste(convert(strip), (0, top))
    return whole


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _scale_to_bytes(image: Image.Image) -> Image.Image:
    """Integers of 16 or 32 bits and floats to 8 bits, by range in place of clipping.

    I;16 has 65535 as white. The wider modes don't say what white is, so the smallest of
    1 (floats only), 255, 65535 and 2**31 - 1 that holds the image's maximum is taken.
    """
    largest = 0.0
    for _, strip in _strips(image):
        values = np.asarray(strip)
        if not np.isfinite(values).all():
            raise BadImage("", "holds values that are not finite")
        largest = max(largest, float(values.max(initial=0)))
    whites = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535, 2**31 - 1)}
    fitting = [w for w in whites.get(image.mode, (65535,)) if largest <= w]
    if not fitting:
        raise BadImage("", f"holds values up to {largest:g}, above {2**31 - 1}")

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip).astype(np.float64)
        bytes_ = np.rint(np.clip(values / fitting[0], 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(bytes_)

    return _by_strips(image, "L", scaled)


def _resize(
    image: Image.Image,
    extent: tuple[float, float],
    size: tuple[int, int],
    preprocessing: Preprocessing,
) -> Image.Image:
    """The geometry of `decode_stored`.

    Args:
      image: of mode L or RGB.
      extent: width and height of the image, from the corner of `image`.
      size: the target's width and height, in the directions of `image`.
      preprocessing: what is wanted.
    """
    resample = RESAMPLING[preprocessing.interpolation]
    whole = (0, 0, *extent)
    if preprocessing.resize_mode == "stretch":
        return image.resize(size, resample, whole)
    if preprocessing.resize_mode == "pad":
        # Not ImageOps.pad: it leaves a side without a pixel for very long images.
        scale = min(size[0] / extent[0], size[1] / extent[1])
        inner = max(1, round(extent[0] * scale)), max(1, round(extent[1] * scale))
        canvas = Image.new(image.mode, size)
        corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        canvas.paste(image.resize(inner, resample, whole), corner)
        return canvas
    return _resize_shorter_side(image, extent, preprocessing.resize, resample)


def _resize_shorter_side(
    image: Image.Image,
    extent: tuple[float, float],
    side: int,
    resample: Image.Resampling,
) -> Image.Image:
    """Shorter side to `side`, the longer one truncated as in torchvision's Resize."""
    short, long = sorted(extent)
    longer = int(side * long / short)
    kept = min(longer, side * MAX_ASPECT)
    # Only the part that is kept is resized: the rest could be of any length.
    cut = round((longer - kept) / 2)
    start, stop = cut * long / longer, (cut + kept) * long / longer
    if extent[0] <= extent[1]:
        return image.resize((side, kept), resample, (0, start, short, stop))
    return image.resize((kept, side), resample, (start, 0, stop, short))
