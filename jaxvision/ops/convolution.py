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
        if stride != (1, 1):
            window, features = kernel.shape[:2], kernel.shape[-1]
            windows = Windows(x.shape[1:3], window, stride, padding)
            if x.shape[-1] >= 4 and jnp.finfo(x.dtype).bits >= 32:
                return _from_rows(x, kernel, windows)
            # The first layer of many networks.
            if x.shape[-1] < 4 and (
                features <= _FEW_FEATURES or max(window) <= _SMALL_WINDOW
            ):
                return _from_patches(x, kernel, windows)
    return lax_ops.conv(x, kernel, stride=stride, padding=padding, groups=groups)


def _pointwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    """A matrix product, whose gradients are matrix products too."""
    x = x[:, :: stride[0], :: stride[1]]
    y = lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], -1)


def _from_rows(x: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Sum of a matrix product for each of the kernel's rows.

    XLA's strided convolution computes the gradients as convolutions with holes between
    the pixels, which take up to three times as long, and many models at once, as `vmap`
    asks for, as one of many groups.
    """
    rows, features = windows.count[0], kernel.shape[-1]
    down = windows.stride[0]
    across = _across(windows.pad(x), windows)
    total = jnp.zeros((), x.dtype)
    for i, weights in enumerate(kernel):
        seen = across[:, i : i + (rows - 1) * down + 1 : down]
        width = seen.shape[-1]
        total += lax.dot(seen.reshape(-1, width), weights.reshape(-1, features))
    return total.reshape(x.shape[0], *windows.count, features)


def _across(x: jax.Array, windows: Windows) -> jax.Array:
    """What each window sees of every row of padded images: `[B, H, W', kw C]`."""
    columns, step = windows.count[1], windows.stride[1]
    last = (columns - 1) * step + 1
    return jnp.concatenate(
        [x[:, :, j : j + last : step] for j in range(windows.window[1])], -1
    )


def _from_patches(x: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """A matrix product of what each window sees, written out, with the kernel."""
    height, rows, down = windows.window[0], windows.count[0], windows.stride[0]
    across = lax.optimization_barrier(_across(windows.pad(x), windows))
    seen = [across[:, i : i + (rows - 1) * down + 1 : down] for i in range(height)]
    patches = lax.optimization_barrier(jnp.concatenate(seen, -1))
    features = kernel.shape[-1]
    y = lax.dot(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, features))
    return y.reshape(*patches.shape[:-1], features)
