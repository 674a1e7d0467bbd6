"""The rule of guided backpropagation, the context that lends it, and who obeys it."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxvision.models
from jaxvision.errors import InputError
from jaxvision.explain.methods import gradient, guided_backprop, guided_gradients
from jaxvision.models import Network
from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import PReLU, ReLU, ReLU6

X = jnp.array([-2.0, -1.0, 0.5, 3.0, 7.0])
G = jnp.array([1.0, -1.0, -2.0, 3.0, 4.0])
SLOPE = jnp.array([0.5, -0.25, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("module", "by_input"),
    [
        (ReLU(), [0.0, 0.0, 0.0, 3.0, 4.0]),
        (ReLU6(), [0.0, 0.0, 0.0, 3.0, 0.0]),
        # Below zero it is g times the slope; both parts may be negative.
        (PReLU(), [0.5, 0.25, 0.0, 3.0, 4.0]),
    ],
)
def test_what_flows_back_is_cut_at_zero(module, by_input):
    variables = {"params": {"slope": SLOPE}} if isinstance(module, PReLU) else {}

    def forward(x: jax.Array) -> jax.Array:
        return module.apply(variables, x)

    usual, back = jax.vjp(forward, X)
    with guided_gradients():
        guided, guided_back = jax.vjp(forward, X)
    np.testing.assert_array_equal(guided, usual)
    np.testing.assert_array_equal(guided_back(G)[0], by_input)
    # The context has ended: so has the rule.
    np.testing.assert_array_equal(jax.vjp(forward, X)[1](G)[0], back(G)[0])


def test_it_is_the_gradient_that_differs(make_network, make_images):
    network, images = make_network("convnet", blocks=1), make_images(2)
    before = np.asarray(gradient(network, images, 1))
    guided = np.asarray(guided_backprop(network, images, 1))
    assert guided.shape == images.shape
    assert np.abs(guided - before).max() > 0.1 * np.abs(before).max()
    np.testing.assert_array_equal(gradient(network, images, 1), before)


class Smooth(Backbone):
    """A network without a rectifier."""

    def layers(self, train: bool) -> list[Layer]:
        return [("fc1", lambda x: nn.swish(x.reshape(x.shape[0], -1)))]


def test_a_network_without_rectifiers_is_refused(make_network, make_images):
    network = make_network("mlp", hidden=2)
    other = type(network)(
        Network(Smooth(), 3), network.variables, network.preprocessing
    )
    with pytest.raises(InputError, match=r"needs rectifiers .*Smooth has none"):
        guided_backprop(other, make_images(1), 0)


def test_networks_call_rectifiers_as_modules():
    """As functions the context would not reach them, and guided backpropagation would
    silently be the plain gradient."""
    folder = Path(jaxvision.models.__file__).parent
    called = [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.glob("*.py"))
        if path.name != "layers.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("relu", "relu6", "leaky_relu", "hard_tanh", "PReLU")
    ]
    assert called == []
