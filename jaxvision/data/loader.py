"""Batches of a split: shuffled, augmented, masked, sharded, and the same again.

Everything is a Grain `MapDataset`, whose element i is a function of the seed and i. So
batch i depends neither on the threads and processes that made it nor on where
iteration began, and the position of an iterator is the number of its next batch.
"""

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from jaxvision.data.order import permutation
from jaxvision.data.workers import end_with_parent
from jaxvision.errors import InputError

Element = dict[str, Any]
ElementMap = Callable[[int, np.random.Generator], np.ndarray]
"""From an index into the images and its own generator to one `[H, W, C]` image."""


class Batches:
    """The batches of one split.

    Training: every epoch is another permutation of the split, without end. Its last
    batch is filled up with the first images of the same permutation, so that batch
    norm sees real images; evaluation: the split's own order, once, its last batch
    filled up with the last image. What fills up has mask 0.

    Attributes:
      num_examples: images in the split.
      batch_size: of the global batch, all processes together.
      steps_per_epoch: batches an epoch.
    """

    def __init__(
        self,
        indices: np.ndarray,
        labels: np.ndarray,
        load: ElementMap,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        process_index: int = 0,
        process_count: int = 1,
        num_threads: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Batches of images that `load` makes one by one.

        Args:
          indices: `[n]` int, the split.
          labels: `[N]` int32, of all images.
          load: makes an image; must be picklable where `num_workers` is above 0.
          batch_size: of the global batch.
          seed: of the permutations and of the generators that `load` gets, 0 or more.
          train: see the class.
          process_index: this process gets the `process_index`-th part of each batch.
          process_count: number of such parts.
          num_threads: threads that make batches ahead, in each worker process.
          num_workers: worker processes; 0 makes batches in this one.

        Raises:
          InputError: a batch size that can't be divided, an empty split, or a seed
            below 0.
        """
        _check(batch_size, process_count, len(indices), seed)
        order = _EpochOrder(len(indices), batch_size, seed, shuffle=train)
        elements = order.random_map(
            functools.partial(_load_element, indices, labels, load)
        )
        part = batch_size // process_count
        shard = _ProcessShard(elements, batch_size, process_index * part, part)
        self._set_batches(shard.batch(part), order, train)
        self._num_threads = num_threads
        self._num_workers = num_workers

    @classmethod
    def of_arrays(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        process_index: int = 0,
        process_count: int = 1,
    ) -> "Batches":
        """Batches of arrays in memory, in the order that images would come in.

        Args:
          features: `[N, ...]`, any type; row i belongs to image i.
          labels: `[N]` int32.
          indices: `[n]` int, the split.

        The other arguments and the errors are those of the class. Whole batches are
        gathered at once, without threads.
        """
        _check(batch_size, process_count, len(indices), seed)
        order = _EpochOrder(len(indices), batch_size, seed, shuffle=train)
        part = batch_size // process_count
        shard = _ArrayShard(
            order, features, labels, np.asarray(indices), process_index * part, part
        )
        batches = cls.__new__(cls)
        batches._set_batches(shard, order, train)
        batches._num_threads = batches._num_workers = 0
        return batches

    def _set_batches(
        self, dataset: grain.MapDataset, order: "_EpochOrder", train: bool
    ) -> None:
        self.num_examples = order.num_examples
        self.batch_size = order.batch_size
        self.steps_per_epoch = len(order) // order.batch_size
        self._dataset = dataset.repeat() if train else dataset

    def iterate(self, start: int = 0) -> "BatchIterator":
        """An iterator from batch `start` on: endless in training, else one pass.

        Args:
          start: number of the first batch, counted over all epochs.
        """
        return BatchIterator(self._dataset, start, self._num_threads, self._num_workers)


class BatchIterator(Iterator[dict[str, np.ndarray]]):
    """Iterates over batches from any of them on.

    Worker processes live until it is closed, exhausted or collected; `with` closes it.
    """

    def __init__(
        self, dataset: grain.MapDataset, start: int, num_threads: int, num_workers: int
    ) -> None:
        self._dataset = dataset
        self._num_threads = num_threads
        self._num_workers = num_workers
        # None or one; a list, so that closing it drops the last reference to it.
        self._running: list[grain.DatasetIterator] = []
        # At the exit too: Grain's own clean-up comes too late then, with noise.
        weakref.finalize(self, _close, self._running)
        self.set_state({"next_batch": start})

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next == len(self._dataset):
            self.close()
            raise StopIteration
        if not self._running:
            self._running.append(self._start_workers())
        batch = next(self._running[0])
        self._next += 1
        return batch

    def _start_workers(self) -> grain.DatasetIterator:
        # The data are sliced in place of restoring Grain's own state: that, restored
        # with another number of worker processes, gives other batches in silence.
        rest = self._dataset.slice(slice(self._next, None))
        threads = grain.ReadOptions(
            num_threads=self._num_threads, prefetch_buffer_size=2 * self._num_threads
        )
        stream = rest.to_iter_dataset(threads)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():
                # Grain reads its own flags in each worker, and absl refuses that as
                # long as nobody has parsed a command line.
                flags.FLAGS.mark_as_parsed()
            # Through pipes: Grain's blocks of shared memory outlive its iterators.
            pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
            stream = grain.experimental.WithOptionsIterDataset(stream, pipes)
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._num_workers),
                worker_init_fn=_begin_worker,
            )
        return iter(stream)

    def get_state(self) -> dict[str, int]:
        """The position, to be kept in a checkpoint: valid for any number of workers."""
        return {"next_batch": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues from a position that `get_state` gave."""
        self.close()
        start = state["next_batch"]
        if not 0 <= start <= len(self._dataset):
            raise ValueError(f"batch {start} of {len(self._dataset)}")
        self._next = start

    def close(self) -> None:
        """Ends worker threads and processes; iterating on starts them again."""
        _close(self._running)

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close(running: list[grain.DatasetIterator]) -> None:
    while running:
        running.pop().close()


class _EpochOrder(grain.MapDataset):
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

    def __getitem__(self, index: int) -> tuple[int, float]:
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

    def __getitem__(self, index: int) -> Element:
        batch, place = divmod(index, self._part)
        return self._parent[batch * self._batch_size + self._first + place]


class _ArrayShard(grain.MapDataset):
    """What `_ProcessShard` and `batch` would give, gathered from arrays at once."""

    def __init__(
        self,
        parent: _EpochOrder,
        features: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        first: int,
        part: int,
    ) -> None:
        super().__init__(parent)
        self._features = features
        self._labels = labels
        self._indices = indices
        self._first = first
        self._part = part

    def __len__(self) -> int:
        return len(self._parent) // self._parent.batch_size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start = index * self._parent.batch_size + self._first
        positions, mask = self._parent.places(start, self._part)
        chosen = self._indices[positions]
        return {
            "image": self._features[chosen],
            "label": self._labels[chosen].astype(np.int32),
            "mask": mask,
        }


def _check(batch_size: int, process_count: int, length: int, seed: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f"batch size {batch_size} cannot be divided among {process_count} "
            f"processes: choose a positive multiple of {process_count}"
        )
    if seed < 0:
        raise InputError(f"seed {seed}: must be at least 0")
    if length == 0:
        raise InputError("the split has no image: give it a fraction above 0")


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
