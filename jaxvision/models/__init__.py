"""The networks: one table of names, one way to make them.

model = create_model("alexnet", num_classes=6)
variables = model.init(key, images, train=False)
logits = model.apply(variables, images, train=False)  # [B, 6] float32
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxvision.errors import InputError
from jaxvision.models import (
    alexnet,
    convnet,
    efficientnet,
    mlp,
    mobilenet,
    patches,
    resnet,
    vgg,
)
from jaxvision.models.backbone import Backbone
from jaxvision.models.initialization import check_fits
from jaxvision.models.network import PARTS, POOLINGS, Network, Pooling, pool_features

__all__ = [
    "MODELS",
    "PARTS",
    "Backbone",
    "Network",
    "check_fits",
    "create_model",
    "pool_features",
    "rate_options",
    "with_defaults",
]

MODELS: dict[str, Callable[..., Backbone]] = {
    **mlp.VARIANTS,
    **convnet.VARIANTS,
    **alexnet.VARIANTS,
    **efficientnet.VARIANTS,
    **vgg.VARIANTS,
    **resnet.VARIANTS,
    **mobilenet.VARIANTS,
    **patches.VARIANTS,
}


def create_model(
    name: str,
    num_classes: int,
    *,
    stop_at: str | None = None,
    head_hidden: tuple[int, ...] = (),
    head_dropout: float | jax.Array = 0.0,
    pooling: Pooling | None = None,
    bn_axis_name: str | None = None,
    bn_momentum: float | None = None,
    freeze_bn: bool = False,
    dtype: Any = jnp.float32,
    **options: Any,
) -> Network:
    """A network by name, with a head for `num_classes`.

    Args:
      name: a key of `MODELS`.
      num_classes: width of the logits.
      stop_at: last layer of the backbone that the head stands on; None for the last.
      head_hidden: widths of hidden layers in the head.
      head_dropout: dropout after each of those.
      pooling: what the head sees of that layer: "mean" each channel's mean, "gram" how
        strongly each two channels occur together (`pool_features`); None: what is
        usual of the network, which is all of it but for "patches", "gram".
      bn_axis_name: mapped axis over which batch norm is synchronized.
      bn_momentum: what batch norm's running statistics keep a step; None: the
        network's own.
      freeze_bn: batch norm uses its running statistics in training too.
      dtype: what is computed in (float32 or bfloat16); parameters are float32.
      **options: the backbone's own fields, such as `hidden` of "mlp".

    Raises:
      InputError: an unknown network, layer or option; a number out of range.
    """
    if name not in MODELS:
        raise InputError(f"no network {name!r}; there are: {', '.join(MODELS)}")
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; it must be at least 1")
    known = _options(MODELS[name]())
    for option in options:
        if option not in known:
            raise InputError(
                f"no option {option!r} of network {name!r}; it has: {', '.join(known)}"
            )
    for option in rate_options(name):
        _check_rate(option, {**options, "head_dropout": head_dropout}.get(option, 0.0))
    if any(width < 1 for width in head_hidden):
        raise InputError(f"head_hidden is {head_hidden}; widths must be at least 1")
    if pooling not in (None, *POOLINGS):
        raise InputError(f"pooling is {pooling!r}; there are: {', '.join(POOLINGS)}")
    if bn_momentum is not None:
        _check_rate("bn_momentum", bn_momentum)
        options["bn_momentum"] = bn_momentum
    backbone = MODELS[name](
        bn_axis_name=bn_axis_name, freeze_bn=freeze_bn, dtype=dtype, **options
    )
    backbone.check()
    backbone.check_layer(stop_at)
    return Network(
        backbone,
        num_classes,
        stop_at,
        tuple(head_hidden),
        head_dropout,
        backbone.usual_pooling if pooling is None else pooling,
    )


def rate_options(name: str) -> tuple[str, ...]:
    """The options of a network that are probabilities below 1, and may be traced."""
    return (*Network.rates, *MODELS[name]().rates)


def with_defaults(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network, a key of `MODELS`, all of them: its own values of those
    that are not given."""
    backbone = MODELS[name]()
    return {n: getattr(backbone, n) for n in _options(backbone)} | dict(options)


def _options(backbone: Backbone) -> list[str]:
    inherited = {field.name for field in dataclasses.fields(Backbone)}
    return [f.name for f in dataclasses.fields(backbone) if f.name not in inherited]


def _check_rate(option: str, value: float | jax.Array) -> None:
    # A traced rate has no value yet.
    if not isinstance(value, Tracer) and not 0.0 <= float(value) < 1.0:
        raise InputError(f"{option} is {value}; it must be at least 0 and below 1")
