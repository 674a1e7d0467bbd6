"""The recursion beside known sizes, and beside the gradient of every network."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from reduced_networks import every_kind, reduced

from jaxvision.errors import InputError
from jaxvision.models import Backbone, create_model, resnet
from jaxvision.models.backbone import Layer
from jaxvision.models.efficientnet import LITE0
from jaxvision.models.layers import Conv, Dense, DepthwiseConv, MaxPool
from jaxvision.models.mobilenet import Stage
from jaxvision.models.receptive_field import (
    Box,
    Span,
    bounding_box,
    check_receptive_fields,
    receptive_fields,
)
from jaxvision.models.vgg import Block


def fields(name: str, size: int, **options: Any) -> dict[str, Any]:
    return receptive_fields(create_model(name, 2, **options).backbone, (size, size, 3))


def disagreements(
    backbone: Backbone, shape: tuple[int, int, int], at: tuple[float, float]
) -> list[str]:
    checks = list(check_receptive_fields(backbone, shape, at=at))
    assert checks
    assert all(check.gradient.min() >= 0 for check in checks)
    return [
        f"{check.layer}: {check.expected} by recursion, {check.found} by gradient"
        for check in checks
        if not check.agrees
    ]


# -- One axis -------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second", "size"), [(5, 3, 7), (3, 3, 5), (1, 7, 7)])
def test_two_convolutions_see_the_sum_less_one(first, second, size):
    pixels = Span.of_pixels(20)
    span = pixels.through(first, 1, (0, 0)).through(second, 1, (0, 0))
    assert (span.size, span.stride, span.start) == (size, 1, 0)
    assert span.seen == tuple((i, i + size - 1) for i in range(20 - size + 1))


def test_strides_multiply_and_padding_moves_the_start():
    span = Span.of_pixels(10).through(3, 2, (1, 1)).through(3, 2, (0, 1))
    assert (span.size, span.stride, span.start) == (7, 4, -1)
    # Nodes of the first layer see -1..1, 1..3, 3..5, 5..7, 7..9.
    assert span.seen == ((0, 5), (3, 9))


def test_the_border_is_cut_at_every_layer():
    # The first layer sees pixels 0 to 8 alone, whatever is padded afterwards.
    span = Span.of_pixels(10).through(3, 3, (0, 0)).through(3, 1, (1, 1))
    assert span.seen[-1] == (3, 8)
    assert span.start + 2 * span.stride + span.size - 1 == 11


def test_branches_see_what_either_sees():
    pixels = Span.of_pixels(8)
    joined = pixels.through(3, 1, (0, 2)).joined(pixels.through(3, 1, (2, 0)))
    assert (joined.size, joined.stride, joined.start) == (5, 1, -2)
    assert joined.seen[3] == (1, 5)


# -- Networks -------------------------------------------------------------------------


def test_alexnet_sees_what_is_published():
    # "alexnet_v2" of https://distill.pub/2019/computing-receptive-fields
    alexnet = fields("alexnet", 224)
    assert alexnet["features"].size == (195, 195)
    assert alexnet["features"].stride == (32, 32)
    assert alexnet["fc6"] is None


def test_efficientnet_sees_what_its_table_says():
    size, stride = 3, 2  # the stem
    for stage in LITE0:
        for repeat in range(stage.repeats):
            size += (stage.kernel_size - 1) * stride
            stride *= stage.stride if repeat == 0 else 1
    last = fields("efficientnet_lite0", 224)["conv_head"]
    assert last.size == (size, size) == (851, 851)
    assert last.stride == (stride, stride) == (32, 32)


def test_the_course_network():
    plain = fields("simple_cnn", 50)
    assert {k: v and (v.size, v.stride, v.start) for k, v in plain.items()} == {
        "conv1": ((5, 5), (2, 2), (0, 0)),
        "conv2": ((13, 13), (4, 4), (0, 0)),
        "fc1": None,
    }
    pooled = fields("simple_cnn", 50, pool_kernel=2)
    assert pooled["pool2"].size == (31, 31)
    assert pooled["pool2"].stride == (16, 16)
    assert pooled["pool2"].nodes == (2, 2)


@every_kind
def test_every_layer_has_an_entry(name):
    backbone = reduced(name).backbone
    found = receptive_fields(backbone, (224, 230, 3))
    assert tuple(found) == backbone.layer_names()
    fields = list(found.values())
    local = [field for field in fields if field is not None]
    # Once global, always global; and a layer never sees less than the one before.
    assert fields == local + [None] * (len(fields) - len(local))
    sizes = [field.size[0] for field in local]
    assert sizes == sorted(sizes)
    last = receptive_fields(backbone, (224, 230, 3), stop_at=backbone.layer_names()[0])
    assert last == {backbone.layer_names()[0]: fields[0]}


def test_the_mlp_is_global_from_its_first_layer():
    backbone = create_model("mlp", 2).backbone
    assert set(receptive_fields(backbone, (28, 28, 3)).values()) == {None}
    assert list(check_receptive_fields(backbone, (28, 28, 3))) == []


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("simple_cnn", 50, {}),
        ("simple_cnn", 50, {"pool_kernel": 2}),
        ("simple_cnn", 50, {"pool_kernel": 2, "pool_stride": 1}),
        ("convnet", 50, {}),
        ("convnet", 50, {"norm": "local_response", "padding": "same"}),
        ("convnet", 49, {"norm": "batch", "padding": "same", "stride": 2}),
        ("convnet", 41, {"norm": "weight", "kernel_size": 5, "shape": "inverse"}),
        # Strides larger than kernels leave holes.
        ("convnet", 50, {"padding": "same", "stride": 4, "pool_kernel": 0}),
        ("alexnet", 140, {}),
        ("vgg12", 30, {"blocks": (Block(4, (3, 1)), Block(4, (3,))), "dense": (4,)}),
        ("resnet29", 60, {"stages": (resnet.Stage(1, 2, 1), resnet.Stage(2, 2, 2))}),
        ("mobilenet_prado", 40, {"stages": (Stage(2, 3, 2, 2, 4),)}),
    ],
)
def test_recursion_and_gradient_agree(name, size, options):
    backbone = create_model(name, 2, **options).backbone
    for at in ((0.5, 0.5), (0.0, 1.0)):
        assert disagreements(backbone, (size, size, 3), at) == []


def test_recursion_and_gradient_agree_on_the_whole_of_efficientnet():
    backbone = create_model("efficientnet_lite0", 2).backbone
    assert disagreements(backbone, (96, 128, 3), (0.5, 0.5)) == []


# The last block of the first stage has the stride, on both of its ways.
def test_recursion_and_gradient_agree_on_preactivated_blocks():
    stages = (resnet.Stage(3, 4, 2), resnet.Stage(1, 4, 1))
    backbone = create_model("resnet50_v2", 2, stages=stages).backbone
    assert disagreements(backbone, (61, 50, 3), (0.5, 0.5)) == []


def test_recursion_and_gradient_agree_up_to_the_first_gate():
    backbone = create_model("efficientnet_v2_b3", 2).backbone
    assert disagreements(backbone, (61, 50, 3), (0.5, 0.5)) == []
    fields = receptive_fields(backbone, (96, 128, 3))
    assert fields["block3c"] is not None
    assert fields["block4a"] is None


class Branches(Backbone):
    """What a residual network has: a projection beside the longer way, then none."""

    def layers(self, train: bool) -> list[Layer]:
        return [
            ("stem", lambda x: MaxPool(3, 2, 1)(Conv(4, 5, 2, 2, name="stem")(x))),
            ("down", self._down),
            ("same", lambda x: x + Conv(6, 3, 1, "same", name="same")(x)),
            ("gap", lambda x: x.mean((1, 2))),
            ("fc", lambda x: Dense(3, name="fc")(x)),
        ]

    def _down(self, x: jax.Array) -> jax.Array:
        short = Conv(6, 1, 2, name="projection")(x)
        y = nn.relu(DepthwiseConv(3, 2, 1, name="a")(x))
        return nn.relu(short + Conv(6, 3, 1, 1, name="b")(y))


def test_branches_take_the_longest_way():
    shape = (61, 50, 3)
    backbone = Branches()
    found = receptive_fields(backbone, shape)
    # 5; + 2·2 by the pool; + 4·2 and 8·2 by the two of the block; + 8·2.
    assert {k: v and v.size[0] for k, v in found.items()} == {
        "stem": 9,
        "down": 33,
        "same": 49,
        "gap": None,
        "fc": None,
    }
    assert found["down"].stride == (8, 8)
    for at in ((0.5, 0.5), (0.0, 1.0)):
        assert disagreements(backbone, shape, at) == []


def test_a_window_out_of_sight_is_no_silent_error():
    class Hidden(Backbone):
        def layers(self, train: bool) -> list[Layer]:
            return [("conv1", lambda x: nn.remat(Conv)(4, 3, name="conv1")(x))]

    with pytest.raises(ValueError, match="0 of 1 windows"):
        receptive_fields(Hidden(), (9, 9, 3))


def test_a_wrong_field_would_be_found():
    """The check runs the network itself: a layer that pads otherwise is noticed."""

    class Shifted(Backbone):
        def layers(self, train: bool) -> list[Layer]:
            def conv1(x: jax.Array) -> jax.Array:
                y = Conv(4, 3, 1, 1, name="conv1")(x)
                return jax.numpy.roll(y, 1, axis=1)

            return [("conv1", conv1)]

    (check,) = check_receptive_fields(Shifted(), (9, 9, 3))
    assert not check.agrees
    assert (check.expected.top, check.found.top) == (3, 2)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(InputError, match="conv2: a 5x5 kernel"):
        fields("simple_cnn", 12)


def test_bounding_box():
    gradient = np.zeros((5, 6))
    assert bounding_box(gradient) is None
    gradient[1, 2] = gradient[3, 4] = 1e-30
    assert bounding_box(gradient) == Box(top=1, left=2, bottom=3, right=4)
