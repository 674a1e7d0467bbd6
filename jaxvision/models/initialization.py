"""Fresh variables of a network, and whether images fit it.

To trace a deep backbone takes half a second: it is traced once for images of a shape,
whatever the heads on it.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.models.backbone import Backbone
from jaxvision.models.network import Network, pool_features
from jaxvision.typing import PyTree


def check_fits(model: Network, image_shape: tuple[int, int, int]) -> None:
    """Whether images `(H, W, C)` are large enough, without computing anything.

    Raises:
      InputError: a layer has nothing left to work on, or the head can't stand on the
        last one; names it and the sizes.
    """
    key, backbone = jax.random.key(0), _without_head(model)
    output, _ = _init_backbone.eval_shape(key, backbone, image_shape)
    jax.eval_shape(lambda x: pool_features(x, model.pooling), output)


def init_network(
    key: jax.Array, model: Network, image_shape: tuple[int, ...]
) -> dict[str, PyTree]:
    """The variables that `model.init` draws: float32.

    Args:
      key: of the draws.
      model: the network.
      image_shape: (H, W, C) of one image.

    Raises:
      InputError: as `check_fits`.
    """
    output, backbone = _init_backbone(key, _without_head(model), image_shape)

    def skip_backbone(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Backbone) and context.method_name == "__call__":
            return output
        return call(*args, **kwargs)

    with nn.intercept_methods(skip_backbone):
        head = model.init(key, _image(image_shape), train=False)
    head = cast(dict[str, PyTree], head)
    return {
        collection: {**backbone.get(collection, {}), **head.get(collection, {})}
        for collection in {**backbone, **head}
    }


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)  # so it is traced once
def _init_backbone(
    key: jax.Array, model: Network, image_shape: tuple[int, ...]
) -> tuple[jax.Array, dict[str, PyTree]]:
    """What the backbone gives for one image, and its variables."""

    def run(model: Network, image: jax.Array) -> jax.Array:
        return model.backbone(image, train=False, stop_at=model.stop_at)

    output, variables = model.init_with_output(key, _image(image_shape), method=run)
    return output, cast(dict[str, PyTree], variables)


def _without_head(model: Network) -> Network:
    """The network that stands for all with its backbone, up to its layer."""
    return Network(model.backbone, 1, model.stop_at)


def _image(image_shape: tuple[int, ...]) -> jax.Array:
    return jnp.zeros((1, *image_shape), jnp.float32)
