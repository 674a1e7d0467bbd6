"""Occlusion (arXiv:1311.2901, section 4.2): what a network misses when it is hidden."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError
from jaxvision.explain.network import (
    Classes,
    TrainedNetwork,
    make_score,
    network_inputs,
)
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

WINDOWS = 8
"""Windows, of the default size, that would lie side by side along the shorter side."""

GRAY = 127
"""What hides a part of an image."""


def occlusion(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: int = GRAY,
) -> jax.Array:
    """By how much the class's logit falls when a square of the image is hidden.

    Args:
      network: any.
      images: uint8 `[B, H, W, C]`.
      classes: one for all images, or one for each.
      window: side of the square, in pixels; None: an eighth of the shorter side.
      stride: pixels from one square to the next, the last of which end with the
        image; None: half a window.
      fill: what is put there, 0 to 255.

    Returns:
      `[B, H, W]` float32: for each pixel the mean over the squares that hide it; above
      zero where the class needs it.

    Raises:
      InputError: images or classes are not the network's, or the window does not
        fit.
    """
    arguments = network.arguments(images, classes)
    height, width = network.preprocessing.size
    window = max(min(height, width) // WINDOWS, 1) if window is None else window
    stride = max(window // 2, 1) if stride is None else stride
    if not 1 <= window <= min(height, width) or stride < 1:
        raise InputError(
            f"occlusion: a window of {window} and a stride of {stride} pixels do not"
            f" fit images of {height}×{width}"
        )
    corners = np.array(
        [
            (top, left)
            for top in _starts(height, window, stride)
            for left in _starts(width, window, stride)
        ],
        np.int32,
    )
    return _occlusion(*arguments, window, corners, jnp.asarray(fill, jnp.uint8))


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last one ends with the image."""
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


@partial(jax.jit, static_argnums=(0, 1, 5))
def _occlusion(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
    window: int,
    corners: jax.Array,
    fill: jax.Array,
) -> jax.Array:
    score = make_score(model, preprocessing, variables, classes)

    def seen(inputs: jax.Array) -> jax.Array:
        return score(network_inputs(preprocessing, inputs))

    whole = seen(images)
    rows, columns = (jnp.arange(side) for side in images.shape[1:3])

    def add(
        sums: tuple[jax.Array, jax.Array], corner: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        fall, times = sums
        down = (rows >= corner[0]) & (rows < corner[0] + window)
        across = (columns >= corner[1]) & (columns < corner[1] + window)
        hidden = down[:, None] & across[None, :]
        missing = whole - seen(jnp.where(hidden[None, :, :, None], fill, images))
        return (fall + missing[:, None, None] * hidden[None], times + hidden), None

    none = jnp.zeros(images.shape[:3]), jnp.zeros(images.shape[1:3])
    (fall, times), _ = jax.lax.scan(add, none, corners)
    return fall / times[None]
