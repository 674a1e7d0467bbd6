"""Which pixels the nodes of a layer see: by recursion, and by the gradient.

The recursion follows Araujo, Norris & Sim 2019, "Computing receptive fields of
convolutional neural networks" (https://distill.pub/2019/computing-receptive-fields),
over the network as it runs: every window is noted when it is called, and the graph of
the traced computation says what follows what, so that branches need no table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import Jaxpr, Literal, Var

from jaxvision import ops
from jaxvision.models.backbone import (
    Backbone,
    LayerFunction,
    intercept_layers,
    intercept_modules,
)
from jaxvision.models.layers import WINDOWED, MaxPool, Rescale, explicit_pads
from jaxvision.traces import mark, mark_of
from jaxvision.typing import PyTree


@dataclass(frozen=True)
class Span:
    """What the nodes of a layer see of the pixels, along one axis.

    size: pixels from the first to the last that a node sees: the receptive field,
        were there no border.
    stride: pixels from one node's to the next one's: the effective stride.
    start: first pixel of node 0's; below zero it lies in the padding.
    seen: for each node, the first and last pixel of the image that it does see:
        `start + i * stride` and `size - 1` further, cut at the border of each layer.
    """

    size: int
    stride: int
    start: int
    seen: tuple[tuple[int, int], ...]

    @classmethod
    def of_pixels(cls, count: int) -> "Span":
        """Each pixel sees itself."""
        return cls(1, 1, 0, tuple((i, i) for i in range(count)))

    def through(self, kernel: int, stride: int, pads: tuple[int, int]) -> "Span":
        """After a window slid over it, `pads` nodes added before and after."""
        low, high = pads
        last = len(self.seen) - 1
        starts = range(-low, last + 1 + high - kernel + 1, stride)
        return Span(
            size=self.size + (kernel - 1) * self.stride,
            stride=self.stride * stride,
            start=self.start - low * self.stride,
            seen=tuple(
                (self.seen[max(i, 0)][0], self.seen[min(i + kernel - 1, last)][1])
                for i in starts
            ),
        )

    def joined(self, other: "Span") -> "Span":
        """Where two branches meet that give as many nodes: all that either sees."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Span(
            size=end - start,
            stride=max(self.stride, other.stride),
            start=start,
            seen=tuple(
                (min(a[0], b[0]), max(a[1], b[1]))
                for a, b in zip(self.seen, other.seen, strict=True)
            ),
        )


@dataclass(frozen=True)
class Field:
    """What the nodes of a layer see, down and across."""

    down: Span
    across: Span

    @classmethod
    def of_pixels(cls, height: int, width: int) -> "Field":
        return cls(Span.of_pixels(height), Span.of_pixels(width))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the receptive field, in pixels."""
        return self.down.size, self.across.size

    @property
    def stride(self) -> tuple[int, int]:
        """Effective stride down and across, in pixels."""
        return self.down.stride, self.across.stride

    @property
    def start(self) -> tuple[int, int]:
        """Top and left pixel that the first node sees."""
        return self.down.start, self.across.start

    @property
    def nodes(self) -> tuple[int, int]:
        """How many nodes the layer has, down and across."""
        return len(self.down.seen), len(self.across.seen)

    def box(self, node: tuple[int, int]) -> "Box":
        """What one node sees of the image."""
        (top, bottom), (left, right) = (
            self.down.seen[node[0]],
            self.across.seen[node[1]],
        )
        return Box(top, left, bottom, right)


@dataclass(frozen=True)
class Box:
    """Pixels of an image: rows `top` to `bottom`, columns `left` to `right`, both
    ends included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Check:
    """One layer's receptive field, by recursion and by the gradient.

    node: which one of the layer, down and across.
    expected: what it sees by the recursion.
    found: the least box around the pixels that it has a gradient for; None: none.
    gradient: `[H, W]` float32, of the node's value by each pixel.
    """

    layer: str
    field: Field
    node: tuple[int, int]
    expected: Box
    found: Box | None
    gradient: np.ndarray

    @property
    def agrees(self) -> bool:
        return self.found == self.expected


