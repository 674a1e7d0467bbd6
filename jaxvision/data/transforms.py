"""Changes of an image: at random for training, at fixed strengths for evaluation.

`TRANSFORMS` is the one table of them. Each is a function of a uint8 image, a strength
and a generator, where the generator decides place, direction or sign and the strength
alone how much. `augment` draws the strengths too, up to those of an `AugmentConfig`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from jaxvision.config import Bounds
from jaxvision.data import decode
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

Generator = np.random.Generator
Function = Callable[[np.ndarray, float, Generator], np.ndarray]
"""`[H, W, C]` uint8, strength, generator -> `[H, W, C]` uint8; C is 1 or 3."""

ASPECT = 4 / 3
"""A random crop is at most this much wider or taller than the image's own shape
(Inception's 3/4 to 4/3, https://arxiv.org/abs/1409.4842)."""


@dataclasses.dataclass(frozen=True)
class Transform:
    """A row of the table.

    Attributes:
      function: applies it.
      strengths: five for an evaluation, from hardly to strongly; one where an image
        is either changed or not.
      unit: what the strength counts.
      identity: the strength that leaves every image as it is, bit for bit.
    """

    function: Function
    strengths: tuple[float, ...]
    unit: str
    identity: float = 0.0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes in training; everything is off at 0."""

    resized_crop: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Largest part of the area that a random crop leaves out, 0 to below 1."""
    horizontal_flip: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of a mirror image."""
    vertical_flip: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of standing upside down."""
    rotation: Annotated[float, Bounds(0)] = 0.0
    """Largest angle either way, in degrees."""
    translation: Annotated[float, Bounds(0, 1)] = 0.0
    """Largest shift along each side, as a fraction of it."""
    scale: Annotated[float, Bounds(0)] = 0.0
    """Zooms in or out by a factor of at most 1 + this."""
    shear: Annotated[float, Bounds(0, 80)] = 0.0
    """Largest horizontal shear either way, in degrees."""
    perspective: Annotated[float, Bounds(0, 0.9)] = 0.0
    """Largest move of a corner inwards, as a fraction of half the side."""
    brightness: Annotated[float, Bounds(0, 1)] = 0.0
    """Factor between 1 - this and 1 + this, at most 1."""
    contrast: Annotated[float, Bounds(0, 1)] = 0.0
    """Factor between 1 - this and 1 + this, at most 1."""
    saturation: Annotated[float, Bounds(0, 1)] = 0.0
    """Factor between 1 - this and 1 + this, at most 1."""
    hue: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Largest turn of the hue either way, as a fraction of the circle, at most .5."""
    sharpness: Annotated[float, Bounds(0, 1)] = 0.0
    """Factor between 1 - this (softer) and 1 + this (sharper), at most 1."""
    blur: Annotated[float, Bounds(0)] = 0.0
    """Largest radius (standard deviation) of a Gaussian blur, in pixels."""
    invert: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of a negative."""
    gray: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of losing the colors."""
    trivial: Annotated[float, Bounds(0, 1)] = 0.0
    """TrivialAugment: one transform of the table for each image, at a strength between
    none and this part of the strongest; 1 is the paper's. Flips, `invert` and `gray`
    have no strength."""
    erasing: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Largest part of the area that is overwritten with noise, 0 to below 1."""
    pca_color: Annotated[float, Bounds(0)] = 0.0
    """Deviation of the random multiples of the training images' principal colors
    that are added to what the network sees; 0.1 in AlexNet's paper."""
    pca_per_pixel: bool = False
    """Draw those multiples for every pixel anew, not once an image."""


ON_DEVICE = ("pca_color", "pca_per_pixel")
"""What `augment` leaves to the training step, because it needs the images as the
network sees them."""


def check_on_host(config: AugmentConfig, what: str) -> None:
    """Raises `InputError` for changes that `augment` does not make.

    Args:
      what: has no training step that makes them: begins the message.
    """
    if config.pca_color:
        raise InputError(
            f"{what} cannot be changed by `augment.pca_color`; leave it at 0"
        )


def augment(
    stored: np.ndarray,
    config: AugmentConfig,
    generator: Generator,
    preprocessing: Preprocessing,
) -> np.ndarray:
    """Changes an image at random; what it does is a function of the generator.

    The crop is one antialiased resize of the stored image; rotation, translation,
    scale, shear and perspective together are one more resample; flips are exact. Then
    colors, sharpness and blur, one transform of the table, and at last erasing. What
    comes in from outside the image is black.

    Args:
      stored: `[h, w, C]` uint8 from `decode.decode_stored`.
      config: how much of what.
      generator: the image's own.
      preprocessing: the one that `stored` was decoded with.

    Returns:
      `[H, W, C]` uint8 of `preprocessing.size`.
    """

    def signed(limit: float) -> float:
        return generator.uniform(-limit, limit) if limit else 0.0

    def happens(probability: float) -> bool:
        return probability > 0 and generator.random() < probability

    if config.resized_crop:
        part = generator.uniform(0, config.resized_crop)
        image = _random_crop(stored, part, preprocessing, generator)
    else:
        image = decode.center_crop(stored, preprocessing)
    if happens(config.horizontal_flip):
        image = image[:, ::-1]
    if happens(config.vertical_flip):
        image = image[::-1]
    height, width = preprocessing.size
    matrix = _rotation(signed(config.rotation))
    matrix = matrix @ _zoom(math.exp(signed(math.log1p(config.scale))))
    matrix = matrix @ _shear(signed(config.shear))
    across, down = signed(config.translation), signed(config.translation)
    matrix = matrix @ _shift(across * width, down * height)
    if config.perspective:
        inwards = generator.uniform(0, config.perspective)
        matrix = matrix @ _perspective_matrix(inwards, height, width, generator)
    image = _warp(image, matrix)
    image = _enhance(ImageEnhance.Brightness, image, 1 + signed(config.brightness))
    image = _enhance(ImageEnhance.Contrast, image, 1 + signed(config.contrast))
    image = _enhance(ImageEnhance.Color, image, 1 + signed(config.saturation))
    image = _turn_hue(image, signed(config.hue))
    image = _enhance(ImageEnhance.Sharpness, image, 1 + signed(config.sharpness))
    if config.blur:
        image = _blur(image, generator.uniform(0, config.blur), generator)
    if happens(config.invert):
        image = _invert(image, 1.0, generator)
    if happens(config.gray):
        image = _gray(image, 1.0, generator)
    if config.trivial:
        image = _any_transform(image, config.trivial, generator)
    if config.erasing:
        image = _erase(image, generator.uniform(0, config.erasing), generator)
    return np.ascontiguousarray(image)


def _any_transform(image: np.ndarray, most: float, generator: Generator) -> np.ndarray:
    """One row of the table at one strength, both drawn uniformly
    (TrivialAugment, https://arxiv.org/abs/2103.10158).

    Args:
      most: the highest strength, as a part of the row's own highest.
    """
    rows = list(TRANSFORMS.values())
    transform = rows[generator.integers(len(rows))]
    low, high = transform.identity, transform.strengths[-1]
    strength = high
    if len(transform.strengths) > 1:
        strength = generator.uniform(low, low + most * (high - low))
    return transform.function(image, strength, generator)


# Geometry. Matrices are 3x3, homogeneous, and lead from a place in the new image to
# the place in the old one that is seen there; in pixels, x to the right and y down from
# the center.


def _rotation(degrees: float) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])


