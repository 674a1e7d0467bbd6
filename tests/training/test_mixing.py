"""MixUp and CutMix: their values, what they draw, and that training repeats it."""

import signal
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model
from scipy import stats
from test_loop import ONE_DEVICE, StopAt, same

from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.loop import Interrupted, fit
from jaxvision.training.mixing import Mixing, _outside_box, _partners, make_mix
from jaxvision.training.parallel import AXIS, Runner, synchronize
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_train_step

SIZE = (6, 8)
ALL = jnp.ones(1000)
LOSS = make_cross_entropy(class_weights=(0.5, 1.0, 2.0), label_smoothing=0.1)
BOTH = make_mix(mixup=0.4, cutmix=1.0)
MODEL = small_model(batch_norm=True)
TX = make_optimizer(OptimConfig("sgd", 0.05), steps_per_epoch=3, epochs=2)
TRAIN = RandomBatches(num_examples=22, batch_size=8, train=True)


@jax.jit
def drawn(**parameters: jax.Array) -> Mixing:
    """Of 1000 images; the parameters are numbers of one program, as in a sweep."""
    mix = make_mix(**parameters)
    assert mix is not None
    return mix(jax.random.key(0), ALL, SIZE)


def test_mixed_images_and_loss_are_those_written_down():
    """In NumPy, an image at a time, with mixed targets."""
    rng = np.random.default_rng(0)
    count = len(ALL)
    images = rng.normal(size=(count, *SIZE, 3)).astype(np.float32)
    labels, logits = rng.integers(0, 3, count), rng.normal(size=(count, 3))
    mixing = drawn(mixup=0.4, cutmix=1.0)

    @jax.jit
    def results(mixing, images, logits, labels):
        losses = mixing.loss(LOSS, labels)(logits, labels)
        return mixing.apply(images), losses, mixing.larger(labels)

    mixed, losses, larger = jax.device_get(results(mixing, images, logits, labels))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    some = (np.asarray(values)[:64] for values in mixing)
    for i, (other, weights) in enumerate(zip(*some, strict=True)):
        image = np.empty((*SIZE, 3))
        for y, x in np.ndindex(*SIZE):
            w = weights[y, x, 0]
            image[y, x] = w * images[i, y, x] + (1 - w) * images[other, y, x]
        np.testing.assert_allclose(mixed[i], image, atol=1e-6)
        expected, share = 0.0, weights.mean(dtype=np.float64)
        for label, part in ((labels[i], share), (labels[other], 1 - share)):
            target = 0.9 * np.eye(3)[label] + 0.1 / 3
            weight = (0.5, 1.0, 2.0)[label]
            expected -= part * weight * (target * log_probabilities[i]).sum()
        assert losses[i] == pytest.approx(expected, rel=1e-5)
        main = labels[i] if share >= 0.5 else labels[other]
        assert larger[i] == main


@pytest.mark.parametrize("parameter", [0.2, 1.0, 8.0])
def test_the_share_of_mixup_has_the_papers_distribution(parameter):
    mixing = drawn(mixup=parameter)
    share = np.asarray(mixing.share, np.float64)
    expected = stats.beta(parameter, parameter)
    assert stats.kstest(share, expected.cdf).pvalue > 0.05
    np.testing.assert_allclose(mixing.weights, np.broadcast_to(
        mixing.weights[:, :1, :1], mixing.weights.shape
    ))  # fmt: skip


