"""Dense convolution for CPUs: `jax.lax`, but where another way is quicker."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.ops import stock, winograd
from jaxvision.ops.windows import Padding, Pair

_NO_PADDING = ((0, 0), (0, 0))


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding, groups: int
) -> jax.Array:
    if groups == 1:
        if kernel.shape[:2] == (1, 1) and padding == _NO_PADDING:
            return _pointwise(x, kernel, stride)
        if stride == (1, 1) and winograd.pays(x, kernel, padding):
            return winograd.conv(x, kernel, padding)
        if stride != (1, 1) and kernel.shape[:3] == (3, 3, 3):
            # The first layer of many networks: XLA gathers windows three times as
            # fast where an element of the picture is four numbers.
            x, kernel = _widen(x, axis=3), _widen(kernel, axis=2)
    return stock.conv(x, kernel, stride=stride, padding=padding, groups=groups)


def _pointwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    """A matrix product, whose gradients are matrix products too."""
    x = x[:, :: stride[0], :: stride[1]]
    y = lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], -1)


def _widen(x: jax.Array, axis: int) -> jax.Array:
    """One more channel, of zeros."""
    config = [(0, int(place == axis), 0) for place in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)
