"""One look at every image of the data set: its features, and what excites each unit."""

import dataclasses
import functools
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.dataset import DecodedDataset
from jaxvision.errors import InputError
from jaxvision.explain.network import TrainedNetwork
from jaxvision.explain.weights import check_units, mean_and_place
from jaxvision.models import Network, pool_features
from jaxvision.preprocessing import Preprocessing
from jaxvision.serve.worker import Worker
from jaxvision.typing import Progress, PyTree

BATCH = 4
"""Images at once: a person who asks something waits for no more."""

EXCITING = 9
"""Images that are kept for each unit."""

MAX_FEATURES = 8192
"""Of an image; where the head sees more, the means over places stand for them."""


@dataclasses.dataclass(frozen=True)
class Exciting:
    """The images that excite each unit of a layer most, the first ones first.

    values: `[n, units]` float32, the means over places; -inf where there are fewer
        images.
    indices: `[n, units]` int32, of the images.
    places: `[n, units]` int32, of the highest value, row by row.
    """

    values: np.ndarray
    indices: np.ndarray
    places: np.ndarray

    @classmethod
    def none(cls, units: int) -> "Exciting":
        shape = (EXCITING, units)
        return cls(
            np.full(shape, -np.inf, np.float32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
        )

    def with_images(
        self, values: np.ndarray, indices: np.ndarray, places: np.ndarray
    ) -> "Exciting":
        """With further images: values and places `[B, units]`, indices `[B]`."""
        every = np.broadcast_to(indices[:, None], values.shape)
        stacked = np.concatenate([self.values, values])
        best = np.argsort(-stacked, axis=0, kind="stable")[:EXCITING]
        return Exciting(
            *(
                np.take_along_axis(np.concatenate(pair), best, axis=0)
                for pair in (
                    (self.values, values),
                    (self.indices, every.astype(np.int32)),
                    (self.places, places.astype(np.int32)),
                )
            )
        )


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was seen.

    features: `[N, F]` float32, of length 1.
    shapes: of each layer's output for one image.
    exciting: by layer.
    """

    dataset: DecodedDataset
    features: np.ndarray
    shapes: dict[str, tuple[int, ...]]
    exciting: dict[str, Exciting]

    @functools.cached_property
    def splits(self) -> list[str]:
        """Of each image; "" for one that is in none."""
        found = [""] * len(self.dataset.images)
        for name, indices in self.dataset.splits.items():
            for index in indices:
                found[index] = name
        return found

    def describe(self, index: int) -> dict[str, Any]:
        """An image of the data set, for the page."""
        dataset = self.dataset
        return {
            "index": index,
            "path": dataset.images[index],
            "label": dataset.classes[dataset.labels[index]],
            "split": self.splits[index],
        }

    def excited_by(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """The images that excite a unit most, for the page, each with its highest
        place: the middle of it, down and across, as shares of the image.

        Raises:
          InputError: no such layer or unit.
        """
        if layer not in self.exciting:
            raise InputError(f"no layer {layer!r}")
        found = self.exciting[layer]
        check_units([unit], found.values.shape[1])
        height, width = (*self.shapes[layer][:-1], 1, 1)[:2]
        rows = zip(
            found.indices[:, unit],
            found.values[:, unit],
            found.places[:, unit],
            strict=True,
        )
        return [
            {
                **self.describe(int(index)),
                "value": float(value),
                "down": (int(place) // width + 0.5) / height,
                "across": (int(place) % width + 0.5) / width,
            }
            for index, value, place in rows
            if np.isfinite(value)
        ]

    def nearest(self, features: np.ndarray, count: int) -> list[tuple[int, float]]:
        """The images whose features `[F]` are most alike, and the cosine."""
        length = float(np.linalg.norm(features)) or 1.0
        cosines = self.features @ (features / np.float32(length))
        best = np.argsort(-cosines, kind="stable")[:count]
        return [(int(index), float(cosines[index])) for index in best]


def survey(
    network: TrainedNetwork,
    dataset: DecodedDataset,
    worker: Worker,
    *,
    progress: Progress,
) -> Survey:
    """Looks at every image, while nobody asks anything.

    Args:
      network: whose layers are looked at.
      dataset: in its preprocessing.
      worker: where it is computed.
      progress: told (images done, images in all).
    """
    arguments = network.model, network.preprocessing, network.variables
    exciting = {
        layer: Exciting.none(shape[-1])
        for layer, shape in network.trace.outputs.items()
    }
    rows: list[np.ndarray] = []
    everything = np.arange(len(dataset.images), dtype=np.int32)
    batches = dataset.batches(everything, batch_size=BATCH, train=False)
    for number, batch in enumerate(batches.iterate()):
        real = np.asarray(batch["mask"]) > 0
        images = np.asarray(batch["image"])
        look = functools.partial(_look, *arguments, images)
        by_layer, features = worker.submit(look, background=True).result()
        indices = everything[number * BATCH : number * BATCH + int(real.sum())]
        for layer, (values, places) in by_layer.items():
            exciting[layer] = exciting[layer].with_images(
                np.asarray(values, np.float32)[real], indices, np.asarray(places)[real]
            )
        rows.append(np.asarray(features)[real])
        progress(int(indices[-1]) + 1, len(everything))
    features = normalized(np.concatenate(rows))
    return Survey(dataset, features, network.trace.outputs, exciting)


def normalized(features: np.ndarray) -> np.ndarray:
    """Rows of `[N, F]` float32 at length 1; zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def features_of(model: Network, output: jax.Array) -> jax.Array:
    """What the head sees of the backbone's output `[B, ...]`: `[B, F]` float32, or
    the means over places where that is more than `MAX_FEATURES`."""
    features = pool_features(output, model.pooling)
    if features.shape[1] > MAX_FEATURES and output.ndim == 4:
        features = output.mean((1, 2))
    return features.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _look(
    model: Network,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], jax.Array]:
    backbone = {
        name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree
    }
    output, state = model.backbone.apply(
        backbone,
        preprocessing.normalize(images),
        train=False,
        stop_at=model.stop_at,
        mutable=["activations"],
    )
    activations: Any = state["activations"]
    by_layer = {name: mean_and_place(values) for name, values in activations.items()}
    return by_layer, features_of(model, jnp.asarray(output))