def test_boxes_of_cutmix_are_the_papers():
    share = jnp.asarray(np.random.default_rng(1).beta(1, 1, 200), jnp.float32)
    outside = jax.jit(_outside_box, static_argnums=2)
    weights = np.asarray(outside(jax.random.key(3), share, SIZE))
    middles = [
        jax.random.randint(
            jax.random.fold_in(jax.random.key(3), i), (200, 1), 0, length
        )
        for i, length in enumerate(SIZE)
    ]
    for i, kept in enumerate(np.asarray(share)):
        expected = np.ones(SIZE)
        (top, bottom), (left, right) = (
            np.clip((m - int(s * np.sqrt(1 - kept)) // 2,
                     m + int(s * np.sqrt(1 - kept)) // 2), 0, s)
            for m, s in zip((int(m[i, 0]) for m in middles), SIZE, strict=True)
        )  # fmt: skip
        expected[top:bottom, left:right] = 0
        np.testing.assert_array_equal(weights[i, ..., 0], expected)


def test_either_befalls_half_of_the_images():
    weights = np.asarray(drawn(mixup=1.0, cutmix=1.0).weights)
    blended = ((weights > 0) & (weights < 1)).all((1, 2, 3))
    assert blended.mean() == pytest.approx(0.5, abs=0.1)
    assert np.isin(weights[~blended], (0, 1)).all()


@pytest.mark.parametrize("count", [0, 1, 2, 37, 64])
def test_images_that_do_not_count_are_nobodys_partner(count):
    mask = np.zeros(64, np.float32)
    mask[np.random.default_rng(0).permutation(64)[:count]] = 1
    partner = np.asarray(_partners(jax.random.key(0), jnp.asarray(mask)))
    assert sorted(partner) == list(range(64))
    np.testing.assert_array_equal(mask[partner], mask)
    np.testing.assert_array_equal(partner[mask == 0], np.flatnonzero(mask == 0))
    if count > 30:
        assert (partner != np.arange(64)).sum() > count / 2


@pytest.mark.parametrize("parameter", [1e-38, 1e30])
def test_numbers_beyond_reason_stay_numbers(parameter):
    assert np.isfinite(drawn(mixup=parameter, cutmix=parameter).weights).all()


def test_nothing_is_mixed_unless_asked_for():
    assert make_mix() is None


def setup(seed=0):
    return create_state(init_variables(MODEL, 0, SHAPE), TX, seed=seed)


def batches():
    stream = TRAIN.iterate()
    return [next(stream) for _ in range(3)]


def test_the_step_mixes_by_key_and_number():
    """As a step on images that were mixed beforehand, by the keys that it has."""
    assert BOTH is not None
    mixed = jax.jit(make_train_step(MODEL, TX, LOSS, normalize=NORMALIZE, mix=BOTH))
    state, batch = setup().replace(step=jnp.asarray(5)), batches()[-1]
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 5)
    mixing = jax.jit(BOTH, static_argnums=2)(
        jax.random.fold_in(key, 2), batch["mask"], SHAPE[:2]
    )
    plain = make_train_step(
        MODEL,
        TX,
        mixing.loss(LOSS, jnp.asarray(batch["label"])),
        normalize=lambda images: mixing.apply(NORMALIZE(images)),
    )
    new, metrics = mixed(state, batch)
    larger = {**batch, "label": mixing.larger(jnp.asarray(batch["label"]))}
    expected, plain_metrics = jax.jit(plain)(state, larger)
    chex.assert_trees_all_close(new, expected, atol=1e-6)
    chex.assert_trees_all_close(metrics, plain_metrics, rtol=1e-6)
    others = [mixed(setup(seed), batch)[1]["loss"] for seed in (0, 1)]
    assert len({float(loss) for loss in (*others, metrics["loss"])}) == 3


def test_fill_of_a_batch_changes_nothing():
    model = small_model(batch_norm=False)
    step = jax.jit(make_train_step(model, TX, LOSS, normalize=NORMALIZE, mix=BOTH))
    state = create_state(init_variables(model, 0, SHAPE), TX, seed=0)
    batch = batches()[-1]
    counts = batch["mask"] > 0
    assert not counts.all()
    other = {
        **batch,
        "image": np.where(counts[:, None, None, None], batch["image"], 255).astype(
            np.uint8
        ),
        "label": np.where(counts, batch["label"], 2).astype(np.int32),
    }
    chex.assert_trees_all_equal(step(state, batch), step(state, other))


def test_pmap_is_vmap_over_the_parts_of_a_batch():
    """Each device mixes its own part; gradients are those of all."""
    runner = Runner.all_devices()
    step = make_train_step(
        synchronize(MODEL, AXIS), TX, LOSS,
        normalize=NORMALIZE, mix=BOTH, axis_name=AXIS,
    )  # fmt: skip
    spread, state = runner.compile_train(step), runner.replicate(setup())
    mapped = jax.jit(jax.vmap(step, in_axes=(0, 0), axis_name=AXIS))
    count = len(runner.devices)
    assert count == 4
    alike = jax.tree.map(lambda x: jnp.stack([x] * count), setup())
    for batch in batches():
        state, metrics = spread(state, runner.place_batch(batch))
        parts = {k: x.reshape(count, -1, *x.shape[1:]) for k, x in batch.items()}
        alike, expected = mapped(alike, parts)
        chex.assert_trees_all_close(
            metrics, jax.tree.map(lambda x: x[0], jax.device_get(expected)), rtol=1e-5
        )
    first = jax.tree.map(lambda x: x[0], jax.device_get(alike))
    chex.assert_trees_all_close(runner.unreplicate(state), first, atol=1e-6)


def test_interrupted_run_resumes_exactly(tmp_path):
    run = partial(
        fit, MODEL, TX, LOSS, setup(), TRAIN,
        normalize=NORMALIZE, epochs=2, mix=BOTH, runner=ONE_DEVICE,
    )  # fmt: skip
    with pytest.raises(Interrupted):
        run(checkpoints=CheckpointFolder(tmp_path), callback=StopAt(4, signal.SIGINT))
    same(run(checkpoints=CheckpointFolder(tmp_path)), run())
