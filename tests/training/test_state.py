"""Where training begins: biases that expect the classes as they are."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_runs import SHAPE

from jaxvision.metrics import class_frequencies, class_logits
from jaxvision.models import create_model
from jaxvision.training.state import init_variables, set_output_biases

# The images of the Prado: Goya, Bayeu, Haes, Pizarro, Ribera.
LABELS = np.repeat(np.arange(5), [1080, 446, 326, 290, 222])


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_the_first_prediction_is_the_class_frequencies(hidden):
    model = create_model("mlp", 5, hidden=4, head_hidden=hidden)
    frequencies = class_frequencies(LABELS, 5)
    variables = set_output_biases(init_variables(model, 0, SHAPE), frequencies)
    logits = variables["params"]["head"]["logits"]
    logits["kernel"] = jnp.zeros_like(logits["kernel"])
    x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    predicted = jax.nn.softmax(model.apply(variables, x, train=False))
    np.testing.assert_allclose(predicted, np.tile(frequencies, (3, 1)), rtol=1e-5)


def test_one_logit_expects_the_second_class():
    model = create_model("mlp", 1, hidden=4)
    variables = init_variables(model, 0, SHAPE)
    begun = set_output_biases(variables, np.array([0.8, 0.2]))
    bias = begun["params"]["head"]["logits"]["bias"]
    assert bias.shape == (1,)
    np.testing.assert_allclose(jax.nn.softmax(class_logits(bias)), [0.8, 0.2], 1e-5)
    # The variables that were given are as they were.
    assert variables["params"]["head"]["logits"]["bias"] == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"head_hidden": (5,)}),
        ("simple_cnn", {"stop_at": "conv2", "pooling": "gram"}),
        ("convnet", {"norm": "batch", "blocks": 1, "dtype": jnp.bfloat16}),
    ],
)
def test_variables_are_those_that_flax_draws(name, options):
    model, shape = create_model(name, 3, **options), (16, 16, 3)

    @jax.jit
    def draw() -> dict[str, Any]:
        return model.init(jax.random.key(5), jnp.zeros((1, *shape)), train=False)

    wanted, found = draw(), init_variables(model, 5, shape)
    chex.assert_trees_all_equal(found, {"batch_stats": {}, **wanted})


def test_a_layer_alone_is_drawn_as_among_all():
    model = create_model("simple_cnn", 2)
    everything = init_variables(model, 3, (16, 16, 3))
    some = init_variables(model, 3, (16, 16, 3), only=["head", "backbone/conv1"])
    backbone = some["params"]["backbone"]
    assert isinstance(backbone["conv2"]["kernel"], jax.ShapeDtypeStruct)
    np.testing.assert_array_equal(
        backbone["conv1"]["kernel"], everything["params"]["backbone"]["conv1"]["kernel"]
    )
    assert jax.tree.structure(some) == jax.tree.structure(everything)


def test_a_class_without_images_cannot_be_expected():
    model = create_model("mlp", 2, hidden=4)
    with pytest.raises(ValueError, match="no images"):
        set_output_biases(init_variables(model, 0, SHAPE), np.array([1.0, 0.0]))
