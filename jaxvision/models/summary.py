"""A network as a table: what each layer gives, holds, costs and sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.models.backbone import LayerFunction, intercept_layers, intercept_modules
from jaxvision.models.network import Network
from jaxvision.models.receptive_field import receptive_fields

HEADER = (
    "layer",
    "output",
    "parameters",
    "multiply-adds",
    "receptive field",
    "stride",
)


@dataclass
class LayerSummary:
    """A layer of the backbone, or a module of the head.

    output: shape of the result for one image.
    parameters: that are trained; running statistics are none.
    multiply_adds: of convolutions and dense layers, for one image.
    receptive_field: height and width in pixels, were there no border; None: the layer
        sees the whole image.
    stride: effective, down and across, in pixels; None likewise.
    """

    layer: str
    output: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0
    receptive_field: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


def summarize_model(
    model: Network, image_shape: tuple[int, int, int]
) -> list[LayerSummary]:
    """What every layer gives, holds, costs and sees, in the order they run.

    Layers of the head are named "head.logits" and so on. Nothing is computed but
    shapes.

    Args:
      model: any network of `jaxvision.models`.
      image_shape: (H, W, C) of one image.

    Raises:
      InputError: the images are too small for the network.
    """
    count = _Count()
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with intercept_layers(count.run_layer), intercept_modules(count.run_module):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    fields = receptive_fields(model.backbone, image_shape, stop_at=model.stop_at)
    for layer, field in fields.items():
        if field is not None:
            count.rows[layer].receptive_field = field.size
            count.rows[layer].stride = field.stride
    return list(count.rows.values())


def as_table(
    rows: Sequence[LayerSummary],
) -> tuple[tuple[str, ...], list[list[str | int]]]:
    """Header and cells for `jaxvision.report.markdown.Table`; the totals come last."""
    cells: list[list[str | int]] = [
        [
            row.layer,
            "×".join(map(str, row.output)),
            row.parameters,
            row.multiply_adds,
            _pixels(row.receptive_field, nowhere="whole image"),
            _pixels(row.stride, nowhere="–"),
        ]
        for row in rows
    ]
    parameters = sum(row.parameters for row in rows)
    multiply_adds = sum(row.multiply_adds for row in rows)
    return HEADER, [*cells, ["total", "", parameters, multiply_adds, "", ""]]


def _pixels(size: tuple[int, int] | None, *, nowhere: str) -> str:
    return nowhere if size is None else "×".join(map(str, size))


class _Count:
    """Fills the rows while a network is traced."""

    def __init__(self) -> None:
        self.rows: dict[str, LayerSummary] = {}
        self._layer = ""
        self._counted: set[tuple[str, ...]] = set()

    def run_module(
        self, module: nn.Module, call: Callable[..., Any], *inputs: Any
    ) -> Any:
        """For `intercept_modules`."""
        result = call(*inputs)
        if held := _held(module):
            if module.path[0] == "head":
                self._begin(f"head.{module.path[-1]}").output = result.shape[1:]
            self._add(module.path, held, result)
        return result

    def _begin(self, layer: str) -> LayerSummary:
        self._layer = layer
        return self.rows.setdefault(layer, LayerSummary(layer))

    def run_layer(self, name: str, layer: LayerFunction, x: jax.Array) -> jax.Array:
        """For `intercept_layers`."""
        self._begin(name)
        y = layer(x)
        self.rows[name].output = y.shape[1:]
        return y

    def _add(
        self, path: tuple[str, ...], held: Mapping[str, jax.Array], y: jax.Array
    ) -> None:
        row = self.rows[self._layer]
        if path not in self._counted:  # a module called twice has its weights once
            self._counted.add(path)
            row.parameters += sum(leaf.size for leaf in held.values())
        if "kernel" in held:
            # Every number of the result is a sum over all axes but the kernel's last.
            row.multiply_adds += prod(y.shape[1:]) * prod(held["kernel"].shape[:-1])


def _held(module: nn.Module) -> dict[str, jax.Array]:
    """A module's own parameters, without those of modules within it."""
    params = module.variables.get("params", {})
    return {k: v for k, v in params.items() if not isinstance(v, Mapping)}
