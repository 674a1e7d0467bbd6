"""Streams of batches in Grain, whose element i is a function of the seed and i.

So batch i depends neither on the threads and processes that made it nor on where
iteration began. Apart from `loader`, because Grain takes a second to import.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from absl import flags

from jaxvision.data.order import permutation
from jaxvision.data.workers import end_with_parent

Element = dict[str, Any]
ElementMap = Callable[[int, np.random.Generator], np.ndarray]
"""From an index into the images and its own generator to one `[H, W, C]` image."""


def image_batches(
    order: "EpochOrder",
    indices: np.ndarray,
    labels: np.ndarray,
    load: ElementMap,
    first: int,
    part: int,
) -> grain.MapDataset:
    """Batches of images that `load` makes one by one.

    Args:
      order: of the split.
      indices: `[n]` int, the split.
      labels: `[N]` int32, of all images.
      load: makes an image.
      first: where this process's part of each global batch begins.
      part: its length.
    """
    elements = order.random_map(functools.partial(_load_element, indices, labels, load))
    return _ProcessShard(elements, order.batch_size, first, part).batch(part)


def array_batches(
    order: "EpochOrder",
    features: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    first: int,
    part: int,
) -> grain.MapDataset:
    """What `image_batches` would give, gathered from arrays at once."""
    return _ArrayShard(order, features, labels, np.asarray(indices), first, part)


def start_workers(
    dataset: grain.MapDataset, start: int, num_threads: int, num_workers: int
) -> grain.DatasetIterator:
    """Iterates over batches from `start` on, made ahead by threads and processes."""
    # The data are sliced in place of restoring Grain's own state: that, restored with
    # another number of worker processes, gives other batches in silence.
    rest = dataset.slice(slice(start, None))
    threads = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=2 * num_threads
    )
    stream = rest.to_iter_dataset(threads)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain reads its own flags in each worker, and absl refuses that as long
            # as nobody has parsed a command line.
            flags.FLAGS.mark_as_parsed()
        # Through pipes: Grain's blocks of shared memory outlive its iterators.
        pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        stream = grain.experimental.WithOptionsIterDataset(stream, pipes)
        stream = stream.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers),
            worker_init_fn=_begin_worker,
        )
    return iter(stream)


class EpochOrder(grain.MapDataset):
    """(position, mask) of a split, each epoch filled up to whole batches.

    Not Grain's own shuffle: that needs a tenth of a millisecond for each position in a
    split of a few hundred, which is longer than a step of a small head takes, and its
    order may change between versions. The raw bits of Philox never do (NEP 19).
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, *, shuffle: bool
    ) -> None:
        super().__init__(grain.MapDataset.range(num_examples).seed(seed))
        self.num_examples = num_examples
        self.batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._length = -(-num_examples // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """(position, mask)."""
        positions, mask = self.places(index, 1)
        return int(positions[0]), float(mask[0])

    def places(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`[count]` positions and float32 masks from `start` on, within one epoch."""
        epoch, first = divmod(start, self._length)
        if self._shuffle:
            order = permutation(self.num_examples, self._seed, epoch)
        else:
            order = np.arange(self.num_examples)
        wanted = np.arange(first, first + count)
        mask = (wanted < self.num_examples).astype(np.float32)
        if self._shuffle:
            # Modulo: a batch may be larger than the whole split.
            wanted = wanted % self.num_examples
        return order[np.minimum(wanted, self.num_examples - 1)], mask


class _ProcessShard(grain.MapDataset):
    """One process's part of every global batch: `part` elements from `first` on."""

    def __init__(
        self, parent: grain.MapDataset, batch_size: int, first: int, part: int
    ) -> None:
        super().__init__(parent)
        self._batch_size = batch_size
        self._first = first
        self._part = part

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._part

    def __getitem__(self, index: Any) -> Any:
        batch, place = divmod(index, self._part)
        return self._parent[batch * self._batch_size + self._first + place]


class _ArrayShard(grain.MapDataset):
    """See `array_batches`."""

    def __init__(
        self,
        parent: EpochOrder,
        features: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        first: int,
        part: int,
    ) -> None:
        super().__init__(parent)
        self._order = parent
        self._features = features
        self._labels = labels
        self._indices = indices
        self._first = first
        self._part = part

    def __len__(self) -> int:
        return len(self._order) // self._order.batch_size

    def __getitem__(self, index: Any) -> Any:
        start = index * self._order.batch_size + self._first
        positions, mask = self._order.places(start, self._part)
        chosen = self._indices[positions]
        return {
            "image": self._features[chosen],
            "label": self._labels[chosen].astype(np.int32),
            "mask": mask,
        }


def _load_element(
    indices: np.ndarray,
    labels: np.ndarray,
    load: ElementMap,
    place: tuple[int, float],
    generator: np.random.Generator,
) -> Element:
    position, mask = place
    index = int(indices[position])
    return {
        "image": load(index, generator),
        "label": np.int32(labels[index]),
        "mask": np.float32(mask),
    }


def _begin_worker(index: int, count: int) -> None:
    """What Grain runs first in each of its worker processes."""
    del index, count
    end_with_parent()
