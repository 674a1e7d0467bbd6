"""The one pure step, (state, batch) -> (state, metrics), and its evaluation."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.metrics import Loss, classification_sums
from jaxvision.training.mixing import Mix
from jaxvision.training.state import TrainState
from jaxvision.typing import Batch, Metrics, PyTree

if TYPE_CHECKING:  # predicting need not wait for it
    import optax

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[dict[str, PyTree], Batch], tuple[Metrics, jax.Array]]
"""Of a network's variables, or those of a part of it."""
Normalize = Callable[[jax.Array], jax.Array]
"""`[B, ...]` as the loader yields it -> `[B, ...]` float32 as the network takes it."""
Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, `[B, ...]` float32, normalized) -> as many of them, changed at random."""


@dataclasses.dataclass(frozen=True)
class Smaller:
    """A network's input of images that are made smaller first, on the device.

    Attributes:
      size: height and width, not above those of the images.
      normalize: the network's preprocessing.
    """

    size: tuple[int, int]
    normalize: Normalize

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[B, H, W, C]` uint8 -> `[B, *size, C]` float32, normalized.

        Bilinear, with as wide a filter as the scale asks for, so that nothing is
        aliased; in float32, without rounding to whole numbers in between.
        """
        shape = (images.shape[0], *self.size, images.shape[-1])
        pixels = images.astype(jnp.float32)
        return self.normalize(jax.image.resize(pixels, shape, "linear"))


def make_train_step(
    model: nn.Module,
    tx: "optax.GradientTransformation",
    loss: Loss,
    *,
    normalize: Normalize,
    augment: Augment | None = None,
    mix: Mix | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """One optimizer step on one batch, as a pure function for jit, scan, pmap, vmap.

    Metrics are the sums of `classification_sums` over the batch before the update,
    and `nonfinite`: 1 where loss or gradient was not finite. Such a step changes
    nothing but the step counter, so that the parameters never become NaN; whether
    to go on is the loop's decision.

    Args:
      model: network; parts that the state holds as frozen run as in evaluation.
      tx: the optimizer that made the state's `opt_state`.
      loss: loss of each example; the step minimizes its mean over the mask.
      normalize: the network's preprocessing, applied here and nowhere else.
      augment: random changes after it; None: none.
      mix: how images are mixed after that, those of each device among themselves, see
        `make_mix`; None: they are not. The accuracy is that of the label with the
        larger share.
      axis_name: the mapped axis over which the batch is spread under pmap:
        gradients and metrics are those of the whole batch. None: not spread.
    """
    import optax

    from jaxvision.optim import global_norm

    optimizer = optax.with_extra_args_support(tx)

    def psum(tree: PyTree) -> PyTree:
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        count = psum(jnp.sum(batch["mask"].astype(jnp.float32)))
        images = normalize(batch["image"])
        if augment is not None:
            # Another key than dropout's.
            images = augment(jax.random.fold_in(key, 1), images)
        labels, loss_of = batch["label"], loss
        if mix is not None:
            _, height, width, _ = images.shape
            mixing = mix(jax.random.fold_in(key, 2), batch["mask"], (height, width))
            images = mixing.apply(images)
            labels, loss_of = mixing.larger(labels), mixing.loss(loss, labels)

        def mean_loss(params: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            logits, updates = model.apply(
                {**state.variables, "params": {**params, **state.frozen}},
                images,
                train=True,
                frozen=tuple(state.frozen),
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            losses = loss_of(logits, labels)
            sums = classification_sums(logits, labels, batch["mask"], losses)
            stats = updates.get("batch_stats", state.batch_stats)
            # This device's share of the mean over the whole batch: the shares of
            # loss and gradient add up to it.
            return sums["loss"] / jnp.maximum(count, 1.0), (sums, stats)

        grads, (sums, stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        grads, sums = psum((grads, sums))
        step, norm = state.step + 1, global_norm(grads)
        finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(norm)

        def changed() -> dict[str, PyTree]:
            updates, opt_state = optimizer.update(
                grads, state.opt_state, state.params, norm=norm
            )
            params, average = optax.apply_updates(state.params, updates), state.average
            if average is not None:
                average = average.after(step, params, stats)
            return {
                "params": params,
                "batch_stats": stats,
                "opt_state": opt_state,
                "average": average,
            }

        unchanged = {
            "params": state.params,
            "batch_stats": state.batch_stats,
            "opt_state": state.opt_state,
            "average": state.average,
        }
        new_state = state.replace(step=step, **_choose(finite, changed, unchanged))
        return new_state, {**sums, "nonfinite": 1.0 - finite.astype(jnp.float32)}

    return train_step


def _choose(
    finite: jax.Array, changed: Callable[[], PyTree], unchanged: PyTree
) -> PyTree:
    """`changed()` if a step's loss and gradient are finite, else what was before.

    A condition is less to compile than a choice for each array, and arrays are changed
    in place; but GPUs would let the host wait for the gradient.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(finite, changed, lambda: unchanged)
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), changed(), unchanged)


def make_eval_step(
    model: nn.Module,
    loss: Loss,
    *,
    normalize: Normalize,
    axis_name: str | None = None,
) -> EvalStep:
    """(variables, batch) -> (sums of `classification_sums`, logits `[B, K]` float32).

    No dropout, moving statistics in batch norm. Arguments as in `make_train_step`;
    under pmap the sums are those of the whole batch and the logits those of the
    device's own part.
    """

    def eval_step(
        variables: dict[str, PyTree], batch: Batch
    ) -> tuple[Metrics, jax.Array]:
        images = normalize(batch["image"])
        logits = model.apply(variables, images, train=False)
        logits = cast(jax.Array, logits)
        losses = loss(logits, batch["label"])
        sums = classification_sums(logits, batch["label"], batch["mask"], losses)
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
        return sums, logits

    return eval_step
