"""The layers against Flax, jax.lax and torch."""

import os
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvision.models.layers import (
    HE_NORMAL,
    AvgPool,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dropout,
    MaxPool,
    PReLU,
    adaptive_average_pool,
    normalized,
    same_pads,
)


def apply(layer: nn.Module, variables: Any, x: Any, **options: Any) -> Any:
    """A layer as one program, as it runs in a network."""
    return jax.jit(lambda v, x: layer.apply(v, x, **options))(variables, x)


def init(layer: nn.Module, x: Any) -> Any:
    return jax.jit(layer.init)(jax.random.key(1), x)


@pytest.mark.parametrize("size", [1, 2, 6, 7, 12, 13, 224])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_pads_are_tensorflows(size, kernel, stride):
    expected = lax.padtype_to_pads((size, 15), (kernel,) * 2, (stride,) * 2, "SAME")
    assert same_pads((size, 15), kernel, stride) == tuple(map(tuple, expected))


def test_same_pads_of_the_published_lite0():
    assert same_pads((224, 224), 3, 2) == ((0, 1), (0, 1))
    assert same_pads((56, 56), 5, 2) == ((1, 2), (1, 2))


@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (2, 2), ("same", 2)])
def test_convolutions_agree_with_flax(padding, stride):
    x = jax.random.normal(jax.random.key(0), (2, 9, 12, 6))
    theirs_padding = "SAME" if padding == "same" else padding
    ours = Conv(4, 3, stride, padding, bias_init=nn.initializers.normal())
    variables = init(ours, x)
    theirs = nn.Conv(4, (3, 3), stride, theirs_padding)
    np.testing.assert_allclose(
        apply(ours, variables, x), apply(theirs, variables, x), atol=1e-5
    )
    ours = DepthwiseConv(5, stride, padding)
    variables = init(ours, x)
    theirs = nn.Conv(
        6, (5, 5), stride, theirs_padding, feature_group_count=6, use_bias=False
    )
    np.testing.assert_allclose(
        apply(ours, variables, x), apply(theirs, variables, x), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 7, 5)])
def test_batch_norm_agrees_with_flax(shape):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), shape)
    fixed = {"momentum": 0.9, "epsilon": 1e-3}
    ours, theirs = BatchNorm(True, **fixed), nn.BatchNorm(False, **fixed)
    variables = init(ours, x)
    variables["params"] = {"scale": jnp.arange(5.0), "bias": jnp.ones(5)}
    y, state = apply(ours, variables, x, mutable=["batch_stats"])
    expected, expected_state = apply(theirs, variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), state, expected_state
    )
    still = apply(BatchNorm(False, **fixed), {**variables, **state}, x)
    expected = apply(nn.BatchNorm(True, **fixed), {**variables, **state}, x)
    np.testing.assert_allclose(still, expected, atol=1e-5)


def test_running_statistics_move_as_torchs_but_for_the_unbiased_variance():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(3, 2, size=(4, 6, 7, 5)).astype(np.float32)
    # torch's momentum 0.01 is 0.99 here.
    theirs = torch.nn.BatchNorm2d(5, momentum=0.01, eps=1e-3)
    expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy()
    ours = BatchNorm(True, momentum=0.99, epsilon=1e-3)
    y, state = apply(ours, init(ours, x), x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), atol=1e-5)
    statistics = state["batch_stats"]
    np.testing.assert_allclose(
        statistics["mean"], theirs.running_mean.numpy(), rtol=1e-5
    )
    n = x.size // 5
    unbiased = 0.99 + (statistics["var"] - 0.99) * n / (n - 1)
    np.testing.assert_allclose(unbiased, theirs.running_var.numpy(), rtol=1e-5)


def test_he_normal_has_the_distribution_of_flax():
    shape = (3, 3, 40, 64)
    ours, theirs = (
        np.asarray(jax.jit(init, static_argnums=1)(jax.random.key(0), shape))
        for init in (HE_NORMAL, nn.initializers.he_normal())
    )
    assert abs(float(ours.std() / (2 / 360) ** 0.5) - 1) < 0.01
    np.testing.assert_allclose(
        np.quantile(ours, [0.0, 0.1, 0.5, 0.9, 1.0]),
        np.quantile(theirs, [0.0, 0.1, 0.5, 0.9, 1.0]),
        atol=0.002,
    )


def test_prelu_has_one_slope_a_unit_and_starts_as_relu():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    layer = PReLU()
    variables = layer.init(jax.random.key(1), x)
    assert variables["params"]["slope"].shape == (3,)
    np.testing.assert_array_equal(layer.apply(variables, x), nn.relu(x))
    slope = jnp.array([0.5, 0.0, -1.0])
    np.testing.assert_array_equal(
        layer.apply({"params": {"slope": slope}}, x),
        np.where(x > 0, x, slope[None] * x),
    )


def test_average_pool_leaves_padding_out():
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    pool = partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2), padding="SAME")
    np.testing.assert_allclose(
        apply(AvgPool(2, 2, "same"), {}, x),
        jax.jit(partial(pool, count_include_pad=False))(x),
        atol=1e-6,
    )


def test_dropout_keeps_the_mean_and_whole_examples():
    x = jnp.ones((64, 10, 10, 3))
    rngs = {"dropout": jax.random.key(0)}
    y = np.asarray(apply(Dropout(0.25, True), {}, x, rngs=rngs))
    assert abs(float(y.mean()) - 1) < 0.02
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    y = np.asarray(apply(Dropout(0.25, True, per_example=True), {}, x, rngs=rngs))
    assert (y.min((1, 2, 3)) == y.max((1, 2, 3))).all()
    assert 0 < (y == 0).mean() < 0.5
    assert Dropout(0.0, True).apply({}, x) is x
    assert Dropout(0.5, False).apply({}, x) is x


