"""Batches of a split: shuffled, augmented, masked, sharded, and the same again.

Batch i depends neither on the threads and processes that made it nor on where iteration
began, so the position of an iterator is the number of its next batch.
"""

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jaxvision.errors import InputError

if TYPE_CHECKING:  # Grain takes a second to import, which help must not wait for
    import grain

    from jaxvision.data.streams import ElementMap, EpochOrder


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
        load: "ElementMap",
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
        from jaxvision.data.streams import EpochOrder, image_batches

        order = EpochOrder(len(indices), batch_size, seed, shuffle=train)
        part = batch_size // process_count
        first = process_index * part
        batches = image_batches(order, indices, labels, load, first, part)
        self._set_batches(batches, order, train)
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
        from jaxvision.data.streams import EpochOrder, array_batches

        order = EpochOrder(len(indices), batch_size, seed, shuffle=train)
        part = batch_size // process_count
        first = process_index * part
        batches = cls.__new__(cls)
        batches._set_batches(
            array_batches(order, features, labels, indices, first, part), order, train
        )
        batches._num_threads = batches._num_workers = 0
        return batches

    def _set_batches(
        self, dataset: "grain.MapDataset", order: "EpochOrder", train: bool
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
        self,
        dataset: "grain.MapDataset",
        start: int,
        num_threads: int,
        num_workers: int,
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
            from jaxvision.data.streams import start_workers

            self._running.append(
                start_workers(
                    self._dataset, self._next, self._num_threads, self._num_workers
                )
            )
        batch = next(self._running[0])
        self._next += 1
        return batch

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


def _close(running: "list[grain.DatasetIterator]") -> None:
    while running:
        running.pop().close()


def _check(batch_size: int, process_count: int, length: int, seed: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f"cannot be divided among {process_count} processes: choose a positive "
            f"multiple of {process_count}",
            setting="batch_size",
            value=batch_size,
        )
    if seed < 0:
        raise InputError("must be at least 0", setting="seed", value=seed)
    if length == 0:
        raise InputError("the split has no image: give it a fraction above 0")
