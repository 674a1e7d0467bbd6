"""The operations as `jax.lax` has them: the definition, and the accelerators' choice.

Arguments are those of `jaxvision.ops`, with strides and windows as pairs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvision.ops.windows import Padding, Pair

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding, groups: int
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, padding: Padding
) -> jax.Array:
    return conv(x, kernel, stride=stride, padding=padding, groups=x.shape[-1])


def max_pool(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(
        x,
        lowest,
        lax.max,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *padding, (0, 0)),
    )


def sum_pool(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    zero = np.array(0, x.dtype)
    return lax.reduce_window(
        x,
        zero,
        lax.add,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *padding, (0, 0)),
    )


def batch_norm_train(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    epsilon: float,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean = _across(wide.mean(axes), axis_name)
    centered = wide - lax.broadcast_to_rank(mean, x.ndim)
    variance = _across(lax.square(centered).mean(axes), axis_name)
    factor = lax.broadcast_to_rank(lax.rsqrt(variance + epsilon) * scale, x.ndim)
    y = centered * factor + lax.broadcast_to_rank(bias, x.ndim)
    return y.astype(x.dtype), lax.stop_gradient(mean), lax.stop_gradient(variance)


def batch_norm_frozen(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    epsilon: float,
) -> jax.Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    factor = lax.broadcast_to_rank(lax.rsqrt(variance + epsilon) * scale, x.ndim)
    y = (wide - lax.broadcast_to_rank(mean, x.ndim)) * factor
    return (y + lax.broadcast_to_rank(bias, x.ndim)).astype(x.dtype)


def local_response_norm(
    x: jax.Array, *, size: int, alpha: float, beta: float, k: float
) -> jax.Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    one = (1,) * (x.ndim - 1)
    before = size // 2
    energy = lax.reduce_window(
        lax.square(wide),
        np.array(0, wide.dtype),
        lax.add,
        (*one, size),
        (*one, 1),
        (*((0, 0),) * (x.ndim - 1), (before, size - 1 - before)),
    )
    return (wide / (k + alpha / size * energy) ** beta).astype(x.dtype)


def _across(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else lax.pmean(x, axis_name)