def _zoom(factor: float) -> np.ndarray:
    return np.diag([1 / factor, 1 / factor, 1])


def _shear(degrees: float) -> np.ndarray:
    return np.array([[1, math.tan(math.radians(degrees)), 0], [0, 1, 0], [0, 0, 1]])


def _shift(across: float, down: float) -> np.ndarray:
    return np.array([[1, 0, -across], [0, 1, -down], [0, 0, 1]])


def _perspective_matrix(
    strength: float, height: int, width: int, generator: Generator
) -> np.ndarray:
    """Every corner moves inwards by up to `strength` of half the sides."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    moved = corners * (1 - strength * generator.random((4, 2)))
    # Two equations a corner for the eight coefficients; the ninth is 1.
    rows = []
    for (x, y), (u, v) in zip(moved, corners, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    coefficients = np.linalg.solve(np.array(rows), corners.reshape(8))
    return np.append(coefficients, 1).reshape(3, 3)


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Resamples bilinearly; black comes in from outside."""
    if np.array_equal(matrix, np.eye(3)):
        return image
    height, width = image.shape[:2]
    to_corner = _shift(width / 2, height / 2)
    from_corner = _shift(-width / 2, -height / 2)
    matrix = from_corner @ matrix @ to_corner
    coefficients = (matrix / matrix[2, 2]).ravel()[:8].tolist()
    return _pixels(
        _image(image).transform(
            (width, height),
            Image.Transform.PERSPECTIVE,
            coefficients,
            Image.Resampling.BILINEAR,
        )
    )


