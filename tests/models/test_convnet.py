"""The small convolutional networks and their layers, beside torch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models import check_fits, create_model
from jaxvision.models.layers import Conv, Dense, LocalResponseNorm, MaxPool

TOLERANCE = 1e-5


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def channels_last(x: Any) -> np.ndarray:
    """A torch tensor or gradient `[B, C, H, W]` as ours."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def value_and_pullback(function: Any, g: np.ndarray, *inputs: Any) -> tuple[Any, Any]:
    """What a function gives, and its gradients by the inputs; one program."""

    @jax.jit
    def run(g: jax.Array, *inputs: Any) -> tuple[Any, Any]:
        value, vjp = jax.vjp(function, *inputs)
        return value, vjp(g)

    return run(g, *inputs)


def shapes(name: str, **options: Any) -> dict[str, Any]:
    """Shapes of the activations of a 50x50 image, by layer."""
    model = create_model(name, 11, **options)
    x = jnp.zeros((1, 50, 50, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    _, state = jax.eval_shape(
        lambda v: model.apply(v, x, train=False, mutable=["activations"]), variables
    )
    return {
        layer: value.shape[1:]
        for layer, value in state["activations"]["backbone"].items()
    }


# -- The layers beside torch's --------------------------------------------------------


@pytest.mark.parametrize(("size", "channels"), [(4, 16), (5, 7), (4, 2), (1, 3)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_local_response_norm_is_torchs(size, channels, scale):
    torch = pytest.importorskip("torch")
    x, g = scale * draw(0, 2, 6, 5, channels), draw(1, 2, 6, 5, channels)
    ours, (x_grad,) = value_and_pullback(
        lambda x: LocalResponseNorm(size).apply({}, x), g, x
    )
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.nn.LocalResponseNorm(size)(theirs)
    y.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(ours, channels_last(y), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(x_grad, channels_last(theirs.grad), atol=TOLERANCE)


def test_local_response_norm_of_bfloat16_is_computed_in_float32():
    x = jnp.asarray(draw(0, 2, 3, 3, 8), jnp.bfloat16)
    norm = LocalResponseNorm()
    y = norm.apply({}, x)
    assert y.dtype == jnp.bfloat16
    exact = norm.apply({}, x.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_weight_norm_of_a_convolution_is_torchs():
    torch = pytest.importorskip("torch")
    x, g = draw(0, 2, 9, 8, 3), draw(1, 2, 4, 3, 5)
    params = {"kernel": draw(2, 3, 3, 3, 5), "scale": draw(3, 5), "bias": draw(4, 5)}
    layer = Conv(5, 3, stride=2, weight_norm=True)
    ours, (grads, x_grad) = value_and_pullback(
        lambda p, x: layer.apply({"params": p}, x), g, params, x
    )

    conv = torch.nn.Conv2d(3, 5, 3, stride=2)
    torch.nn.utils.parametrizations.weight_norm(conv, dim=0)
    magnitude, direction = (
        conv.parametrizations.weight.original0,
        conv.parametrizations.weight.original1,
    )
    with torch.no_grad():
        magnitude.copy_(torch.tensor(params["scale"]).reshape(-1, 1, 1, 1))
        direction.copy_(torch.tensor(params["kernel"].transpose(3, 2, 0, 1)))
        conv.bias.copy_(torch.tensor(params["bias"]))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = conv(theirs)
    y.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(ours, channels_last(y), atol=TOLERANCE)
    np.testing.assert_allclose(x_grad, channels_last(theirs.grad), atol=TOLERANCE)
    for found, expected in [
        (grads["kernel"], direction.grad.numpy().transpose(2, 3, 1, 0)),
        (grads["scale"], magnitude.grad.numpy().reshape(-1)),
        (grads["bias"], conv.bias.grad.numpy()),
    ]:
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_weight_norm_of_a_dense_layer_is_torchs():
    torch = pytest.importorskip("torch")
    x, g = draw(0, 4, 7), draw(1, 4, 5)
    params = {"kernel": draw(2, 7, 5), "scale": draw(3, 5), "bias": draw(4, 5)}
    layer = Dense(5, weight_norm=True)
    ours, (grads, x_grad) = value_and_pullback(
        lambda p, x: layer.apply({"params": p}, x), g, params, x
    )

    linear = torch.nn.Linear(7, 5)
    torch.nn.utils.parametrizations.weight_norm(linear, dim=0)
    magnitude, direction = (
        linear.parametrizations.weight.original0,
        linear.parametrizations.weight.original1,
    )
    with torch.no_grad():
        magnitude.copy_(torch.tensor(params["scale"]).reshape(-1, 1))
        direction.copy_(torch.tensor(params["kernel"].T))
        linear.bias.copy_(torch.tensor(params["bias"]))
    theirs = torch.tensor(x, requires_grad=True)
    y = linear(theirs)
    y.backward(torch.tensor(g))
    for found, expected in [
        (ours, y.detach()),
        (x_grad, theirs.grad),
        (grads["kernel"], direction.grad.T),
        (grads["scale"], magnitude.grad.reshape(-1)),
        (grads["bias"], linear.bias.grad),
    ]:
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("layer", "x"),
    [(Conv(5, 3), draw(0, 1, 6, 6, 3)), (Dense(5), draw(0, 2, 12))],
    ids=["conv", "dense"],
)
def test_weight_norm_starts_as_the_layer_without(layer, x):
    normed = layer.clone(weight_norm=True)
    key = jax.random.key(0)
    plain, variables = jax.jit(lambda x: (layer.init(key, x), normed.init(key, x)))(x)
    np.testing.assert_array_equal(
        variables["params"]["kernel"], plain["params"]["kernel"]
    )
    np.testing.assert_allclose(
        jax.jit(normed.apply)(variables, x),
        jax.jit(layer.apply)(plain, x),
        atol=TOLERANCE,
    )
    kernel, scale = map(np.asarray, map(variables["params"].get, ("kernel", "scale")))
    np.testing.assert_allclose(
        scale, np.linalg.norm(kernel.reshape(-1, 5), axis=0), rtol=1e-6
    )


def test_a_dense_layer_is_drawn_as_torchs():
    x = jnp.zeros((1, 400))
    params = jax.jit(Dense(300).init)(jax.random.key(0), x)["params"]
    for leaf in map(np.asarray, params.values()):
        assert 0.95 / 20 < np.abs(leaf).max() <= 1 / 20
        assert abs(float(leaf.mean())) < 0.01


@pytest.mark.parametrize("padding", [0, "same"])
def test_max_pool_is_flaxs(padding):
    x = draw(0, 2, 8, 7, 3)
    rule = "SAME" if padding else "VALID"
    theirs = jax.jit(lambda x: nn.max_pool(x, (3, 3), (2, 2), rule))(x)
    ours = jax.jit(lambda x: MaxPool(3, 2, padding).apply({}, x))(x)
    np.testing.assert_array_equal(ours, theirs)


# -- The networks ---------------------------------------------------------------------


@pytest.mark.parametrize(("pool_kernel", "pool_stride"), [(0, 1), (2, 2), (2, 1)])
def test_simple_cnn_is_that_of_the_starter_code(pool_kernel, pool_stride):
    torch = pytest.importorskip("torch")
    options = {"pool_kernel": pool_kernel, "pool_stride": pool_stride}
    pool = torch.nn.MaxPool2d(pool_kernel, pool_stride) if pool_kernel else None
    features = {(0, 1): 1600, (2, 2): 64, (2, 1): 1024}[pool_kernel, pool_stride]
    theirs = torch.nn.Sequential(
        *_block(torch, 3, pool),
        *_block(torch, 16, pool),
        torch.nn.Flatten(),
        torch.nn.Linear(features, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 11),
    )
    convs = [m for m in theirs if isinstance(m, torch.nn.Conv2d)]
    fc1, logits = (m for m in theirs if isinstance(m, torch.nn.Linear))
    side = int((features // 16) ** 0.5)
    params = {
        "backbone": {
            "conv1": _conv_params(convs[0]),
            "conv2": _conv_params(convs[1]),
            # torch flattens channels first.
            "fc1": {
                "kernel": _numpy(fc1.weight)
                .reshape(64, 16, side, side)
                .transpose(2, 3, 1, 0)
                .reshape(features, 64),
                "bias": _numpy(fc1.bias),
            },
        },
        "head": {
            "logits": {"kernel": _numpy(logits.weight).T, "bias": _numpy(logits.bias)}
        },
    }
    model = create_model("simple_cnn", 11, **options)
    x = draw(0, 3, 50, 50, 3)
    ours = jax.jit(lambda p, x: model.apply({"params": p}, x, train=False))(params, x)
    expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def _block(torch: Any, channels: int, pool: Any) -> list[Any]:
    block = [torch.nn.Conv2d(channels, 16, 5, stride=2), torch.nn.ReLU()]
    return block if pool is None else [*block, pool]


def _conv_params(conv: Any) -> dict[str, np.ndarray]:
    kernel = _numpy(conv.weight).transpose(2, 3, 1, 0)
    return {"kernel": kernel, "bias": _numpy(conv.bias)}


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "simple_cnn",
            {},
            {"conv1": (23, 23, 16), "conv2": (10, 10, 16), "fc1": (64,)},
        ),
        (
            "simple_cnn",
            {"pool_kernel": 2},
            {
                "conv1": (23, 23, 16),
                "pool1": (11, 11, 16),
                "conv2": (4, 4, 16),
                "pool2": (2, 2, 16),
                "fc1": (64,),
            },
        ),
        (
            "convnet",
            {"shape": "flat", "padding": "same", "blocks": 1, "dense_layers": 3},
            {
                "conv1": (50, 50, 16),
                "pool1": (25, 25, 16),
                "fc1": (64,),
                "fc2": (32,),
                "fc3": (16,),
            },
        ),
        (
            "convnet",
            {"shape": "inverse", "stride": 2, "pool_kernel": 0, "dense_width": 8},
            {
                "conv1": (24, 24, 16),
                "conv2": (11, 11, 8),
                "conv3": (5, 5, 4),
                "fc1": (8,),
            },
        ),
        (
            "convnet",
            {"pool_kernel": 2, "pool_stride": 1, "kernel_size": 7, "blocks": 2},
            {
                "conv1": (44, 44, 16),
                "pool1": (43, 43, 16),
                "conv2": (37, 37, 32),
                "pool2": (36, 36, 32),
                "fc1": (64,),
            },
        ),
    ],
)
def test_shapes_of_the_layers(name, options, expected):
    assert shapes(name, **options) == expected


@pytest.mark.parametrize("norm", ["none", "batch", "local_response", "weight"])
def test_every_norm_trains(norm):
    model = create_model("convnet", 3, blocks=2, filters=4, dense_width=8, norm=norm)
    x = jnp.asarray(draw(0, 4, 12, 12, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    params = variables["params"]["backbone"]
    assert ("bn1" in params) == (norm == "batch")
    assert ("bias" in params["conv1"]) == (norm != "batch")
    for layer in ("conv1", "conv2", "fc1"):
        assert ("scale" in params[layer]) == (norm == "weight")

    @jax.jit
    def grads(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            logits, _ = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum()

        return jax.grad(loss)(params)

    found = jax.device_get(grads(variables["params"]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("pool_kernel", [0, 2])
def test_dropout_rates_are_swept_as_data(pool_kernel):
    x = jnp.asarray(draw(0, 4, 12, 12, 3))
    rest = {"blocks": 2, "filters": 4, "dense_width": 8, "pool_kernel": pool_kernel}
    plain = create_model("convnet", 3, **rest)
    variables = jax.jit(lambda: plain.init(jax.random.key(0), x, train=False))()

    def logits(conv: jax.Array | float, dense: jax.Array | float) -> jax.Array:
        rates = {"conv_dropout_rate": conv, "dense_dropout_rate": dense}
        model = create_model("convnet", 3, **rest, **rates)
        rngs = {"dropout": jax.random.key(1)}
        return model.apply(variables, x, train=True, rngs=rngs)

    rates = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]], np.float32)
    alone = jax.jit(logits)
    swept = np.asarray(jax.jit(jax.vmap(logits))(rates[:, 0], rates[:, 1]))
    for row, (conv, dense) in zip(swept, rates, strict=True):
        np.testing.assert_allclose(row, alone(conv, dense), atol=1e-5)
    assert (swept[0] != swept[1]).any()
    assert (swept[0] != swept[2]).any()


# -- Refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        (
            {"kernel_size": 5, "stride": 4, "pool_kernel": 0},
            50,
            "conv3: a 5x5 kernel of stride 4 leaves nothing of 2x2 pixels; take larger",
        ),
        ({"kernel_size": 7}, 40, "conv3: a 7x7 kernel of stride 1 leaves nothing of"),
        (
            {"stride": 4, "padding": "same"},
            50,
            "pool3: a 2x2 window of stride 2 leaves nothing of 1x1 pixels",
        ),
    ],
)
def test_images_that_nothing_is_left_of_are_refused(options, size, message):
    model = create_model("convnet", 2, **options)
    with pytest.raises(InputError) as caught:
        check_fits(model, (size, size, 3))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message.split(":")[0]):
        jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
        )


def test_a_layer_that_the_head_cannot_stand_on_is_refused():
    model = create_model("alexnet", 2, stop_at="fc6", pooling="gram")
    with pytest.raises(InputError, match="height and width"):
        check_fits(model, (224, 224, 3))


@pytest.mark.parametrize(
    ("name", "size"), [("mlp", 1), ("simple_cnn", 13), ("convnet", 22), ("alexnet", 63)]
)
def test_images_that_are_large_enough_fit(name, size):
    check_fits(create_model(name, 2), (size, size, 3))
    if name != "mlp":
        with pytest.raises(InputError):
            check_fits(create_model(name, 2), (size - 1, size, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"pool_kernel": -1}, "pool_kernel is -1"),
        ({"pool_stride": 0}, "pool_stride is 0"),
        ({"dense_layers": 0}, "dense_layers is 0"),
        ({"shape": "cube"}, "shape is 'cube'; there are: pyramid, flat, inverse"),
        ({"padding": "full"}, "padding is 'full'; there are: valid, same"),
        ({"norm": "layer"}, "norm is 'layer'; there are: none, batch, local_response"),
        ({"shape": "inverse", "filters": 2}, "filters is 2; halved 2 times"),
        ({"dense_layers": 4, "dense_width": 4}, "dense_width is 4; halved 3 times"),
        ({"conv_dropout_rate": 1.0}, "conv_dropout_rate is 1.0"),
        ({"dense_dropout_rate": -0.1}, "dense_dropout_rate is -0.1"),
    ],
)
def test_options_that_make_no_network_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        create_model("convnet", 2, **options)
    assert message in str(caught.value)
