"""Residual networks."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import (
    HE_NORMAL,
    BatchNorm,
    Conv,
    Initializer,
    MaxPool,
    ReLU,
    normalized,
)


class Stage(NamedTuple):
    """Blocks of the same width; `stride` is that of one of them, the first in ResNet
    and the last in ResNetV2."""

    repeats: int
    features: int
    stride: int


class PreactivationBottleneck(nn.Module):
    """`[B, H, W, C]` -> `[B, H/s, W/s, 4 features]` (arXiv:1603.05027, figure 4e).

    With `project` the shortcut is a convolution of what has been normalized and
    rectified; without, it is the input itself, every `stride`-th pixel of it.
    """

    features: int
    stride: int
    project: bool
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = 4 * self.features
        preact = ReLU()(self.norm(name="preact_bn")(x))
        if self.project:
            shortcut = self.conv(wide, 1, self.stride, name="shortcut")(preact)
        else:
            # A window of one pixel, so that the stride is seen by who looks for it.
            shortcut = MaxPool(1, self.stride)(x) if self.stride > 1 else x
        conv = partial(self.conv, self.features, use_bias=False)
        y = ReLU()(normalized(conv(1, name="conv1"), self.norm(name="bn1"), preact))
        conv2 = conv(3, self.stride, 1, name="conv2")
        y = ReLU()(normalized(conv2, self.norm(name="bn2"), y))
        return shortcut + self.conv(wide, 1, name="conv3")(y)


class Bottleneck(nn.Module):
    """`[B, H, W, C]` -> `[B, H/s, W/s, 4 features]` (arXiv:1512.03385, figure 5).

    The stride is that of the first convolution, as in the paper; with `project` the
    shortcut is a convolution and batch norm, else the input itself.
    """

    features: int
    stride: int
    project: bool
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = 4 * self.features
        conv = self.conv(self.features, 1, self.stride, name="conv1")
        y = ReLU()(normalized(conv, self.norm(name="bn1"), x))
        conv = self.conv(self.features, 3, name="conv2")
        y = ReLU()(normalized(conv, self.norm(name="bn2"), y))
        y = normalized(self.conv(wide, 1, name="conv3"), self.norm(name="bn3"), y)
        if self.project:
            conv = self.conv(wide, 1, self.stride, name="shortcut_conv")
            x = normalized(conv, self.norm(name="shortcut_bn"), x)
        return ReLU()(x + y)


class ResNet(Backbone):
    """`[B, H, W, C]` -> `[B, F]`: "conv1", "pool1", "conv2_block1" and so on, "pooled".

    Every convolution has a bias and a batch norm, projections included.
    """

    bn_momentum: float = 0.99
    """Keras's default."""
    stages: tuple[Stage, ...] = ()

    def head_init(self) -> Initializer:
        return HE_NORMAL

    def layers(self, train: bool) -> list[Layer]:
        conv = self.make_conv(padding="same", kernel_init=HE_NORMAL)
        norm = self.make_norm(train, epsilon=1e-3)  # Keras's default

        def conv1(x: jax.Array) -> jax.Array:
            first = conv(64, 7, 2, name="conv1")
            return ReLU()(normalized(first, norm(name="bn1"), x))

        def block(name: str, features: int, stride: int, project: bool) -> Layer:
            make = partial(Bottleneck, features, stride, project, conv, norm)
            return name, lambda x: make(name=name)(x)

        blocks = [
            block(
                f"conv{number}_block{place}",
                stage.features,
                stage.stride if place == 1 else 1,
                place == 1,
            )
            for number, stage in enumerate(self.stages, start=2)
            for place in range(1, stage.repeats + 1)
        ]
        return [
            ("conv1", conv1),
            ("pool1", lambda x: MaxPool(3, 2, "same")(x)),
            *blocks,
            ("pooled", lambda x: x.mean((1, 2))),
        ]


class ResNetV2(Backbone):
    """`[B, H, W, C]` -> `[B, F]`: "conv2_block1" and so on, the mean of "post".

    As Keras has it, which strides in a stage's last block where the paper strides in
    its first:
    https://github.com/keras-team/keras/blob/master/keras/src/applications/resnet.py
    """

    bn_momentum: float = 0.99
    """Keras's default."""
    stages: tuple[Stage, ...] = ()

    def layers(self, train: bool) -> list[Layer]:
        conv = self.make_conv(kernel_init=HE_NORMAL)
        norm = self.make_norm(train, epsilon=1.001e-5)

        def block(name: str, features: int, stride: int, project: bool) -> Layer:
            make = partial(
                PreactivationBottleneck, features, stride, project, conv, norm
            )
            return name, lambda x: make(name=name)(x)

        blocks = [
            block(
                f"conv{number}_block{place}",
                stage.features,
                stage.stride if place == stage.repeats else 1,
                place == 1,
            )
            for number, stage in enumerate(self.stages, start=2)
            for place in range(1, stage.repeats + 1)
        ]
        return [
            ("conv1", lambda x: conv(64, 7, 2, 3, name="conv1")(x)),
            # What comes in has not been rectified: zeros in the border may win.
            ("pool1", lambda x: MaxPool(3, 2, 1, border=0.0)(x)),
            *blocks,
            ("post", lambda x: ReLU()(norm(name="post_bn")(x))),
            ("pooled", lambda x: x.mean((1, 2))),
        ]


RESNET50_V2 = (
    # repeats, features, stride
    Stage(3, 64, 2),
    Stage(4, 128, 2),
    Stage(6, 256, 2),
    Stage(3, 512, 1),
)

# Richter 2024, figure 3.2.
RESNET29 = (
    Stage(3, 64, 1),
    Stage(4, 128, 2),
    Stage(2, 256, 2),
)

VARIANTS = {
    # 4,088,837 trained parameters with 5 classes.
    "resnet29": partial(ResNet, stages=RESNET29),
    # 25,613,800 parameters with 1000 classes, statistics included.
    "resnet50_v2": partial(ResNetV2, stages=RESNET50_V2),
}
