"""Dense convolution for CPUs: `jax.lax`, but where another way is quicker."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.ops import stock, winograd
from jaxvision.ops.windows import Padding, Pair, Windows

_NO_PADDING = ((0, 0), (0, 0))

_LARGE_INPUT_BYTES = 8 * 2**20
"""Inputs above this have the kernel's gradient computed picture by picture: twice as
fast for the first layers of networks, and below it several times slower."""


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding, groups: int
) -> jax.Array:
    if groups > 1:
        return stock.conv(x, kernel, stride=stride, padding=padding, groups=groups)
    if kernel.shape[:2] == (1, 1) and padding == _NO_PADDING:
        return _pointwise(x, kernel, stride)
    return _dense(x, kernel, stride, padding)


def _pointwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    """A matrix product, whose gradients are matrix products too."""
    x = x[:, :: stride[0], :: stride[1]]
    y = lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return y.reshape(*x.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(
    x: jax.Array, kernel: jax.Array, stride: Pair, padding: Padding
) -> jax.Array:
    if stride == (1, 1) and winograd.pays(x, kernel, padding):
        return winograd.conv(x, kernel, padding)
    if stride != (1, 1) and kernel.shape[:3] == (3, 3, 3):
        # The first layer of many networks: XLA gathers windows three times as fast
        # where a picture's element is four numbers.
        x, kernel = _widen(x, axis=3), _widen(kernel, axis=2)
    return stock.conv(x, kernel, stride=stride, padding=padding, groups=1)


def _widen(x: jax.Array, axis: int) -> jax.Array:
    """One more channel, of zeros."""
    config = [(0, int(place == axis), 0) for place in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: Pair, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _dense(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: Pair,
    padding: Padding,
    residuals: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if stride == (1, 1) and winograd.pays(x, kernel, padding):
        return (
            winograd.input_gradient(kernel, g, padding),
            winograd.kernel_gradient(x, len(kernel), g, padding),
        )
    windows = Windows(x.shape[1:3], kernel.shape[:2], stride, padding)
    return _input_gradient(windows, x, kernel, g), _kernel_gradient(
        windows, x, kernel, g
    )


_dense.defvjp(_forward, _backward)


def _input_gradient(
    windows: Windows, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    (kh, kw), (sh, sw) = windows.window, windows.stride
    if windows.stride == (1, 1) or sh > kh or sw > kw:

        def forward(x: jax.Array) -> jax.Array:
            return _stock(windows, x, kernel)

        return jax.vjp(forward, x)[1](g)[0]

    # One convolution of stride 1 for each phase of the stride, with the taps that see
    # it, where `jax.lax` convolves over zeros between the elements of `g`.
    def phase(a: int, b: int) -> jax.Array:
        seeing = lax.rev(kernel[a::sh, b::sw], (0, 1)).swapaxes(2, 3)
        border = tuple(
            (taps - 1, phase_size - n)
            for taps, phase_size, n in zip(
                seeing.shape[:2], windows.phase_size, windows.count, strict=True
            )
        )
        return stock.conv(g, seeing, stride=(1, 1), padding=border, groups=1)

    return windows.interleave([[phase(a, b) for b in range(sw)] for a in range(sh)])


def _kernel_gradient(
    windows: Windows, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    def gradient(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: _stock(windows, x, kernel), kernel)[1](g)[0]

    if x.size * x.dtype.itemsize <= _LARGE_INPUT_BYTES:
        return gradient(x, g)
    return sum(gradient(x[n : n + 1], g[n : n + 1]) for n in range(len(x)))


def _stock(windows: Windows, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return stock.conv(
        x, kernel, stride=windows.stride, padding=windows.padding, groups=1
    )