@pytest.mark.parametrize("size", [(6, 6), (12, 18), (7, 9), (2, 3), (1, 25)])
def test_adaptive_pool_has_torchs_bins(size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    theirs = torch.nn.AdaptiveAvgPool2d(6)(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(
        jax.jit(partial(adaptive_average_pool, size=6))(x),
        theirs.numpy().transpose(0, 2, 3, 1),
        atol=1e-6,
    )


def test_adaptive_pool_by_hand():
    x = jnp.arange(4.0).reshape(1, 4, 1, 1)
    bins = [[0], [0, 1], [1], [2], [2, 3], [3]]  # floor(4i/6) to ceil(4(i+1)/6)
    expected = [np.mean(b) for b in bins]
    pooled = np.asarray(jax.jit(partial(adaptive_average_pool, size=6))(x))
    np.testing.assert_allclose(pooled[0, :, 0, 0], expected)


# -- Batch norm as Keras has it -------------------------------------------------------


@pytest.fixture(scope="module")
def keras_norm():
    """Keras's layer with parameters and statistics that hide nothing, and its batch."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend here")
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (4, 6, 7, 5)).astype(np.float32)
    layer = keras.layers.BatchNormalization()  # momentum .99, epsilon 1e-3
    layer.build(x.shape)
    layer.set_weights([rng.uniform(0.5, 2, 5).astype(np.float32) for _ in range(4)])
    return layer, x


def ours_of(layer, train: bool):
    scale, bias, mean, var = (jnp.asarray(value) for value in layer.get_weights())
    norm = BatchNorm(train, momentum=layer.momentum, epsilon=layer.epsilon)
    return norm, {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }


def test_statistics_after_a_training_step_are_kerass(keras_norm):
    layer, x = keras_norm
    ours, variables = ours_of(layer, train=True)
    y, state = apply(ours, variables, x, mutable=["batch_stats"])
    trained = [v.value for v in layer.trainable_variables]
    still = [v.value for v in layer.non_trainable_variables]
    expected, (mean, var) = layer.stateless_call(trained, still, x, training=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(state["batch_stats"]["var"], var, rtol=1e-6)
    assert (np.abs(mean - still[0]) > 1e-3).all()


@pytest.mark.parametrize("is_trained", [False, True])
def test_frozen_and_fine_tuned_batch_norm_are_kerass(keras_norm, is_trained):
    """Frozen: neither parameters nor statistics move. Fine-tuned with `freeze_bn`: as
    Keras's guide has it, called with training=False; the parameters have gradients."""
    layer, x = keras_norm
    layer.trainable = is_trained
    trained = [v.value for v in layer.trainable_variables]
    still = [v.value for v in layer.non_trainable_variables]
    weights = jnp.cos(jnp.arange(x.size)).reshape(x.shape)

    def theirs(trained):
        # Of a frozen layer, training=True says nothing.
        y, new = layer.stateless_call(trained, still, x, training=not is_trained)
        return jnp.sum(y * weights), (y, new)

    gradients, (expected, new) = jax.grad(theirs, has_aux=True)(trained)
    for before, after in zip(still, new, strict=True):
        np.testing.assert_array_equal(before, after)
    ours, variables = ours_of(layer, train=False)

    def loss(params):
        y, state = ours.apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return jnp.sum(y * weights), (y, state)

    ours_gradients, (y, state) = jax.grad(loss, has_aux=True)(variables["params"])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for name, value in state["batch_stats"].items():
        np.testing.assert_array_equal(value, variables["batch_stats"][name])
    layer.trainable = True
    assert len(gradients) == (2 if is_trained else 0)
    for name, theirs_of in zip(("scale", "bias"), gradients, strict=False):
        np.testing.assert_allclose(
            ours_gradients[name], theirs_of, rtol=1e-4, atol=1e-4
        )


class Normalized(nn.Module):
    """A convolution and a batch norm, one after the other or folded into one."""

    conv: Any
    fold: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = BatchNorm(train=False, fold=self.fold, name="bn")
        return normalized(self.conv(name="conv"), norm, x)


@pytest.mark.parametrize(
    "conv",
    [
        partial(Conv, 6, 3, 2, "same"),
        partial(Conv, 6, 1, use_bias=False, weight_norm=True),
        partial(DepthwiseConv, 3, 1, "same", use_bias=True),
    ],
)
def test_folded_batch_norm_is_that_after_the_convolution(conv):
    """Values and all gradients, those of the input and of the statistics too."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 7, 4)), jnp.float32)
    apart, folded = Normalized(conv, fold=False), Normalized(conv, fold=True)
    shapes = jax.eval_shape(apart.init, jax.random.key(0), x)
    assert shapes == jax.eval_shape(folded.init, jax.random.key(0), x)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32), shapes
    )

    def value_and_gradients(layer):
        def loss(variables, x):
            y = layer.apply(variables, x)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)), y

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    expected = jax.jit(lambda: value_and_gradients(apart))()
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
        jax.jit(lambda: value_and_gradients(folded))(),
        expected,
    )


def test_a_border_of_zeros_wins_over_negative_values():
    x = -jnp.ones((1, 4, 4, 1))
    usual = apply(MaxPool(3, 2, 1), {}, x)
    np.testing.assert_array_equal(usual, -jnp.ones((1, 2, 2, 1)))
    zeros = np.asarray(apply(MaxPool(3, 2, 1, border=0.0), {}, x))
    np.testing.assert_array_equal(zeros[0, ..., 0], [[0, 0], [0, -1]])
