"""What is explained: a network with its weights and its preprocessing."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models import Network
from jaxvision.models.backbone import LayerFunction, intercept_layers, intercept_modules
from jaxvision.models.layers import Conv, DepthwiseConv, PReLU, ReLU, ReLU6
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import PyTree

Classes = int | Sequence[int] | np.ndarray
"""One class for all images of a batch, or one for each."""

RECTIFIERS = (ReLU, ReLU6, PReLU)
"""Modules whose gradient guided backpropagation changes."""


class Carded(Protocol):
    """What a `Classifier` has, which stands a floor above."""

    @property
    def model(self) -> Network: ...

    @property
    def variables(self) -> dict[str, PyTree]: ...

    @property
    def card(self) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """Any network of the project, from a checkpoint or with published weights."""

    model: Network
    variables: dict[str, PyTree]
    preprocessing: Preprocessing

    @classmethod
    def of(cls, classifier: Carded) -> "TrainedNetwork":
        """The network of a `Classifier`."""
        card = classifier.card
        return cls(classifier.model, classifier.variables, card.preprocessing)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    @functools.cached_property
    def trace(self) -> "LayerTrace":
        """Its layers, as they run."""
        return trace_layers(self.model, self.image_shape)

    @property
    def num_classes(self) -> int:
        """Classes that it tells apart: two, where it has one logit."""
        return max(self.model.num_classes, 2)

    @property
    def cam_layer(self) -> str:
        """Where Grad-CAM looks, see `LayerTrace.cam_layer`.

        Raises:
          InputError: the network has no convolution.
        """
        if (layer := self.trace.cam_layer) is None:
            raise InputError(
                "Grad-CAM needs a layer with height and width, and"
                f" {type(self.model.backbone).__name__} has no convolution; choose"
                " another method"
            )
        return layer

    def scores(self, images: np.ndarray, classes: Classes) -> jax.Array:
        """`[B]` float32: what is explained of each image, see `class_score`."""
        return _scores(*self.arguments(images, classes))

    def arguments(
        self, images: np.ndarray, classes: Classes
    ) -> tuple[Network, Preprocessing, dict[str, PyTree], jax.Array, jax.Array]:
        """What the methods' compiled functions take; the first two are static.

        Raises:
          InputError: images of another size or type, or a class that the network
            does not have.
        """
        checked = self.check_images(images)
        labels = self.check_classes(classes, len(images))
        return self.model, self.preprocessing, self.variables, checked, labels

    def check_images(self, images: np.ndarray) -> jax.Array:
        """Raises `InputError` unless they are uint8 `[B, H, W, C]` of its size."""
        if images.dtype != np.uint8:
            raise InputError(
                f"images are {images.dtype}; give them as uint8, 0 to 255, not"
                " normalized"
            )
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise InputError(
                f"images are {_times(images.shape)}; the network takes"
                f" B×{_times(self.image_shape)}: decode them with its preprocessing"
            )
        return jnp.asarray(images)

    def check_classes(self, classes: Classes, count: int) -> jax.Array:
        """`[count]` int32; `InputError` for one that the network does not have."""
        chosen = np.asarray(classes)
        if chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != count):
            raise InputError(
                f"{_times(chosen.shape)} classes for {count} images; give one for"
                " all of them, or one for each"
            )
        last = self.num_classes - 1
        for number in np.atleast_1d(chosen):
            if not 0 <= number <= last:
                raise InputError(
                    f"no class {number}; the network's classes are 0 to {last}"
                )
        return jnp.asarray(np.broadcast_to(chosen, (count,)), jnp.int32)


def network_inputs(
    preprocessing: Preprocessing, images: jax.Array | np.ndarray
) -> jax.Array:
    """What explanations are in terms of: normalized values, channels as images have
    them (RGB) whatever the network's order."""
    return _network_order(preprocessing, preprocessing.normalize(images))


def make_score(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    classes: jax.Array,
) -> Callable[[jax.Array], jax.Array]:
    """`[B, H, W, C]` of `network_inputs` -> `[B]`, see `class_score`."""

    def score(inputs: jax.Array) -> jax.Array:
        x = _network_order(preprocessing, inputs)
        logits: Any = model.apply(variables, x, train=False)
        return class_score(logits, classes)

    return score


def class_score(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """What is explained: the logit of each image's class, `[B, K]` -> `[B]`.

    Logits and not probabilities, whose gradient vanishes where the network is sure.
    One logit for two classes speaks for the second, its negative for the first.
    """
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([-logits, logits], axis=-1)
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def input_gradient(
    score: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], jax.Array]:
    """Gradient of each image's score by its own input: `[B, H, W, C]` float32.

    Images do not see each other in evaluation, so that of the sum is that of each.
    """
    return jax.grad(lambda inputs: score(inputs).sum())


@dataclasses.dataclass(frozen=True)
class LayerTrace:
    """What a network runs.

    outputs: layer -> shape of its output for one image, in order.
    first_convolution: path of its parameters; None: there is none.
    last_convolution: the layer that it is in.
    rectifiers: how many of `RECTIFIERS` run.
    """

    outputs: dict[str, tuple[int, ...]]
    first_convolution: tuple[str, ...] | None
    last_convolution: str | None
    rectifiers: int

    @property
    def cam_layer(self) -> str | None:
        """The last layer with a convolution in it, or a later one whose output has the
        same shape, such as its normalization and activation; None: there is none."""
        if self.last_convolution is None:
            return None
        shape = self.outputs[self.last_convolution]
        return [layer for layer, other in self.outputs.items() if other == shape][-1]

    def check_map_layer(self, layer: str) -> None:
        """Raises `InputError` unless the layer is run and has height and width."""
        maps = [name for name, shape in self.outputs.items() if len(shape) == 3]
        if layer not in maps:
            there = "has no height and width" if layer in self.outputs else "is not run"
            raise InputError(
                f"layer {layer!r} {there}; layers that Grad-CAM can look at:"
                f" {', '.join(maps) or 'none'}"
            )


def trace_layers(model: Network, image_shape: tuple[int, int, int]) -> LayerTrace:
    """Follows a network through one image `(H, W, C)`; nothing is computed."""
    seen = _Seen()
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with intercept_layers(seen.run_layer), intercept_modules(seen.run_module):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return LayerTrace(seen.outputs, seen.first, seen.last, seen.count)


class _Seen:
    """Notes layers and modules while a network is traced."""

    def __init__(self) -> None:
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.first: tuple[str, ...] | None = None
        self.last: str | None = None
        self.count = 0
        self._layer = ""

    def run_module(
        self, module: nn.Module, call: Callable[..., Any], *inputs: Any
    ) -> Any:
        """For `intercept_modules`."""
        result = call(*inputs)
        self.count += isinstance(module, RECTIFIERS)
        if isinstance(module, Conv | DepthwiseConv):
            self.first = self.first or module.path
            self.last = self._layer
        return result

    def run_layer(self, name: str, layer: LayerFunction, x: jax.Array) -> jax.Array:
        """For `intercept_layers`."""
        self._layer = name
        y = layer(x)
        self.outputs[name] = y.shape[1:]
        return y


def _network_order(preprocessing: Preprocessing, x: jax.Array) -> jax.Array:
    """Between the image's order of channels and the network's, either way."""
    return x[..., ::-1] if preprocessing.channel_order == "bgr" else x


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    classes: jax.Array,
) -> jax.Array:
    score = make_score(model, preprocessing, variables, classes)
    return score(network_inputs(preprocessing, images))


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
