"""One step: what it computes, what it leaves alone, and that its transforms agree."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model

from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, ScheduleConfig, make_optimizer
from jaxvision.training.parallel import (
    AXIS,
    Runner,
    jit_step,
    scan_steps,
    synchronize,
    vmap_step,
)
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_eval_step, make_train_step

LOSS = make_cross_entropy()
STEPS = 5


def optimizer():
    config = OptimConfig("sgd", 0.05, weight_decay=1e-3)
    schedule = ScheduleConfig("cosine")
    return make_optimizer(config, schedule, steps_per_epoch=3, epochs=4)


def setup(model, seed=0, frozen=()):
    variables = init_variables(model, seed, SHAPE)
    return create_state(variables, optimizer(), seed=seed, frozen=frozen)


def batches(count=STEPS):
    stream = RandomBatches(num_examples=22, batch_size=8, train=True).iterate()
    return [next(stream) for _ in range(count)]


def run(step, state, items):
    metrics = []
    for item in items:
        state, m = step(state, item)
        metrics.append(m)
    return state, metrics


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
def test_scan_is_jit(batch_norm, dropout_rate):
    model = small_model(batch_norm=batch_norm, dropout_rate=dropout_rate)
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)
    alone, metrics = run(jit_step(step), setup(model), batches())
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches())
    scanned, scan_metrics = scan_steps(step)(setup(model), stacked)
    chex.assert_trees_all_close(scanned, alone, atol=1e-6)
    chex.assert_trees_all_close(
        scan_metrics, jax.tree.map(lambda *x: jnp.stack(x), *metrics), atol=1e-5
    )


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
def test_vmap_is_each_model_alone(batch_norm, dropout_rate):
    model = small_model(batch_norm=batch_norm, dropout_rate=dropout_rate)
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)
    states = [setup(model, seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    together, _ = run(vmap_step(step), together, batches())
    for i, state in enumerate(states):
        alone, _ = run(jit_step(step), state, batches())
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], together), alone, atol=1e-6
        )


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("frozen", [(), ("backbone",)])
def test_pmap_is_jit(batch_norm, frozen):
    """The batch's last examples are masked, so the devices' shares are uneven."""
    runner = Runner.all_devices()
    assert len(runner.devices) == 4
    model = small_model(batch_norm=batch_norm)
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)
    alone, metrics = run(jit_step(step), setup(model, frozen=frozen), batches())
    spread_step = make_train_step(
        synchronize(model, AXIS),
        optimizer(),
        LOSS,
        normalize=NORMALIZE,
        axis_name=runner.axis_name,
    )
    spread, spread_metrics = run(
        runner.compile_train(spread_step),
        runner.replicate(setup(model, frozen=frozen)),
        [runner.place_batch(batch) for batch in batches()],
    )
    chex.assert_trees_all_close(runner.unreplicate(spread), alone, atol=1e-6)
    chex.assert_trees_all_close(spread_metrics, metrics, atol=1e-5)


def test_devices_of_pmap_drop_different_values():
    """With dropout, pmap cannot equal jit (keys differ by device) but must train."""
    runner = Runner.all_devices()
    model = small_model(batch_norm=True, dropout_rate=0.3)
    step = make_train_step(
        synchronize(model, AXIS), optimizer(), LOSS, normalize=NORMALIZE, axis_name=AXIS
    )
    batch = runner.place_batch(batches(1)[0])
    state, metrics = runner.compile_train(step)(runner.replicate(setup(model)), batch)
    shards = [
        np.asarray(s.data)
        for s in state.params["head"]["logits"]["kernel"].addressable_shards
    ]
    for shard in shards[1:]:
        np.testing.assert_array_equal(shard, shards[0])
    assert np.isfinite(metrics["loss"])


def test_evaluation_on_devices_is_evaluation_on_one():
    runner = Runner.all_devices()
    model = small_model(batch_norm=True)
    variables, batch = setup(model).variables, batches(3)[-1]
    sums, logits = jax.jit(make_eval_step(model, LOSS, normalize=NORMALIZE))(
        variables, batch
    )
    step = make_eval_step(model, LOSS, normalize=NORMALIZE, axis_name=AXIS)
    spread_sums, spread_logits = runner.compile_eval(step)(
        runner.replicate(variables), runner.place_batch(batch)
    )
    chex.assert_trees_all_close((spread_sums, spread_logits), (sums, logits), atol=1e-6)
    assert sums["count"] == 6  # 22 = 8 + 8 + 6


@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
def test_frozen_parts_do_not_move(dropout_rate):
    model = small_model(batch_norm=True, dropout_rate=dropout_rate)
    state = setup(model, frozen=("backbone",))
    assert set(state.params) == {"head"}
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)
    trained, _ = run(jit_step(step), state, batches())
    state = setup(model, frozen=("backbone",))
    chex.assert_trees_all_equal(trained.frozen, state.frozen)
    chex.assert_trees_all_equal(trained.batch_stats, state.batch_stats)
    moved = trained.params["head"]["logits"]["kernel"]
    assert np.abs(moved - state.params["head"]["logits"]["kernel"]).max() > 1e-4


def test_no_gradient_is_computed_for_frozen_parts():
    """The backward pass of a frozen first layer is the product with the input."""
    model = small_model(batch_norm=False)
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)

    def products(frozen):
        state = setup(model, frozen=frozen)
        jaxpr = jax.make_jaxpr(step)(state, batches(1)[0])
        return str(jaxpr).count("dot_general")

    assert products(()) - products(("backbone",)) == 2


def test_fill_of_a_batch_changes_nothing_without_batch_norm():
    model = small_model(batch_norm=False)
    step = jit_step(make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE))
    batch = batches(3)[-1]
    other = {
        **batch,
        "image": np.where(
            batch["mask"][:, None, None, None] > 0, batch["image"], 255
        ).astype(np.uint8),
    }
    chex.assert_trees_all_equal(step(setup(model), batch), step(setup(model), other))


def test_gradient_is_the_mean_over_the_mask():
    """Against a gradient written down directly, on the unmasked examples alone."""
    model = small_model(batch_norm=False)
    tx = optax.sgd(1.0)
    variables = init_variables(model, 0, SHAPE)
    state = create_state(variables, tx, seed=0)
    batch = batches(3)[-1]
    step = make_train_step(model, tx, LOSS, normalize=NORMALIZE)
    new, _ = jax.jit(step)(state, batch)

    def mean_loss(params):
        logits = model.apply(
            {"params": params}, NORMALIZE(jnp.asarray(batch["image"][:6])), train=False
        )
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, batch["label"][:6]
        ).mean()

    gradient = jax.jit(jax.grad(mean_loss))(variables["params"])
    expected = jax.tree.map(
        np.subtract, *jax.device_get((variables["params"], gradient))
    )
    chex.assert_trees_all_close(new.params, expected, atol=1e-6)


def test_step_compiles_once():
    chex.clear_trace_counter()
    model = small_model(batch_norm=True, dropout_rate=0.1)
    step = make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE)
    counted = jit_step(chex.assert_max_traces(step, n=1))
    state, _ = run(counted, setup(model), batches())
    assert int(state.step) == STEPS


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_step_that_is_not_finite_changes_only_the_counter(platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    model = small_model(batch_norm=True)
    step = jit_step(make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE))
    state = setup(model)
    state.params["head"]["logits"]["kernel"] = np.full((8, 3), 3e38, np.float32)
    before = jax.tree.map(np.array, state)
    after, metrics = step(state, batches(1)[0])
    assert metrics["nonfinite"] == 1
    chex.assert_trees_all_equal(after.replace(step=before.step), before)


def test_bfloat16_computes_and_float32_stays():
    model = small_model(batch_norm=True, dtype=jnp.bfloat16)
    step = jit_step(make_train_step(model, optimizer(), LOSS, normalize=NORMALIZE))
    state, metrics = run(step, setup(model), batches())
    for leaf in jax.tree.leaves((state.params, state.batch_stats)):
        assert leaf.dtype == jnp.float32
    exact = small_model(batch_norm=True)
    exact_step = jit_step(
        make_train_step(exact, optimizer(), LOSS, normalize=NORMALIZE)
    )
    _, exact_metrics = run(exact_step, setup(exact), batches())
    np.testing.assert_allclose(
        metrics[-1]["loss"], exact_metrics[-1]["loss"], rtol=0.05
    )


def test_unknown_frozen_part_is_refused():
    with pytest.raises(ValueError, match="no part"):
        setup(small_model(batch_norm=False), frozen=("features",))
