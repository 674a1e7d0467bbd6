"""Depthwise convolution for CPUs: sums over the taps of the kernel."""

import math
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvision.ops.windows import Padding, Pair, Windows

_AT_ONCE = 4
"""Rows whose products are added up before they are added to a sum. More rows are read
and written less often, and take longer to compile."""


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding
) -> jax.Array:
    windows = Windows(x.shape[1:3], kernel.shape[:2], stride, padding)
    return _depthwise(x, kernel, windows)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    return _forward(x, kernel, windows)[0]


def _forward(
    x: jax.Array, kernel: jax.Array, windows: Windows
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    wide = _accumulator(x)
    weights = kernel[:, :, 0].astype(wide)
    padded = windows.pad(x)
    y = sum(
        windows.tap(padded, t).astype(wide) * lax.broadcast_to_rank(weights[t], 4)
        for t in windows.taps()
    )
    return cast(jax.Array, y).astype(x.dtype), (padded, kernel)


def _backward(
    windows: Windows, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    padded, kernel = residuals
    return (
        _input_gradient(windows, kernel, g),
        _kernel_gradient(windows, padded, kernel, g),
    )


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
    windows: Windows, padded: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Sums of products of `g` with what each tap saw.

    One loop runs over the rows of the kernel, one within it over the rows of `g`, a few
    at a time; each column of the kernel adds up rows of products. XLA compiles one
    small kernel for each column: writing all taps and rows out takes seconds.
    """
    wide = _accumulator(g)
    (kh, kw), (sh, sw), (height, width) = windows.window, windows.stride, windows.count
    batch, channels = len(padded), padded.shape[-1]
    at_once = math.gcd(batch * height, _AT_ONCE)
    # Of each row of `g`, in the order of the loop.
    image, row = np.divmod(np.arange(batch * height, dtype=np.int32), height)
    places = tuple(jnp.asarray(x.reshape(-1, at_once)) for x in (image, row))

    def row_of(x: jax.Array, image: jax.Array, row: jax.Array) -> jax.Array:
        zero = np.int32(0)  # like the others, also where JAX computes in 64 bits
        start, size = (image, row, zero, zero), (1, 1, *x.shape[2:])
        rows = lax.dynamic_slice(x, start, size, allow_negative_indices=False)
        return rows.reshape(x.shape[2:])

    def product(image: jax.Array, row: jax.Array, i: jax.Array, j: int) -> jax.Array:
        # A slice for each use: where two share one, XLA computes number by number. And
        # rows are taken of images as they are: where all are reshaped first, XLA
        # computes and keeps `padded` once more.
        seen = row_of(padded, image, row * sh + i)
        if sw == 1:
            # Windows side by side are one run of numbers: the longest of inner loops.
            run = lax.slice(seen.reshape(-1), [j * channels], [(j + width) * channels])
            seen = run.reshape(width, channels)
        else:
            seen = lax.slice_in_dim(seen, j, j + (width - 1) * sw + 1, sw)
        return seen.astype(wide) * row_of(g, image, row)

    def kernel_row(i: jax.Array) -> jax.Array:
        def add(
            sums: tuple[jax.Array, ...], places: tuple[jax.Array, ...]
        ) -> tuple[tuple[jax.Array, ...], None]:
            rows = list(zip(*map(jnp.unstack, places), strict=True))
            return tuple(
                total + sum(product(image, row, i, j) for image, row in rows)
                for j, total in enumerate(sums)
            ), None

        # Like `g`, so that under `shard_map` they vary over the devices as it does.
        zeros = (jnp.zeros_like(g[0, 0], wide),) * kw
        sums, _ = lax.scan(add, zeros, places)
        return jnp.stack(sums).sum(1)

    dw = lax.map(kernel_row, jnp.arange(kh, dtype=jnp.int32))
    return dw.reshape(kernel.shape).astype(kernel.dtype)


def _accumulator(x: jax.Array) -> jnp.dtype:
    """At least float32: many small products are added up."""
    return jnp.promote_types(x.dtype, jnp.float32)
