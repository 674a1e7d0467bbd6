"""What the page asks of a network and one image at a time.

Nothing here is called from two threads at once: `worker` sees to that.
"""

import dataclasses
import functools
import io
import secrets
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvision.classifier import Classifier
from jaxvision.data.decode import decode_image
from jaxvision.errors import InputError
from jaxvision.explain import images as views
from jaxvision.explain.methods import (
    METHODS,
    TrainedNetwork,
    allowed_methods,
)
from jaxvision.explain.occlusion import GRAY
from jaxvision.explain.weights import check_units
from jaxvision.models import Network
from jaxvision.models.receptive_field import Box, Field, receptive_fields
from jaxvision.preprocessing import Preprocessing
from jaxvision.serve.survey import features_of
from jaxvision.typing import PyTree, Row

KEPT = 4
"""Images that are kept, the last ones; each as the network sees it."""

UNITS = 48
"""Feature maps that are shown at once."""

SHEET_COLUMNS = 8
"""Feature maps beside one another in one image of them."""

QUICK: dict[str, dict[str, int]] = {"integrated_gradients": {"steps": 32}}
"""Options of methods that would take long: the steps that are needed may be 512."""

EFFECTIVE = 0.95
"""Share of the gradient's absolute values that the effective receptive field holds,
down and across (Luo et al., arXiv:1701.04128, count what is above 4.55 % of the
middle's)."""


class Gone(Exception):
    """An image that is kept no longer."""


@dataclasses.dataclass
class _Kept:
    """An image, and what was computed of it last."""

    pixels: np.ndarray
    activations: dict[str, np.ndarray] | None = None


