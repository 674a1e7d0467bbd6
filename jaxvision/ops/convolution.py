"""Dense convolution for CPUs: `jax.lax`, but where another way is quicker."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.ops import lax as lax_ops
from jaxvision.ops import winograd
from jaxvision.ops.windows import Padding, Pair, Windows

_NO_PADDING = ((0, 0), (0, 0))

_FEW_FEATURES, _SMALL_WINDOW = 16, 3
"""Up to either, XLA's strided convolution of an image takes up to twice as long as
writing its windows out and a matrix product, and more for the kernel's gradient."""


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding, groups: int
) -> jax.Array:
    if groups == 1:
        if kernel.shape[:2] == (1, 1) and padding == _NO_PADDING:
            return _pointwise(x, kernel, stride)
        if stride == (1, 1) and winograd.pays(x, kernel, padding):
            return winograd.conv(x, kernel, padding)
        if stride != (1, 1) and x.shape[-1] < 4:  # the first layer of many networks
            window, features = kernel.shape[:2], kernel.shape[-1]
            if features <= _FEW_FEATURES or max(window) <= _SMALL_WINDOW:
                windows = Windows(x.shape[1:3], window, stride, padding)
                return _from_patches(x, kernel, windows)
    return lax_ops.conv(x, kernel, stride=stride, padding=padding, groups=groups)


def _pointwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    """A matrix product, whose gradients are matrix products too."""
    x = x[:, :: stride[0], :: stride[1]]
    y = lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], -1)


def _from_patches(x: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """A matrix product of what each window sees, written out, with the kernel."""
    (kh, kw), (sh, sw), (rows, columns) = windows.window, windows.stride, windows.count
    x = windows.pad(x)
    seen = [x[:, :, j : j + (columns - 1) * sw + 1 : sw] for j in range(kw)]
    across = lax.optimization_barrier(jnp.concatenate(seen, -1))
    seen = [across[:, i : i + (rows - 1) * sh + 1 : sh] for i in range(kh)]
    patches = lax.optimization_barrier(jnp.concatenate(seen, -1))
    features = kernel.shape[-1]
    y = lax.dot(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, features))
    return y.reshape(*patches.shape[:-1], features)
