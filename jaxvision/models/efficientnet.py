"""EfficientNets: MobileNetV2's blocks, scaled.

EfficientNet (arXiv:1905.11946, table 1) in its form Lite, without gates and with ReLU6
for swish:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

EfficientNetV2 (arXiv:2104.00298, table 4) as Keras has it:
https://github.com/keras-team/keras/blob/master/keras/src/applications/efficientnet_v2.py
"""

import math
from functools import partial

import jax

from jaxvision.models.backbone import Layer
from jaxvision.models.layers import Rescale, Swish
from jaxvision.models.mobilenet import MobileNetV2, Stage


class EfficientNet(MobileNetV2):
    """`[B, H, W, 3]` -> `[B, head_features]`: "stem", "block1a" and so on, "pooled".

    With 1000 classes, Lite0 has 4,652,008 parameters and 42,016 running statistics,
    Lite1 5,416,680 and 53,664, Lite2 6,092,072 and 58,096, V2 B3 14,358,406 and
    109,216.

    A gate sees the whole image, and so does whatever comes after it: V2's layers
    from block4a on have no receptive field.
    """

    bn_momentum: float = 0.99
    """The reference's; it takes hundreds of steps to forget what it was trained on."""
    dropout_rate: float | jax.Array = 0.2
    """Dropout of the pooled features, which the reference has before its classifier."""
    drop_connect_rate: float | jax.Array = 0.2
    normalizes: bool = False
    """The first layer, "normalization", takes pixels from 0 to 255 and does what the
    weights want; whoever calls the network does not."""

    def layers(self, train: bool) -> list[Layer]:
        table = super().layers(train)
        if not self.normalizes:
            return table
        return [("normalization", _imagenet_normalized), *table]


def _imagenet_normalized(x: jax.Array) -> jax.Array:
    return Rescale(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(x)


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


def scaled(
    stages: tuple[Stage, ...], *, width: float, depth: float
) -> tuple[Stage, ...]:
    """The stages of a larger Lite: wider and deeper by these factors.

    Widths are rounded to multiples of 8; the first and the last stage keep their depth,
    as stem and head keep their width.
    """
    ends = (0, len(stages) - 1)
    return tuple(
        stage._replace(
            features=int(stage.features * width + 4) // 8 * 8,
            repeats=stage.repeats if i in ends else math.ceil(stage.repeats * depth),
        )
        for i, stage in enumerate(stages)
    )


LITE1 = scaled(LITE0, width=1.0, depth=1.1)
LITE2 = scaled(LITE0, width=1.1, depth=1.2)

# Width 1.2, rounded to multiples of 8 (also where that takes more than a tenth off:
# 19.2 -> 16), and depth 1.4, rounded up, of table 4's B0.
V2_B3 = (
    # repeats, kernel, stride, expansion, features
    Stage(2, 3, 1, 1, 16, is_fused=True),
    Stage(3, 3, 2, 4, 40, is_fused=True),
    Stage(3, 3, 2, 4, 56, is_fused=True),
    Stage(5, 3, 2, 4, 112, squeeze=0.25),
    Stage(7, 3, 1, 6, 136, squeeze=0.25),
    Stage(12, 3, 2, 6, 232, squeeze=0.25),
)

VARIANTS = {
    "efficientnet_lite0": partial(EfficientNet, stages=LITE0),
    "efficientnet_lite1": partial(EfficientNet, stages=LITE1),
    "efficientnet_lite2": partial(EfficientNet, stages=LITE2, dropout_rate=0.3),
    "efficientnet_v2_b3": partial(
        EfficientNet,
        stages=V2_B3,
        stem_features=40,
        head_features=1536,
        activation=Swish,
        bn_momentum=0.9,
        # Keras divides by the 21 blocks that there are before the depth is scaled.
        drop_connect_rate=0.2 * 32 / 21,
        normalizes=True,
    ),
}
