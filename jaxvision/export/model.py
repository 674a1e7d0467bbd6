"""A network as an ONNX model: uint8 images in, logits and probabilities out."""

from collections.abc import Iterator, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxvision import ops
from jaxvision.export.fold import fold
from jaxvision.export.trace import Graph, Node, to_graph
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

OPSET = 17
"""Of 2022, which every runtime in use has."""

IR_VERSION = 8
"""The oldest with that opset."""

Dtype = Literal["float32", "float16"]

BatchSize = int | Literal["dynamic"]
"""Images at once; dynamic: any number."""

IMAGE, LOGITS, PROBABILITIES = "image", "logits", "probabilities"
"""Names of input and outputs."""


def onnx_model(
    network: Network,
    variables: Mapping[str, PyTree],
    preprocessing: Preprocessing,
    *,
    batch: BatchSize,
    dtype: Dtype,
    temperature: float = 1.0,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """A network in evaluation, normalization included.

    Its input `image` is uint8 `[batch, H, W, C]` of the preprocessing's size; its
    outputs `logits` and `probabilities` are float32 `[batch, K]`. A network of one
    logit gives those of two classes, see `metrics.class_logits`.

    Args:
      network: computes in float32.
      variables: its `params` and `batch_stats`.
      preprocessing: whose normalization the model begins with.
      batch: images at once; "dynamic": any number.
      dtype: what weights are stored in; all is computed in float32.
      temperature: what logits are divided by for probabilities.
      metadata: what the model states of itself.

    Raises:
      InputError: an operation that has no counterpart here.
    """

    def forward(images: jax.Array) -> jax.Array:
        x = preprocessing.normalize(images)
        return jnp.asarray(network.apply(variables, x, train=False))

    shape = (
        1 if batch == "dynamic" else batch,
        *preprocessing.size,
        preprocessing.channels,
    )
    with ops.lax_only():
        traced = jax.make_jaxpr(forward)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    graph, result = to_graph(traced, IMAGE)
    result = fold(graph, result)
    if network.num_classes == 1:
        # The first class's logit is 0.
        pads = graph.constant(np.array([0, 1, 0, 0], np.int64))
        result = graph.add("Pad", result, pads, rank=2)
    scaled = result
    if temperature != 1:
        divisor = graph.constant(np.float32(temperature))
        scaled = graph.add("Div", result, divisor, rank=2)
    graph.nodes += [
        Node("Identity", [result], LOGITS, {}, 2),
        Node("Softmax", [scaled], PROBABILITIES, {"axis": -1}, 2),
    ]
    nodes = [written for node in graph.nodes for written in _written(graph, node)]
    weights, casts = _stored(graph, {n for node in nodes for n in node.input}, dtype)
    dimension = "batch" if batch == "dynamic" else batch
    answer = (TensorProto.FLOAT, [dimension, max(network.num_classes, 2)])
    body = helper.make_graph(
        [*casts, *nodes],
        "jaxvision",
        [
            helper.make_tensor_value_info(
                IMAGE, TensorProto.UINT8, [dimension, *shape[1:]]
            )
        ],
        [helper.make_tensor_value_info(n, *answer) for n in (LOGITS, PROBABILITIES)],
        weights,
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxvision",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model


def _written(graph: Graph, node: Node) -> Iterator[onnx.NodeProto]:
    """ONNX's operations for one of ours."""
    if node.op != "Affine":
        yield helper.make_node(node.op, node.inputs, [node.output], **node.attributes)
        return
    x, scale, shift = *node.inputs, node.attributes["scale"], node.attributes["shift"]
    if node.rank == 4 and (scale.ndim or shift.ndim):
        # Runtimes have it as one operation, in their own layout of images.
        scale, shift = np.broadcast_arrays(scale, shift)
        rest = (scale, shift, np.zeros(scale.size), np.ones(scale.size))
        names = [graph.constant(array) for array in rest]
        yield helper.make_node(
            "BatchNormalization", [x, *names], [node.output], epsilon=0.0
        )
        return
    scaled = f"{node.output}_scaled"
    yield helper.make_node("Mul", [x, graph.constant(scale)], [scaled])
    yield helper.make_node("Add", [scaled, graph.constant(shift)], [node.output])


def _stored(
    graph: Graph, used: set[str], dtype: Dtype
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """The constants, and what makes float32 of those that are stored in half of it."""
    tensors, casts = [], []
    for name, array in graph.constants.items():
        if name not in used:
            continue
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if dtype == "float16" and array.dtype == np.float32 and array.ndim > 1:
            half = f"{name}_half"
            with np.errstate(over="ignore"):  # the check of the file finds it
                tensors.append(numpy_helper.from_array(array.astype(np.float16), half))
            casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
        else:
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return tensors, casts
