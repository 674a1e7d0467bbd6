"""PCA colour augmentation, on the device (Krizhevsky et al. 2012, section 4.1).

To every picture is added P (alpha * lambda), where the columns of P and lambda are the
eigenvectors and eigenvalues of the covariance of all RGB values of the training
pictures, and alpha is normal, three numbers a picture. All of it is of values as the
network sees them: before a standardisation of each picture, most of what is added would
only be taken out again, and uint8 would round the rest away.
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError


@dataclasses.dataclass(frozen=True)
class ColourComponents:
    """Principal components of the RGB values of some pictures.

    mean: of each channel.
    eigenvalues: of the covariance, the largest first.
    eigenvectors: one for each, unit length; the paper's p1, p2 and p3.
    """

    mean: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    eigenvectors: tuple[tuple[float, ...], ...]


def colour_components(pictures: Iterable[np.ndarray]) -> ColourComponents:
    """The components of all pixels of all pictures, in one pass that holds one picture.

    Args:
      pictures: `[H, W, 3]`, any number type; sizes may differ.

    Raises:
      InputError: grey pictures.
    """
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    origin = None
    for picture in pictures:
        if picture.shape[-1] != 3:
            raise InputError(
                "--augment.pca-colour: needs colours, and the pictures are grey; leave "
                "it at 0"
            )
        pixels = picture.reshape(-1, 3).astype(np.float64)
        # Sums about a value of the data: the difference below does not cancel.
        origin = pixels.mean(0) if origin is None else origin
        pixels -= origin
        count += len(pixels)
        total += pixels.sum(0)
        products += pixels.T @ pixels
    mean = total / count
    eigenvalues, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Ascending and of either sign, as LAPACK has them.
    eigenvalues, vectors = eigenvalues[::-1], vectors.T[::-1]
    signs = np.where(vectors.sum(1, keepdims=True) < 0, -1.0, 1.0)
    return ColourComponents(
        tuple((mean + origin).tolist()),
        tuple(eigenvalues.clip(0).tolist()),
        tuple(map(tuple, (vectors * signs).tolist())),
    )


def make_colour_augment(
    components: ColourComponents, deviation: float, *, per_pixel: bool = False
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """What adds random multiples of the components.

    Args:
      deviation: of alpha, which is normal around zero; the paper's 0.1.
      per_pixel: one alpha a pixel, in place of one a picture.

    Returns:
      (key, pictures `[B, H, W, 3]` float32, normalised) -> the changed pictures.
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