def receptive_fields(
    backbone: Backbone,
    image_shape: tuple[int, int, int],
    *,
    stop_at: str | None = None,
) -> dict[str, Field | None]:
    """The receptive field of every layer, in order; None where a layer is global.

    Global is what sees the whole image by its nature (flattening, dense layers,
    means over the image) and all that follows it. Where branches meet, a node sees
    what it sees through either. A layer that mixes places without one of the
    windowed layers of `jaxvision.models.layers` counts as global too, unless it
    keeps height and width.

    Args:
      backbone: traced, not run.
      image_shape: (H, W, C) of one image.
      stop_at: the last layer wanted; None for all.

    Raises:
      InputError: the images are too small, or no layer is named `stop_at`.
    """
    windows: list[Window] = []
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with intercept_layers(_named), intercept_modules(partial(_note, windows)):
        traced = jax.make_jaxpr(
            lambda x: backbone.init(jax.random.key(0), x, train=False, stop_at=stop_at)
        )(image)
    return _follow(traced.jaxpr, Field.of_pixels(*image_shape[:2]), windows)


Window = tuple[int, int, tuple[tuple[int, int], tuple[int, int]]]
"""Kernel size, stride and padding."""


def _note(
    windows: list[Window], module: nn.Module, call: Callable[..., Any], *inputs: Any
) -> Any:
    """Names what goes into and comes out of each window."""
    if isinstance(module, WINDOWED):
        (x,) = inputs
        kernel, stride = module.kernel_size, module.stride
        pads = explicit_pads(x.shape[1:3], kernel, stride, module.padding)
        number = len(windows)
        windows.append((kernel, stride, pads))
        return mark(call(mark(x, f"into {number}")), f"out of {number}")
    return call(*inputs)


def _named(name: str, layer: LayerFunction, x: jax.Array) -> jax.Array:
    return mark(layer(x), f"layer {name}")


def _follow(
    traced: Jaxpr, pixels: Field, windows: Sequence[Window]
) -> dict[str, Field | None]:
    """Goes through a traced computation; variables that do not depend on the image
    have no field, those that see all of it have None."""
    (image,) = traced.invars
    fields: dict[Var, Field | None] = {image: pixels}
    entered: dict[str, Field | None] = {}
    layers: dict[str, Field | None] = {}
    left = 0
    for equation in traced.eqns:
        seen = [
            fields[variable]
            for variable in equation.invars
            if not isinstance(variable, Literal) and variable in fields
        ]
        if not seen:
            continue
        for variable in equation.outvars:
            fields[variable] = _met(seen, getattr(variable.aval, "shape", ()))
        if (name := mark_of(equation)) is None:
            continue
        (variable,) = equation.outvars
        what, _, which = name.rpartition(" ")
        if what == "into":
            entered[which] = fields[variable]
        elif what == "out of":
            left += 1
            fields[variable] = _through(entered[which], windows[int(which)])
        elif what == "layer":
            layers[which] = fields[variable]
    if left != len(windows):
        # Inside jit, remat or scan the names are out of sight.
        raise ValueError(f"{left} of {len(windows)} windows found in the trace")
    return layers


def _met(seen: list[Field | None], shape: tuple[int, ...]) -> Field | None:
    """The field of a result of this shape that depends on all of `seen`."""
    nodes = shape[1:3] if len(shape) == 4 else None
    local = [field for field in seen if field is not None and field.nodes == nodes]
    if len(local) != len(seen):
        return None
    return reduce(
        lambda a, b: Field(a.down.joined(b.down), a.across.joined(b.across)), local
    )


def _through(field: Field | None, window: Window) -> Field | None:
    if field is None:
        return None
    kernel, stride, (down, across) = window
    return Field(
        field.down.through(kernel, stride, down),
        field.across.through(kernel, stride, across),
    )


