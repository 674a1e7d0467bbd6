"""Images as they stand in a page that is one file: small, and within the page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jaxvision.data.decode import decode_whole, quiet_pillow

MAX_SIZE = (1600, 12000)
"""Width and height in pixels; what is larger is made smaller. A page shows images
about 800 pixels wide, on a fine screen with two of its own for each."""

QUALITY = 84
"""Of photographs; drawings are kept exactly."""


SHOWN = 0.75
"""Of an image's pixels to those of the page: letters of figures are then as large as
the page's own, and a fine screen has pixels left."""


@dataclass(frozen=True)
class Embedded:
    """An image as a `data:` URI, and how large it is shown, in pixels of the page."""

    uri: str
    width: int
    height: int


def embed(path: Path) -> Embedded:
    """An image file, made small: WebP, without loss where it is a drawing.

    Drawings are what takes less than twice the room without loss: letters and lines
    stay sharp. Transparent places become white.

    Raises:
      BadImage: the file is missing, no image, or larger than images may be.
    """
    with quiet_pillow():
        image = Image.fromarray(decode_whole(path))
    image.thumbnail(MAX_SIZE, Image.Resampling.LANCZOS)
    exact = _webp(image, lossless=True)
    lossy = _webp(image, quality=QUALITY)
    content = exact if len(exact) < 2 * len(lossy) else lossy
    encoded = base64.b64encode(content).decode("ascii")
    shown = (round(SHOWN * length) for length in image.size)
    return Embedded(f"data:image/webp;base64,{encoded}", *shown)


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", method=4, **options)
    return buffer.getvalue()
