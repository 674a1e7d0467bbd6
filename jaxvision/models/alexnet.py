"""AlexNet as torchvision has it: "one weird trick" (arXiv:1404.5997).

Not the network of 2012: 64-192-384-256-256 filters, no local response norm, no
groups. https://github.com/pytorch/vision/blob/main/torchvision/models/alexnet.py
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import (
    TORCH_KERNEL,
    Conv,
    Dropout,
    MaxPool,
    ReLU,
    adaptive_average_pool,
    torch_bias,
)


class AlexNet(Backbone):
    """`[B, H, W, 3]` -> `[B, 4096]`; the head's `logits` is the paper's fc8.

    With 1000 classes: 61,100,840 parameters.
    """

    rates: ClassVar[tuple[str, ...]] = ("dropout_rate",)

    dropout_rate: float | jax.Array = 0.5
    """Dropout of what goes into fc6 and into fc7."""

    @property
    def smallest(self) -> int:
        return 63

    def layers(self, train: bool) -> list[Layer]:
        conv = partial(_conv_relu, dtype=self.dtype)
        dense = partial(_dense_relu, dtype=self.dtype)
        drop = partial(Dropout, self.dropout_rate, train)
        return [  # at 224x224:
            ("conv1", lambda x: conv(x, 64, 11, 2, stride=4, name="conv1")),  # 55x55
            ("pool1", _max_pool),  # 27x27
            ("conv2", lambda x: conv(x, 192, 5, 2, name="conv2")),
            ("pool2", _max_pool),  # 13x13
            ("conv3", lambda x: conv(x, 384, 3, 1, name="conv3")),
            ("conv4", lambda x: conv(x, 256, 3, 1, name="conv4")),
            ("conv5", lambda x: conv(x, 256, 3, 1, name="conv5")),
            ("features", lambda x: adaptive_average_pool(_max_pool(x), 6)),  # 6x6x256
            ("fc6", lambda x: dense(drop(name="dropout6")(_flat(x)), 4096, name="fc6")),
            ("fc7", lambda x: dense(drop(name="dropout7")(x), 4096, name="fc7")),
        ]


def _conv_relu(
    x: jax.Array,
    features: int,
    kernel_size: int,
    padding: int,
    *,
    stride: int = 1,
    name: str,
    dtype: jnp.dtype,
) -> jax.Array:
    conv = Conv(
        features,
        kernel_size,
        stride,
        padding,
        kernel_init=TORCH_KERNEL,
        bias_init=torch_bias(kernel_size**2 * x.shape[-1]),
        dtype=dtype,
        name=name,
    )
    return ReLU()(conv(x))


def _dense_relu(
    x: jax.Array, features: int, *, name: str, dtype: jnp.dtype
) -> jax.Array:
    dense = nn.Dense(
        features,
        kernel_init=TORCH_KERNEL,
        bias_init=torch_bias(x.shape[-1]),
        dtype=dtype,
        name=name,
    )
    return ReLU()(dense(x))


def _max_pool(x: jax.Array) -> jax.Array:
    return MaxPool(3, 2)(x)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


VARIANTS = {"alexnet": AlexNet}
