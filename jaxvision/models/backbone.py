"""What every network's backbone is: a table of named layers, run in order."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models.layers import TORCH_KERNEL, BatchNorm, Conv, Initializer
from jaxvision.typing import PyTree

LayerFunction = Callable[[jax.Array], jax.Array]

Layer = tuple[str, LayerFunction]
"""A layer's name (the paper's) and what it does."""


class Backbone(nn.Module):
    """Everything before the classifier's head; a network implements `layers`."""

    bn_axis_name: str | None = None
    """Mapped axis over which batch norm is synchronized; None for none."""
    bn_momentum: float = 0.9
    """What batch norm's running statistics keep of themselves a step. The default is
    torch's 0.1 the other way round; without batch norm it has no effect."""
    freeze_bn: bool = False
    """Batch norm works with its running statistics in training too, and they stand
    still; its scale and bias are trained. For fine-tuning on little data."""
    dtype: Any = jnp.float32
    """What is computed in; parameters and statistics stay float32."""

    rates: ClassVar[tuple[str, ...]] = ()
    """Options that are probabilities below 1. They may be traced: a sweep has them as
    data, so that networks which differ in nothing else share a program."""

    usual_pooling: ClassVar[Literal["mean", "gram"] | None] = None
    """What a head sees of the last layer unless it is asked for (`pool_features`)."""

    @property
    def smallest(self) -> int:
        """Least height and width of an image that the layers leave something of."""
        return 1

    def layers(self, train: bool) -> list[Layer]:
        """The network as a table.

        The functions create their modules when they are called, not before: a layer
        that is not reached has no parameters.
        """
        raise NotImplementedError

    def layer_names(self) -> tuple[str, ...]:
        """Names that `stop_at` and the collection `activations` know, in order."""
        return tuple(name for name, _ in self.layers(train=False))

    @nn.nowrap
    def make_conv(self, **options: Any) -> Callable[..., Conv]:
        """What makes its convolutions: `Conv` with these options and its dtype."""
        return partial(Conv, dtype=self.dtype, **options)

    @nn.nowrap
    def make_norm(self, train: bool, **options: Any) -> Callable[..., BatchNorm]:
        """What makes its batch norms: `BatchNorm` with these options and its own
        momentum, axis and dtype; frozen with `freeze_bn`, and in training folded."""
        return partial(
            BatchNorm,
            train and not self.freeze_bn,
            momentum=self.bn_momentum,
            axis_name=self.bn_axis_name,
            dtype=self.dtype,
            fold=train,
            **options,
        )

    def head_init(self) -> Initializer:
        """How kernels of a head on this backbone are drawn."""
        return TORCH_KERNEL

    @nn.nowrap
    def fit(
        self, images: Iterable[np.ndarray], count: int, seed: int
    ) -> dict[str, PyTree] | None:
        """The parameters that training begins with, where they are made of images.

        Args:
          images: the training images, `[H, W, C]` float32 each, normalized.
          count: how many there are.
          seed: of what is random.

        Returns:
          The backbone's `params`; None for those that are drawn without images.
        """
        return None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, stop_at: str | None = None
    ) -> jax.Array:
        """Runs the layers in order, up to and including `stop_at` (None: all).

        Each layer's output stands in the collection `activations` under the layer's
        name; ask for it with `mutable=["activations"]`.

        Args:
          x: `[B, H, W, C]` float32, normalized.
          train: batch statistics and dropout as in training.
          stop_at: name of the last layer to run.

        Returns:
          The last layer's output, `[B, ...]` in `dtype`.

        Raises:
          InputError: no layer is named `stop_at`, or the images are too small.
        """
        self.check_layer(stop_at)
        if x.ndim == 4 and min(x.shape[1:3]) < self.smallest:
            raise InputError(
                f"images of {x.shape[1]}x{x.shape[2]} are too small for"
                f" {type(self).__name__}: at least {self.smallest}x{self.smallest}"
            )
        x = jnp.asarray(x, self.dtype)
        for name, layer in self.layers(train):
            x = self.run_layer(name, layer, x)
            # Not `sow`, which refuses the name of a submodule; and not at
            # initialization, whose result would hold the activations too.
            if self.is_mutable_collection("activations") and not self.is_initializing():
                self.put_variable("activations", name, x)
            if name == stop_at:
                break
        return x

    def run_layer(self, name: str, layer: LayerFunction, x: jax.Array) -> jax.Array:
        """Runs one layer; what `intercept_layers` was given stands in its place."""
        return layer(x)

    def check(self) -> None:
        """Raises `InputError` if an option's value makes no network."""

    def check_layer(self, stop_at: str | None) -> None:
        """Raises `InputError` with the names that exist unless `stop_at` is one."""
        if stop_at is not None and stop_at not in self.layer_names():
            raise InputError(
                f"no layer {stop_at!r} in {type(self).__name__}; its layers are:"
                f" {', '.join(self.layer_names())}"
            )


def intercept_layers(
    run: Callable[[str, LayerFunction, jax.Array], jax.Array],
) -> AbstractContextManager[None]:
    """Within it, `run(name, layer, x)` stands in the place of each layer `layer(x)`
    that a backbone runs in this thread."""

    def intercept(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        of_layer = context.method_name == Backbone.run_layer.__name__
        if of_layer and isinstance(context.module, Backbone):
            name, layer, x = args
            return run(name, lambda x: call(name, layer, x), x)
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def intercept_modules(run: Callable[..., Any]) -> AbstractContextManager[None]:
    """Within it, `run(module, call, *inputs)` stands in the place of what each module
    that is called in this thread gives, `call(*inputs)`."""

    def intercept(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        call = partial(call, **kwargs)
        if context.method_name == "__call__":
            return run(context.module, call, *args)
        return call(*args)

    return nn.intercept_methods(intercept)
