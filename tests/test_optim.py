"""Optimizers against PyTorch's, schedules against their definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.optim import (
    OptimConfig,
    ScheduleConfig,
    global_norm,
    make_optimizer,
    schedule_factor,
)

STEPS = 12


def parameters():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3)).astype(np.float32)
    return {"head": {"logits": {"kernel": kernel, "bias": kernel[0].copy()}}}


def gradients():
    rng = np.random.default_rng(1)
    return [
        {
            "head": {
                "logits": {
                    "kernel": rng.normal(size=(4, 3)).astype(np.float32),
                    "bias": rng.normal(size=3).astype(np.float32),
                }
            }
        }
        for _ in range(STEPS)
    ]


def run(config, params=None, **lengths):
    lengths = {"steps_per_epoch": 4, "epochs": 3, **lengths}
    tx = make_optimizer(config, **lengths)
    params = jax.tree.map(jnp.asarray, params or parameters())
    state = tx.init(params)
    for grads in gradients():
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("config", "make"),
    [
        ({"optimizer": "adam"}, lambda t, p, **k: t.optim.Adam(p, **k)),
        ({"optimizer": "adamw"}, lambda t, p, **k: t.optim.AdamW(p, **k)),
        ({"optimizer": "rmsprop"}, lambda t, p, **k: t.optim.RMSprop(p, **k)),
        (
            {"optimizer": "sgd", "momentum": 0.0},
            lambda t, p, **k: t.optim.SGD(p, **k),
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9},
            lambda t, p, **k: t.optim.SGD(p, momentum=0.9, **k),
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
            lambda t, p, **k: t.optim.SGD(p, momentum=0.9, nesterov=True, **k),
        ),
    ],
)
def test_equals_torch(config, make, weight_decay):
    torch = pytest.importorskip("torch")
    ours = run(
        OptimConfig(
            **config, learning_rate=0.01, weight_decay=weight_decay, decay_all=True
        )
    )
    leaves = {
        name: torch.nn.Parameter(torch.tensor(value))
        for name, value in parameters()["head"]["logits"].items()
    }
    optimizer = make(torch, leaves.values(), lr=0.01, weight_decay=weight_decay)
    for grads in gradients():
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(grads["head"]["logits"][name])
        optimizer.step()
    for name, leaf in leaves.items():
        np.testing.assert_allclose(
            ours["head"]["logits"][name], leaf.detach().numpy(), atol=2e-6
        )


def test_weight_decay_leaves_biases_out():
    plain = run(OptimConfig("sgd", 0.1))["head"]["logits"]
    decayed = run(OptimConfig("sgd", 0.1, weight_decay=0.5))["head"]["logits"]
    np.testing.assert_array_equal(plain["bias"], decayed["bias"])
    assert np.abs(plain["kernel"] - decayed["kernel"]).max() > 1e-3


def test_clip_bounds_the_whole_gradient():
    config = OptimConfig("sgd", 1.0, momentum=0.0, clip_norm=0.5)
    tx = make_optimizer(config, steps_per_epoch=1, epochs=1)
    params = parameters()
    updates, _ = tx.update(gradients()[0], tx.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-5)


def test_clip_equals_torch():
    torch = pytest.importorskip("torch")
    tx = make_optimizer(
        OptimConfig("sgd", 1.0, momentum=0.0, clip_norm=0.5),
        steps_per_epoch=1,
        epochs=1,
    )
    params = parameters()
    for scale in (1.0, 0.1):  # above the limit and below it
        grads = jax.tree.map(lambda g, scale=scale: scale * g, gradients()[0])
        updates, _ = tx.update(grads, tx.init(params), params)
        leaves = [torch.nn.Parameter(torch.tensor(g)) for g in jax.tree.leaves(grads)]
        for leaf in leaves:
            leaf.grad = leaf.detach().clone()
        torch.nn.utils.clip_grad_norm_(leaves, 0.5)
        for update, leaf in zip(jax.tree.leaves(updates), leaves, strict=True):
            np.testing.assert_allclose(-update, leaf.grad.numpy(), rtol=5e-6)


def test_the_norm_is_that_of_one_vector():
    rng = np.random.default_rng(0)
    shapes = [(size, 3) for size in range(1, 20)] + [(2**15, 4)]
    for count in (3, len(shapes)):
        arrays = [rng.normal(size=s).astype(np.float32) for s in shapes[-count:]]
        whole = np.concatenate([x.ravel() for x in arrays]).astype(np.float64)
        norm = global_norm(dict(enumerate(arrays)))
        np.testing.assert_allclose(norm, np.linalg.norm(whole), rtol=1e-6)


def test_backbone_lr_multiplier_scales_the_backbone_only():
    params = {"backbone": parameters()["head"], "head": parameters()["head"]}
    grads = {"backbone": gradients()[0]["head"], "head": gradients()[0]["head"]}
    tx = make_optimizer(
        OptimConfig("adam", 0.1, backbone_lr_multiplier=0.1),
        steps_per_epoch=1,
        epochs=1,
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(
        updates["backbone"]["logits"]["kernel"],
        0.1 * updates["head"]["logits"]["kernel"],
        rtol=1e-5,
    )


def test_peak_rate_and_decay_are_data():
    """Setting them in the state equals configuring them: a sweep relies on it."""
    config = OptimConfig("adamw", 0.01, weight_decay=0.1)
    tx = make_optimizer(config, steps_per_epoch=4, epochs=3)
    params = parameters()
    state = tx.init(params)
    state.hyperparams["learning_rate"] = jnp.float32(0.05)
    state.hyperparams["weight_decay"] = jnp.float32(0.2)
    other = OptimConfig("adamw", 0.05, weight_decay=0.2)
    tx_other = make_optimizer(other, steps_per_epoch=4, epochs=3)
    grads = gradients()[0]
    updates, _ = tx.update(grads, state, params)
    expected, _ = tx_other.update(grads, tx_other.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig(), [1, 1, 1, 1]),
        (ScheduleConfig("step", gamma=0.5, step_epochs=2), [1, 1, 0.5, 0.5]),
        (ScheduleConfig("exponential", gamma=0.9), [1, 0.9, 0.81, 0.729]),
        (ScheduleConfig("exponential", gamma=0.9, hold_epochs=2), [1, 1, 0.9, 0.81]),
        (ScheduleConfig("cosine"), [1, 0.853553, 0.5, 0.146447]),
        (ScheduleConfig(warmup_epochs=2), [1 / 20, 11 / 20, 1, 1]),
    ],
)
def test_schedules(config, expected):
    """At the first step of each of four epochs of ten steps."""
    factor = schedule_factor(config, steps_per_epoch=10, epochs=4)
    np.testing.assert_allclose(
        [factor(step) for step in (0, 10, 20, 30)], expected, atol=1e-6
    )


def test_the_schedule_multiplies_the_peak_rate():
    """Of plain gradient descent, whose updates are in proportion to the rate."""
    config = OptimConfig("sgd", 0.1, momentum=0.0)
    schedule = ScheduleConfig("step", gamma=0.5, step_epochs=1)
    tx = make_optimizer(config, schedule, steps_per_epoch=2, epochs=2)
    params = jax.tree.map(jnp.ones_like, parameters())
    state, rates = tx.init(params), []
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        rates.append(-float(updates["head"]["logits"]["bias"][0]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.05], rtol=1e-6)


def test_exponential_changes_between_epochs_only():
    config = ScheduleConfig("exponential", gamma=0.5)
    factor = schedule_factor(config, steps_per_epoch=10, epochs=2)
    assert [float(factor(step)) for step in (0, 9, 10, 19)] == [1, 1, 0.5, 0.5]


def test_adam_of_the_prado_is_held_ten_epochs_then_falls():
    """As Keras's LearningRateScheduler of `lr if epoch < 10 else lr * exp(-0.05)`."""
    config = ScheduleConfig("exponential", gamma=math.exp(-0.05), hold_epochs=10)
    factor = schedule_factor(config, steps_per_epoch=60, epochs=50)
    rate, expected = 1.0, []
    for epoch in range(50):
        rate = rate if epoch < 10 else rate * math.exp(-0.05)
        expected.append(rate)
    ours = [float(factor(60 * epoch + 59)) for epoch in range(50)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_cosine_after_warmup_ends_at_zero():
    config = ScheduleConfig("cosine", warmup_epochs=1)
    factor = schedule_factor(config, steps_per_epoch=10, epochs=3)
    np.testing.assert_allclose(
        [factor(step) for step in (9, 10, 20, 30)], [1, 1, 0.5, 0], atol=1e-6
    )