def check_receptive_fields(
    backbone: Backbone,
    image_shape: tuple[int, int, int],
    *,
    at: tuple[float, float] = (0.5, 0.5),
) -> Iterator[Check]:
    """Beside the recursion, the gradient of one node of each layer by the pixels.

    The network itself is run, with weights of one sign, no biases and means in place
    of maxima, so that nothing cancels and nothing is passed over: the gradient is
    zero where a node does not see, and nowhere else within its field but in the
    holes that strides larger than kernels leave.

    Args:
      backbone: its parameters are made here.
      image_shape: (H, W, C) of the image.
      at: which node, as the share of the layer's height and width before it.

    Yields:
      The layers before the first global one, in order.
    """
    local: dict[str, Field] = {}
    for layer, field in receptive_fields(backbone, image_shape).items():
        if field is None:
            break
        local[layer] = field
    if not local:
        return
    *_, last = local
    # Small: ReLU6 must not be reached where residuals add up.
    x = np.full((1, *image_shape), 1e-3, np.float32)
    positive = jax.tree_util.tree_map_with_path(
        _positive,
        jax.eval_shape(
            lambda x: backbone.init(jax.random.key(0), x, train=False, stop_at=last), x
        ),
    )
    nodes = {layer: _node(field, at) for layer, field in local.items()}
    places = np.array(list(nodes.values()))
    for chosen, (layer, field) in zip(np.eye(len(local)), local.items(), strict=True):
        gradient = _gradient(backbone, tuple(local), x, positive, places, chosen)
        by_pixel = np.asarray(gradient)[0].sum(-1)
        node = nodes[layer]
        yield Check(
            layer, field, node, field.box(node), bounding_box(by_pixel), by_pixel
        )


@partial(jax.jit, static_argnums=(0, 1))
def _gradient(
    backbone: Backbone,
    layers: tuple[str, ...],
    x: jax.Array,
    variables: PyTree,
    nodes: jax.Array,
    chosen: jax.Array,
) -> jax.Array:
    """`[1, H, W, C]`, of one node by the pixels.

    Args:
      backbone: run with means in place of maxima.
      layers: its layers before the first global one, L in number.
      x: `[1, H, W, C]` float32.
      variables: of the backbone.
      nodes: `[L, 2]`, row and column of each layer's node.
      chosen: `[L]`, 1 for the layer that is asked for and 0 for the others.
    """

    def value(x: jax.Array) -> jax.Array:
        with intercept_modules(_tame):
            _, state = backbone.apply(
                variables, x, train=False, stop_at=layers[-1], mutable=["activations"]
            )
        activations: Any = state["activations"]
        values = [
            activations[layer][0, node[0], node[1]].sum()
            for layer, node in zip(layers, nodes, strict=True)
        ]
        return jnp.stack(values) @ chosen

    return jax.grad(value)(x)


def _node(field: Field, at: tuple[float, float]) -> tuple[int, int]:
    down, across = (
        min(int(share * count), count - 1)
        for share, count in zip(at, field.nodes, strict=True)
    )
    return down, across


def bounding_box(gradient: np.ndarray) -> Box | None:
    """The least box with all pixels of `[H, W]` that are not zero; None: all are."""
    if not gradient.any():
        return None
    rows, columns = np.flatnonzero(gradient.any(1)), np.flatnonzero(gradient.any(0))
    return Box(*(int(edge) for edge in (rows[0], columns[0], rows[-1], columns[-1])))


def _positive(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """A parameter or statistic of a network that takes means everywhere."""
    name = path[-1].key
    if name == "kernel":
        return np.full(leaf.shape, 1 / np.prod(leaf.shape[:-1]), np.float32)
    return np.full(leaf.shape, 1.0 if name in ("scale", "var") else 0.0, np.float32)


def _tame(module: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
    """Means in place of maxima, over the same windows; pixels stay as they are."""
    if isinstance(module, Rescale):
        return inputs[0]
    if isinstance(module, MaxPool):
        (x,) = inputs
        kernel, stride = module.kernel_size, module.stride
        pads = explicit_pads(x.shape[1:3], kernel, stride, module.padding)
        return ops.avg_pool(x, kernel, stride, pads)
    return call(*inputs)