def _box(
    part: float, height: float, width: float, generator: Generator
) -> tuple[float, float]:
    """Height and width of a box with `part` of an area, of a random shape that fits."""
    # Wider than 1 / part (or taller) would not fit into the area.
    widest = math.log(min(ASPECT, 1 / part)) if part > 0 else 0.0
    aspect = math.exp(generator.uniform(-widest, widest))
    return height * math.sqrt(part / aspect), width * math.sqrt(part * aspect)


def _random_crop(
    stored: np.ndarray,
    left_out: float,
    preprocessing: Preprocessing,
    generator: Generator,
) -> np.ndarray:
    """A box anywhere in the stored image, resized to `preprocessing.size`.

    Its area is `1 - left_out` of that of the largest box of the target's shape.
    """
    height, width = preprocessing.size
    rows, columns = stored.shape[:2]
    scale = min(rows / height, columns / width)
    box = _box(1 - left_out, height * scale, width * scale, generator)
    top = generator.uniform(0, max(rows - box[0], 0))
    left = generator.uniform(0, max(columns - box[1], 0))
    # Rounding must not lead outside.
    corners = (left, top, min(left + box[1], columns), min(top + box[0], rows))
    return _pixels(
        _image(stored).resize(
            (width, height), decode.RESAMPLING[preprocessing.interpolation], box=corners
        )
    )


# Rows of the table.


