"""Filters that are patches of the training images, after Coates, Ng & Lee 2011.

"An analysis of single-layer networks in unsupervised feature learning" (AISTATS 2011,
https://proceedings.mlr.press/v15/coates11a.html) and "The importance of encoding versus
training with sparse coding and vector quantization" (ICML 2011): patches that are
normalized and whitened make filters as good as trained ones, if there are many.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError
from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import AvgPool, ReLU
from jaxvision.typing import PyTree

SAMPLE = 60_000
"""Patches that whitening is estimated from; the filters are some of them."""

CONTRAST_FLOOR = 6e-4
"""Added to a patch's variance, lest noise on plain ground is blown up: 10 on the scale
0 to 255, for images of -1 to 1."""

WHITENING_FLOOR = 0.1
"""Added to the variances of patches along their principal axes."""


class Patches(Backbone):
    """`[B, H, W, C]` -> `[B, H', W', 2 * filters]`: what answers to each filter, where.

    A patch at each place is brought to mean 0 and deviation 1, and multiplied with the
    filters. Of each product two maps have what exceeds the threshold, above zero and
    below. Their means, or their Gram matrix (`pooling` of `create_model`), are features
    for a head: brush and palette more than subject.

    The filters are made of training images (`fit`) and need no training; without that
    they are random.
    """

    usual_pooling: ClassVar[Literal["mean", "gram"] | None] = "gram"

    filters: int = 128
    """Filters in all."""
    kernel: int = 4
    """Height and width of a patch, in pixels."""
    threshold: float = 0.25
    """What a product has to exceed, in deviations of a whitened patch."""

    def check(self) -> None:
        for name in ("filters", "kernel"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must be at least 1"
                )
        if not 0 <= self.threshold < float("inf"):
            raise InputError(f"threshold is {self.threshold}; it must be at least 0")

    @property
    def smallest(self) -> int:
        return self.kernel

    def layers(self, train: bool) -> list[Layer]:
        conv = self.make_conv(kernel_size=self.kernel)

        def patches(x: jax.Array) -> jax.Array:
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            # Of a patch's values in all channels. A filter's sum is zero, so that the
            # mean need not be subtracted.
            local = AvgPool(self.kernel, 1)
            mean = local(wide.mean(-1, keepdims=True))
            square = local((wide**2).mean(-1, keepdims=True))
            variance = jnp.maximum(square - mean**2, 0) + CONTRAST_FLOOR
            products = conv(self.filters, use_bias=False, name="patches")(x)
            return (products * jax.lax.rsqrt(variance)).astype(x.dtype)

        def threshold(x: jax.Array) -> jax.Array:
            both = jnp.concatenate([x, -x], -1)
            return ReLU()(both - jnp.asarray(self.threshold, x.dtype))

        return [("patches", patches), ("threshold", threshold)]

    def fit(
        self, images: Iterable[np.ndarray], count: int, seed: int
    ) -> dict[str, PyTree]:
        rng = np.random.default_rng(seed)
        each = -(-max(SAMPLE, self.filters) // count)
        sample = np.concatenate(
            [_draw_patches(image, self.kernel, each, rng) for image in images]
        )
        shape = sample.shape[1:]
        sample = sample.reshape(len(sample), -1)
        sample -= sample.mean(1, keepdims=True)
        sample /= np.sqrt((sample**2).mean(1, keepdims=True) + CONTRAST_FLOOR)
        values, axes = np.linalg.eigh(np.cov(sample, rowvar=False))
        whitening = (axes / np.sqrt(np.maximum(values, 0) + WHITENING_FLOOR)) @ axes.T
        chosen = sample[rng.permutation(len(sample))[: self.filters]] @ whitening
        chosen /= np.linalg.norm(chosen, axis=1, keepdims=True) + 1e-12
        kernel = whitening @ chosen.T
        # Of patches whose mean is zero this changes no product.
        kernel -= kernel.mean(0)
        kernel = kernel.reshape(*shape, self.filters).astype(np.float32)
        return {"patches": {"kernel": jnp.asarray(kernel)}}


def _draw_patches(
    image: np.ndarray, size: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """`[count, size, size, C]` float64, from anywhere in an image `[H, W, C]`."""
    height, width = (length - size + 1 for length in image.shape[:2])
    tops, lefts = rng.integers(0, height, count), rng.integers(0, width, count)
    rows, columns = tops[:, None] + np.arange(size), lefts[:, None] + np.arange(size)
    return image[rows[:, :, None], columns[:, None, :]].astype(np.float64)


VARIANTS = {"patches": Patches}
