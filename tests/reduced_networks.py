"""A network of each kind that compiles fast: few blocks, few channels."""

from typing import Any

import pytest

from jaxvision.models import MODELS, Network, create_model, resnet
from jaxvision.models.efficientnet import Stage
from jaxvision.models.vgg import Block

# Options, where the whole network only takes longer.
REDUCED: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 16, "batch_norm": True},
    "simple_cnn": {},
    "convnet": {
        "blocks": 2,
        "norm": "weight",
        "conv_dropout_rate": 0.2,
        "dense_dropout_rate": 0.2,
    },
    "alexnet": {},
    "efficientnet_lite0": {
        "stages": (Stage(2, 5, 2, 2, 16),),
    },
    "resnet50_v2": {"stages": (resnet.Stage(2, 4, 2), resnet.Stage(1, 8, 1))},
    "mobilenet_v2": {
        "stages": (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24)),
    },
    "efficientnet_v2_b3": {
        "stages": (
            Stage(2, 3, 1, 1, 16, is_fused=True),
            Stage(1, 3, 2, 4, 24, is_fused=True),
            Stage(2, 3, 2, 4, 24, squeeze=0.25),
        ),
        "stem_features": 16,
        "head_features": 64,
    },
    "vgg12": {"blocks": (Block(4, (3,)), Block(6, (3, 1))), "dense": (8, 6)},
    "vgg13_bn": {"blocks": (Block(4, (3, 3)),), "dense": (8,)},
    "resnet29": {"stages": (resnet.Stage(2, 2, 2),)},
    "mobilenet_prado": {"stages": (Stage(2, 3, 1, 2, 6),)},
    "vgg19": {"blocks": (Block(4, (3, 3)),), "dense": (8, 6), "grid": 3},
    "patches": {"filters": 6},
}
# Of images that leave something of the last layer.
SIZES = {
    "mlp": 28,
    "simple_cnn": 13,
    "convnet": 12,
    "alexnet": 63,
    "efficientnet_lite0": 12,
    "vgg12": 12,
    "vgg13_bn": 12,
    "resnet29": 24,
    "mobilenet_prado": 12,
    "resnet50_v2": 16,
    "mobilenet_v2": 12,
    "efficientnet_v2_b3": 16,
    "vgg19": 12,
    "patches": 9,
}

# Reduced they are the same network as another one.
DEEPER = ("efficientnet_lite1", "efficientnet_lite2", "vgg16")

every_kind = pytest.mark.parametrize("name", [m for m in MODELS if m not in DEEPER])


def reduced(name: str, num_classes: int = 5, **options: Any) -> Network:
    """The reduced network, with more options or others."""
    return create_model(name, num_classes, **{**REDUCED[name], **options})
