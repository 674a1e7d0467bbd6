"""MixUp and CutMix: each training image is mixed with another one of its batch.

MixUp (https://arxiv.org/abs/1710.09412) blends the two, CutMix
(https://arxiv.org/abs/1905.04899) pastes a box of the other one. The loss is that of
both labels, each by its share of the image; so label smoothing and class weights apply
to each label as they do to the label of an image alone.

All of it happens in the training step, on normalized images, with numbers that may be
traced: a sweep varies them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvision.metrics import Loss


class Mixing(NamedTuple):
    """How the images of a batch are mixed.

    partner: `[B]` int32, the place in the batch of each one's other image.
    weights: `[B, H, W, 1]` float32 in [0, 1], of the image itself at each pixel.
    """

    partner: jax.Array
    weights: jax.Array

    @property
    def share(self) -> jax.Array:
        """`[B]` float32, of the image itself, and of its label."""
        return jnp.mean(self.weights, axis=(1, 2, 3))

    def apply(self, images: jax.Array) -> jax.Array:
        """The mixed images.

        Args:
          images: `[B, H, W, C]` float32, finite.
        """
        return images * self.weights + images[self.partner] * (1.0 - self.weights)

    def larger(self, labels: jax.Array) -> jax.Array:
        """`[B]` int32, of the two labels of each image that with the larger share."""
        return jnp.where(self.share >= 0.5, labels, labels[self.partner])

    def loss(self, loss: Loss, labels: jax.Array) -> Loss:
        """The loss of mixed images: of both labels, each by its share.

        Of cross-entropy, which is linear in the target, that is the loss of the target
        that is mixed as the images are.

        Args:
          loss: of each example.
          labels: `[B]` int32, of the images before they were mixed.
        """

        def mixed(logits: jax.Array, _: jax.Array) -> jax.Array:
            own, other = loss(logits, labels), loss(logits, labels[self.partner])
            return self.share * own + (1.0 - self.share) * other

        return mixed


@dataclasses.dataclass(frozen=True)
class Mix:
    """What draws a `Mixing`; of equal ones, the same.

    mixup: the share of an image is drawn for each from Beta(mixup, mixup); None: no
        MixUp.
    cutmix: likewise, for the part of the area that is left of it. With both, either
        one befalls an image with equal probability.
    """

    mixup: jax.typing.ArrayLike | None = None
    cutmix: jax.typing.ArrayLike | None = None

    def __call__(
        self, key: jax.Array, mask: jax.Array, size: tuple[int, int]
    ) -> Mixing:
        """How a batch is mixed.

        Args:
          mask: `[B]`, 1 for the images that count, 0 for the others.
          size: height and width of the images.
        """
        keys = [jax.random.fold_in(key, number) for number in range(5)]
        count = len(mask)
        weights = jnp.ones((count, *size, 1), jnp.float32)
        if self.cutmix is not None:
            weights = _outside_box(keys[3], _beta(keys[2], self.cutmix, count), size)
        if self.mixup is not None:
            share = _beta(keys[1], self.mixup, count).reshape(-1, 1, 1, 1)
            blended = jnp.broadcast_to(share, weights.shape)
            if self.cutmix is not None:
                first = jax.random.bernoulli(keys[4], shape=share.shape)
                blended = jnp.where(first, blended, weights)
            weights = blended
        return Mixing(_partners(keys[0], mask), weights)


def make_mix(
    *,
    mixup: jax.typing.ArrayLike | None = None,
    cutmix: jax.typing.ArrayLike | None = None,
) -> Mix | None:
    """A `Mix`; None where nothing is mixed."""
    return None if mixup is None and cutmix is None else Mix(mixup, cutmix)


def _beta(key: jax.Array, parameter: jax.typing.ArrayLike, count: int) -> jax.Array:
    """`[count]` float32 in [0, 1], drawn from the symmetric beta distribution.

    In closed form, from the polar method for Student's t (Bailey 1994, Math. Comp. 62,
    779-781): `jax.random.beta` takes seconds to compile.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    radius, angle = jax.random.uniform(key, (2, count), minval=tiny)
    power = jnp.log(radius) / parameter
    cosine = jnp.cos(2.0 * jnp.pi * angle)
    # t² over the degrees of freedom is this over exp(power).
    square = -jnp.expm1(power) * cosine**2
    ratio = square / (jnp.exp(power) + square + tiny)
    return 0.5 * (1.0 + jnp.sign(cosine) * jnp.sqrt(ratio))


def _partners(key: jax.Array, mask: jax.Array) -> jax.Array:
    """A random permutation of the images that count; the others are left alone.

    Returns:
      `[B]` int32.
    """
    counts, places = mask > 0, jnp.arange(len(mask), dtype=jnp.float32)
    drawn = jax.random.uniform(key, mask.shape)
    shuffled = jnp.argsort(jnp.where(counts, drawn, 1.0 + places))
    in_order = jnp.argsort(jnp.where(counts, places, len(mask) + places))
    return jnp.zeros(mask.shape, jnp.int32).at[in_order].set(shuffled.astype(jnp.int32))


def _outside_box(key: jax.Array, share: jax.Array, size: tuple[int, int]) -> jax.Array:
    """1 outside a box of the image's own shape around a random pixel, 0 inside.

    Args:
      share: `[B]`, of the area that is left outside; more where the box crosses the
        image's edge, as in the paper.

    Returns:
      `[B, H, W, 1]` float32.
    """

    def inside(number: int, length: int) -> jax.Array:
        """`[B, length]` bool, along one side."""
        half = (jnp.floor(length * jnp.sqrt(1.0 - share)) // 2)[:, None]
        middle = jax.random.randint(
            jax.random.fold_in(key, number), (len(share), 1), 0, length
        )
        offset = jnp.arange(length)[None] - middle
        return (offset >= -half) & (offset < half)

    rows, columns = (inside(*side) for side in enumerate(size))
    box = rows[:, :, None] & columns[:, None, :]
    return 1.0 - box[..., None].astype(jnp.float32)
