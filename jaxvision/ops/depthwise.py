"""Depthwise convolution for CPUs: sums over the taps of the kernel."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxvision.ops.windows import Padding, Pair, Windows


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding
) -> jax.Array:
    return _depthwise(x, kernel, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(
    x: jax.Array, kernel: jax.Array, stride: Pair, padding: Padding
) -> jax.Array:
    windows = Windows(x.shape[1:3], kernel.shape[:2], stride, padding)
    wide = _accumulator(x)
    weights = kernel[:, :, 0].astype(wide)
    padded = windows.pad(x)
    y = sum(
        windows.tap(padded, t).astype(wide) * lax.broadcast_to_rank(weights[t], 4)
        for t in windows.taps()
    )
    return cast(jax.Array, y).astype(x.dtype)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: Pair, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: Pair,
    padding: Padding,
    residuals: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    windows = Windows(x.shape[1:3], kernel.shape[:2], stride, padding)
    return _input_gradient(windows, kernel, g), _kernel_gradient(windows, x, kernel, g)


_depthwise.defvjp(_forward, _backward)


def _input_gradient(windows: Windows, kernel: jax.Array, g: jax.Array) -> jax.Array:
    wide = _accumulator(g)
    weights = kernel[:, :, 0].astype(wide)
    padded = windows.pad_windows(g)
    dx = windows.transpose(
        lambda tap, shift: (
            shift(padded).astype(wide) * lax.broadcast_to_rank(weights[tap], 4)
        )
    )
    return dx.astype(g.dtype)


def _kernel_gradient(
    windows: Windows, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Sums of products of `g` with what each tap saw.

    One loop runs over the rows of the kernel, one within it over bands of rows of the
    images, small enough to stay in the cache; the taps of a kernel's row are
    accumulated side by side. XLA compiles one small kernel for each column of the
    kernel: writing all taps and images out runs little faster and takes seconds
    to compile.
    """
    wide = _accumulator(g)
    (kh, kw), (sh, sw), (height, width) = windows.window, windows.stride, windows.count
    batch, channels = x.shape[0], x.shape[-1]
    band = _band(height, width * channels)
    bands = height // band
    padded = windows.pad(x)
    flat = sw == 1
    if flat:
        # Windows side by side are one run of numbers: the longest of inner loops.
        padded = padded.reshape(*padded.shape[:2], -1)
        g = g.reshape(*g.shape[:2], -1)

    def seen(rows: jax.Array, j: int) -> jax.Array:
        if flat:
            start = j * channels
            return rows[::sh, start : start + width * channels]
        return rows[::sh, j : j + (width - 1) * sw + 1 : sw]

    def kernel_row(i: jax.Array) -> jax.Array:
        def add(
            sums: tuple[jax.Array, ...], step: jax.Array
        ) -> tuple[tuple[jax.Array, ...], None]:
            image, top = step // bands, step % bands * band
            g_band = _rows(g, image, top, band).astype(wide)
            x_band = _rows(padded, image, top * sh + i, (band - 1) * sh + 1)
            x_band = x_band.astype(wide)
            return tuple(
                total + seen(x_band, j) * g_band for j, total in enumerate(sums)
            ), None

        # Like `g`, so that under `shard_map` they vary over the devices as it does.
        zeros = (jnp.zeros_like(g[0, :band], wide),) * kw
        sums, _ = lax.scan(add, zeros, jnp.arange(batch * bands))
        return jnp.stack(sums).reshape(kw, -1, channels).sum(1)

    dw = lax.map(kernel_row, jnp.arange(kh))
    return dw.reshape(kernel.shape).astype(kernel.dtype)


def _rows(x: jax.Array, image: jax.Array, top: jax.Array, count: int) -> jax.Array:
    x = lax.dynamic_index_in_dim(x, image, keepdims=False)
    return lax.dynamic_slice_in_dim(x, top, count)


def _band(height: int, row_size: int) -> int:
    """Rows of a band: a divisor of `height`, of at most 64 thousand numbers."""
    fitting = [n for n in range(1, height + 1) if n * row_size <= 2**16]
    return max((n for n in fitting if height % n == 0), default=1)


def _accumulator(x: jax.Array) -> jnp.dtype:
    """At least float32: many small products are added up."""
    return jnp.promote_types(x.dtype, jnp.float32)
