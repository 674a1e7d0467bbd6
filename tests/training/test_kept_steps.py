"""Training steps whose traces are kept between runs."""

import itertools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from compiled_programs import forget_programs
from jax.flatten_util import ravel_pytree
from random_runs import SHAPE, RandomBatches, small_model

from jaxvision import compilation_cache
from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.training import step
from jaxvision.training.loop import Steps
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compilation_cache, "_folder", tmp_path)
    return tmp_path


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-trace"))


def trained(tx: optax.GradientTransformation) -> np.ndarray:
    """What three steps leave of their state, and give, as one vector."""
    model = small_model(batch_norm=True, dropout_rate=0.3)
    state = create_state(init_variables(model, 0, SHAPE), tx, seed=0, ema_decay=0.9)
    runner = Runner(tuple(jax.local_devices()[:1]))
    forget_programs()
    normalize = Preprocessing(size=SHAPE[:2])
    steps = Steps.compile(
        model, tx, make_cross_entropy(), normalize=normalize, runner=runner
    )
    batches = RandomBatches(num_examples=20, batch_size=8, train=True).iterate()
    state, given = runner.replicate(state), []
    for batch in itertools.islice(batches, 3):
        state, metrics = steps.train(state, runner.place_batch(batch))
        given.append(metrics)
    return np.asarray(ravel_pytree((state, given))[0])


def adamw(**settings: float) -> optax.GradientTransformation:
    config = OptimConfig("adamw", 1e-3, **settings)
    return make_optimizer(config, steps_per_epoch=3, epochs=2)


def test_a_kept_step_is_not_traced_again_and_has_the_same_bits(folder, monkeypatch):
    kept = [trained(adamw())]
    with monkeypatch.context() as patch:
        patch.setattr(step, "classification_sums", lambda *_: pytest.fail("is traced"))
        kept.append(trained(adamw()))
    assert len(traces(folder)) == 1
    monkeypatch.setattr(compilation_cache, "_folder", None)
    for found in kept:
        np.testing.assert_array_equal(found, trained(adamw()))


def test_a_step_of_another_optimizer_is_another(folder):
    first, other = trained(adamw()), trained(adamw(clip_norm=0.01))
    assert len(traces(folder)) == 2
    assert not np.array_equal(first, other)
    trained(optax.sgd(0.1))  # which nobody can tell from another one
    assert len(traces(folder)) == 2


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_step_can_be_written_down_for_accelerators(platform):
    model, tx = small_model(batch_norm=True, dropout_rate=0.3), adamw()
    variables = init_variables(model, 0, SHAPE)
    state = create_state(variables, tx, seed=0)
    batches = RandomBatches(num_examples=20, batch_size=8, train=True).iterate()
    normalize = Preprocessing(size=SHAPE[:2])
    train = step.make_train_step(model, tx, make_cross_entropy(), normalize=normalize)
    leaves, structure = jax.tree.flatten((state, next(batches)))

    def flat(*leaves):
        return jax.tree.leaves(train(*jax.tree.unflatten(structure, leaves)))

    exported = jax.export.export(jax.jit(flat), platforms=[platform])(*leaves)
    assert b"custom_call" not in exported.mlir_module_serialized