def _sign(generator: Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _resized_crop(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    if strength == 0:
        return image
    same = Preprocessing(size=image.shape[:2], resize_mode="stretch")
    return _random_crop(image, strength, same, generator)


def _horizontal_flip(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    return image[:, ::-1] if strength else image


def _vertical_flip(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    return image[::-1] if strength else image


def _rotate(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return _warp(image, _rotation(_sign(generator) * strength))


def _translate(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    height, width = image.shape[:2]
    across, down = _sign(generator) * strength, _sign(generator) * strength
    return _warp(image, _shift(across * width, down * height))


def _zoom_in(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return _warp(image, _zoom(1 + strength))


def _zoom_out(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return _warp(image, _zoom(1 / (1 + strength)))


def _shear_sideways(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    return _warp(image, _shear(_sign(generator) * strength))


def _affine(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    """At strength 1 a turn of 40 degrees, a shear of 10, a fifth of shift and zoom."""
    height, width = image.shape[:2]
    matrix = _rotation(_sign(generator) * 40 * strength)
    matrix = matrix @ _zoom((1 + 0.2 * strength) ** _sign(generator))
    matrix = matrix @ _shear(_sign(generator) * 10 * strength)
    across, down = _sign(generator) * 0.2, _sign(generator) * 0.2
    return _warp(
        image, matrix @ _shift(across * strength * width, down * strength * height)
    )


def _perspective(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    if strength == 0:
        return image
    height, width = image.shape[:2]
    return _warp(image, _perspective_matrix(strength, height, width, generator))


def _enhance(kind: type, image: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return image
    return _pixels(kind(_image(image)).enhance(max(factor, 0.0)))


def _more(kind: type) -> Function:
    return lambda image, strength, generator: _enhance(kind, image, 1 + strength)


def _less(kind: type) -> Function:
    return lambda image, strength, generator: _enhance(kind, image, 1 - strength)


def _turn_hue(image: np.ndarray, turn: float) -> np.ndarray:
    steps = round(turn * 256) % 256
    if steps == 0 or image.shape[-1] == 1:
        return image
    hue, saturation, value = _image(image).convert("HSV").split()
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return _pixels(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def _hue(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return _turn_hue(image, _sign(generator) * strength)


def _color_jitter(
    image: np.ndarray, strength: float, generator: Generator
) -> np.ndarray:
    """Brightness, contrast and saturation each by a factor 1 ± strength, and hue."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = _enhance(kind, image, 1 + _sign(generator) * strength)
    return _turn_hue(image, _sign(generator) * strength / 5)


def _blur(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    if strength == 0:
        return image
    return _pixels(_image(image).filter(ImageFilter.GaussianBlur(strength)))


def _invert(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return 255 - image if strength else image


def _gray(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    return _enhance(ImageEnhance.Color, image, 0.0) if strength else image


def _erase(image: np.ndarray, strength: float, generator: Generator) -> np.ndarray:
    """Noise in a box somewhere (https://arxiv.org/abs/1708.04896)."""
    height, width = image.shape[:2]
    rows, columns = (round(side) for side in _box(strength, height, width, generator))
    top = generator.integers(0, height - rows, endpoint=True)
    left = generator.integers(0, width - columns, endpoint=True)
    noise = generator.integers(0, 256, (rows, columns, image.shape[-1]), dtype=np.uint8)
    image = image.copy()
    image[top : top + rows, left : left + columns] = noise
    return image


def _image(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.squeeze(image, -1) if image.shape[-1] == 1 else image)


def _pixels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


_FRACTIONS = (0.1, 0.25, 0.5, 0.7, 0.85)
_FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0)

TRANSFORMS: dict[str, Transform] = {
    "resized_crop": Transform(_resized_crop, _FRACTIONS, "area left out"),
    "horizontal_flip": Transform(_horizontal_flip, (1.0,), "on"),
    "vertical_flip": Transform(_vertical_flip, (1.0,), "on"),
    "rotation": Transform(_rotate, (5.0, 15.0, 30.0, 45.0, 90.0), "degrees"),
    "translation": Transform(_translate, (0.05, 0.1, 0.2, 0.3, 0.4), "of each side"),
    "zoom_in": Transform(_zoom_in, _FACTORS, "factor above 1"),
    "zoom_out": Transform(_zoom_out, _FACTORS, "divisor above 1"),
    "shear": Transform(_shear_sideways, (5.0, 10.0, 20.0, 30.0, 40.0), "degrees"),
    "affine": Transform(_affine, (0.2, 0.4, 0.6, 0.8, 1.0), "of 40 degrees"),
    "perspective": Transform(_perspective, (0.1, 0.2, 0.4, 0.6, 0.8), "of half a side"),
    "brighten": Transform(_more(ImageEnhance.Brightness), _FACTORS, "factor above 1"),
    "darken": Transform(_less(ImageEnhance.Brightness), _FRACTIONS, "factor below 1"),
    "more_contrast": Transform(
        _more(ImageEnhance.Contrast), _FACTORS, "factor above 1"
    ),
    "less_contrast": Transform(
        _less(ImageEnhance.Contrast), _FRACTIONS, "factor below 1"
    ),
    "saturate": Transform(_more(ImageEnhance.Color), _FACTORS, "factor above 1"),
    "desaturate": Transform(_less(ImageEnhance.Color), _FRACTIONS, "factor below 1"),
    "hue": Transform(_hue, (0.02, 0.05, 0.1, 0.25, 0.5), "of the color circle"),
    "color_jitter": Transform(
        _color_jitter, (0.1, 0.2, 0.3, 0.4, 0.5), "factor from 1"
    ),
    "sharpen": Transform(
        _more(ImageEnhance.Sharpness), (1.0, 2.0, 4.0, 8.0, 16.0), "factor above 1"
    ),
    "soften": Transform(
        _less(ImageEnhance.Sharpness), (0.2, 0.4, 0.6, 0.8, 1.0), "factor below 1"
    ),
    "blur": Transform(_blur, (0.5, 1.0, 2.0, 3.0, 5.0), "pixels"),
    "invert": Transform(_invert, (1.0,), "on"),
    "gray": Transform(_gray, (1.0,), "on"),
    "erasing": Transform(_erase, (0.05, 0.1, 0.2, 0.3, 0.5), "of the area"),
}
"""Name to transform."""
