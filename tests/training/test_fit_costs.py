"""What `fit` does not do more often than needed: tracing, and fetching from devices."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model

from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.loop import Callbacks, fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables

TRAIN, VAL, EPOCHS = 22, 13, 4
"""Neither is a multiple of the batch size."""


class Shown(Callbacks):
    """Counts the steps whose metrics are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def on_step(self, step, images, metrics) -> None:
        self.count += metrics is not None


def run(devices: int, *, normalize=NORMALIZE, epochs=EPOCHS) -> Shown:
    model = small_model(batch_norm=True, dropout_rate=0.2)
    train = RandomBatches(num_examples=TRAIN, batch_size=8, train=True)
    tx = make_optimizer(OptimConfig(), steps_per_epoch=3, epochs=epochs)
    shown = Shown()
    fit(
        model,
        tx,
        make_cross_entropy(),
        create_state(init_variables(model, 0, SHAPE), tx, seed=0),
        train,
        normalize=normalize,
        epochs=epochs,
        val=RandomBatches(num_examples=VAL, batch_size=8, train=False),
        runner=Runner(tuple(jax.local_devices()[:devices])),
        callback=shown,
    )
    return shown


@pytest.mark.parametrize("devices", [1, 4])
def test_programs_are_compiled_in_the_first_epoch_and_never_again(devices):
    """Two of our own, to train and to evaluate; and nothing else, whatever its name.

    A second run with a longer schedule has another program to train, and no other.
    """
    traces, compiled = Counter(), Counter()

    def normalize(x):
        traces["normalize"] += 1
        return NORMALIZE(x)

    def count(event: str, duration: float, **_: object) -> None:
        compiled[event] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        counts = []
        for epochs in (1, EPOCHS):
            compiled.clear()
            run(devices, normalize=normalize, epochs=epochs)
            counts.append(compiled.total())
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert traces["normalize"] == 2 + 1
    assert 1 <= counts[1] <= counts[0]


def test_metrics_are_fetched_once_a_batch_and_nothing_else(monkeypatch):
    fetched = []
    device_get = jax.device_get

    def get(tree):
        fetched.append(set(tree))
        return device_get(tree)

    monkeypatch.setattr(jax, "device_get", get)
    implicit = Counter()
    array = type(jnp.zeros(()))

    def count(name: str) -> None:
        original = getattr(array, name)

        def counting(self, *args):
            implicit[name] += 1
            return original(self, *args)

        monkeypatch.setattr(array, name, counting)

    for name in ("__float__", "__int__", "__bool__", "__index__", "item", "tolist"):
        count(name)
    shown = run(1)
    steps, batches = EPOCHS * 3, EPOCHS * 2
    assert len(fetched) == steps + batches
    # The last steps of an epoch are fetched at its end, too late to be shown alone.
    assert shown.count == EPOCHS * (3 - 2)
    # The step that a run begins at.
    assert implicit.total() <= 1
