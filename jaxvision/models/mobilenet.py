"""MobileNetV2 (arXiv:1801.04381): inverted bottlenecks with linear ends."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import jax
from flax import linen as nn

from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import (
    HE_NORMAL,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dropout,
    Initializer,
    ReLU6,
    normalized,
)

# EfficientNet's reference draws kernels normal with variance 2 / (k * k * output
# channels); its depthwise kernels count one output channel, which is fan_in of our
# [k, k, 1, C]. torchvision draws MobileNetV2 so, too.
KERNEL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
DEPTHWISE_KERNEL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Stage(NamedTuple):
    """A row of the paper's table; only a stage's first block has its stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    features: int
    squeeze: float = 0.0
    """Width of the gate between its two layers, by that of what enters a block; 0 for
    no gate."""
    is_fused: bool = False
    """One dense convolution in place of the expansion and the depthwise one."""


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in (0, 1): `[B, H, W, C]` -> `[B, H, W, C]`.

    The gate sees the means over the whole image (arXiv:1709.01507), by way of a
    layer `features` wide.
    """

    features: int
    activation: Callable[[], nn.Module]
    conv: Callable[..., Conv]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = x.mean((1, 2), keepdims=True)
        gate = self.conv(self.features, 1, use_bias=True, name="reduce")(gate)
        gate = self.activation()(gate)
        gate = self.conv(x.shape[-1], 1, use_bias=True, name="expand")(gate)
        return x * nn.sigmoid(gate)


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project: `[B, H, W, C]` -> `[B, H/s, W/s, F]`.

    The residual, where shapes allow one, comes after the linear projection; in
    training it is dropped for an example with probability `drop_rate`. `squeeze` gates
    the filtered channels.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    squeeze: float
    drop_rate: float | jax.Array
    train: bool
    activation: Callable[[], nn.Module]
    conv: Callable[..., Conv]
    depthwise: Callable[..., DepthwiseConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion != 1:
            conv = self.conv(self.expansion * x.shape[-1], 1, name="expand_conv")
            y = self.activation()(normalized(conv, self.norm(name="expand_bn"), y))
        conv = self.depthwise(self.kernel_size, self.stride, name="depthwise_conv")
        y = self.activation()(normalized(conv, self.norm(name="depthwise_bn"), y))
        if self.squeeze:
            width = int(self.squeeze * x.shape[-1])
            y = SqueezeExcite(width, self.activation, self.conv, name="gate")(y)
        conv = self.conv(self.features, 1, name="project_conv")
        y = normalized(conv, self.norm(name="project_bn"), y)
        return _residual(x, y, self.drop_rate, self.train)


class FusedBottleneck(nn.Module):
    """Expand with a dense convolution, project: `[B, H, W, C]` -> `[B, H/s, W/s, F]`.

    EfficientNetV2's (arXiv:2104.00298, figure 2). Without an expansion the dense
    convolution is all there is, and its end is not linear.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    drop_rate: float | jax.Array
    train: bool
    activation: Callable[[], nn.Module]
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.kernel_size, self.stride)
        if self.expansion == 1:
            conv = self.conv(self.features, *window, name="project_conv")
            y = self.activation()(normalized(conv, self.norm(name="project_bn"), x))
        else:
            wide = self.expansion * x.shape[-1]
            conv = self.conv(wide, *window, name="expand_conv")
            y = self.activation()(normalized(conv, self.norm(name="expand_bn"), x))
            conv = self.conv(self.features, 1, name="project_conv")
            y = normalized(conv, self.norm(name="project_bn"), y)
        return _residual(x, y, self.drop_rate, self.train)


def _residual(
    x: jax.Array, y: jax.Array, drop_rate: float | jax.Array, train: bool
) -> jax.Array:
    if x.shape != y.shape:
        return y
    return x + Dropout(drop_rate, train, per_example=True, name="drop")(y)


class MobileNetV2(Backbone):
    """`[B, H, W, C]` -> `[B, head_features]`: "stem", "block1a" and so on, "pooled".

    With 1000 classes, statistics included: 3,538,984 parameters. Also the frame of
    EfficientNet, which changes the numbers and adds gates and fused blocks.
    """

    rates: ClassVar[tuple[str, ...]] = ("dropout_rate", "drop_connect_rate")

    bn_momentum: float = 0.999
    """Keras's; it takes thousands of steps to forget what it was trained on."""
    stages: tuple[Stage, ...] = ()
    stem_features: int = 32
    head_features: int = 1280
    activation: Callable[[], nn.Module] = ReLU6
    dropout_rate: float | jax.Array = 0.0
    """Dropout of the pooled features."""
    drop_connect_rate: float | jax.Array = 0.0
    """The last block's residual branch would be dropped with this probability; the
    others' grow towards it in equal steps."""

    def layers(self, train: bool) -> list[Layer]:
        conv = self.make_conv(padding="same", use_bias=False, kernel_init=KERNEL)
        norm = self.make_norm(train, epsilon=1e-3)

        def stem(x: jax.Array) -> jax.Array:
            first = conv(self.stem_features, 3, 2, name="stem_conv")
            return self.activation()(normalized(first, norm(name="stem_bn"), x))

        def conv_head(x: jax.Array) -> jax.Array:
            last = conv(self.head_features, 1, name="conv_head")
            return self.activation()(normalized(last, norm(name="bn_head"), x))

        def pooled(x: jax.Array) -> jax.Array:
            return Dropout(self.dropout_rate, train, name="dropout")(x.mean((1, 2)))

        return [
            ("stem", stem),
            *self._blocks(train, conv, norm),
            ("conv_head", conv_head),
            ("pooled", pooled),
        ]

    def _blocks(
        self,
        train: bool,
        conv: Callable[..., Conv],
        norm: Callable[..., BatchNorm],
    ) -> list[Layer]:
        depthwise = partial(
            DepthwiseConv,
            padding="same",
            kernel_init=DEPTHWISE_KERNEL,
            dtype=self.dtype,
        )
        table: list[Layer] = []
        blocks = named_blocks(self.stages)
        for place, (name, block) in enumerate(blocks):
            make = partial(
                FusedBottleneck if block.is_fused else InvertedBottleneck,
                block.features,
                block.kernel_size,
                block.stride,
                block.expansion,
                drop_rate=self.drop_connect_rate * place / len(blocks),
                train=train,
                activation=self.activation,
                conv=conv,
                norm=norm,
            )
            if not block.is_fused:
                make = partial(make, squeeze=block.squeeze, depthwise=depthwise)
            table.append((name, partial(_create_and_call, make, name)))
        return table


