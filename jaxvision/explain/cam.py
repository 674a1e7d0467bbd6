"""Grad-CAM and guided Grad-CAM (arXiv:1610.02391)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.explain.guided import guided_backprop
from jaxvision.explain.network import Classes, TrainedNetwork, class_score
from jaxvision.models import Network
from jaxvision.models.backbone import LayerFunction, intercept_layers
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree


def class_activation(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    layer: str | None = None,
) -> jax.Array:
    """Grad-CAM as it is computed: one value for each place of a layer.

    The channels of the layer's output are added up, each by the mean over places of
    the logit's gradient, and what is below zero is left out.

    Args:
      network: with a layer that has height and width.
      images: uint8 `[B, H, W, C]`.
      classes: one for all images, or one for each.
      layer: its name; None: `network.cam_layer`, that of the last convolution.

    Returns:
      `[B, h, w]` float32, h and w those of the layer.

    Raises:
      InputError: images or classes are not the network's; the layer does not exist
        or has no height and width.
    """
    arguments = network.arguments(images, classes)
    layer = network.cam_layer if layer is None else layer
    network.trace.check_map_layer(layer)
    shape = (len(images), *network.trace.outputs[layer])
    return _class_activation(*arguments, layer, shape)


def grad_cam(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    layer: str | None = None,
) -> jax.Array:
    """`class_activation` enlarged to the image, bilinearly: `[B, H, W]` float32.

    Arguments and errors are those of `class_activation`.
    """
    maps = class_activation(network, images, classes, layer=layer)
    size = (len(images), *network.preprocessing.size)
    return jax.image.resize(maps, size, "bilinear")


def guided_grad_cam(
    network: TrainedNetwork,
    images: np.ndarray,
    classes: Classes,
    *,
    layer: str | None = None,
) -> jax.Array:
    """Guided backpropagation where Grad-CAM looks, their product: `[B, H, W, C]`.

    Arguments and errors are those of `class_activation` and `guided_backprop`.
    """
    where = grad_cam(network, images, classes, layer=layer)
    return guided_backprop(network, images, classes) * where[..., None]


@partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _class_activation(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
    layer: str,
    shape: tuple[int, ...],
) -> jax.Array:
    def score(change: jax.Array) -> tuple[jax.Array, jax.Array]:
        def add_change(name: str, run: LayerFunction, x: jax.Array) -> jax.Array:
            y = run(x)
            return y + change.astype(y.dtype) if name == layer else y

        with intercept_layers(add_change):
            logits, state = model.apply(
                variables,
                preprocessing.normalize(images),
                train=False,
                mutable=["activations"],
            )
        activations: Any = state["activations"]
        return class_score(logits, classes).sum(), activations["backbone"][layer]

    # By a change of the layer's output that is zero: the gradient by the output.
    by_output, output = jax.grad(score, has_aux=True)(jnp.zeros(shape))
    weights = by_output.mean((1, 2), keepdims=True)
    return jnp.maximum((weights * output.astype(jnp.float32)).sum(-1), 0)
