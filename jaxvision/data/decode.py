"""An image file becomes uint8 pixels of the network's geometry, or a named reason.

Two stages, so that training can crop at random where evaluation crops the center:
`decode_stored` reads the file and resizes it (the slow part, done once an image),
`center_crop` cuts the center for `crop` (the quick part, done at each use).
`decode_image` is both.
"""

import hashlib
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The only decoders a file may reach: every further one is a door for hostile files."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
)
"""Lower-case endings of the files that an image folder is searched for. What a file
holds is decided by its content: a PNG that is called .jpg is read as a PNG."""

MAX_PIXELS = 89_478_485
"""Width times height that is still decoded: the level at which Pillow begins to warn
of a decompression bomb (a quarter of a GiB at 3 bytes a pixel)."""

MAX_BYTES = 1 << 30
"""Size of a file that is still read: twice an uncompressed image of `MAX_PIXELS`."""

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
    image, extent, upright = _load(source, preprocessing if draft else None)
    image = image.convert("L" if preprocessing.gray else "RGB")
    height, width = preprocessing.size
    # Turned after the resize: fewer pixels, and `extent` is in the file's directions.
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
    image, _, upright = _load(source, None)
    image = image.convert("RGB")
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
    """Name and content of a file; `BadImage` where it can't be read or is huge."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadImage(str(path), f"{size:,} bytes are over {MAX_BYTES:,}")
        return str(path), path.read_bytes()
    except OSError as error:
        raise BadImage(str(path), f"cannot be read: {error.strerror}") from error


def check_geometry(preprocessing: Preprocessing) -> None:
    """Raises `InputError` for a center crop that is larger than what it is cut from."""
    if preprocessing.resize_mode == "crop" and preprocessing.resize < max(
        preprocessing.size
    ):
        raise InputError(
            f"resize {preprocessing.resize} is smaller than the crop of "
            f"{preprocessing.size}: raise resize, or choose resize_mode stretch or pad"
        )


def _load(
    source: Path | bytes, wanted: Preprocessing | None
) -> tuple[Image.Image, tuple[float, float], Image.Transpose | None]:
    """Opens, checks and fully decodes, to 8 bits a channel without alpha.

    Args:
      source: a file or its content.
      wanted: what a JPEG may be reduced to while it is decoded; None: not at all.

    Returns:
      The image as it lies in the file; its width and height, which end within the
      last pixels where it was decoded at a reduced scale; what makes it upright.
    """
    name, data = ("bytes", source) if isinstance(source, bytes) else read_file(source)
    try:
        image, extent, upright = _open(data, wanted)
        return _to_eight_bits(image), extent, upright
    except BadImage as bad:
        raise BadImage(name, bad.reason) from bad.__cause__


def _open(
    data: bytes, wanted: Preprocessing | None
) -> tuple[Image.Image, tuple[float, float], Image.Transpose | None]:
    """As `_load`, of any Pillow mode."""
    if not data:
        raise BadImage("", "the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        drafted = None
        if wanted is not None:
            # As gray: libjpeg then gives its luma as it is, and skips the colors.
            mode = "L" if wanted.gray else None
            drafted = image.draft(mode, _draft_size(wanted, image.size))
        if image.format == "JPEG":
            # In one piece: libjpeg begins a row of blocks anew where its input ends.
            image.decodermaxblock = len(data)
        # Not ImageOps.exif_transpose: it also writes the remaining tags anew, which
        # fails on odd ones. Pillow has turned TIFFs itself once they are loaded.
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        upright = None if image.format == "TIFF" else _UPRIGHT.get(orientation or 1)
        image.load()
        extent = image.size if drafted is None else drafted[1][2:]
        return image, extent, upright
    except Image.UnidentifiedImageError as error:
        reason = f"not an image in one of the formats {', '.join(FORMATS)}"
        raise BadImage("", reason) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"more than {MAX_PIXELS:,} pixels: it could be a decompression bomb"
        raise BadImage("", reason) from error
    # Pillow's parsers raise what they happen to raise on a damaged file (OSError,
    # SyntaxError, struct.error, IndexError, ...): here each means the same.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadImage("", f"damaged or cut short ({text})") from error


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


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Any Pillow mode to one of 8 bits a channel without alpha.

    Transparent parts lie on white: images with a transparent ground are drawn to be
    seen on a page, and dark lines would vanish on black.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scale_to_bytes(np.asarray(image), image.mode))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _scale_to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Integers of 16 or 32 bits and floats to uint8, by range in place of clipping.

    I;16 has 65535 as white. The wider modes don't say what white is, so the smallest of
    1 (floats only), 255, 65535 and 2**31 - 1 that holds the image's maximum is taken.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadImage("", "holds values that are not finite")
    whites = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535, 2**31 - 1)}
    largest = values.max(initial=0)
    fitting = [white for white in whites.get(mode, (65535,)) if largest <= white]
    if not fitting:
        raise BadImage("", f"holds values up to {largest:g}, above {2**31 - 1}")
    return np.rint(np.clip(values / fitting[0], 0, 1) * 255).astype(np.uint8)


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