class WideBottleneck(nn.Module):
    """Expand, filter each channel, project: `[B, H, W, C]` -> `[B, H/s, W/s, F]`.

    Wider than the paper's: `expansion` times the channels that it gives, not those that
    it takes. Its end is linear. Of stride 1 it has a shortcut always, a convolution
    where the number of channels changes.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    conv: Callable[..., Conv]
    depthwise: Callable[..., DepthwiseConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.conv(self.expansion * self.features, 1, name="expand_conv")
        y = ReLU6()(normalized(conv, self.norm(name="expand_bn"), x))
        conv = self.depthwise(self.kernel_size, self.stride, name="depthwise_conv")
        y = ReLU6()(normalized(conv, self.norm(name="depthwise_bn"), y))
        conv = self.conv(self.features, 1, name="project_conv")
        y = normalized(conv, self.norm(name="project_bn"), y)
        if self.stride > 1:
            return y
        if x.shape != y.shape:
            x = self.conv(self.features, 1, name="shortcut_conv")(x)
        return x + y


class MobileNetPrado(Backbone):
    """`[B, H, W, C]` -> `[B, 160]`: "stem", "block1a" and so on, "conv_head", "pooled".

    MobileNetV2's plan with wider and fewer blocks. Every convolution has a bias and,
    shortcuts apart, a batch norm; kernels are drawn as Keras's HeNormal does.
    """

    bn_momentum: float = 0.99
    """Keras's default."""
    stages: tuple[Stage, ...] = ()

    def head_init(self) -> Initializer:
        return HE_NORMAL

    def layers(self, train: bool) -> list[Layer]:
        same = {"padding": "same", "kernel_init": HE_NORMAL}
        conv = self.make_conv(**same)
        norm = self.make_norm(train, epsilon=1e-3)  # Keras's default

        def stem(x: jax.Array) -> jax.Array:
            first = conv(32, 3, 2, name="stem_conv")
            return ReLU6()(normalized(first, norm(name="stem_bn"), x))

        def conv_head(x: jax.Array) -> jax.Array:
            last = conv(160, 1, name="conv_head")
            return ReLU6()(normalized(last, norm(name="bn_head"), x))

        def block(name: str, row: Stage) -> Layer:
            make = partial(
                WideBottleneck,
                row.features,
                row.kernel_size,
                row.stride,
                row.expansion,
                conv,
                partial(DepthwiseConv, use_bias=True, dtype=self.dtype, **same),
                norm,
            )
            return name, partial(_create_and_call, make, name)

        return [
            ("stem", stem),
            *(block(name, row) for name, row in named_blocks(self.stages)),
            ("conv_head", conv_head),
            ("pooled", lambda x: x.mean((1, 2))),
        ]


def named_blocks(stages: tuple[Stage, ...]) -> list[tuple[str, Stage]]:
    """Every block with its own stride, in order.

    "block1a" is the first of the first stage, "block2c" the third of the second.
    """
    return [
        (
            f"block{number}{'abcdefghijklmnop'[repeat]}",
            stage if repeat == 0 else stage._replace(stride=1),
        )
        for number, stage in enumerate(stages, start=1)
        for repeat in range(stage.repeats)
    ]


def _create_and_call(
    make: Callable[..., nn.Module], name: str, x: jax.Array
) -> jax.Array:
    return make(name=name)(x)


# Table 2 of the paper.
MOBILENET_V2 = (
    # repeats, kernel, stride, expansion, features
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(3, 3, 2, 6, 32),
    Stage(4, 3, 2, 6, 64),
    Stage(3, 3, 1, 6, 96),
    Stage(3, 3, 2, 6, 160),
    Stage(1, 3, 1, 6, 320),
)

# Richter 2024, figure 4.4.
PRADO = (
    # repeats, kernel, stride, expansion, features
    Stage(1, 3, 1, 6, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 3, 2, 6, 32),
    Stage(4, 3, 2, 6, 64),
    Stage(3, 3, 1, 6, 96),
)

VARIANTS = {
    "mobilenet_v2": partial(MobileNetV2, stages=MOBILENET_V2),
    # 642,709 parameters with 5 classes, 17,856 of them statistics.
    "mobilenet_prado": partial(MobileNetPrado, stages=PRADO),
}
