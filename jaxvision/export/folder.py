"""The folder of an exported network, written once the model is seen to be right."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.config import Bounds, check_number
from jaxvision.errors import InputError
from jaxvision.metrics import class_logits
from jaxvision.models import Network
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import (
    publish,
    remove_leftovers,
    temporary,
    write_json,
    writing,
)
from jaxvision.typing import PyTree

try:
    import onnxruntime

    from jaxvision.export.model import IMAGE, LOGITS, BatchSize, Dtype, onnx_model
except ImportError as error:
    raise InputError(
        "export needs the packages of the extra export; install them with "
        "pip install 'jaxvision-classics[export]'"
    ) from error

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference of a logit, by the largest logit of all images: float32 in another
order, and weights of 11 bits."""

CHECKED_AT_ONCE = 16
"""Images, where the model takes any number."""

FILES = Path(__file__).with_name("files")


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the network.

    Attributes:
      folder: with `model.onnx`, `labels.json`, `predict.py` and, of all of them, the
        SHA-256 in `manifest.json`.
      images: how many the model was checked by.
      difference: largest difference of a logit, by the largest logit.
      tolerance: what was allowed.
      size_bytes: of `model.onnx`.
    """

    folder: Path
    images: int
    difference: float
    tolerance: float
    size_bytes: int


def export_network(
    folder: Path,
    network: Network,
    variables: Mapping[str, PyTree],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    images: Iterable[np.ndarray],
    *,
    batch: BatchSize,
    dtype: Dtype,
    temperature: float,
    threshold: float,
    web: bool,
    about: Mapping[str, str],
) -> Exported:
    """Writes a network into a folder that needs no JAX, all of it or nothing.

    Args:
      folder: a new or empty one.
      network, variables: computed in float32, whatever it was trained in.
      preprocessing: of its images.
      classes: names of the labels.
      images: `[H, W, C]` uint8 each, by which the model is checked.
      batch: images at once; "dynamic": any number.
      dtype: what weights are stored in.
      temperature: what logits are divided by for probabilities.
      threshold: of the highest probability, below which an image may be of none of the
        classes; 0: there is none.
      web: whether to add a page that classifies in a browser.
      about: what else the model states of itself.

    Raises:
      InputError: there are files in the folder, or it cannot be written; a batch of
        none; an operation of the network cannot be exported; ONNX Runtime does not
        answer as JAX does.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; give a new folder")
    if batch != "dynamic":
        check_number("batch", batch, Bounds(1))
    network = network.clone(backbone=network.backbone.clone(dtype=jnp.float32))
    model = onnx_model(
        network,
        variables,
        preprocessing,
        batch=batch,
        dtype=dtype,
        temperature=temperature,
        metadata={
            "labels": json.dumps(list(classes)),
            "preprocessing": json.dumps(preprocessing.to_dict()),
            "versions": json.dumps(_versions()),
            **about,
        },
    ).SerializeToString()

    @jax.jit
    def forward(variables: Mapping[str, PyTree], pixels: jax.Array) -> jax.Array:
        x = preprocessing.normalize(pixels)
        return class_logits(jnp.asarray(network.apply(variables, x, train=False)))

    at_once = CHECKED_AT_ONCE if batch == "dynamic" else batch
    difference, count = _compare(
        _ask(model),
        lambda pixels: np.asarray(forward(variables, jnp.asarray(pixels))),
        _batches(images, at_once),
        dtype,
    )
    with _new_folder(folder) as part:
        (part / "model.onnx").write_bytes(model)
        labels = {
            "labels": list(classes),
            "threshold": threshold,
            "preprocessing": preprocessing.to_dict(),
        }
        write_json(part / "labels.json", labels)
        shutil.copy(FILES / "predict.py", part)
        if web:
            shutil.copytree(FILES / "web", part, dirs_exist_ok=True)
    return Exported(folder, count, difference, TOLERANCE[dtype], len(model))


def _versions() -> dict[str, str]:
    """Of what wrote the model; nothing of what runs from its source."""
    found = {}
    for package in ("jaxvision-classics", "jax", "flax", "onnx"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


Logits = Callable[[np.ndarray], np.ndarray]
"""Images `[B, H, W, C]` uint8 -> `[B, K]` float32."""


def _ask(model: bytes) -> Logits:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def logits(pixels: np.ndarray) -> np.ndarray:
        (found,) = session.run([LOGITS], {IMAGE: pixels})
        return np.asarray(found)

    return logits


def _batches(
    images: Iterable[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """`[size, H, W, C]`, and how many of them count: the last image fills the rest."""
    stream = iter(images)
    while chunk := list(islice(stream, size)):
        filled = chunk + [chunk[-1]] * (size - len(chunk))
        yield np.stack(filled), len(chunk)


def _compare(
    exported: Logits,
    trained: Logits,
    batches: Iterable[tuple[np.ndarray, int]],
    dtype: Dtype,
) -> tuple[float, int]:
    """The largest difference of a logit, by the largest logit, and how many images.

    Raises:
      InputError: it is beyond the tolerance, or an image is of another class.
    """
    count, others = 0, 0
    furthest = largest = 0.0
    for pixels, images in batches:
        found, wanted = exported(pixels)[:images], trained(pixels)[:images]
        count += images
        others += int((found.argmax(-1) != wanted.argmax(-1)).sum())
        # NaN beside anything stays.
        furthest = float(np.maximum(furthest, np.abs(found - wanted).max()))
        largest = float(np.maximum(largest, np.abs(wanted).max()))
    if not count:
        raise InputError(
            "give at least one, by which the file can be checked", setting="images"
        )
    difference = furthest / largest if furthest else 0.0
    if not difference <= TOLERANCE[dtype] or others:
        fix = "take float32 for `dtype`" if dtype == "float16" else "please report it"
        raise InputError(
            "nothing was written, for ONNX Runtime does not answer as JAX does: logits "
            f"differ by up to {difference:.2g} of the largest (allowed: "
            f"{TOLERANCE[dtype]:g}), and {others} of {count} images are of another "
            f"class; {fix}"
        )
    return difference, count


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name when all is done, or is removed."""
    remove_leftovers(folder.parent)
    part = temporary(folder)
    with writing(folder.parent):
        try:
            part.mkdir(parents=True)
            yield part
            publish(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
