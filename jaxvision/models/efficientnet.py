"""EfficientNet-Lite: EfficientNet without squeeze-and-excite, ReLU6 for swish.

Networks: arXiv:1905.11946, table 1. Lite:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import BatchNorm, Conv, DepthwiseConv, Dropout, ReLU6

# The reference draws kernels normal with variance 2 / (k * k * output channels); its
# depthwise kernels count one output channel, which is fan_in of our [k, k, 1, C].
KERNEL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
DEPTHWISE_KERNEL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Stage(NamedTuple):
    """A row of the paper's table; only a stage's first block has its stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    features: int


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project: `[B, H, W, C]` -> `[B, H/s, W/s, F]`.

    The residual, where shapes allow one, comes after the linear projection
    (arXiv:1801.04381); in training it is dropped for an example with probability
    `drop_rate`.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    drop_rate: float
    train: bool
    conv: Callable[..., nn.Module]
    depthwise: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion != 1:
            y = self.conv(self.expansion * x.shape[-1], 1, name="expand_conv")(y)
            y = ReLU6()(self.norm(name="expand_bn")(y))
        y = self.depthwise(self.kernel_size, self.stride, name="depthwise_conv")(y)
        y = ReLU6()(self.norm(name="depthwise_bn")(y))
        y = self.conv(self.features, 1, name="project_conv")(y)
        y = self.norm(name="project_bn")(y)
        if x.shape != y.shape:
            return y
        drop = Dropout(self.drop_rate, self.train, per_example=True, name="drop")
        return x + drop(y)


class EfficientNet(Backbone):
    """`[B, H, W, 3]` -> `[B, 1280]`: "stem", blocks "block1a" to "block7a" and so on.

    Lite0 with 1000 classes: 4,652,008 parameters and 42,016 running statistics.
    """

    bn_momentum: float = 0.99
    """The reference's; it takes hundreds of steps to forget what it was trained on."""
    stages: tuple[Stage, ...] = ()
    dropout_rate: float | jax.Array = 0.2
    """Dropout of the pooled features, which the reference has before its classifier."""
    drop_connect_rate: float = 0.2
    """The last block's residual branch would be dropped with this probability; the
    others' grow towards it in equal steps."""

    def layers(self, train: bool) -> list[Layer]:
        conv = partial(
            Conv, padding="same", use_bias=False, kernel_init=KERNEL, dtype=self.dtype
        )
        depthwise = partial(
            DepthwiseConv,
            padding="same",
            kernel_init=DEPTHWISE_KERNEL,
            dtype=self.dtype,
        )
        norm = partial(
            BatchNorm,
            train and not self.bn_frozen,
            momentum=self.bn_momentum,
            epsilon=1e-3,
            axis_name=self.bn_axis_name,
            dtype=self.dtype,
        )
        block = partial(
            InvertedBottleneck,
            train=train,
            conv=conv,
            depthwise=depthwise,
            norm=norm,
        )

        def stem(x: jax.Array) -> jax.Array:
            x = conv(32, 3, 2, name="stem_conv")(x)
            return ReLU6()(norm(name="stem_bn")(x))

        def conv_head(x: jax.Array) -> jax.Array:
            x = conv(1280, 1, name="conv_head")(x)
            return ReLU6()(norm(name="bn_head")(x))

        def pooled(x: jax.Array) -> jax.Array:
            return Dropout(self.dropout_rate, train, name="dropout")(x.mean((1, 2)))

        return [
            ("stem", stem),
            *self._blocks(block),
            ("conv_head", conv_head),
            ("pooled", pooled),
        ]

    def _blocks(self, block: Callable[..., nn.Module]) -> list[Layer]:
        count = sum(stage.repeats for stage in self.stages)
        table: list[Layer] = []
        for number, stage in enumerate(self.stages, start=1):
            for repeat in range(stage.repeats):
                name = f"block{number}{'abcdefgh'[repeat]}"
                make = partial(
                    block,
                    stage.features,
                    stage.kernel_size,
                    stage.stride if repeat == 0 else 1,
                    stage.expansion,
                    self.drop_connect_rate * len(table) / count,
                    name=name,
                )
                table.append((name, partial(_create_and_call, make)))
        return table


def _create_and_call(make: Callable[[], nn.Module], x: jax.Array) -> jax.Array:
    return make()(x)


LITE0 = (
    # repeats, kernel, stride, expansion, features
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

VARIANTS = {"efficientnet_lite0": partial(EfficientNet, stages=LITE0)}
