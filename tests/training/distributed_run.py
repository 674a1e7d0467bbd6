"""One process of a run that several train together; started by test_distributed.

    python distributed_run.py COORDINATOR NUM_PROCESSES PROCESS_ID JSON

It goes through `distributed_session`, as experiments do. COORDINATOR "detect" leaves it
to JAX. The JSON names what `train` is given.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from random_runs import NORMALIZE, NUM_CLASSES, SHAPE, small_model

from jaxvision.data.loader import Batches
from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, ScheduleConfig, make_optimizer
from jaxvision.training.checkpoint import CheckpointFolder, flatten
from jaxvision.training.distributed import (
    DistributedConfig,
    distributed_session,
    is_main_process,
)
from jaxvision.training.loop import Callbacks, FitResult, Interrupted, evaluate, fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables

EPOCHS = 7
STEPS = 3 * EPOCHS


class SignalAt:
    """Batches before one of which their process gets a signal."""

    def __init__(self, batches: Batches, step: int, number: int) -> None:
        self.num_examples = batches.num_examples
        self.steps_per_epoch = batches.steps_per_epoch
        self.batch_size = batches.batch_size
        self._batches, self._step, self._number = batches, step, number

    def iterate(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        for step, batch in enumerate(self._batches.iterate(start), start):
            if step == self._step:
                os.kill(os.getpid(), self._number)
            yield batch


def split_batches(split: str, batch_size: int = 8) -> Batches:
    """22 images to train on, in three steps, and 13 others; of three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, 35).astype(np.int32)
    images = rng.integers(0, 100, (35, *SHAPE)) + 50 * labels[:, None, None, None]
    return Batches.of_arrays(
        images.astype(np.uint8),
        labels,
        np.arange(22) if split == "train" else np.arange(22, 35),
        batch_size=batch_size,
        seed=0,
        train=split == "train",
        **Runner.all_devices().shard,
    )


def train(
    folder: str | None = None,
    *,
    signal_at: int | None = None,
    signal_number: int = signal.SIGKILL,
    batch_size: int = 8,
    seed: int = 0,
    callback: Callbacks | None = None,
) -> FitResult:
    """The run that all tests compare, on all devices of the job.

    Not with Adam: see `test_loop.test_four_devices_equal_one`.
    """
    model = small_model(batch_norm=True)
    batches = split_batches("train", batch_size)
    tx = make_optimizer(
        OptimConfig("sgd", 0.01),
        ScheduleConfig("cosine"),
        steps_per_epoch=3,
        epochs=EPOCHS,
    )
    if signal_at is not None:
        batches = SignalAt(batches, signal_at, signal_number)
    return fit(
        model,
        tx,
        make_cross_entropy(),
        create_state(init_variables(model, seed, SHAPE), tx, seed=0),
        batches,
        normalize=NORMALIZE,
        epochs=EPOCHS,
        val=split_batches("val"),
        checkpoints=None if folder is None else CheckpointFolder(Path(folder)),
        save_seconds=0.0,
        callback=callback,
    )


def measure(result: FitResult) -> np.ndarray:
    """`[13, K]` logits of the images that were not trained on."""
    _, logits = evaluate(
        small_model(batch_norm=True),
        make_cross_entropy(),
        result.state.variables,
        split_batches("val"),
        normalize=NORMALIZE,
    )
    return logits


def main(coordinator: str, num_processes: str, process_id: str, options: str) -> None:
    given = json.loads(options)
    # What is meant for one process alone.
    given |= given.pop("each", {}).get(process_id, {})
    out = given.pop("out", None)
    config = DistributedConfig(coordinator, int(num_processes), int(process_id))
    if coordinator == "detect":
        config = DistributedConfig(detect=True)
    with distributed_session(config):
        print("computing")
        try:
            result = train(**given)
        except Interrupted as stop:
            sys.exit(128 + stop.signal_number)
        logits = measure(result)
        if out is not None and is_main_process():
            Path(out).with_suffix(".json").write_text(json.dumps(result.history))
            np.savez(out, logits=logits, **flatten(result.state))
        print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