class Session:
    """A network, and the images that were given last."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.network = TrainedNetwork.of(classifier)
        self._images: OrderedDict[str, _Kept] = OrderedDict()

    @functools.cached_property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Layer -> shape of its output for one image."""
        return self.network.trace.outputs

    @functools.cached_property
    def fields(self) -> dict[str, Field | None]:
        """Layer -> receptive field; None: global."""
        model = self.network.model
        return receptive_fields(
            model.backbone, self.network.image_shape, stop_at=model.stop_at
        )

    def warm_up(self) -> None:
        """Compiles what the first image needs."""
        self.classifier.predict(np.zeros(self.network.image_shape, np.uint8))

    def warm_up_layers(self) -> None:
        """Compiles what feature maps and receptive fields need; takes seconds, and may
        run beside all else here."""
        arguments = (
            self.network.model,
            self.network.preprocessing,
            self.network.variables,
            jnp.zeros((1, *self.network.image_shape), jnp.uint8),
        )
        names = tuple(self.layers)
        _activations(*arguments)
        zeros = jnp.zeros(len(names)), jnp.zeros(3, jnp.int32)
        _unit_gradient(*arguments, names, *zeros)

    def about(self) -> dict[str, Any]:
        """What there is to choose from."""
        card = self.classifier.card
        return {
            "name": card.data["name"],
            "demo": bool(card.data["is_demo"]),
            "network": card.network,
            "weights": card.weights,
            "classes": list(card.classes),
            "size": list(card.preprocessing.size),
            "recorded": {
                split: row.get("accuracy") for split, row in card.recorded.items()
            },
            "methods": [
                {"key": key, "name": METHODS[key].name, "about": METHODS[key].about}
                for key in allowed_methods(self.network)
            ],
            "layers": [
                {
                    "name": name,
                    "shape": list(shape),
                    "sees": None if field is None else list(field.size),
                }
                for name, shape in self.layers.items()
                for field in (self.fields.get(name),)
            ],
        }

    def add(self, content: bytes) -> str:
        """Takes the content of an image file; gives what the image is asked for by.

        Raises:
          BadImage: nothing usable in it.
        """
        pixels = decode_image(content, self.network.preprocessing)
        name = secrets.token_hex(8)
        self._images[name] = _Kept(pixels)
        while len(self._images) > KEPT:
            self._images.popitem(last=False)
        return name

    def pixels(self, image: str) -> np.ndarray:
        """uint8 `[H, W, C]`, as the network sees it.

        Raises:
          Gone: it is kept no longer.
        """
        return self._kept(image).pixels

    def predict(
        self, image: str, occluder: tuple[int, int, int] | None = None
    ) -> dict[str, Any]:
        """Every class with its probability, the most probable first: `classes`; and
        whether one is probable enough that the image is not `unknown`: `known`.

        Args:
          image: what `add` gave.
          occluder: top, left and side of a gray square that hides a part of it, in
            pixels; what lies outside the image is cut off.
        """
        pixels = self.pixels(image)
        if occluder is not None:
            top, left, side = occluder
            pixels = pixels.copy()
            down, across = (
                slice(max(top, 0), max(top + side, 0)),
                slice(max(left, 0), max(left + side, 0)),
            )
            pixels[down, across] = GRAY
        threshold = self.classifier.card.threshold
        prediction = self.classifier.predict(pixels, unknown=threshold > 0)
        classes = [
            {"label": label, "probability": probability}
            for label, probability in prediction.top(len(self.classifier.classes))
        ]
        return {"classes": classes, "known": prediction.known}

    def evidence(self, image: str, method: str, label: int) -> np.ndarray:
        """What speaks for a class, to be laid over the image: uint8 `[H, W, 4]`.

        Raises:
          InputError: no such method or class.
        """
        if method not in allowed_methods(self.network):
            raise InputError(f"no method {method!r} for this network")
        pixels = self.pixels(image)[None]
        options = QUICK.get(method, {})
        maps = METHODS[method].explain(self.network, pixels, [label], **options)
        return views.glow(np.asarray(maps))[0]

    def units(self, image: str, layer: str, start: int) -> list[dict[str, float]]:
        """`UNITS` of a layer, from the `start`-th on: those that the image excites
        most first, each with its mean over places.

        Raises:
          InputError: no such layer, or it has no more units.
        """
        units, maps = self._most_excited(image, layer, start)
        means = maps.mean((0, 1))
        return [
            {"unit": int(unit), "mean": float(mean)}
            for unit, mean in zip(units, means, strict=True)
        ]

    def sheet(self, image: str, layer: str, start: int) -> np.ndarray:
        """The feature maps of `units`, `SHEET_COLUMNS` beside one another, row by row:
        uint8 `[rows h, columns w]`, each with a scale of its own."""
        _, maps = self._most_excited(image, layer, start)
        height, width, count = maps.shape
        # A single value has its scale among those of the other units.
        within = (0, 1) if height * width > 1 else None
        low, high = maps.min(within), maps.max(within)
        scaled = (maps - low) / np.where(high > low, high - low, 1)
        rows = -(-count // SHEET_COLUMNS)
        sheet = np.zeros((rows * SHEET_COLUMNS, height, width), np.uint8)
        sheet[:count] = np.rint(255 * scaled).transpose(2, 0, 1)
        sheet = sheet.reshape(rows, SHEET_COLUMNS, height, width)
        return sheet.transpose(0, 2, 1, 3).reshape(rows * height, -1)

    def field(self, image: str, layer: str, unit: int) -> dict[str, Any]:
        """What a unit sees of the image, where it is excited most.

        Returns:
          `theoretical` and `effective`: top, left, bottom and right pixel; None for
          a global layer, and where no pixel changes the unit's value. `value`: the
          unit's there.
        """
        maps = self._maps(image, layer)
        check_units([unit], maps.shape[-1])
        row, column = divmod(int(maps[..., unit].argmax()), maps.shape[1])
        field = self.fields.get(layer)
        names = tuple(self.layers)
        gradient = _unit_gradient(
            self.network.model,
            self.network.preprocessing,
            self.network.variables,
            jnp.asarray(self.pixels(image)[None]),
            names,
            jnp.asarray(np.arange(len(names)) == names.index(layer), jnp.float32),
            jnp.asarray([row, column, unit], jnp.int32),
        )
        box = effective_box(np.asarray(gradient)[0])
        return {
            "value": float(maps[row, column, unit]),
            "theoretical": None if field is None else _plain(field.box((row, column))),
            "effective": None if box is None else _plain(box),
        }

    def features(self, image: str) -> np.ndarray:
        """What the head sees of the image: `[F]` float32, see `survey.features_of`."""
        *_, last = self.layers
        shape = self.layers[last]
        output = self._maps(image, last).reshape(1, *shape)
        return np.asarray(features_of(self.network.model, jnp.asarray(output)))[0]

    def _kept(self, image: str) -> _Kept:
        try:  # several threads ask
            self._images.move_to_end(image)
            return self._images[image]
        except KeyError:
            raise Gone from None

    def _most_excited(
        self, image: str, layer: str, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Units in the order of their means, from the `start`-th on: `[n]`, and their
        maps `[h, w, n]`."""
        maps = self._maps(image, layer)
        order = np.argsort(-maps.mean((0, 1)), kind="stable")[start : start + UNITS]
        if not len(order):
            raise InputError(f"layer {layer!r} has only {maps.shape[-1]} units")
        return order, maps[..., order]

    def _maps(self, image: str, layer: str) -> np.ndarray:
        """`[h, w, units]` float32 of one layer; h and w are 1 for a dense one."""
        if layer not in self.layers:
            raise InputError(f"no layer {layer!r}")
        kept = self._kept(image)
        if kept.activations is None:
            for other in self._images.values():
                other.activations = None
            found = _activations(
                self.network.model,
                self.network.preprocessing,
                self.network.variables,
                jnp.asarray(kept.pixels[None]),
            )
            kept.activations = {
                name: np.asarray(values[0], np.float32)
                for name, values in found.items()
            }
        maps = kept.activations[layer]
        return maps if maps.ndim == 3 else maps.reshape(1, 1, -1)


def png(pixels: np.ndarray, *, palette: bytes | None = None) -> bytes:
    """A PNG of uint8 `[H, W]` or `[H, W, C]`, C 1, 3 or 4."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    if palette is not None:
        image.putpalette(palette)
    with io.BytesIO() as buffer:
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def effective_box(gradient: np.ndarray) -> Box | None:
    """The pixels between which `EFFECTIVE` of `[H, W, C]` lies, by absolute values,
    down and across; None: all are zero."""
    strength = views.strength(gradient[None])[0]
    total = strength.sum()
    if not total > 0:
        return None

    def ends(by_line: np.ndarray) -> tuple[int, int]:
        share = np.cumsum(by_line) / total
        outside = (1 - EFFECTIVE) / 2
        first = int(np.searchsorted(share, outside, side="right"))
        last = int(np.searchsorted(share, 1 - outside, side="left"))
        return first, min(last, len(by_line) - 1)

    (top, bottom), (left, right) = ends(strength.sum(1)), ends(strength.sum(0))
    return Box(top, left, bottom, right)


def _plain(box: Box) -> Row:
    return dataclasses.asdict(box)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _activations(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
) -> dict[str, jax.Array]:
    """The output of every layer of the backbone, by name."""
    _, state = model.apply(
        variables,
        preprocessing.normalize(images),
        train=False,
        mutable=["activations"],
    )
    activations: Any = state["activations"]
    return activations["backbone"]


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _unit_gradient(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    layers: tuple[str, ...],
    chosen: jax.Array,
    place: jax.Array,
) -> jax.Array:
    """Gradient of one unit's value by the normalized pixels, `[1, H, W, C]`.

    One program for all layers, of which `chosen` is 1 for one and 0 for the others:
    so that none is compiled when a person points at its units.
    """
    row, column, unit = place

    def value(inputs: jax.Array) -> jax.Array:
        _, state = model.apply(variables, inputs, train=False, mutable=["activations"])
        activations: Any = state["activations"]
        values = []
        for layer in layers:
            output = activations["backbone"][layer][0]
            at = (row, column, unit) if output.ndim == 3 else (unit,)
            values.append(output[at].astype(jnp.float32))
        return jnp.stack(values) @ chosen

    return jax.grad(value)(preprocessing.normalize(images))