class Data:
    """The data set of a network: read and surveyed once, by a thread of its own.

    Attributes:
      state: "waiting", "reading", "looking", "ready", or "absent".
      said: why it is absent.
      survey: once it is ready.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        load: Callable[[Progress], DecodedDataset],
        worker: Worker,
        *,
        finish: Callable[[Survey], None],
    ) -> None:
        """
        Args:
          load: gives the data set, in the network's preprocessing.
          finish: called with the survey, before it is told to be ready.
        """
        self.state = "waiting"
        self.said = ""
        self.survey: Survey | None = None
        self._progress = (0, 0)
        self._network = network
        self._load = load
        self._worker = worker
        self._finish = finish
        self._stop = threading.Event()
        self._begun = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="survey", daemon=True)

    def begin(self) -> None:
        """Begins, unless it has begun."""
        if self._begun.acquire(blocking=False):
            self._thread.start()

    def stop(self) -> None:
        """Gives up, and waits for what cannot be interrupted."""
        self._stop.set()
        if self._begun.locked():
            self._thread.join()

    def status(self) -> dict[str, Any]:
        """How far it is, for the page."""
        done, count = self._progress
        return {"state": self.state, "done": done, "all": count, "said": self.said}

    def _tell(self, done: int, count: int) -> None:
        self._progress = (done, count)
        if self._stop.is_set():
            raise _Stopped

    def _run(self) -> None:
        try:
            self.state = "reading"
            dataset = self._load(self._tell)
            self.state, self._progress = "looking", (0, len(dataset.images))
            found = survey(
                self._network,
                dataset,
                self._worker,
                progress=self._tell,
            )
            self._finish(found)
            self.survey = found
            self.state = "ready"
        except (_Stopped, CancelledError):
            return
        except InputError as error:
            self.said = str(error).replace("`", "")
            self.state = "absent"
        except BaseException:
            self.said = "reading it failed; the terminal says how"
            self.state = "absent"
            raise


class _Stopped(Exception):
    """The server ends."""
