"""Normalization for CPUs: over the batch, and over neighboring channels.

Batch norm goes backward in one pass and keeps nothing but its input, with statistics of
its own and with given ones. Its sums are plain ones: XLA adds contiguous channels-last
arrays up pairwise, with relative errors of 1e-7. A matrix product with ones runs a
little faster but adds one row after another; its errors of 1e-5 and more made the
gradients of deep networks visibly noisier than those of `jax.lax`.
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Statistics = tuple[jax.Array, jax.Array, jax.Array]
"""The normalized array, and the mean and variance that it was normalized by."""


def batch_norm_train(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    epsilon: float,
    axis_name: str | None,
) -> Statistics:
    return _batch_norm(x, scale, bias, epsilon, axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None,
) -> Statistics:
    wide = _wide(x)
    mean = _mean(x.astype(wide), axis_name)
    # Centered, and not the mean of squares less the squared mean, which cancels.
    variance = _mean(lax.square(x.astype(wide) - _beside(x, mean)), axis_name)
    factor = lax.rsqrt(variance + epsilon) * scale
    y = (x.astype(wide) - _beside(x, mean)) * _beside(x, factor) + _beside(x, bias)
    return y.astype(x.dtype), mean, variance


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None,
) -> tuple[Statistics, tuple[jax.Array, ...]]:
    normalized = _batch_norm(x, scale, bias, epsilon, axis_name)
    y, mean, variance = cast(Statistics, normalized)
    return (y, mean, variance), (x, scale, bias, mean, variance)


def _backward(
    epsilon: float,
    axis_name: str | None,
    residuals: tuple[jax.Array, ...],
    cotangents: Statistics,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, variance = residuals
    # Statistics are constants to whoever asks for them: theirs are left out.
    g = cotangents[0].astype(_wide(x))
    inverse = lax.rsqrt(variance + epsilon)
    centered = x.astype(g.dtype) - _beside(x, mean)
    count = x.size // x.shape[-1]
    g_bias = _channel_sum(g)
    g_scale = _channel_sum(g * centered) * inverse
    # Every example of every device has a part in the statistics.
    from_mean = _across(g_bias * scale * inverse / count, axis_name)
    from_variance = _across(g_scale * scale * inverse**2 / count, axis_name)
    dx = g * _beside(x, scale * inverse) - centered * _beside(x, from_variance)
    dx = dx - _beside(x, from_mean)
    return dx.astype(x.dtype), g_scale.astype(scale.dtype), g_bias.astype(bias.dtype)


_batch_norm.defvjp(_forward, _backward)


def batch_norm_frozen(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    epsilon: float,
) -> jax.Array:
    return _frozen(x, scale, bias, mean, variance, epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _frozen(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float,
) -> jax.Array:
    factor = lax.rsqrt(variance + epsilon) * scale
    y = (x.astype(_wide(x)) - _beside(x, mean)) * _beside(x, factor)
    return (y + _beside(x, bias)).astype(x.dtype)


def _frozen_forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = cast(jax.Array, _frozen(x, scale, bias, mean, variance, epsilon))
    return y, (x, scale, bias, mean, variance)


def _frozen_backward(
    epsilon: float, residuals: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, ...]:
    x, scale, bias, mean, variance = residuals
    g = g.astype(_wide(x))
    g_bias = _channel_sum(g)
    # Not before there is a gradient: or XLA keeps `x - mean` beside `x` from the way
    # there on, and computes the convolution that gave `x` again for each use.
    x, mean, g_bias = lax.optimization_barrier((x, mean, g_bias))
    inverse = lax.rsqrt(variance + epsilon)
    g_factor = _channel_sum(g * (x.astype(g.dtype) - _beside(x, mean)))
    return (
        (g * _beside(x, inverse * scale)).astype(x.dtype),
        (g_factor * inverse).astype(scale.dtype),
        g_bias.astype(bias.dtype),
        (-g_bias * scale * inverse).astype(mean.dtype),
        (-0.5 * g_factor * scale * inverse**3).astype(variance.dtype),
    )


_frozen.defvjp(_frozen_forward, _frozen_backward)


def local_response_norm(
    x: jax.Array, *, size: int, alpha: float, beta: float, k: float
) -> jax.Array:
    wide = x.astype(_wide(x))
    channel = np.arange(x.shape[-1])
    before = channel.reshape(1, -1) - channel.reshape(-1, 1)
    near = (before <= size // 2) & (before > size // 2 - size)
    # A matrix product and a logarithm: both several times faster than sums of shifted
    # channels and a power.
    mean = lax.square(wide) @ jnp.asarray(near / size, wide.dtype)
    divisor = jnp.exp(beta * jnp.log(k + alpha * mean))
    return (wide / divisor).astype(x.dtype)


def _mean(x: jax.Array, axis_name: str | None) -> jax.Array:
    return _across(_channel_sum(x) / (x.size // x.shape[-1]), axis_name)


def _beside(x: jax.Array, channels: jax.Array) -> jax.Array:
    """`[C]` as `[1, …, 1, C]`, of the rank of `x`."""
    return lax.broadcast_to_rank(channels, x.ndim)


def _channel_sum(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _across(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else lax.pmean(x, axis_name)


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
