"""Optimizers and learning-rate schedules, with PyTorch's arithmetic and defaults.

What a sweep varies (peak learning rate, weight decay) is data in the optimizer's
state, by `optax.inject_hyperparams`; a schedule is a curve of height one under it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvision.settings import OptimConfig, ScheduleConfig
from jaxvision.typing import PyTree


def schedule_factor(
    config: ScheduleConfig, *, steps_per_epoch: int, epochs: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """The curve of height one under the peak learning rate.

    Args:
      config: the schedule and its settings.
      steps_per_epoch: optimizer steps in an epoch.
      epochs: epochs in all; where the cosine reaches zero.

    Returns:
      A function from the step (from 0) to the factor, a float32 scalar in [0, 1].
      Step and exponential schedules change between epochs only, as Keras's and
      PyTorch's do; cosine and warm-up change at every step.
    """
    warmup_steps = config.warmup_epochs * steps_per_epoch
    total_steps = max(epochs * steps_per_epoch, 1)

    def factor(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        epoch = jnp.floor(step / steps_per_epoch)
        match config.kind:
            case "constant":
                value = jnp.float32(1.0)
            case "step":
                value = config.gamma ** jnp.floor(epoch / config.step_epochs)
            case "exponential":
                fallen = epoch + 1.0 - config.hold_epochs
                value = config.gamma ** jnp.maximum(fallen, 0.0)
            case "cosine":
                done = (step - warmup_steps) / max(total_steps - warmup_steps, 1.0)
                value = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
        if warmup_steps > 0:
            value = value * jnp.minimum((step + 1.0) / warmup_steps, 1.0)
        return value

    return factor


class Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation that knows what it was made of.

    Attributes:
      settings: the arguments of `make_optimizer`.
    """

    settings: tuple[Any, ...] = ()


@functools.lru_cache(maxsize=32)
def make_optimizer(
    config: OptimConfig,
    schedule: ScheduleConfig | None = None,
    *,
    steps_per_epoch: int,
    epochs: int,
) -> Optimizer:
    """The optimizer of a config; the same object for equal arguments, so that programs
    are shared.

    Its state holds `hyperparams["learning_rate"]` (the peak) and
    `hyperparams["weight_decay"]` as arrays, so that a sweep can set one a model.
    """
    schedule = schedule or ScheduleConfig()
    factor = schedule_factor(schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)

    def build(
        learning_rate: jax.Array, weight_decay: jax.Array
    ) -> optax.GradientTransformation:
        mask = None if config.decay_all else _kernels
        decay = optax.add_decayed_weights(weight_decay, mask)
        decoupled = config.optimizer == "adamw"
        clip = config.clip_norm
        return optax.chain(
            optax.identity() if clip is None else _clip_by_global_norm(clip),
            optax.identity() if decoupled else decay,
            _update_rule(config),
            decay if decoupled else optax.identity(),
            _scale_parts({"backbone": config.backbone_lr_multiplier}),
            optax.scale_by_schedule(factor),
            optax.scale_by_learning_rate(learning_rate),
        )

    injected = optax.inject_hyperparams(build, hyperparam_dtype=jnp.float32)
    made = injected(
        learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    optimizer = Optimizer(*made)
    optimizer.settings = (config, schedule, steps_per_epoch, epochs)
    return optimizer


_SMALL, _FEW = 2**16, 16
"""More arrays than a few that are below this size go into one vector for their norm."""


def global_norm(tree: PyTree) -> jax.Array:
    """The length of all arrays of a tree as of one vector: a scalar.

    Deep networks have many small arrays, of many shapes, and XLA takes long to compile
    a sum of squares for each: these are copied side by side first.
    """
    arrays = [x.reshape(-1) for x in jax.tree.leaves(tree)]
    small = [x for x in arrays if x.size < _SMALL]
    if len(small) > _FEW:
        arrays = [x for x in arrays if x.size >= _SMALL]
        arrays.append(jnp.concatenate(small))
    return jnp.sqrt(sum(jnp.square(x).sum() for x in arrays))


def _clip_by_global_norm(limit: float) -> optax.GradientTransformationExtraArgs:
    """As optax's, by a factor that is computed once, of a norm that may be given."""

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        norm: jax.Array | None = None,
        **_: Any,
    ) -> tuple[PyTree, PyTree]:
        del params
        norm = global_norm(updates) if norm is None else norm
        return optax.tree.scale(jnp.minimum(1.0, limit / norm), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _update_rule(config: OptimConfig) -> optax.GradientTransformation:
    match config.optimizer:
        case "adam" | "adamw":
            return optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
        case "rmsprop":
            # PyTorch's alpha and epsilon, which stands outside the root.
            return optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False)
        case "sgd" if config.momentum > 0:
            return optax.trace(decay=config.momentum, nesterov=config.nesterov)
        case "sgd":
            return optax.identity()


def _kernels(params: PyTree) -> PyTree:
    """True for convolution and dense kernels, False for biases, norms and slopes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key == "kernel", params
    )


def _scale_parts(factors: dict[str, float]) -> optax.GradientTransformation:
    """Multiplies the update of each part of the network that `factors` names."""

    def update(updates: PyTree, params: PyTree | None = None) -> PyTree:
        del params
        return {
            part: optax.tree.scale(factors.get(part, 1.0), values)
            for part, values in updates.items()
        }

    return optax.stateless(update)
