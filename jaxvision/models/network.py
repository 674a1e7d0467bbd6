"""A backbone with a head that gives logits: the form of every network here."""

from collections.abc import Collection
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models.backbone import Backbone
from jaxvision.models.layers import BatchNorm, Dropout, Initializer, ReLU

PARTS = ("backbone", "head")
"""The two parts of every network: the keys of its parameters."""


Pooling = Literal["mean", "gram"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pool_features(x: jax.Array, pooling: Pooling | None) -> jax.Array:
    """`[B, ...]`, a layer's output -> `[B, F]`, what the head sees of it.

    None is all of it, place by place. "mean" `[B, C]` and "gram" `[B, C (C + 1) / 2]`
    float32 forget the places. A Gram matrix holds how strongly each two channels occur
    together: brush and palette more than subject (arXiv:1505.07376). Of its upper
    triangle come square roots, lest a few channels decide, and a vector of length 1.

    Raises:
      InputError: the layer has no channels at places, and `pooling` needs them.
    """
    if pooling is None:
        return x.reshape(x.shape[0], -1)
    if x.ndim != 4:
        raise InputError(
            f"{pooling} is for layers with height and width, not a dense one: name"
            " another layer by `stop_at`",
            setting="pooling",
        )
    x = x.astype(jnp.float32)
    if pooling == "mean":
        return x.mean((1, 2))
    height, width, channels = x.shape[1:]
    gram = jnp.einsum("bhwc,bhwd->bcd", x, x) / (height * width)
    rows, columns = np.triu_indices(channels)
    triangle = gram[:, rows, columns]
    # The small numbers keep the gradient finite where channels never meet.
    rooted = triangle / jnp.sqrt(jnp.abs(triangle) + 1e-6)
    return rooted / jnp.sqrt(jnp.sum(rooted**2, -1, keepdims=True) + 1e-12)


class Head(nn.Module):
    """`[B, F]` -> `[B, num_classes]` float32 logits.

    Each width of `hidden` is a dense layer, batch norm, ReLU and dropout: the head of
    transfer learning on features. Without any, the head is one dense layer.
    """

    num_classes: int
    hidden: tuple[int, ...]
    dropout_rate: float | jax.Array
    kernel_init: Initializer
    bn_axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i, width in enumerate(self.hidden, start=1):
            x = nn.Dense(
                width, kernel_init=self.kernel_init, dtype=self.dtype, name=f"fc{i}"
            )(x)
            x = BatchNorm(
                train,
                momentum=0.9,  # a head sees few steps; torch's default 0.1
                axis_name=self.bn_axis_name,
                dtype=self.dtype,
                name=f"bn{i}",
            )(x)
            x = Dropout(self.dropout_rate, train, name=f"dropout{i}")(ReLU()(x))
        x = nn.Dense(
            self.num_classes,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="logits",
        )(x)
        return x.astype(jnp.float32)


class Network(nn.Module):
    """A network: `params["backbone"]` and `params["head"]`, logits out."""

    rates: ClassVar[tuple[str, ...]] = ("head_dropout",)
    """As a backbone's."""

    backbone: Backbone
    num_classes: int
    stop_at: str | None = None
    """The backbone's last layer that is run; None for all of them."""
    head_hidden: tuple[int, ...] = ()
    head_dropout: float | jax.Array = 0.0
    pooling: Pooling | None = None
    """What the head sees of the last layer (`pool_features`)."""

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, frozen: Collection[str] = ()
    ) -> jax.Array:
        """Logits of a batch.

        Args:
          x: `[B, H, W, C]` float32, normalized (`Preprocessing.normalize`).
          train: batch statistics and dropout as in training.
          frozen: parts ("backbone", "head") that run as in evaluation all the same:
            their statistics stand still and nothing is dropped.

        Returns:
          `[B, num_classes]` float32 logits.

        Raises:
          InputError: a part or the layer `stop_at` is unknown, or x is too small.
        """
        for part in frozen:
            if part not in PARTS:
                raise InputError(f"no part {part!r}; the parts are {', '.join(PARTS)}")
        x = self.backbone(
            x, train=train and "backbone" not in frozen, stop_at=self.stop_at
        )
        head = Head(
            self.num_classes,
            self.head_hidden,
            self.head_dropout,
            self.backbone.head_init(),
            self.backbone.bn_axis_name,
            self.backbone.dtype,
            name="head",
        )
        x = pool_features(x, self.pooling)
        return head(x, train=train and "head" not in frozen)
