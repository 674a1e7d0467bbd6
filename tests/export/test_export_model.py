"""ONNX Runtime answers as JAX does: every network, layer, option and normalization."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from reduced_networks import every_kind, reduced

from jaxvision.errors import InputError
from jaxvision.metrics import class_logits
from jaxvision.models import Network, create_model
from jaxvision.ops import lax_only
from jaxvision.preprocessing import Preprocessing

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from jaxvision.export.fold import fold  # noqa: E402
from jaxvision.export.model import onnx_model  # noqa: E402
from jaxvision.export.trace import Graph  # noqa: E402

RAW = Preprocessing((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
USUAL = Preprocessing((32, 32), mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 70.0))


def drawn_variables(model: Network, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Kernels of the usual size, statistics about those of a normal distribution."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        match path[-1].key:
            case "kernel":
                size = (2 / math.prod(leaf.shape[:-1])) ** 0.5
                drawn = rng.normal(0, size, leaf.shape)
            case "scale" | "var":
                drawn = rng.uniform(0.5, 1.5, leaf.shape)
            case _:
                drawn = rng.normal(0, 0.2, leaf.shape)
        return drawn.astype(np.float32)

    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), image
    )
    return {"batch_stats": {}, **jax.tree_util.tree_map_with_path(draw, shapes)}


def compare(
    model: Network, preprocessing: Preprocessing = USUAL, **options: Any
) -> tuple[float, Any]:
    """The largest difference of a logit, relative, and the ONNX model."""
    channels = preprocessing.channels
    variables = drawn_variables(model, (*preprocessing.size, channels))
    options = {"batch": 2, "dtype": "float32", "metadata": {}, **options}
    written = onnx_model(model, variables, preprocessing, **options)
    shape = (2, *preprocessing.size, channels)
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    session = onnxruntime.InferenceSession(written.SerializeToString())
    logits, probabilities = session.run(["logits", "probabilities"], {"image": images})

    @jax.jit
    def forward(variables: Any, images: jax.Array) -> jax.Array:
        x = preprocessing.normalize(images)
        return class_logits(jnp.asarray(model.apply(variables, x, train=False)))

    with lax_only():
        wanted = np.asarray(forward(variables, jnp.asarray(images)))
    assert logits.shape == wanted.shape
    np.testing.assert_allclose(probabilities, jax.nn.softmax(wanted), atol=2e-3)
    return np.abs(logits - wanted).max() / np.abs(wanted).max(), written


@every_kind
def test_every_network(name: str) -> None:
    size = 64 if name == "alexnet" else 32
    # Its dense layers are those of the others, and 200 MB.
    options = {"stop_at": "features"} if name == "alexnet" else {}
    normalizes = name.startswith("efficientnet_v2")
    same = RAW if normalizes else USUAL
    preprocessing = Preprocessing((size, size), mean=same.mean, std=same.std)
    difference, _ = compare(reduced(name, **options), preprocessing)
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("options", "preprocessing"),
    [
        ({"norm": "batch", "padding": "same", "stride": 2}, USUAL),
        ({"norm": "local_response"}, USUAL),
        ({"norm": "weight"}, USUAL),
        ({"head_hidden": (8,)}, USUAL),
        ({"stop_at": "pool1", "pooling": "mean"}, USUAL),
        ({"stop_at": "pool1", "pooling": "gram"}, USUAL),
        ({}, Preprocessing((24, 32), channel_order="bgr")),
        ({}, Preprocessing((32, 24), gray=True, mean=(9.0,), std=(3.0,))),
        ({}, Preprocessing((32, 32), standardize=True)),
    ],
    ids=str,
)
def test_every_option_and_normalization(
    options: dict[str, Any], preprocessing: Preprocessing
) -> None:
    model = create_model("convnet", 3, **{"blocks": 2, "filters": 4, **options})
    assert compare(model, preprocessing, batch="dynamic")[0] < 1e-5


def test_one_logit_gives_two_classes() -> None:
    difference, written = compare(create_model("mlp", 1, hidden=4))
    assert difference < 1e-5
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*written.graph.input, *written.graph.output)
    }
    assert shapes == {
        "image": [2, 32, 32, 3],
        "logits": [2, 2],
        "probabilities": [2, 2],
    }


def test_batch_norm_is_gone_and_nothing_is_transposed_inside() -> None:
    _, written = compare(reduced("mobilenet_v2"))
    kinds = [node.op_type for node in written.graph.node]
    assert kinds[:3] == ["Transpose", "Cast", "BatchNormalization"]  # normalization
    assert {*kinds[3:]} == {
        *("Conv", "Clip", "Add", "GlobalAveragePool", "Reshape", "Mul", "Gemm"),
        *("Identity", "Softmax"),
    }


def test_half_the_size() -> None:
    model = create_model("mlp", 3, hidden=64)
    difference, half = compare(model, dtype="float16")
    assert 1e-7 < difference < 2e-3
    assert half.ByteSize() < 0.52 * compare(model)[1].ByteSize()


def test_metadata_is_kept_whatever_it_holds() -> None:
    told = {"labels": '["=1+1", "</script>", "\\ud83d\\ude00"]'}
    _, written = compare(create_model("mlp", 3, hidden=2), metadata=told)
    session = onnxruntime.InferenceSession(written.SerializeToString())
    assert session.get_modelmeta().custom_metadata_map == told


@pytest.mark.parametrize("layer", ["conv1", "fc1"])
def test_operations_that_no_network_here_has(
    layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But one of your own may have them: on images and on dense layers."""

    def odd(self: Any, x: jax.Array) -> jax.Array:
        scale = jnp.broadcast_to(jnp.arange(1.0, x.shape[-1] + 1), x.shape)
        low, high = -jnp.tanh(x), lax.clamp(-1.0, x / scale, 2.0)
        both = jnp.concatenate([low, high], -1)
        return jnp.log(1 + jnp.exp(both)) * lax.rsqrt(1 + jnp.square(both))

    monkeypatch.setattr("jaxvision.models.layers.ReLU.__call__", odd)
    model = create_model("convnet", 3, blocks=1, filters=4, stop_at=layer)
    assert compare(model, batch="dynamic")[0] < 1e-5


def test_an_unknown_operation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def cosine(self: Any, x: jax.Array) -> jax.Array:
        return jnp.cos(x)

    monkeypatch.setattr("jaxvision.models.layers.ReLU.__call__", cosine)
    with pytest.raises(InputError, match="its operation cos is not among those"):
        compare(create_model("mlp", 3, hidden=2))


def test_what_is_read_twice_is_not_scaled_in_place() -> None:
    graph = Graph()
    weights = [graph.constant(np.ones((2, 2))), graph.constant(np.zeros(2))]
    dense = graph.add("Gemm", "x", *weights, rank=2)
    two, zero = np.float64(2), np.float64(0)
    doubled = graph.add("Affine", dense, rank=2, scale=two, shift=zero)
    unused = graph.add("Relu", dense, rank=2)
    total = graph.add("Add", dense, doubled, rank=2)
    assert fold(graph, total) == total
    assert [node.op for node in graph.nodes] == ["Gemm", "Affine", "Add"]
    assert unused not in {node.output for node in graph.nodes}
    assert graph.constants[weights[0]].max() == 1
