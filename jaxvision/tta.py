"""Test-time augmentation: one answer from several versions of an image."""

import dataclasses
from collections.abc import Collection
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxvision.errors import InputError
from jaxvision.metrics import class_logits
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing

Tta = Literal["flip", "five-crops", "ten-crops"]
"""Which versions: flip: the image and its mirror image; five-crops: its center and its
four corners; ten-crops: these and their mirror images."""

MARGIN = 8 / 7
"""How much larger than a crop the image is, where its preprocessing does not say it:
256 pixels for 224."""


@dataclasses.dataclass(frozen=True)
class Versions:
    """What makes several inputs of a network of one image.

    Attributes:
      tta: which.
      preprocessing: of one input.
    """

    tta: Tta
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.tta not in get_args(Tta):
            raise InputError(
                f"there are: {', '.join(get_args(Tta))}", setting="tta", value=self.tta
            )

    @property
    def crops(self) -> int:
        """How many parts of an image are taken."""
        return 1 if self.tta == "flip" else 5

    @property
    def count(self) -> int:
        """How many versions of an image there are."""
        return self.crops if self.tta == "five-crops" else 2 * self.crops

    @property
    def source(self) -> Preprocessing:
        """The geometry of the images that versions are made of.

        Crops are cut from a larger image: with `resize_mode` crop from the square of
        its `resize`, else from one that is `MARGIN` times as large.
        """
        own = self.preprocessing
        if self.crops == 1:
            return own
        if own.resize_mode == "crop" and own.resize > max(own.size):
            return dataclasses.replace(own, size=(own.resize, own.resize))
        height, width = (round(MARGIN * side) for side in own.size)
        return dataclasses.replace(own, size=(height, width), resize=max(height, width))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalized versions: `[B, H, W, C]` uint8 of `source` -> `[V * B, h, w, C]`
        float32, all images in their first version, then all in the second."""
        if self.crops == 1:
            versions = [images]
        else:
            height, width = self.preprocessing.size
            bottom, right = images.shape[1] - height, images.shape[2] - width
            # Rounded as every center crop here.
            corners = [(round(bottom / 2), round(right / 2))]
            corners += [(y, x) for y in (0, bottom) for x in (0, right)]
            versions = [images[:, y : y + height, x : x + width] for y, x in corners]
        if self.tta != "five-crops":
            versions += [version[:, :, ::-1] for version in versions]
        return self.preprocessing(jnp.concatenate(versions))


class MeanNetwork(Network):
    """A network that answers by the mean of its probabilities for the versions of an
    image: their logarithms `[B, K]` are its logits.

    It is probabilities that are averaged, as in Krizhevsky et al., "ImageNet
    Classification with Deep Convolutional Neural Networks" (2012), 4.1.
    """

    versions: int = 1
    temperature: float = 1.0
    """What the logits of a version are divided by for its probabilities."""

    @classmethod
    def of(
        cls, network: Network, *, versions: int, temperature: float
    ) -> "MeanNetwork":
        """With the layers, and so with the parameters, of another network."""
        fields = {
            field.name: getattr(network, field.name)
            for field in dataclasses.fields(Network)
            if field.name not in ("parent", "name")
        }
        return cls(**fields, versions=versions, temperature=temperature)

    def __call__(
        self, x: jax.Array, *, train: bool, frozen: Collection[str] = ()
    ) -> jax.Array:
        """As of `Network`, on `[V * B, H, W, C]` float32, as from `Versions`; two
        classes have two logits also where it gives one."""
        logits = (
            class_logits(super().__call__(x, train=train, frozen=frozen))
            / self.temperature
        )
        each = jax.nn.log_softmax(logits).reshape(self.versions, -1, logits.shape[-1])
        return jax.nn.logsumexp(each, 0) - jnp.log(self.versions)
