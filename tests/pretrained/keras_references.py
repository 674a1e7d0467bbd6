"""The original implementations in Keras, on JAX, to compare answers with.

The architecture is Keras's own; the weights are drawn, batch norm's statistics and
scales too, so that nothing hides behind an identity.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import jax
import keras
import numpy as np
from keras.src.applications import resnet
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from jaxvision.models.efficientnet import V2_B3
from jaxvision.models.mobilenet import MOBILENET_V2, named_blocks

ARCHITECTURES = {
    "vgg19": keras.applications.VGG19,
    "resnet50_v2": keras.applications.ResNet50V2,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "efficientnet_v2_b3": keras.applications.EfficientNetV2B3,
}
PREPROCESS = {
    "vgg19": keras.applications.vgg19.preprocess_input,
    "resnet50_v2": keras.applications.resnet_v2.preprocess_input,
    "mobilenet_v2": keras.applications.mobilenet_v2.preprocess_input,
    "efficientnet_v2_b3": keras.applications.efficientnet_v2.preprocess_input,
}


def build(name: str, size: tuple[int, int]) -> keras.Model:
    """The architecture with drawn weights; it gives logits."""
    # Initial values would take longer to draw than all the rest.
    with _zeros():
        model = ARCHITECTURES[name](
            weights=None, classifier_activation=None, input_shape=(*size, 3)
        )
    draw(model)
    return model


def beginning(size: tuple[int, int]) -> keras.Model:
    """ResNet50V2 up to "conv2_block1", with drawn weights: small enough to train."""
    with _zeros():
        short = resnet.ResNet(
            lambda x: resnet.stack_residual_blocks_v2(x, 64, 2, name="conv2"),
            preact=True,
            use_bias=True,
            include_top=False,
            weights=None,
            input_shape=(*size, 3),
        )
    model = keras.Model(short.inputs, short.get_layer("conv2_block1_out").output)
    draw(model)
    return model


def draw(model: keras.Model) -> None:
    """Gives every variable values of a size that keeps that of activations."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(_values(variable.name, variable.shape, rng))


def stages(name: str, model: keras.Model) -> dict[str, str]:
    """Keras's layer for each of ours."""
    known = {layer.name for layer in model.layers}

    def end(block: str, *ends: str) -> str:
        return next(f"{block}_{e}" for e in ends if f"{block}_{e}" in known)

    if name == "vgg19":
        convolutions = {
            f"conv{n}_{i}": f"block{n}_conv{i}"
            for n, count in enumerate((2, 2, 4, 4, 4), start=1)
            for i in range(1, count + 1)
        }
        pools = {f"pool{n}": f"block{n}_pool" for n in range(1, 6)}
        return {**convolutions, **pools, "fc6": "fc1", "fc7": "fc2"}
    if name == "resnet50_v2":
        blocks = {
            f"conv{n}_block{i}": f"conv{n}_block{i}_out"
            for n, count in enumerate((3, 4, 6, 3), start=2)
            for i in range(1, count + 1)
        }
        first = {"conv1": "conv1_conv", "pool1": "pool1_pool"}
        return {**first, **blocks, "post": "post_relu", "pooled": "avg_pool"}
    pooled = model.layers[-3 if name == "efficientnet_v2_b3" else -2].name
    if name == "mobilenet_v2":
        names = [block for block, _ in named_blocks(MOBILENET_V2)]
        theirs = ["expanded_conv", *(f"block_{i}" for i in range(1, len(names)))]
        ends = ("add", "project_BN")
        first, last = {"stem": "Conv1_relu"}, {"conv_head": "out_relu"}
    else:
        names = theirs = [block for block, _ in named_blocks(V2_B3)]
        ends = ("add", "project_activation", "project_bn")
        normalization = next(n for n in known if n.startswith("normalization"))
        first = {"normalization": normalization, "stem": "stem_activation"}
        last = {"conv_head": "top_activation"}
    pairs = zip(names, theirs, strict=True)
    blocks = {ours: end(block, *ends) for ours, block in pairs}
    return {**first, **blocks, **last, "pooled": pooled}


def answers(
    model: keras.Model, layers: Sequence[str], images: np.ndarray
) -> list[np.ndarray]:
    """The outputs of some layers, and the logits, in evaluation."""
    outputs = [model.get_layer(name).output for name in layers]
    whole = keras.Model(model.inputs, [*outputs, model.output])
    # As arguments: constants would be folded, and kept with the compiled program.
    values = (
        [v.value for v in part]
        for part in (whole.trainable_variables, whole.non_trainable_variables)
    )
    # It runs once, so that compiling is what takes time.
    run = jax.jit(
        lambda *args: whole.stateless_call(*args, training=False)[0],
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return [np.asarray(output) for output in run(*values, images)]


def save_as_published(model: keras.Model, path: Path) -> None:
    """In the layout of the published files."""
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name == "kernel":
        # Depthwise kernels [k, k, C, 1] take k * k values each, others all but the
        # last axis.
        fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
        bound = np.float32((4 / fan_in) ** 0.5)
        return (rng.random(shape, np.float32) * 2 - 1) * bound
    if name in ("gamma", "moving_variance"):
        return rng.random(shape, np.float32) + 0.5
    return (rng.random(shape, np.float32) * 2 - 1) * 0.5


@contextmanager
def _zeros() -> Iterator[None]:
    """Within, Keras's usual initializer gives zeros."""
    kind = keras.initializers.VarianceScaling
    drawing = kind.__call__
    kind.__call__ = lambda _, shape, dtype=None: np.zeros(shape, dtype)
    try:
        yield
    finally:
        kind.__call__ = drawing
