"""What a file holds, by its first bytes."""

import os
import re
import stat
from importlib.util import find_spec
from pathlib import Path

from PIL import features

from jaxvision.data.limits import HEAD_BYTES

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"),
    *(("AVIF",) if features.check("avif") else ()),
)
"""The only decoders a file may reach: every further one is a door for hostile files."""

HEIF = "HEIF"
"""Read where the extra `heic` is installed."""

HEIC_FIX = "install pillow-heif, the extra `heic`"

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
    | ({".avif"} if "AVIF" in FORMATS else set())
)
"""Lower-case endings of files that are taken for images unseen; if they are none, they
are bad. All others are looked into."""

_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
_KINDS: tuple[tuple[str, str], ...] = (
    (r"\xff\xd8\xff", "JPEG"),
    (r"\x89PNG\r\n\x1a\n", "PNG"),
    (r"GIF8[79]a", "GIF"),
    (r"RIFF.{4}WEBP", "WEBP"),
    (r"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (r"II[*+]\0|MM\0[*+]", "TIFF"),
    (r"P[1-6]\s+(\d|#)|P[fF]\s+\d", "PPM"),
    (r"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (r"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (r"8BPS", "Photoshop"),
    (r"\0\0\x01\0", "icon"),
    (r"FUJIFILMCCD-RAW|IIU\0", "camera raw"),
    (r"(\xef\xbb\xbf)?\s*<(svg|\?xml[^>]*>\s*<(svg|!DOCTYPE svg))", "SVG"),
    (r"%PDF-", "PDF"),
)
_PATTERNS = tuple(
    (re.compile(pattern.encode("latin-1"), re.DOTALL), kind) for pattern, kind in _KINDS
)


def sniff(head: bytes) -> str:
    """The format of a file: one of `FORMATS`, `HEIF`, the name of another kind of
    image, or nothing.

    Args:
      head: its first `HEAD_BYTES`.
    """
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = {head[i : i + 4] for i in (8, *range(16, min(length, len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return HEIF if brands & _HEIF_BRANDS else ""
    return next((kind for pattern, kind in _PATTERNS if pattern.match(head)), "")


def is_readable(kind: str) -> bool:
    """Whether what `sniff` found can be decoded here."""
    return kind in FORMATS or (kind == HEIF and has_heif())


def has_heif() -> bool:
    """Whether the extra that reads HEIC is installed."""
    return find_spec("pillow_heif") is not None


def open_regular(path: Path) -> int:
    """A descriptor of a regular file: a pipe or a device is never waited for.

    Raises:
      OSError: it is something else, or can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file")
    return descriptor


def read_head(path: Path) -> bytes:
    """The first bytes of a regular file.

    Raises:
      OSError: as `open_regular`.
    """
    with open(open_regular(path), "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)
