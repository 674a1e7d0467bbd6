"""`create_model`: a network and its variables for a loop of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import create_model
from jaxvision.errors import InputError
from jaxvision.pretrained import load


def test_create_model_has_the_published_backbone_and_a_new_head():
    model, variables = create_model("efficientnet_lite0", 5, seed=1)
    published = load("efficientnet_lite0").variables
    for part in ("params", "batch_stats"):
        jax.tree.map(
            np.testing.assert_array_equal,
            variables[part]["backbone"],
            published[part]["backbone"],
        )
    images = jnp.zeros((2, 64, 64, 3))
    logits = jax.eval_shape(lambda: model.apply(variables, images, train=False))
    assert logits.shape == (2, 5)
    again = create_model("efficientnet_lite0", 5, seed=1)[1]
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def test_create_model_without_weights_takes_the_networks_options():
    model, variables = create_model("mlp", 3, pretrained=False, image_size=8, hidden=4)
    assert model.apply(variables, jnp.zeros((1, 8, 8, 3)), train=False).shape == (1, 3)
    with pytest.raises(InputError, match="no network 'nothing'"):
        create_model("nothing", 3, pretrained=False)
