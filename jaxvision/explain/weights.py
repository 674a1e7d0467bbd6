"""What single units of a network look for: their weights, and what excites them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxvision.data.dataset import Dataset, DecodedDataset
from jaxvision.errors import InputError
from jaxvision.explain.config import WeightsOptions
from jaxvision.explain.network import TrainedNetwork
from jaxvision.models import Network
from jaxvision.models.layers import BatchNorm
from jaxvision.models.mlp import MLP
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import Progress, PyTree


def first_filters(network: TrainedNetwork) -> np.ndarray:
    """Kernels of the first convolution: `[features, k, k, C]` float32, C as in the
    image.

    With weight norm they are those before their lengths are set.

    Raises:
      InputError: the network has no convolution.
    """
    path = network.trace.first_convolution
    if path is None:
        raise InputError(
            f"{type(network.model.backbone).__name__} has no convolution, so no filters"
        )
    values = network.variables["params"]
    for part in path:
        values = values[part]
    filters = np.asarray(values["kernel"], np.float32).transpose(3, 0, 1, 2)
    return _image_order(network, filters)


def hidden_weights(network: TrainedNetwork) -> np.ndarray:
    """Weights of each hidden unit of an `mlp`, in the shape of the image.

    Batch norm, if there is any, is part of them: a unit's response grows with the sum
    of weights times normalized values.

    Returns:
      `[hidden, H, W, C]` float32, C as in the image.

    Raises:
      InputError: the network is no `mlp`.
    """
    backbone = network.model.backbone
    if not isinstance(backbone, MLP):
        raise InputError(
            "weights in the shape of the image are those of an mlp's hidden units;"
            f" for {type(backbone).__name__} look at its filters"
        )
    params = network.variables["params"]["backbone"]
    kernel = np.asarray(params["fc1"]["kernel"], np.float32)
    if backbone.batch_norm:
        var = np.asarray(network.variables["batch_stats"]["backbone"]["bn1"]["var"])
        scale = np.asarray(params["bn1"]["scale"])
        kernel = kernel * (scale / np.sqrt(var + BatchNorm.epsilon))
    return _image_order(network, kernel.T.reshape(-1, *network.image_shape))


def unit_responses(
    network: TrainedNetwork, images: np.ndarray, units: Sequence[int]
) -> np.ndarray:
    """What each value of an image adds to hidden units of an `mlp`: weight × value.

    Args:
      network: an `mlp`.
      images: uint8 `[B, H, W, C]`.
      units: indices of hidden units.

    Returns:
      `[B, len(units), H, W, C]` float32.

    Raises:
      InputError: no `mlp`, images of another size, or a unit that it does not have.
    """
    weights = hidden_weights(network)
    check_units(units, len(weights))
    inputs = network.preprocessing.normalize(np.asarray(network.check_images(images)))
    return _image_order(network, inputs)[:, None] * weights[list(units)][None]


def neighbor_correlation(weights: np.ndarray) -> np.ndarray:
    """How smooth weights are as images: `[N, H, W, C]` -> `[N]`.

    Pearson's correlation of each value with the one to its right and the one below, in
    its own channel: about 0 for noise, 1 for an image without edges.
    """
    centered = weights - weights.mean((1, 2, 3), keepdims=True)
    variance = np.square(centered).mean((1, 2, 3))
    down = (centered[:, 1:] * centered[:, :-1]).mean((1, 2, 3))
    across = (centered[:, :, 1:] * centered[:, :, :-1]).mean((1, 2, 3))
    return (down + across) / 2 / np.where(variance > 0, variance, 1)


def most_weighted_units(network: TrainedNetwork, label: int, count: int) -> np.ndarray:
    """The units before the logits that speak most for a class.

    The rule: the largest weights from a unit to the class's logit. Units are those of
    the last layer that the logits stand on, such as the hidden units of an `mlp`, or
    the channels of the last convolution where its mean over places is taken.

    Returns:
      `[count]` indices, the most weighted first.

    Raises:
      InputError: a class that the network does not have.
    """
    network.check_classes(label, 1)
    kernel = np.asarray(network.variables["params"]["head"]["logits"]["kernel"])
    return np.argsort(-kernel[:, label], kind="stable")[:count]


def check_units(units: Sequence[int], count: int) -> None:
    """Raises `InputError` for a unit that a layer of `count` units does not have."""
    for unit in units:
        if not 0 <= unit < count:
            raise InputError(f"no unit {unit}; the layer's units are 0 to {count - 1}")


def check_options(dataset: Dataset, options: WeightsOptions, count: int) -> None:
    """Raises `InputError` for a class, or a unit of `count`, that there is not."""
    find_label(dataset, options.person)
    check_units(options.units, count)


def find_label(dataset: Dataset, person: str | None) -> int:
    """Label of the class whose units are shown; None: the first.

    Raises:
      InputError: there is no such class.
    """
    if person is None:
        return 0
    if person not in dataset.classes:
        raise InputError(
            f"no class is called so; there are {', '.join(dataset.classes)}",
            setting="person",
            value=person,
        )
    return dataset.classes.index(person)


@dataclass(frozen=True)
class Excitation:
    """The images that excite a unit most.

    indices: `[n]` of the images in the data set, the top activating first.
    values: `[n]`, the unit's mean over the places of each: many an image reaches the
        ceiling of a ReLU6 in one place.
    places: `[n, 2]`, row and column of its highest value, in the layer's own grid; None
        for a layer without height and width.
    """

    unit: int
    indices: np.ndarray
    values: np.ndarray
    places: np.ndarray | None


def top_activating_images(
    network: TrainedNetwork,
    dataset: DecodedDataset,
    images: np.ndarray,
    *,
    layer: str,
    units: Sequence[int],
    count: int = 9,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[Excitation]:
    """For each unit of a layer, the images of a data set that excite it most.

    Args:
      network: any.
      dataset: in the network's preprocessing.
      images: indices of those to look at.
      layer: name of a layer; its units are its channels.
      units: which.
      count: images a unit, at most.
      batch_size: images at once.
      progress: told (images done, images in all).

    Raises:
      InputError: no such layer or unit.
    """
    outputs = network.trace.outputs
    if layer not in outputs:
        raise InputError(f"no layer {layer!r} is run; there are: {', '.join(outputs)}")
    check_units(units, outputs[layer][-1])
    chosen = np.array(units, np.int32)
    values: list[np.ndarray] = []
    places: list[np.ndarray] = []
    done = 0
    for batch in dataset.batches(images, batch_size=batch_size, train=False).iterate():
        real = np.asarray(batch["mask"]) > 0
        arguments = network.model, network.preprocessing, network.variables
        value, place = _mean_and_place(*arguments, batch["image"], chosen, layer)
        values.append(np.asarray(value)[real])
        places.append(np.asarray(place)[real])
        done += int(real.sum())
        if progress is not None:
            progress(done, len(images))
    value, place = np.concatenate(values), np.concatenate(places)
    best = np.argsort(-value, axis=0, kind="stable")[:count]
    width = outputs[layer][1] if len(outputs[layer]) == 3 else None
    return [
        Excitation(
            unit,
            np.asarray(images)[best[:, number]],
            value[best[:, number], number],
            None
            if width is None
            else np.stack(np.divmod(place[best[:, number], number], width), axis=-1),
        )
        for number, unit in enumerate(units)
    ]


def _image_order(network: TrainedNetwork, weights: np.ndarray) -> np.ndarray:
    bgr = network.preprocessing.channel_order == "bgr"
    return weights[..., ::-1] if bgr else weights


@partial(jax.jit, static_argnums=(0, 1, 5))
def _mean_and_place(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
    units: jax.Array,
    layer: str,
) -> tuple[jax.Array, jax.Array]:
    """Mean of each unit over a layer's places, and its highest place: `[B, units]`."""
    backbone = {
        name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree
    }
    output: Any = model.backbone.apply(
        backbone, preprocessing.normalize(images), train=False, stop_at=layer
    )
    return mean_and_place(output[..., units])


def mean_and_place(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of a layer's output `[B, ..., units]` each unit's mean over its places, and the
    number of the place where it is highest, row by row: `[B, units]`."""
    by_place = output.reshape(len(output), -1, output.shape[-1])
    return by_place.mean(1), by_place.argmax(1)
