"""Explanations as images: color, gray, positive and negative saliency, overlay.

Maps are float `[B, H, W, 3]` (color), or `[B, H, W, 1]` or `[B, H, W]` (one value a
pixel); images are uint8 `[B, H, W, 3]`. Each map is scaled by its own strongest
values, so that weak explanations are as visible as strong ones: shades are not to be
compared from map to map.
"""

from collections.abc import Callable

import numpy as np
from matplotlib import colormaps
from scipy import ndimage

STRONGEST = 99.5
"""Percentile of absolute values that is shown at full strength: single pixels beyond it
would leave the rest of the map invisible."""

OVERLAY_BLUR = 1 / 64
"""Standard deviation of the overlay's blur, as a share of the image's side: gradients
are too grainy to show regions."""


def color(maps: np.ndarray) -> np.ndarray:
    """Gray where the value is zero; lighter above in each channel, darker below. Maps
    of one value a pixel are blue below zero, white at it and red above."""
    signed = _scaled(maps)
    if _channels(signed) == 3:
        return _to_bytes((signed + 1) / 2)
    return _to_bytes(colormaps["RdBu_r"]((_one_channel(signed) + 1) / 2)[..., :3])


def gray(maps: np.ndarray) -> np.ndarray:
    """How strong each pixel is, whatever its sign: absolute values, channels added up;
    black is zero."""
    return _gray_image(_scaled(strength(maps)))


def positive(maps: np.ndarray) -> np.ndarray:
    """Values above zero alone, in their channels; black is zero or below."""
    return _half(np.maximum(maps, 0))


def negative(maps: np.ndarray) -> np.ndarray:
    """Values below zero alone, the lowest brightest; black is zero or above."""
    return _half(np.maximum(-np.asarray(maps), 0))


def overlay(maps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The image in pale gray, and where the map is strong a glow over it.

    Maps of one value a pixel glow where they are above zero, which is what speaks for
    the class; maps in color where their absolute values are high.

    Args:
      maps: `[B, H, W]` or `[B, H, W, C]`.
      images: uint8 `[B, H, W, C]`, C 1 or 3.
    """
    colors, opacity = _glow(maps)
    under = 0.35 + 0.65 * np.asarray(images, np.float64).mean(-1, keepdims=True) / 255
    return _to_bytes((1 - opacity) * under + opacity * colors)


def glow(maps: np.ndarray) -> np.ndarray:
    """What `overlay` lays over an image, alone: uint8 `[B, H, W, 4]`, the last channel
    its opacity."""
    return _to_bytes(np.concatenate(_glow(maps), axis=-1))


def _glow(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colors `[B, H, W, 3]` and their opacity `[B, H, W, 1]`, from 0 to 1."""
    maps = np.asarray(maps, np.float64)
    strong = np.maximum(maps, 0) if maps.ndim == 3 else strength(maps)
    sigma = OVERLAY_BLUR * min(strong.shape[1:])
    strong = _scaled(ndimage.gaussian_filter(strong, (0, sigma, sigma)))
    return colormaps["inferno"](0.3 + 0.6 * strong)[..., :3], 0.9 * strong[..., None]


def strength(maps: np.ndarray) -> np.ndarray:
    """`[B, H, W]`: absolute values, added up over channels where there are any."""
    maps = np.abs(np.asarray(maps, np.float64))
    return maps.sum(-1) if maps.ndim == 4 else maps


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "color": color,
    "gray": gray,
    "positive saliency": positive,
    "negative saliency": negative,
}
"""Name of a view -> maps to images."""

OVERLAY = "overlay"
"""The view that needs the images too."""

VIEW_NAMES = (*VIEWS, OVERLAY)


def all_views(maps: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every view by name, in the order of `VIEW_NAMES`: uint8 `[B, H, W, 3]` each."""
    views = {name: view(maps) for name, view in VIEWS.items()}
    return {**views, OVERLAY: overlay(maps, images)}


def _half(maps: np.ndarray) -> np.ndarray:
    scaled = _scaled(maps)
    if _channels(scaled) == 3:
        return _to_bytes(scaled)
    return _gray_image(_one_channel(scaled))


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its strongest values and cut there: -1 to 1."""
    maps = np.asarray(maps, np.float64)
    flat = np.abs(maps).reshape(len(maps), -1)
    # The maximum, where fewer values than the percentile leaves out are not zero.
    top = np.percentile(flat, STRONGEST, axis=1)
    top = np.where(top > 0, top, flat.max(axis=1))
    top = np.where(top > 0, top, 1).reshape((-1,) + (1,) * (maps.ndim - 1))
    return np.clip(maps / top, -1, 1)


def _channels(maps: np.ndarray) -> int:
    return maps.shape[-1] if maps.ndim == 4 else 1


def _one_channel(maps: np.ndarray) -> np.ndarray:
    """`[B, H, W]` of a map with one value a pixel."""
    return maps[..., 0] if maps.ndim == 4 else maps


def _gray_image(values: np.ndarray) -> np.ndarray:
    """`[B, H, W]` from 0 to 1 -> uint8 `[B, H, W, 3]`."""
    return np.repeat(_to_bytes(values)[..., None], 3, axis=-1)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
