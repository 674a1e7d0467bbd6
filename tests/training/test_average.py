"""Moving averages of the weights: their values, and that they are what is kept."""

import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model
from test_loop import ONE_DEVICE, StopAt, same

from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.loop import Interrupted, evaluate, fit
from jaxvision.training.parallel import AXIS, Runner, jit_step, synchronize
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_train_step

LOSS = make_cross_entropy()
DECAY = 0.6
STEPS = 14
MODEL = small_model(batch_norm=True)
VAL = RandomBatches(num_examples=13, batch_size=8, train=False)
TRAIN = RandomBatches(num_examples=22, batch_size=8, train=True)
TX = make_optimizer(OptimConfig("sgd", 0.05), steps_per_epoch=3, epochs=4)


def setup(decay: float | None = DECAY, frozen=()):
    variables = init_variables(MODEL, 0, SHAPE)
    return create_state(variables, TX, seed=0, frozen=frozen, ema_decay=decay)


def batches():
    stream = TRAIN.iterate()
    return [next(stream) for _ in range(STEPS)]


@pytest.fixture(scope="module")
def step():
    return jit_step(make_train_step(MODEL, TX, LOSS, normalize=NORMALIZE))


@pytest.fixture(scope="module")
def states(step):
    """The state after each step, from none on."""
    found = [setup()]
    for batch in batches():
        found.append(step(jax.tree.map(jnp.copy, found[-1]), batch)[0])
    return found


def test_averages_are_those_written_down(states):
    """In float64, of weights and of batch norm's statistics."""
    expected = jax.tree.map(lambda x: np.asarray(x, np.float64), setup().variables)
    for n, state in enumerate(states[1:], start=1):
        decay = min(DECAY, (1 + n) / (10 + n))
        expected = jax.tree.map(
            lambda a, x, d=decay: d * a + (1 - d) * np.asarray(x, np.float64),
            expected,
            state.variables,
        )
        assert (decay == DECAY) == (n >= 13)
        chex.assert_trees_all_close(state.eval_variables, expected, atol=1e-6)


def test_training_itself_is_unchanged(states, step):
    state = setup(None)
    for batch in batches():
        state, _ = step(state, batch)
    chex.assert_trees_all_equal(state, states[-1].replace(average=None))


def test_frozen_parts_have_no_average(step):
    state = setup(frozen=("backbone",))
    state, _ = step(state, batches()[0])
    assert set(state.average.params) == {"head"}
    chex.assert_trees_all_equal(
        state.eval_variables["params"]["backbone"], state.frozen["backbone"]
    )


def test_a_step_that_is_not_finite_changes_no_average(step):
    state = setup()
    state.params["head"]["logits"]["kernel"] = np.full((8, 3), 3e38, np.float32)
    before = jax.tree.map(np.array, state.average)
    state, metrics = step(state, batches()[0])
    assert metrics["nonfinite"] == 1
    chex.assert_trees_all_equal(state.average, before)


def test_pmap_is_jit(states):
    runner = Runner.all_devices()
    assert len(runner.devices) == 4
    spread = runner.compile_train(
        make_train_step(
            synchronize(MODEL, AXIS), TX, LOSS, normalize=NORMALIZE, axis_name=AXIS
        )
    )
    state = runner.replicate(setup())
    for batch in batches():
        state, _ = spread(state, runner.place_batch(batch))
    chex.assert_trees_all_close(
        runner.unreplicate(state).average, states[-1].average, atol=1e-6
    )


def run(**options):
    return fit(
        MODEL,
        TX,
        LOSS,
        setup(),
        TRAIN,
        normalize=NORMALIZE,
        epochs=4,
        val=VAL,
        runner=ONE_DEVICE,
        **options,
    )


@pytest.fixture(scope="module")
def whole():
    return run()


def test_averages_are_validated_and_are_the_result(whole, states):
    best = whole.best_epoch
    assert whole.state.average is None
    chex.assert_trees_all_close(
        whole.state.variables, states[3 * best].eval_variables, atol=1e-6
    )
    found, _ = evaluate(
        MODEL, LOSS, whole.state.variables, VAL, normalize=NORMALIZE, runner=ONE_DEVICE
    )
    assert found["loss"] == pytest.approx(whole.history[best - 1]["val_loss"], abs=1e-6)


def test_interrupted_run_resumes_exactly(tmp_path, whole):
    with pytest.raises(Interrupted):
        run(checkpoints=CheckpointFolder(tmp_path), callback=StopAt(7, signal.SIGINT))
    saved = CheckpointFolder(tmp_path).load("last")
    assert saved is not None
    assert "average/params/head/logits/kernel" in saved.arrays
    resumed = run(checkpoints=CheckpointFolder(tmp_path))
    same(resumed, whole)
    best = CheckpointFolder(tmp_path).load("best")
    assert best is not None
    np.testing.assert_array_equal(
        best.arrays["params/head/logits/kernel"],
        resumed.state.params["head"]["logits"]["kernel"],
    )
