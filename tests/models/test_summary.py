"""The table of a network: counts beside the variables', and beside published ones."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from reduced_networks import every_kind, reduced

from jaxvision.errors import InputError
from jaxvision.models import create_model
from jaxvision.models.receptive_field import receptive_fields
from jaxvision.models.summary import LayerSummary, as_table, summarize_model
from jaxvision.report.markdown import Table


def by_layer(name: str, size: int, **options: Any) -> dict[str, LayerSummary]:
    model = create_model(name, 11, **options)
    return {row.layer: row for row in summarize_model(model, (size, size, 3))}


def test_the_course_network():
    rows = summarize_model(create_model("simple_cnn", 11), (50, 50, 3))
    assert rows == [
        LayerSummary("conv1", (23, 23, 16), 1216, 23**2 * 16 * 75, (5, 5), (2, 2)),
        LayerSummary("conv2", (10, 10, 16), 6416, 10**2 * 16 * 400, (13, 13), (4, 4)),
        LayerSummary("fc1", (64,), 1600 * 64 + 64, 1600 * 64),
        LayerSummary("head.logits", (11,), 64 * 11 + 11, 64 * 11),
    ]


@every_kind
def test_rows_are_those_of_the_network(name):
    model = reduced(name, 7)
    shape = (96, 112, 3)
    rows = summarize_model(model, shape)
    assert tuple(row.layer for row in rows) == (
        *model.backbone.layer_names(),
        "head.logits",
    )
    x = jnp.zeros((1, *shape))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert sum(row.parameters for row in rows) == sum(
        leaf.size for leaf in jax.tree.leaves(variables["params"])
    )
    _, state = jax.eval_shape(
        lambda v: model.apply(v, x, train=False, mutable=["activations"]), variables
    )
    fields = receptive_fields(model.backbone, shape)
    for row in rows[:-1]:
        assert row.output == state["activations"]["backbone"][row.layer].shape[1:]
        field = fields[row.layer]
        assert row.receptive_field == (field and field.size)
        assert row.stride == (field and field.stride)
    assert rows[-1].output == (7,)


# torchvision's AlexNet_Weights.IMAGENET1K_V1.meta["_ops"] is 0.714 GFLOPS, counted as
# multiply-adds; https://github.com/pytorch/vision/blob/main/torchvision/models/alexnet.py
def test_multiply_adds_of_alexnet_are_the_published_ones():
    rows = summarize_model(create_model("alexnet", 1000), (224, 224, 3))
    assert round(sum(row.multiply_adds for row in rows) / 1e9, 3) == 0.714


def test_depthwise_convolutions_count_one_channel():
    rows = by_layer("efficientnet_lite0", 224)
    depthwise = 112**2 * 32 * 3**2
    project = 112**2 * 32 * 16
    assert rows["block1a"].multiply_adds == depthwise + project


def test_norms_have_parameters_and_no_multiply_adds():
    options = {"blocks": 1, "pool_kernel": 0}
    plain, batch, weight = (
        by_layer("convnet", 20, norm=norm, **options)["conv1"]
        for norm in ("none", "batch", "weight")
    )
    assert plain.parameters == 3 * 3 * 3 * 16 + 16
    assert batch.parameters == plain.parameters + 16  # scale and bias, but one bias
    assert weight.parameters == plain.parameters + 16
    assert plain.multiply_adds == batch.multiply_adds == weight.multiply_adds


def test_a_head_of_several_layers_has_a_row_each():
    rows = by_layer("alexnet", 64, stop_at="conv2", head_hidden=(5,))
    assert list(rows) == [
        "conv1",
        "pool1",
        "conv2",
        "head.fc1",
        "head.bn1",
        "head.logits",
    ]
    features = 7 * 7 * 192
    assert rows["conv2"].output == (7, 7, 192)
    assert rows["head.fc1"].parameters == features * 5 + 5
    assert rows["head.bn1"].parameters == 10
    assert rows["head.logits"].multiply_adds == 5 * 11


def test_the_table_ends_with_totals():
    header, cells = as_table(
        summarize_model(
            create_model("convnet", 2, blocks=1, pool_kernel=2), (10, 12, 3)
        )
    )
    assert [row[0] for row in cells] == [
        "conv1",
        "pool1",
        "fc1",
        "head.logits",
        "total",
    ]
    assert cells[1] == ["pool1", "4×5×16", 0, 0, "4×4", "2×2"]
    assert cells[2][-2:] == ["whole image", "–"]
    assert cells[-1][2] == sum(row[2] for row in cells[:-1])
    assert cells[-1][3] == sum(row[3] for row in cells[:-1])
    lines = Table(header, cells).render().splitlines()
    assert len(lines) == 2 + len(cells)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(InputError, match="conv1: a 5x5 kernel"):
        summarize_model(create_model("simple_cnn", 2), (4, 50, 3))
