"""Images in, predictions out, as a stream: of any number, in constant memory."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from jaxvision.data.decode import BadImage, decode_image
from jaxvision.data.workers import map_in_order
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

Source = str | Path | np.ndarray
"""An image: a file, or uint8 `[H, W, C]` in the network's geometry."""

OnBad = Callable[[BadImage], object]

UNKNOWN = "unknown"
"""The label of what may be of none of the classes."""

BATCH_SIZE = 32

_MOST_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    label: str
    """The most probable class, or `UNKNOWN`."""
    probability: float
    """Of the most probable class."""
    probabilities: dict[str, float]
    """Of every class by name; they sum to 1."""
    path: Path | None = None
    """The file; None: it was an array."""
    known: bool = True
    """False: no class is probable enough, and the label is `UNKNOWN`."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities."""
        ranked = sorted(self.probabilities.items(), key=lambda entry: -entry[1])
        return ranked[:count]


def decode_source(image: Source, preprocessing: Preprocessing) -> np.ndarray:
    """An image in the network's geometry: uint8 `[H, W, C]`.

    Raises:
      BadImage: the file cannot be read as an image.
      InputError: an array of another shape or type.
    """
    if not isinstance(image, np.ndarray):
        return decode_image(Path(image), preprocessing)
    shape = (*preprocessing.size, preprocessing.channels)
    if image.shape != shape or image.dtype != np.uint8:
        raise InputError(
            f"an image is {image.dtype} {list(image.shape)}; give a file, or uint8 "
            f"{list(shape)}"
        )
    return image


def predictions(
    images: Iterable[Source],
    probabilities: Callable[[np.ndarray], jax.Array],
    classes: Sequence[str],
    preprocessing: Preprocessing,
    *,
    threshold: float = 0.0,
    batch_size: int,
    on_bad: OnBad | None,
) -> Generator[Prediction, None, None]:
    """Predictions in the order of the images, as they come.

    Threads decode at most two batches ahead, and one batch is on the device while that
    before it is given out. All batches have the same shape, so that one program is
    compiled: `batch_size`, or of fewer images the next power of two.

    Args:
      images: taken one by one, so that they may be without end.
      probabilities: of a batch uint8 `[B, H, W, C]`, float32 `[B, K]`.
      classes: names of the K classes.
      preprocessing: the network's geometry.
      threshold: the label is `UNKNOWN` where no class is that probable.
      batch_size: images at once, at most.
      on_bad: told of each file that cannot be read; None: it is an error.

    Raises:
      InputError: a file cannot be read as an image, and there is no `on_bad`; an array
        of another geometry.
    """

    def decode(image: Source) -> tuple[Path | None, np.ndarray | BadImage]:
        path = None if isinstance(image, np.ndarray) else Path(image)
        try:
            return path, decode_source(image, preprocessing)
        except BadImage as bad:
            return path, bad

    def usable() -> Iterator[tuple[Path | None, np.ndarray]]:
        for path, outcome in decoded:
            if not isinstance(outcome, BadImage):
                yield path, outcome
            elif on_bad is None:
                raise InputError(f"{outcome}; give another image") from outcome
            else:
                on_bad(outcome)

    def named(paths: Sequence[Path | None], rows: jax.Array) -> Iterator[Prediction]:
        for path, row in zip(paths, np.asarray(rows)[: len(paths)], strict=True):
            best = int(np.argmax(row))
            by_name = dict(zip(classes, row.tolist(), strict=True))
            known = bool(row[best] >= threshold)
            label = classes[best] if known else UNKNOWN
            yield Prediction(label, by_name[classes[best]], by_name, path, known)

    size = 0
    waiting: tuple[list[Path | None], jax.Array] | None = None
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        contextlib.closing(
            map_in_order(pool, decode, images, ahead=2 * batch_size)
        ) as decoded,
    ):
        stream = usable()
        while chunk := list(itertools.islice(stream, batch_size)):
            size = size or min(batch_size, 1 << (len(chunk) - 1).bit_length())
            pixels = [image for _, image in chunk]
            batch = np.stack(pixels + [pixels[-1]] * (size - len(pixels)))
            begun = [path for path, _ in chunk], probabilities(batch)
            if waiting is not None:
                yield from named(*waiting)
            waiting = begun
        if waiting is not None:
            yield from named(*waiting)
