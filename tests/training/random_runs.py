"""Small networks and random batches for the tests of training."""

from collections.abc import Iterator

import numpy as np

from jaxvision.models import create_model
from jaxvision.preprocessing import Preprocessing

NORMALIZE = Preprocessing(size=(6, 6)).normalize
SHAPE = (6, 6, 3)
NUM_CLASSES = 3


class RandomBatches:
    """Random images whose class shows in their brightness; batch i is always i."""

    def __init__(self, *, num_examples: int, batch_size: int, train: bool) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.steps_per_epoch = -(-num_examples // batch_size)
        self._train = train
        rng = np.random.default_rng(0)
        self._labels = rng.integers(0, NUM_CLASSES, num_examples).astype(np.int32)
        noise = rng.integers(0, 100, (num_examples, *SHAPE))
        self._images = (noise + 50 * self._labels[:, None, None, None]).astype(np.uint8)

    def iterate(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        step = start
        while self._train or step < self.steps_per_epoch:
            epoch, batch = divmod(step, self.steps_per_epoch)
            order = np.arange(self.num_examples)
            if self._train:
                np.random.default_rng(epoch).shuffle(order)
            chosen = np.resize(order[batch * self.batch_size :], self.batch_size)
            left = self.num_examples - batch * self.batch_size
            yield {
                "image": self._images[chosen],
                "label": self._labels[chosen],
                "mask": (np.arange(self.batch_size) < left).astype(np.float32),
            }
            step += 1


def small_model(*, batch_norm: bool, dropout_rate: float = 0.0, **options):
    """The smallest network of the project that has what the test is about."""
    return create_model(
        "mlp",
        NUM_CLASSES,
        hidden=8,
        batch_norm=batch_norm,
        dropout_rate=dropout_rate,
        **options,
    )
