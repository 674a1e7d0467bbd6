"""The order in which a split's images come: one definition for loaders and sweeps."""

import functools

import numpy as np


def epoch_places(
    num_examples: int, batch_size: int, *, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the images of one training epoch stand in their split.

    Args:
      num_examples: images in the split.
      batch_size: the last batch is filled up with the first images of the epoch.
      seed: every (seed, epoch) has its own order.
      epoch: from 0.

    Returns:
      Positions `[steps, batch_size]` int64 and masks `[steps, batch_size]` float32, 0
      where an image only fills up.
    """
    steps = -(-num_examples // batch_size)
    wanted = np.arange(steps * batch_size)
    mask = (wanted < num_examples).astype(np.float32)
    order = permutation(num_examples, seed, epoch)
    # Modulo: a batch may be larger than the whole split.
    places = order[wanted % num_examples]
    return places.reshape(steps, batch_size), mask.reshape(steps, batch_size)


@functools.lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """`[length]` int64; every (seed, epoch) has its own.

    From the raw bits of Philox, which no version of NumPy changes (NEP 19).
    """
    bits = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(length)
    return np.argsort(bits, kind="stable")
