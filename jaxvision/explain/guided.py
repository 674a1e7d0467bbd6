"""Guided backpropagation (arXiv:1412.6806): a rule that a context lends a network."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.explain.network import (
    RECTIFIERS,
    Classes,
    TrainedNetwork,
    input_gradient,
    make_score,
    network_inputs,
)
from jaxvision.models import Network
from jaxvision.models.backbone import intercept_modules
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree


def guided_gradients() -> AbstractContextManager[None]:
    """Within it, what flows back through a rectifier is cut at zero from below.

    For networks that are traced in it, in this thread; numbers forward stay as they
    are. For ReLU and ReLU6 that is the paper's rule, `g * (g > 0) * (y' > 0)`; for
    PReLU it is the gradient `g * y'` where that is above zero. A function that `jit`
    has compiled before keeps the gradient that it had.
    """
    return intercept_modules(_guide)


def guided_backprop(
    network: TrainedNetwork, images: np.ndarray, classes: Classes
) -> jax.Array:
    """The gradient by what raises the class's logit at every rectifier on its way.

    Args:
      network: with at least one of `RECTIFIERS`.
      images: uint8 `[B, H, W, C]`.
      classes: one for all images, or one for each.

    Returns:
      `[B, H, W, C]` float32, by the network's input, channels as in the image.

    Raises:
      InputError: images or classes are not the network's, or it has no rectifier.
    """
    arguments = network.arguments(images, classes)
    if not network.trace.rectifiers:
        raise InputError(
            "guided backpropagation needs rectifiers"
            f" ({', '.join(kind.__name__ for kind in RECTIFIERS)}), and"
            f" {type(network.model.backbone).__name__} has none; choose another method"
        )
    return _guided_backprop(*arguments)


@jax.custom_vjp
def _cut_gradient(x: jax.Array) -> jax.Array:
    """x itself; its gradient is cut at zero from below."""
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _backward(_: None, g: jax.Array) -> tuple[jax.Array]:
    return (jnp.maximum(g, 0),)


_cut_gradient.defvjp(_forward, _backward)


def _guide(
    module: nn.Module, call: Callable[..., Any], x: jax.Array, *rest: Any
) -> Any:
    """For `intercept_modules`."""
    return call(_cut_gradient(x) if isinstance(module, RECTIFIERS) else x, *rest)


@partial(jax.jit, static_argnums=(0, 1))
def _guided_backprop(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
) -> jax.Array:
    score = make_score(model, preprocessing, variables, classes)
    with guided_gradients():
        return input_gradient(score)(network_inputs(preprocessing, images))
