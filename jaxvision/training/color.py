"""PCA color augmentation, on the device (Krizhevsky et al. 2012, section 4.1).

To every image is added P (alpha * lambda), where the columns of P and lambda are the
eigenvectors and eigenvalues of the covariance of all RGB values of the training
images, and alpha is normal, three numbers an image. All of it is of values as the
network sees them: before a standardization of each image, most of what is added would
only be taken out again, and uint8 would round the rest away.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError


@dataclasses.dataclass(frozen=True)
class ColorComponents:
    """Principal components of the RGB values of some images.

    mean: of each channel.
    eigenvalues: of the covariance, the largest first.
    eigenvectors: one for each, unit length; the paper's p1, p2 and p3.
    """

    mean: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    eigenvectors: tuple[tuple[float, ...], ...]


def color_components(images: Iterable[np.ndarray]) -> ColorComponents:
    """The components of all pixels of all images, in one pass that holds one image.

    Args:
      images: `[H, W, 3]`, any number type; sizes may differ.

    Raises:
      InputError: gray images.
    """
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    origin = None
    for image in images:
        if image.shape[-1] != 3:
            raise InputError(
                "needs colors, and the images are gray; leave it at 0",
                setting="augment.pca_color",
            )
        pixels = image.reshape(-1, 3).astype(np.float64)
        # Sums about a value of the data: the difference below does not cancel.
        origin = pixels.mean(0) if origin is None else origin
        pixels -= origin
        count += len(pixels)
        total += pixels.sum(0)
        products += pixels.T @ pixels
    assert origin is not None, "no image"
    mean = total / count
    eigenvalues, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Ascending and of either sign, as LAPACK has them.
    eigenvalues, vectors = eigenvalues[::-1], vectors.T[::-1]
    signs = np.where(vectors.sum(1, keepdims=True) < 0, -1.0, 1.0)
    return ColorComponents(
        tuple((mean + origin).tolist()),
        tuple(eigenvalues.clip(0).tolist()),
        tuple(map(tuple, (vectors * signs).tolist())),
    )


def make_color_augment(
    components: ColorComponents, deviation: float, *, per_pixel: bool = False
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """What adds random multiples of the components.

    Args:
      deviation: of alpha, which is normal around zero; the paper's 0.1.
      per_pixel: one alpha a pixel, in place of one an image.

    Returns:
      (key, images `[B, H, W, 3]` float32, normalized) -> the changed images.
    """
    values = np.asarray(components.eigenvalues, np.float32)
    # [3, 3]: what a unit of each alpha adds to each channel.
    steps = values.reshape(-1, 1) * np.asarray(components.eigenvectors, np.float32)

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        batch, height, width, _ = images.shape
        size = (batch, height, width, 3) if per_pixel else (batch, 1, 1, 3)
        alpha = deviation * jax.random.normal(key, size, jnp.float32)
        return images + alpha @ jnp.asarray(steps)

    return augment
