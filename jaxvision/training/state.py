"""What training changes: arrays only, so that it maps, shards, saves and compares."""

import functools
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvision.models import Network
from jaxvision.models.initialization import init_network
from jaxvision.typing import PyTree

if TYPE_CHECKING:  # predicting need not wait for it
    import optax


class Average(flax.struct.PyTreeNode):
    """Exponential moving averages of what training changes.

    decay: float32 scalar, the share that stays at each step in the long run.
    params, batch_stats: the averages, as in `TrainState`.
    """

    decay: jax.Array
    params: PyTree
    batch_stats: PyTree

    def after(self, step: jax.Array, params: PyTree, batch_stats: PyTree) -> "Average":
        """The averages with those of one step more.

        The decay rises to its value as (1 + n) / (10 + n) at step n, so that the first
        weights, which know nothing, are soon forgotten.

        Args:
          step: int32 scalar, steps done, this one too.
          params, batch_stats: after the step.
        """
        steps = step.astype(jnp.float32)
        share = 1.0 - jnp.minimum(self.decay, (1.0 + steps) / (10.0 + steps))

        def follow(average: PyTree, new: PyTree) -> PyTree:
            return jax.tree.map(lambda a, n: a + share * (n - a), average, new)

        return self.replace(
            params=follow(self.params, params),
            batch_stats=follow(self.batch_stats, batch_stats),
        )


class TrainState(flax.struct.PyTreeNode):
    """All that a training step reads and writes.

    step: int32 scalar, optimizer steps done.
    params: parts of the network (`backbone`, `head`) that are trained.
    frozen: parts that are not; no gradient is computed for them.
    batch_stats: moving statistics of batch norm; {} where there is none.
    opt_state: the optimizer's state.
    key: `[2]` uint32; step n draws from (key, n), so that a resumed run draws what
        the uninterrupted one would have drawn.
    average: moving averages of `params` and `batch_stats`, which take their place in
        evaluation and in the result; None: there are none.
    """

    step: jax.Array
    params: PyTree
    frozen: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    key: jax.Array
    average: Average | None = None

    @property
    def variables(self) -> dict[str, PyTree]:
        """The network's variables as `Module.apply` takes them."""
        return {
            "params": {**self.params, **self.frozen},
            "batch_stats": self.batch_stats,
        }

    @property
    def learned(self) -> dict[str, PyTree]:
        """`params` (the trained parts) and `batch_stats` to evaluate and to keep."""
        source = self.average or self
        return {"params": source.params, "batch_stats": source.batch_stats}

    @property
    def eval_variables(self) -> dict[str, PyTree]:
        """As `variables`, to evaluate and to keep."""
        learned = self.learned
        return {**learned, "params": {**learned["params"], **self.frozen}}

    def with_hyperparams(self, **values: Any) -> "TrainState":
        """The state with other numbers in its optimizer, see `make_optimizer`."""
        hyperparams = {**self.opt_state.hyperparams, **values}
        opt_state = self.opt_state._replace(hyperparams=hyperparams)
        return self.replace(opt_state=opt_state)


def init_variables(
    model: Network,
    seed: jax.typing.ArrayLike,
    image_shape: tuple[int, ...],
    *,
    only: Collection[str] | None = None,
) -> dict[str, PyTree]:
    """Fresh `params` and `batch_stats` of a network.

    Args:
      model: a network of `jaxvision.models`.
      seed: of the initialization.
      image_shape: (H, W, C) of one image.
      only: parts to draw, or layers of a part such as "backbone/fc6", where pretrained
        values take the others' place; those are given as `jax.ShapeDtypeStruct`s.
        None: all.
    """
    key, shape = jax.random.key(seed), tuple(image_shape)
    fresh = _draw(key, model, shape, None if only is None else frozenset(only))
    shapes = variable_shapes(model, shape)
    values = unflatten_dict(flatten_dict(shapes, sep="/") | fresh, sep="/")
    return {name: values.get(name, {}) for name in shapes}


def variable_shapes(model: Network, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """`params` and `batch_stats` of a network as `jax.ShapeDtypeStruct`s."""
    return _init.eval_shape(jax.random.key(0), model, image_shape)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(
    key: jax.Array,
    model: Network,
    image_shape: tuple[int, ...],
    only: frozenset[str] | None,
) -> dict[str, Any]:
    """Leaves by path. One program: leaf by leaf would compile hundreds. What it leaves
    out costs nothing, which matters: a deep backbone's draws take many seconds to
    compile."""
    flat = flatten_dict(_init(key, model, image_shape), sep="/")
    return {name: x for name, x in flat.items() if _is_in(name, only)}


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)  # traced once
def _init(
    key: jax.Array, model: Network, image_shape: tuple[int, ...]
) -> dict[str, PyTree]:
    variables = init_network(key, model, image_shape)
    return {
        "params": variables["params"],
        "batch_stats": variables.get("batch_stats", {}),
    }


def _is_in(name: str, only: Collection[str] | None) -> bool:
    """Whether "params/backbone/fc6/kernel" lies in one of the parts or layers."""
    path = name.split("/", 1)[1]
    return only is None or any(f"{path}/".startswith(f"{part}/") for part in only)


def create_state(
    variables: dict[str, PyTree],
    tx: "optax.GradientTransformation",
    *,
    seed: jax.typing.ArrayLike,
    frozen: Collection[str] = (),
    ema_decay: jax.typing.ArrayLike | None = None,
) -> TrainState:
    """A state at step 0.

    Args:
      variables: `params` and `batch_stats`, fresh or pretrained.
      tx: the optimizer; it sees the trained parts only.
      seed: of what training draws (dropout).
      frozen: names of parts (keys of `params`) that are not trained.
      ema_decay: of the averages of the weights, see `Average`; None: none are kept.

    Raises:
      ValueError: `frozen` names a part that the network does not have.
    """
    params = variables["params"]
    if unknown := set(frozen) - set(params):
        raise ValueError(f"frozen: no part {sorted(unknown)}; has {sorted(params)}")
    trained = {name: part for name, part in params.items() if name not in frozen}
    batch_stats = variables.get("batch_stats", {})
    average = None
    if ema_decay is not None:
        copies = _copy((trained, batch_stats))
        average = Average(jnp.asarray(ema_decay, jnp.float32), *copies)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen={name: params[name] for name in params if name in frozen},
        batch_stats=batch_stats,
        # One program: array by array would compile one for each shape.
        opt_state=jax.jit(tx.init)(trained),
        key=jax.random.key_data(jax.random.key(seed)),
        average=average,
    )


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    """Arrays of their own: a compiled step takes the memory of each once."""
    return jax.tree.map(jnp.copy, tree)


def set_output_biases(
    variables: dict[str, PyTree], frequencies: np.ndarray
) -> dict[str, PyTree]:
    """The variables with biases in the last layer that make it expect the classes so.

    The biases are the logarithms of the frequencies: where the kernel gives zeros,
    softmax gives the frequencies (of one logit: the sigmoid the second class's).

    Args:
      variables: of a `Classifier`.
      frequencies: `[K]`, share of each class, each above zero.

    Raises:
      ValueError: a class has no images.
    """
    if not (frequencies > 0).all():
        raise ValueError(f"a class has no images: {frequencies}")
    biases = np.log(frequencies).astype(np.float32)
    head = variables["params"]["head"]
    if head["logits"]["bias"].shape == (1,):
        biases = biases[1:] - biases[:1]
    logits = {**head["logits"], "bias": jnp.asarray(biases)}
    params = {**variables["params"], "head": {**head, "logits": logits}}
    return {**variables, "params": params}
