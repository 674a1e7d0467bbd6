"""Grad-CAM: what it computes, and which layer it looks at."""

import jax
import numpy as np
import pytest

from jaxvision.errors import InputError
from jaxvision.explain.methods import (
    class_activation,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
)
from jaxvision.explain.network import trace_layers
from jaxvision.models import MODELS, create_model

CAM_LAYERS = {
    "simple_cnn": "conv2",
    "convnet": "conv3",
    "alexnet": "conv5",
    "efficientnet_lite0": "conv_head",
    "vgg12": "conv4_3",
    "vgg13_bn": "conv4_2",
}


def test_channels_are_weighed_by_their_mean_gradient(make_network, make_images):
    network, images = (
        make_network("convnet", blocks=2, pool_kernel=0),
        (make_images(2)),
    )
    inputs = network.preprocessing.normalize(images)
    backbone = network.model.backbone
    variables = {"params": network.variables["params"]["backbone"]}
    output = jax.jit(lambda v, x: backbone.apply(v, x, train=False, stop_at="conv1"))(
        variables, inputs
    )
    ours = np.asarray(class_activation(network, images, [0, 2], layer="conv1"))
    assert ours.shape == output.shape[:3]

    # The rest of the network from conv1's output, by itself.
    def score(output: jax.Array) -> jax.Array:
        x = output
        for name, layer in (
            ("conv2", lambda v, x: _conv_relu(v, x)),
            ("fc1", lambda v, x: _dense(v, x.reshape(len(x), -1), relu=True)),
        ):
            x = layer(variables["params"][name], x)
        logits = _dense(network.variables["params"]["head"]["logits"], x, relu=False)
        return logits[0, 0] + logits[1, 2]

    by_output = np.asarray(jax.jit(jax.grad(score))(output))
    weights = by_output.mean((1, 2), keepdims=True)
    expected = np.maximum((weights * np.asarray(output)).sum(-1), 0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)


def _conv_relu(values: dict, x: jax.Array) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x, values["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y + values["bias"][None, None, None])


def _dense(values: dict, x: jax.Array, *, relu: bool) -> jax.Array:
    y = x @ values["kernel"] + values["bias"][None]
    return jax.nn.relu(y) if relu else y


def test_guided_grad_cam_is_the_product(make_network, make_images):
    network, images = make_network("convnet", blocks=1), make_images(2)
    maps = np.asarray(grad_cam(network, images, 1))
    assert maps.shape == (2, 12, 12)
    np.testing.assert_allclose(
        guided_grad_cam(network, images, 1),
        np.asarray(guided_backprop(network, images, 1)) * maps[..., None],
        rtol=1e-5,
        atol=1e-9,
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_layer_is_known_for_each_network(name):
    """It has height and width, and nothing after it has a convolution."""
    if name == "mlp":
        return
    size = 50 if name in ("simple_cnn", "convnet") else 224
    model = create_model(name, 2)
    channels = 1 if name == "vgg13_bn" else 3
    trace = trace_layers(model, (size, size, channels))
    outputs = list(trace.outputs)
    layer = trace.cam_layer
    assert len(trace.outputs[layer]) == 3
    assert outputs.index(layer) >= outputs.index(trace.last_convolution)
    assert layer == CAM_LAYERS.get(name, layer)


def test_a_network_without_convolutions_has_none(make_network, make_images):
    network, images = make_network("mlp", hidden=2), make_images(1)
    for method in (grad_cam, guided_grad_cam):
        with pytest.raises(InputError, match="MLP has no convolution; choose another"):
            method(network, images, 0)


def test_a_layer_must_be_run_and_have_height_and_width(make_network, make_images):
    network, images = make_network("convnet", blocks=1), make_images(1)
    with pytest.raises(InputError, match=r"'conv9' is not run; .*: conv1, pool1"):
        grad_cam(network, images, 0, layer="conv9")
    with pytest.raises(InputError, match="'fc1' has no height and width"):
        grad_cam(network, images, 0, layer="fc1")
    shorter = make_network("convnet", blocks=2, stop_at="conv1")
    with pytest.raises(InputError, match="'conv2' is not run"):
        grad_cam(shorter, images, 0, layer="conv2")
